"""Sources: folders with transcripts, tar shards, Hugging Face streams."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from dualcodec_jax.data import tar as tar_module
from dualcodec_jax.data.config import DataConfig
from dualcodec_jax.data.errors import DataError, DataStateError
from dualcodec_jax.data.folder import FolderSource
from dualcodec_jax.data.records import FileSlice, Record, record_from_metadata
from dualcodec_jax.data.sources import open_source
from dualcodec_jax.data.tar import TarSource
from dualcodec_jax.errors import AudioError

RATE = 16000


def encoded(seed: int = 0, file_format: str = "WAV", size: int = 800) -> bytes:
    noise = 0.1 * np.random.default_rng(seed).standard_normal(size)
    stream = io.BytesIO()
    soundfile.write(stream, noise, RATE, format=file_format)
    return stream.getvalue()


def add(archive: tarfile.TarFile, name: str, data: bytes, **changes: Any) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in changes.items():
        setattr(member, key, value)
    archive.addfile(member, io.BytesIO(data) if member.isreg() else None)


def emilia_shard(path: Path, count: int = 3, first: int = 0) -> Path:
    with tarfile.open(path, "w") as archive:
        for number in range(first, first + count):
            metadata = {
                "id": f"U{number}",
                "wav": f"x/U{number}.mp3",
                "text": f"text {number} é",
                "duration": 0.05,
                "speaker": f"S{number}",
                "language": "en" if number % 2 else "de",
                "dnsmos": 3.0 + number / 10,
            }
            add(archive, f"U{number}.json", json.dumps(metadata).encode())
            add(archive, f"U{number}.mp3", encoded(number, "MP3"))
    return path


def test_metadata_become_fields_and_the_rest_is_kept() -> None:
    record = record_from_metadata(
        "k", b"", {"transcription": b"hi", "dnsmos": "3.2", "duration": np.float32(1), "speaker": 7}
    )
    assert (record.text, record.quality, record.duration) == ("hi", 3.2, 1.0)
    assert record.extra == {"speaker": 7}
    second = record_from_metadata("k", b"", {"sentence": "b", "text": "a", "quality": 1, "x": None})
    assert (second.text, second.quality, second.extra) == ("a", 1, {"sentence": "b", "x": None})
    assert record_from_metadata("k", b"", {"text": None, "sentence": "b"}).extra == {}
    empty = record_from_metadata(
        "k", b"", {"text": "", "dnsmos": float("nan"), "duration": "soon", "language": 5}
    )
    assert (empty.text, empty.quality, empty.duration, empty.language) == (None,) * 4
    assert record_from_metadata("k", b"", {"quality": True}).quality is None


def test_audio_is_found_under_a_path_wherever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded()
    whole, part = tmp_path / "a.wav", tmp_path / "b.bin"
    whole.write_bytes(data)
    part.write_bytes(b"xyz" + data + b"tail")
    for audio in (data, FileSlice(whole), FileSlice(part, 3, len(data))):
        record = Record("k", audio)
        assert record.audio_bytes() == data
        with record.audio_path() as path:
            assert path.read_bytes() == data
    monkeypatch.delattr(os, "memfd_create", raising=False)  # as on macOS
    with Record("k", data).audio_path() as path:
        assert path.read_bytes() == data
    assert not path.exists()


def test_folder_has_keys_below_it_and_text_beside(tmp_path: Path) -> None:
    for name in ("a.wav", "sub/b.flac"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, np.zeros(10), RATE)
    (tmp_path / "sub/b.txt").write_text("\ufeffGrüße\n", encoding="utf-8")
    source = pickle.loads(pickle.dumps(FolderSource(tmp_path)))
    assert [(r.key, r.text) for r in map(source.__getitem__, range(len(source)))] == [
        ("a.wav", None),
        ("sub/b.flac", "Grüße"),
    ]
    (tmp_path / "sub/b.txt").write_bytes(b"\xff\xff")
    with pytest.raises(DataError, match="not UTF-8"):
        FolderSource(tmp_path)[1]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.csv", 'file_name,transcription,language\nwavs/a.wav,"hi, you",en\n'),
        ("metadata.csv", "a|Hi|hi, you\n"),
        (
            "metadata.jsonl",
            '{"file_name": "wavs/a.wav", "text": "hi, you", "language": "en"}\n\n',
        ),
    ],
)
def test_tables_give_transcripts(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / "wavs").mkdir()
    soundfile.write(tmp_path / "wavs/a.wav", np.zeros(10), RATE)
    soundfile.write(tmp_path / "wavs/b.wav", np.zeros(10), RATE)
    (tmp_path / "wavs/b.txt").write_text("beside")
    (tmp_path / name).write_text(content)
    source = FolderSource(tmp_path)
    assert source[0].text == "hi, you"
    assert source[0].language == (None if "|" in content else "en")
    assert source[1].text == "beside"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.csv", "a,b\n1,2\n", "no column 'file_name'"),
        ("metadata.csv", "file_name,text\na.wav,x,y\n", "line 2"),
        ("metadata.jsonl", '{"file_name": "a.wav"}\n[1]\n', "line 2"),
        ("metadata.jsonl", b"\xff\xfe\x00", "not a UTF-8 text table"),
    ],
)
def test_damaged_tables_are_refused(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(10), RATE)
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        FolderSource(tmp_path)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="no such file"):
        FolderSource(tmp_path / "nowhere")


def test_tar_shards_are_read_in_place(tmp_path: Path) -> None:
    emilia_shard(tmp_path / "a.tar")
    emilia_shard(tmp_path / "b.tar", 2, first=3)
    seen: list[tuple[int, int]] = []
    source = TarSource(tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 2), (1, 2), (2, 2)]
    for copy in (source, pickle.loads(pickle.dumps(source))):
        assert len(copy) == 5
        records = [copy[index] for index in range(5)]
        assert [r.key for r in records][2:4] == ["a.tar/U2.mp3", "b.tar/U3.mp3"]
        assert [r.quality for r in records] == pytest.approx([3.0, 3.1, 3.2, 3.3, 3.4])
        assert (records[1].text, records[1].language, records[1].duration) == (
            "text 1 é",
            "en",
            0.05,
        )
        assert records[1].extra["speaker"] == "S1"
        assert records[4].audio_bytes() == encoded(4, "MP3")
    with pytest.raises(IndexError):
        source[5]


def test_tar_index_is_kept_and_made_again_when_the_shard_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard, cache = emilia_shard(tmp_path / "a.tar"), tmp_path / "cache"
    TarSource(shard, index_folder=cache)
    (index,) = cache.iterdir()
    assert not (tmp_path / "a.tar.index").exists()
    made = []
    make = tar_module._make_index
    monkeypatch.setattr(tar_module, "_make_index", lambda path: made.append(path) or make(path))
    assert len(TarSource(shard, index_folder=cache)) == 3
    assert not made
    index.write_bytes(index.read_bytes()[:-1])
    assert len(TarSource(shard, index_folder=cache)) == 3
    assert len(made) == 1
    emilia_shard(shard, 4)
    assert len(TarSource(shard, index_folder=cache)) == 4
    assert len(made) == 2


def test_tar_index_that_cannot_be_written_stays_in_memory(tmp_path: Path) -> None:
    shard = emilia_shard(tmp_path / "a.tar")
    (tmp_path / "file").write_text("")
    source = TarSource(shard, index_folder=tmp_path / "file")
    assert pickle.loads(pickle.dumps(source))[2].text == "text 2 é"


def test_hostile_members_are_left_out_and_counted(tmp_path: Path) -> None:
    shard = tmp_path / "a.tar"
    with tarfile.open(shard, "w") as archive:
        add(archive, "dir", b"", type=tarfile.DIRTYPE)
        add(archive, "good.wav", encoded())
        add(archive, "/etc/passwd.wav", encoded(1))
        add(archive, "../../up.flac", encoded(2, "FLAC"))
        add(archive, "link.wav", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(archive, "hard.wav", b"", type=tarfile.LNKTYPE, linkname="good.wav")
        add(archive, "pipe.wav", b"", type=tarfile.FIFOTYPE)
        add(archive, "good.mp3", encoded(4, "MP3"))
        add(archive, "alone.json", b"{}")
        add(archive, "readme.txt", b"hello")
    before = sorted(tmp_path.rglob("*"))
    source = TarSource(shard)
    assert sorted(set(tmp_path.rglob("*")) - set(before)) == [tmp_path / "a.tar.index"]
    # Names are labels: what they look like does no harm.
    assert [source[index].audio_bytes() for index in range(3)] == [
        encoded(),
        encoded(1),
        encoded(2, "FLAC"),
    ]
    assert len(source) == 3
    assert source.skipped == {
        "links or special files": 3,
        "second audio of one name": 1,
        "JSON without audio": 1,
        "other files": 1,
    }
    assert TarSource(shard).skipped == source.skipped  # also from the index file


def test_oversized_members_are_records_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dualcodec_jax.data.records.MAX_SLICE_BYTES", 3 << 20)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add(archive, "big.wav", bytes((3 << 20) + 1))
        add(archive, "big.json", b'{"text": "long"}')
        add(archive, "good.wav", encoded())
    source = TarSource(tmp_path)
    assert (len(source), source.skipped) == (2, {})
    assert (source[0].key, source[0].text) == ("a.tar/big.wav", "long")
    with pytest.raises(OSError, match=r"3 MiB in a\.tar, where 3 MiB are the limit: extract it"):
        source[0].audio_bytes()
    assert source[1].audio_bytes() == encoded()


def test_damaged_json_leaves_the_audio(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add(archive, "a.wav", encoded())
        add(archive, "a.json", b"[1, 2")
    record = TarSource(tmp_path)[0]
    assert record.text is None
    assert record.audio_bytes() == encoded()


def test_damaged_shards_are_refused(tmp_path: Path) -> None:
    shard = emilia_shard(tmp_path / "a.tar")
    data = shard.read_bytes()

    def refused(content: bytes, message: str) -> None:
        shard.write_bytes(content)
        with pytest.raises(DataError, match=message):
            TarSource(shard)

    refused(data[:900], "truncated|damaged|not an uncompressed")
    refused(data[:1024] + b"garbage!" * 64 + data[1536:], "damaged at byte 1024")
    refused(b"text, not a tar file" * 100, "not an uncompressed tar")
    with tarfile.open(shard, "w:gz") as archive:
        add(archive, "a.wav", encoded())
    refused(shard.read_bytes(), "decompress")
    with tarfile.open(shard, "w") as archive:
        add(archive, "a.txt", b"no audio")
    with pytest.raises(DataError, match="no audio members"):
        TarSource(shard)
    with pytest.raises(DataError, match="no such file"):
        TarSource(tmp_path / "missing.tar")


def test_sources_open_by_kind(tmp_path: Path) -> None:
    emilia_shard(tmp_path / "a.tar")
    soundfile.write(tmp_path / "a.wav", np.zeros(10), RATE)
    config = DataConfig(kind="tar", locations=(str(tmp_path),), segment_length=1)
    assert len(open_source(config)) == 3
    config = DataConfig(kind="folder", locations=(str(tmp_path),), segment_length=1)
    assert len(open_source(config)) == 1
    config = DataConfig(kind="huggingface", locations=("a/b",), segment_length=1)
    with pytest.raises(DataError, match="no random access"):
        open_source(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "parquet"}, "kind must be one of"),
        ({"locations": ()}, "locations is empty"),
        ({"kind": "tfds", "locations": ("a", "b")}, "takes one location"),
        ({"segment_length": 0}, "segment_length"),
        ({"min_seconds": 3.0, "max_seconds": 2.0}, "min_seconds"),
        ({"max_seconds": 0.0}, "max_seconds"),
        ({"crop": "middle"}, "crop must be"),
        ({"crop_multiple": 0}, "crop_multiple"),
        ({"seed": -1}, "seed"),
        ({"prefetch": 0}, "prefetch"),
        ({"max_broken": -1}, "max_broken"),
        ({"max_broken_fraction": 1.5}, "max_broken_fraction"),
    ],
)
def test_configurations_are_checked(changes: dict[str, Any], message: str) -> None:
    fields: dict[str, Any] = {"kind": "folder", "locations": ("x",), "segment_length": 10}
    with pytest.raises(DataError, match=message):
        DataConfig(**{**fields, **changes})


class FakeStream:
    """What a ``datasets.IterableDataset`` offers, over a list of rows."""

    def __init__(self, rows: list[dict[str, Any]], features: dict[str, Any] | None = None):
        self.rows, self.features = rows, features
        self.calls: list[str] = []
        self._epoch = self._next = 0

    def cast_column(self, column: str, feature: Any) -> FakeStream:
        self.calls.append(f"{column} decode={feature.decode}")
        return self

    def shuffle(self, *, seed: int, buffer_size: int) -> FakeStream:
        self.calls.append(f"shuffle {seed} {buffer_size}")
        return self

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self._epoch, "next": self._next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._restored = state["next"]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self._next = self.__dict__.pop("_restored", 0)
        while self._next < len(self.rows):
            self._next += 1
            yield self.rows[self._next - 1]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module ``datasets`` that serves ``hub.stream``."""
    module: Any = types.ModuleType("datasets")
    module.Audio = type(
        "Audio", (), {"__init__": lambda self, decode=True: setattr(self, "decode", decode)}
    )
    module.distributed = types.ModuleType("datasets.distributed")
    module.load_dataset = lambda *_, **__: module.stream
    module.distributed.split_dataset_by_node = lambda data, rank, count: FakeStream(
        data.rows[rank::count]
    )
    monkeypatch.setitem(__import__("sys").modules, "datasets", module)
    monkeypatch.setitem(__import__("sys").modules, "datasets.distributed", module.distributed)
    return module


