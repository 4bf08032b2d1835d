"""Lists of recordings: folders, manifests, LibriSpeech and Seed-TTS-Eval as published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dualcodec_jax.data.errors import DataError
from dualcodec_jax.errors import AudioError, InputError
from dualcodec_jax.evaluation.datasets import Item, load_items


def touch(*paths: Path) -> None:
    """Empty files: audio is not opened."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


# Folders and manifests ----------------------------------------------------------------------


def test_a_folder_with_texts(tmp_path: Path) -> None:
    touch(tmp_path / "b.flac", tmp_path / "sub" / "a.wav")
    write(tmp_path / "sub" / "a.txt", "Hello there.\n")
    assert load_items(tmp_path) == [
        Item("b", tmp_path / "b.flac"),
        Item("sub_a", tmp_path / "sub" / "a.wav", "Hello there."),
    ]


def test_a_folder_with_a_table(tmp_path: Path) -> None:
    touch(tmp_path / "a.wav", tmp_path / "b.wav")
    write(
        tmp_path / "metadata.csv",
        "file_name,text,language,speaker\na.wav,Guten Tag,de,7\nb.wav,Hello,en,\n",
    )
    assert load_items([tmp_path]) == [
        Item("a", tmp_path / "a.wav", "Guten Tag", "de", "7"),
        Item("b", tmp_path / "b.wav", "Hello", "en", None),
    ]


def test_ids_are_unique_and_name_files(tmp_path: Path) -> None:
    """Names that differ only in what cannot be in an id, and equal names in two places."""
    names = ["x y.wav", "x+y.wav", "ü.wav", ".._z.wav"]
    touch(*(tmp_path / "one" / name for name in names), tmp_path / "two" / "x_y.wav")
    items = load_items([tmp_path / "one", tmp_path / "two", tmp_path / "two" / "x_y.wav"])
    ids = [item.id for item in items]
    assert len(set(ids)) == len(ids) == 5
    assert ids[-2:] == ["x_y_3", "x_y_4"]
    assert all(item.id == Path(item.id).name and not item.id.startswith(".") for item in items)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv"])
