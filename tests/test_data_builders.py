"""Data sets in array_record files: written by the builders, read back without TensorFlow."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

pytest.importorskip("tensorflow_datasets")
pytest.importorskip("grain")

from dualcodec_jax.data.builders import audio_folder, emilia, librispeech
from dualcodec_jax.data.builders.base import write_dataset
from dualcodec_jax.data.config import DataConfig
from dualcodec_jax.data.errors import DataError
from dualcodec_jax.data.inspection import checked
from dualcodec_jax.data.pipeline import open_batches
from dualcodec_jax.data.records import Record
from dualcodec_jax.data.tfds_source import TfdsSource, find_dataset, splits
from dualcodec_jax.errors import AudioError, InputError

RATE = 16000


def flac(seed: int, size: int = 1600) -> bytes:
    stream = io.BytesIO()
    noise = 0.1 * np.random.default_rng(seed).standard_normal(size)
    soundfile.write(stream, noise, RATE, format="FLAC")
    return stream.getvalue()


def records(source: Any) -> list[Record]:
    return [source[index] for index in range(len(source))]


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    for number, name in enumerate(("a.flac", "b.flac", "sub/c.flac")):
        (folder / name).write_bytes(flac(number))
    (folder / "a.txt").write_text("Grüße")
    return folder


@pytest.fixture
def librispeech_files() -> dict[str, bytes]:
    files = {}
    for subset, chapter in (("dev-clean", "84-121123"), ("train-clean-100", "103-1240")):
        folder = f"LibriSpeech/{subset}/{chapter.replace('-', '/')}"
        for number in range(2):
            files[f"{folder}/{chapter}-000{number}.flac"] = flac(number)
        text = f"{chapter}-0000 GO DO YOU HEAR\n{chapter}-0001 BUT IN\n"
        files[f"{folder}/{chapter}.trans.txt"] = text.encode()
    return files


def test_audio_folder_round_trip(recordings: Path, tmp_path: Path) -> None:
    splits_in = audio_folder.read_splits(recordings)
    folder = write_dataset(
        audio_folder.DualcodecAudioFolder,
        {name: checked(found) for name, found in splits_in.items()},
        tmp_path / "out",
    )
    assert folder == find_dataset(tmp_path / "out")
    assert splits(folder) == {"train": 3}
    source = TfdsSource(tmp_path / "out")
    assert source.features is None
    for copy in (source, pickle.loads(pickle.dumps(source))):
        first, second, third = records(copy)
        assert (first.key, first.text, first.audio) == ("a.flac", "Grüße", flac(0))
        assert (second.text, second.language, second.quality) == (None, None, None)
        assert third.key == "sub/c.flac"
        assert third.duration == pytest.approx(0.1)
    assert len(TfdsSource(tmp_path / "out", "train[:2]")) == 2
    leftovers = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert leftovers == {
        "dataset_info.json",
        "features.json",
        "dualcodec_audio_folder-train.array_record-00000-of-00001",
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


@pytest.mark.parametrize("workers", [0, 2])
def test_training_reads_it(recordings: Path, tmp_path: Path, workers: int) -> None:
    write_dataset(
        audio_folder.DualcodecAudioFolder, audio_folder.read_splits(recordings), tmp_path / "out"
    )
    config = DataConfig(
        kind="tfds",
        locations=(str(tmp_path / "out"),),
        segment_length=2000,
        num_workers=workers,
    )
    with open_batches(config, 3) as batches:
        batch = next(batches)
    assert batch["audio"].shape == (3, 2000)
    assert batch["num_samples"].tolist() == [2000] * 3  # 1600 samples at 16 kHz are 2400


@pytest.mark.parametrize("packed", [False, True])
def test_librispeech(librispeech_files: dict[str, bytes], tmp_path: Path, packed: bool) -> None:
    root = tmp_path / "in"
    root.mkdir()
    if packed:
        for subset in ("dev-clean", "train-clean-100"):
            with tarfile.open(root / f"{subset}.tar.gz", "w:gz") as archive:
                for name, data in librispeech_files.items():
                    if f"/{subset}/" in name:
                        member = tarfile.TarInfo(name)
                        member.size = len(data)
                        archive.addfile(member, io.BytesIO(data))
                link = tarfile.TarInfo("LibriSpeech/1-2-3.flac")
                link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
                archive.addfile(link)
    else:
        for name, data in librispeech_files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    write_dataset(librispeech.DualcodecLibrispeech, librispeech.read_splits(root), tmp_path / "out")
    assert splits(tmp_path / "out") == {"dev_clean": 2, "train_clean_100": 2}
    found = records(TfdsSource(tmp_path / "out", "dev_clean"))
    assert [record.key for record in found] == ["84-121123-0000", "84-121123-0001"]
    assert [record.text for record in found] == ["GO DO YOU HEAR", "BUT IN"]
    assert found[1].audio == flac(1)
    assert found[0].language == "en"
    assert found[0].extra == {"speaker": "84", "chapter": "121123"}
    if packed:
        one = librispeech.read_splits(root / "dev-clean.tar.gz")
        assert list(one) == ["dev_clean"]
        archive_path = root / "dev-clean.tar.gz"
        archive_path.write_bytes(archive_path.read_bytes()[:200])
        with pytest.raises(DataError, match="damaged archive"):
            list(librispeech.read_splits(archive_path)["dev_clean"])
    else:
        assert list(librispeech.read_splits(root / "LibriSpeech/dev-clean")) == ["dev_clean"]


def test_librispeech_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no LibriSpeech here"):
        librispeech.read_splits(tmp_path)


def test_emilia(tmp_path: Path) -> None:
    shard = tmp_path / "in" / "EN-B000000.tar"
    shard.parent.mkdir()
    metadata = {"id": "EN_0", "text": "hi", "language": "en", "dnsmos": 3.5, "speaker": "S1"}
    with tarfile.open(shard, "w") as archive:
        for name, data in (
            ("EN_0.json", json.dumps({**metadata, "duration": 0.09}).encode()),
            ("EN_0.flac", flac(0)),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    write_dataset(emilia.DualcodecEmilia, emilia.read_splits(shard.parent), tmp_path / "out")
    (record,) = records(TfdsSource(tmp_path / "out"))
    assert (record.text, record.language, record.quality) == ("hi", "en", 3.5)
    assert record.duration == pytest.approx(0.09)
    assert record.extra == {"id": "EN_0", "speaker": "S1"}


def test_damaged_headers_are_left_out_and_reported(recordings: Path, tmp_path: Path) -> None:
    (recordings / "b.flac").write_bytes(b"not flac")
    seen: list[tuple[str, AudioError | None]] = []
    found = audio_folder.read_splits(recordings)["train"]
    good = checked(found, lambda record, error: seen.append((record.key, error)))
    write_dataset(audio_folder.DualcodecAudioFolder, {"train": good}, tmp_path / "out")
    assert splits(tmp_path / "out") == {"train": 2}
    assert [key for key, error in seen if error is not None] == ["b.flac"]


def test_nothing_appears_when_writing_fails(recordings: Path, tmp_path: Path) -> None:
    def failing() -> Any:
        yield Record("a", flac(0))
        raise DataError("the disk is gone")

    for found, message in (
        (failing(), "the disk is gone"),
        (iter(()), "no records to write"),
        (iter([Record("a", flac(0), extra={"x": {1: object()}})]), None),
    ):
        if message is None:
            write_dataset(audio_folder.DualcodecAudioFolder, {"train": found}, tmp_path / "ok")
            continue
        with pytest.raises(DataError, match=message):
            write_dataset(audio_folder.DualcodecAudioFolder, {"train": found}, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "ok"]


def test_only_data_sets_are_replaced(recordings: Path, tmp_path: Path) -> None:
    def write(**options: Any) -> Path:
        return write_dataset(
            audio_folder.DualcodecAudioFolder,
            audio_folder.read_splits(recordings),
            tmp_path / "out",
            **options,
        )

    write()
    with pytest.raises(InputError, match="exists already"):
        write()
    (recordings / "a.flac").unlink()
    write(overwrite=True)
    assert splits(tmp_path / "out") == {"train": 2}
    # A file of the user's, even beside a data set, is not ours to delete.
    thesis = tmp_path / "out" / "thesis" / "chapter.tex"
    thesis.parent.mkdir()
    thesis.write_text("years of work")
    with pytest.raises(DataError, match=r"chapter\.tex, which is not part of a data set"):
        write(overwrite=True)
    assert thesis.exists()
    assert splits(tmp_path / "out") == {"train": 2}


def test_unusable_data_sets_are_refused(recordings: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data set"):
        TfdsSource(tmp_path)
    folder = write_dataset(
        audio_folder.DualcodecAudioFolder, audio_folder.read_splits(recordings), tmp_path / "out"
    )
    with pytest.raises(DataError, match="no split 'test'; it has train"):
        TfdsSource(folder, "test")
    with pytest.raises(DataError, match="cannot be opened"):
        TfdsSource(folder, "train[:nonsense]")
    write_dataset(
        audio_folder.DualcodecAudioFolder, audio_folder.read_splits(recordings), tmp_path / "out2"
    )
    with pytest.raises(DataError, match="holds 2 data sets"):
        TfdsSource(tmp_path)
    (shard,) = folder.glob("*.array_record*")
    shard.unlink()
    with pytest.raises(DataError, match="missing"):
        TfdsSource(folder)
    (folder / "dataset_info.json").write_text("{")
    with pytest.raises(DataError, match="not a readable TFDS data set"):
        TfdsSource(folder)


def test_neither_tensorflow_nor_a_device_is_touched(recordings: Path, tmp_path: Path) -> None:
    program = f"""
import sys
from dualcodec_jax.data.builders import audio_folder
from dualcodec_jax.data.builders.base import write_dataset
from dualcodec_jax.data.tfds_source import TfdsSource
from dualcodec_jax.data import extract, features, pipeline, inspection
write_dataset(audio_folder.DualcodecAudioFolder, audio_folder.read_splits({str(recordings)!r}),
              {str(tmp_path / "out")!r})
assert len(TfdsSource({str(tmp_path / "out")!r})[0].audio)
assert "tensorflow" not in sys.modules and "torch" not in sys.modules
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