def stream_config(**changes: Any) -> DataConfig:
    fields: dict[str, Any] = {
        "kind": "huggingface",
        "locations": ("amphion/x",),
        "segment_length": 400,
        "sample_rate": RATE,
        "max_broken": 1,
    }
    return DataConfig(**{**fields, **changes})


def test_huggingface_streams_resume_exactly(hub: Any) -> None:
    pytest.importorskip("grain")
    from dualcodec_jax.data.pipeline import open_batches

    rows: list[dict[str, Any]] = [
        {"mp3": {"bytes": encoded(n), "path": "x"}, "json": {"language": "en"}, "__key__": f"k{n}"}
        for n in range(4)
    ]
    rows.insert(2, {"mp3": {"bytes": b"junk", "path": None}, "__key__": "broken"})
    hub.stream = FakeStream(rows, {"mp3": hub.Audio(), "json": object()})
    batches = open_batches(stream_config(), 3)
    assert hub.stream.calls == ["mp3 decode=False", "shuffle 0 1"]
    for _ in range(3):
        next(batches)
    state = json.loads(json.dumps(batches.get_state()))
    after = [next(batches)["audio"] for _ in range(4)]
    fresh = open_batches(stream_config(), 3)
    fresh.set_state(state)
    assert fresh.report.broken == ("broken",)
    for expected in after:
        np.testing.assert_array_equal(next(fresh)["audio"], expected)
    assert fresh.report == batches.report
    with pytest.raises(DataStateError, match="not that of a stream"):
        fresh.set_state({**state, "reader": {"position": 3}})