def test_manifests(tmp_path: Path, suffix: str) -> None:
    touch(tmp_path / "audio" / "a.wav", tmp_path / "far.wav")
    rows = [
        {"audio_filepath": "audio/a.wav", "text": "One, two", "speaker": "s1", "language": "en"},
        {"audio_filepath": str(tmp_path / "far.wav"), "text": "", "speaker": "", "language": ""},
    ]
    if suffix == ".jsonl":
        lines = [json.dumps(row) for row in rows]
    else:
        mark = "\t" if suffix == ".tsv" else ","
        lines = [mark.join(rows[0])]
        lines += [mark.join(f'"{value}"' for value in row.values()) for row in rows]
    path = write(tmp_path / f"list{suffix}", "\n".join(lines) + "\n\n")
    assert load_items(path) == [
        Item("audio_a", tmp_path / "audio" / "a.wav", "One, two", "en", "s1"),
        Item("far", tmp_path / "far.wav"),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"text": "no file"}', "line 1: names no file"),
        ('{"path": "missing.wav"}', "missing.wav does not exist"),
        ("[1]", "is not a JSON object"),
        ("{", "is not JSON"),
        ("\n", "names no recording"),
    ],
)
def test_manifests_that_cannot_be_used(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        load_items(write(tmp_path / "list.jsonl", text))


def test_nothing_to_load(tmp_path: Path) -> None:
    with pytest.raises(AudioError):
        load_items(tmp_path)
    with pytest.raises(InputError, match="no recordings given"):
        load_items([])


# LibriSpeech --------------------------------------------------------------------------------


@pytest.fixture
def librispeech(tmp_path: Path) -> Path:
    """The folder above ``LibriSpeech``."""
    root = tmp_path / "corpora" / "LibriSpeech"
    for subset, speaker, chapter in (
        ("test-clean", "1089", "134686"),
        ("test-clean", "121", "121726"),
        ("test-other", "367", "130732"),
    ):
        folder = root / subset / speaker / chapter
        name = f"{speaker}-{chapter}"
        touch(folder / f"{name}-0000.flac", folder / f"{name}-0001.flac")
        write(folder / f"{name}.trans.txt", f"{name}-0000 HE HOPED\n{name}-0001 STUFF IT\n")
    touch(root / "README.TXT", root / "SPEAKERS.TXT")
    return root.parent


@pytest.mark.parametrize(
    ("below", "count"),
    [
        (".", 6),
        ("LibriSpeech", 6),
        ("LibriSpeech/test-clean", 4),
        ("LibriSpeech/test-clean/121", 2),
        ("LibriSpeech/test-clean/121/121726", 2),
    ],
)
def test_librispeech(librispeech: Path, below: str, count: int) -> None:
    items = load_items(librispeech / below)
    assert len(items) == count
    folder = librispeech / "LibriSpeech" / "test-clean" / "121" / "121726"
    assert (
        Item("121-121726-0001", folder / "121-121726-0001.flac", "STUFF IT", "en", "121") in items
    )


def test_librispeech_in_another_format(tmp_path: Path) -> None:
    """Converted, some of it twice; and transcripts alone."""
    write(tmp_path / "1-2.trans.txt", "1-2-0000 HE HOPED\n1-2-0001 STUFF IT\n")
    with pytest.raises(DataError, match="no audio files beside them"):
        load_items(tmp_path)
    touch(*(tmp_path / f"1-2-{name}" for name in ("0000.wav", "0001.MP3", "0001.wav")))
    assert load_items(tmp_path) == [
        Item("1-2-0000", tmp_path / "1-2-0000.wav", "HE HOPED", "en", "1"),
        Item("1-2-0001", tmp_path / "1-2-0001.MP3", "STUFF IT", "en", "1"),
    ]


# Seed-TTS-Eval ------------------------------------------------------------------------------


@pytest.fixture
def seed_tts(tmp_path: Path) -> Path:
    """Two languages; one recording of the Chinese list is missing."""
    root = tmp_path / "seedtts_testset"
    write(
        root / "en" / "meta.lst",
        "common_voice_en_1-common_voice_en_2|A prompt.|prompt-wavs/common_voice_en_1.wav|Get it.\n",
    )
    write(
        root / "zh" / "meta.lst",
        "10002287-00000094|在此|prompt-wavs/10002287-00000093.wav|其实\n"
        "10002287-00000096|在此|prompt-wavs/10002287-00000093.wav|没有\n",
    )
    touch(
        root / "en" / "wavs" / "common_voice_en_1-common_voice_en_2.wav",
        root / "en" / "prompt-wavs" / "common_voice_en_1.wav",
        root / "zh" / "wavs" / "10002287-00000094.wav",
    )
    return root


def test_seed_tts(seed_tts: Path) -> None:
    english = seed_tts / "en" / "wavs" / "common_voice_en_1-common_voice_en_2.wav"
    chinese = seed_tts / "zh" / "wavs" / "10002287-00000094.wav"
    assert load_items(seed_tts) == [
        Item(f"en_{english.stem}", english, "Get it.", "en"),
        Item(f"zh_{chinese.stem}", chinese, "其实", "zh"),
    ]
    expected = [Item(chinese.stem, chinese, "其实", "zh")]
    assert load_items(seed_tts / "zh") == load_items(seed_tts / "zh" / "meta.lst") == expected


def test_seed_tts_with_a_fifth_field(seed_tts: Path) -> None:
    write(seed_tts / "en" / "more.lst", "a|p|prompt-wavs/x.wav|Some text|elsewhere/a.wav\n")
    touch(seed_tts / "en" / "elsewhere" / "a.wav")
    path = seed_tts / "en" / "elsewhere" / "a.wav"
    assert load_items(seed_tts / "en" / "more.lst") == [Item("a", path, "Some text", "en")]


def test_seed_tts_that_cannot_be_used(seed_tts: Path) -> None:
    path = write(seed_tts / "en" / "bad.lst", "a|b\n")
    with pytest.raises(DataError, match=r"bad\.lst, line 1: 2 fields"):
        load_items(path)
    path = write(seed_tts / "zh" / "hardcase.lst", "a|p|prompt-wavs/x.wav|text\n")
    with pytest.raises(DataError, match="none of its recordings"):
        load_items(path)
