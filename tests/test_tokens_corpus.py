"""Sources of recordings to tokenise: listings, folders, shards; their ids and digests."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import soundfile

from dualcodec_jax.data.errors import DataError
from dualcodec_jax.errors import AudioError
from dualcodec_jax.tokens.corpus import Corpus, guess_kind, open_corpus
from dualcodec_jax.tokens.ids import target_path
from dualcodec_jax.tokens.manifest_source import ManifestSource
from dualcodec_jax.tokens.reading import Reader, Recording
from dualcodec_jax.tokens.shards import Broken


def ids(corpus: Corpus) -> list[str]:
    return [corpus.item_id(corpus.source[index]) for index in range(len(corpus.source))]


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def wav(seed: int = 0) -> bytes:
    stream = io.BytesIO()
    noise = 0.1 * np.random.default_rng(seed).standard_normal(800)
    soundfile.write(stream, noise, 16000, format="WAV")
    return stream.getvalue()


LISTINGS = {
    "a.jsonl": (
        '{"id": "one", "audio_filepath": "x/1.wav", "text": "Grüße", "language": "de"}',
        "",
        '{"id": 2, "audio_filepath": "x/2.wav", "speaker": "s", "duration": 1.5}',
    ),
    "a.csv": (
        "id,path,text,language,speaker,duration",
        "one,x/1.wav,Grüße,de,,",
        "2,x/2.wav,,,s,1.5",
    ),
    "a.tsv": (
        "id\tpath\tsentence\tlanguage\tspeaker\tduration",
        "one\tx/1.wav\tGrüße\tde\t\t",
        "2\tx/2.wav\t\t\ts\t1.5",
    ),
}


@pytest.mark.parametrize("name", LISTINGS)
def test_listings_of_all_kinds_say_the_same(name: str, tmp_path: Path) -> None:
    source = ManifestSource(write(tmp_path / name, *LISTINGS[name]))
    assert source.ids == ["one", "2"]
    first, second = source[0], source[1]
    assert (first.key, first.text, first.language, first.duration) == ("one", "Grüße", "de", None)
    assert (second.key, second.text, second.duration) == ("2", None, 1.5)
    assert second.extra == {"speaker": "s"}
    with second.audio_path() as path:
        assert path == tmp_path / "x" / "2.wav"


def test_columns_can_be_named_and_ids_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "clip,name,path", "/abs/1.wav,n1,other")
    source = ManifestSource([path], path_column="clip", id_column="name")
    assert source.ids == ["n1"]
    with source[0].audio_path() as audio:
        assert audio == Path("/abs/1.wav")
    path = write(tmp_path / "b.tsv", "path\tsentence", 'c/7.mp3\tsaid "no')
    assert ManifestSource(path)[0].text == 'said "no'


def test_ids_from_paths_name_files_below_a_folder(tmp_path: Path) -> None:
    """Whatever the paths of a listing are, ``detokenize`` can write its recordings."""
    paths = {
        "c/7.mp3": "c/7",
        "./c//8.v2.wav": "c/8.v2",
        "/abs/1.wav": "abs/1",
        "../../up/2.flac": "up/2",
        "a/../b/.hidden": "a/b/.hidden",
    }
    source = ManifestSource(write(tmp_path / "a.csv", "path", *paths))
    assert source.ids == list(paths.values())
    for key in source.ids:
        assert target_path(tmp_path, key, "wav").name.startswith(PurePosixPath(key).name)
    with pytest.raises(DataError, match=r"1 ids occur more than once: a/1; .*--id-column"):
        open_corpus(write(tmp_path / "b.csv", "path", "../a/1.wav", "a/1.wav"))
    with pytest.raises(DataError, match=r"b.csv, line 2: the path '\.\./' names no file"):
        ManifestSource(write(tmp_path / "b.csv", "path", "../"))


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("a.jsonl", ('{"path": "x.wav"}', "[1]"), "line 2: not a JSON object"),
        ("a.jsonl", ('{"path": "x.wav"', ""), "line 1: not a JSON object"),
        ("a.jsonl", ('{"text": "x"}',), "line 1: no path in column one of path"),
        ("a.csv", ("path,text", "a.wav,b,c"), "not as many fields as the header; quote"),
        ("a.tsv", ("path\ttext", "a.wav"), "remove stray tabs"),
        ("a.csv", ("path,text",), "lists no recordings"),
        ("a.txt", ("x",), "a listing ends in"),
    ],
)
def test_damaged_listings(name: str, lines: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        ManifestSource(write(tmp_path / name, *lines))


def test_listings_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        ManifestSource(tmp_path / "none.jsonl")
    (tmp_path / "a.csv").write_bytes(b"path\n\xff\xfe\n")
    with pytest.raises(DataError, match="UTF-8"):
        ManifestSource(tmp_path / "a.csv")
    path = write(tmp_path / "b.csv", "path", "x.wav")
    with pytest.raises(DataError, match="no id in column name"):
        ManifestSource(path, id_column="name")


def test_ids_that_occur_twice_are_found_before_work_starts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "id,path", "x,1.wav", "y,2.wav", "x,3.wav")
    with pytest.raises(DataError, match="1 ids occur more than once: x;"):
        open_corpus(path)
    for suffix in ("wav", "flac"):
        soundfile.write(tmp_path / f"same.{suffix}", np.zeros(9), 16000)
    with pytest.raises(DataError, match="1 ids occur more than once: same;"):
        open_corpus(tmp_path)


def test_folders(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    for name in ("b.wav", "s/a.wav"):
        (tmp_path / name).write_bytes(wav())
    corpus = open_corpus(tmp_path)
    assert (corpus.kind, ids(corpus)) == ("folder", ["b", "s/a"])
    other = open_corpus([str(tmp_path / "*.wav"), str(tmp_path / "s")])
    assert ids(other) == ["b", "a"]
    assert other.digest != corpus.digest
    assert open_corpus(str(tmp_path)).digest == corpus.digest
    with pytest.raises(AudioError, match="no such file"):
        open_corpus(tmp_path / "nowhere")
    with pytest.raises(DataError, match="columns are those of a listing"):
        open_corpus(tmp_path, path_column="x")
    with pytest.raises(DataError, match="no source"):
        open_corpus([])


def test_tar_shards(tmp_path: Path) -> None:
    for name in ("0.tar", "1.tar"):
        with tarfile.open(tmp_path / name, "w") as archive:
            files = {"u1.wav": wav(), "u1.json": json.dumps({"text": "t", "speaker": "s"}).encode()}
            for member, data in files.items():
                info = tarfile.TarInfo(member)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    corpus = open_corpus(tmp_path)
    assert (corpus.kind, ids(corpus)) == ("tar", ["0.tar/u1", "1.tar/u1"])
    assert corpus.source[1].text == "t"
    assert open_corpus(tmp_path / "0.tar").digest != corpus.digest
    (tmp_path / "more").mkdir()
    (tmp_path / "1.tar").rename(tmp_path / "more" / "0.tar")
    with pytest.raises(DataError, match="ids occur more than once"):
        open_corpus(tmp_path)


def test_oversized_tar_members_are_broken_recordings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for number in range(2):
            info = tarfile.TarInfo(f"{number}.wav")
            info.size = len(data := wav(number) + bytes(number << 20))
            archive.addfile(info, io.BytesIO(data))
    monkeypatch.setattr("dualcodec_jax.data.records.MAX_SLICE_BYTES", 1 << 20)
    read = Reader(open_corpus(tmp_path), 16000, 120.0)
    assert [type(read(index)[0]) for index in range(2)] == [Recording, Broken]
    broken, _ = read(1)
    assert broken.id == "a.tar/1"
    assert broken.reason.startswith("cannot be read (1 MiB in a.tar, where 1 MiB are the limit: ")


def test_prepared_data_sets(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow_datasets")
    from dualcodec_jax.data.builders import audio_folder
    from dualcodec_jax.data.builders.base import write_dataset

    (tmp_path / "in").mkdir()
    for name in ("a.wav", "b.wav"):
        (tmp_path / "in" / name).write_bytes(wav())
    write_dataset(
        audio_folder.DualcodecAudioFolder,
        audio_folder.read_splits(tmp_path / "in"),
        tmp_path / "out",
    )
    corpus = open_corpus(tmp_path / "out")
    assert (corpus.kind, corpus.split, len(corpus.source)) == ("tfds", "train", 2)
    assert open_corpus(tmp_path / "out", split="train[:1]").digest != corpus.digest


def test_kinds_are_not_mixed() -> None:
    assert guess_kind(["a.jsonl", "b.tsv"]) == "manifest"
    with pytest.raises(DataError, match="cannot be mixed"):
        guess_kind(["a.jsonl", "b.tar"])


def test_a_folder_of_shards_and_recordings_is_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "a.tar").touch()
    assert guess_kind([str(tmp_path)]) == "tar"
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "a.wav").touch()
    with pytest.raises(DataError, match="--kind tar or --kind folder"):
        guess_kind([str(tmp_path)])


def test_hidden_shards_do_not_count(tmp_path: Path) -> None:
    (tmp_path / ".trash").mkdir()
    (tmp_path / ".trash" / "a.tar").touch()
    (tmp_path / "a.wav").touch()
    assert guess_kind([str(tmp_path)]) == "folder"


def test_numbers_from_zero_are_ids(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"id": {n}, "audio_filepath": "{n}x.wav"}}\n' for n in range(2)))
    assert ManifestSource([path]).ids == ["0", "1"]