def test_huggingface_processes_share_and_ends_are_noticed(hub: Any) -> None:
    pytest.importorskip("grain")
    from dualcodec_jax.data.errors import BrokenDataError
    from dualcodec_jax.data.pipeline import open_batches

    hub.stream = FakeStream([{"audio": {"bytes": encoded(n)}, "id": n} for n in range(5)])
    own = {"process_index": 1, "process_count": 2}
    batches = list(open_batches(stream_config(repeat=False, shuffle=False), 2, **own))
    assert [batch["num_samples"].tolist() for batch in batches] == [[400, 400]]
    with pytest.raises(BrokenDataError, match="no usable clip"):
        next(open_batches(stream_config(languages=("fr",)), 2))
    with pytest.raises(BrokenDataError, match="gave a clip"):
        next(open_batches(stream_config(languages=("fr",), repeat=False), 2))


def test_huggingface_unusable_data(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("grain")
    from dualcodec_jax.data.pipeline import open_batches

    hub.stream = FakeStream([{"text": "no audio"}])
    with pytest.raises(DataError, match="no audio column"):
        next(open_batches(stream_config(), 1))
    hub.stream = FakeStream([{"audio": {"array": [0.0]}}])
    with pytest.raises(DataError, match="no encoded bytes"):
        next(open_batches(stream_config(), 1))
    hub.load_dataset = lambda *_, **__: 1 / 0
    with pytest.raises(DataError, match="cannot be streamed"):
        open_batches(stream_config(), 1)
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(DataError, match="pip install datasets"):
        open_batches(stream_config(), 1)
