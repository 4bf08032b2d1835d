"""Batches: order, sharding, exact resume, rejects and limits, evaluation."""

from __future__ import annotations

import io
import itertools
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from dualcodec_jax.data.config import DataConfig
from dualcodec_jax.data.errors import BrokenDataError, DataError, DataStateError
from dualcodec_jax.data.pipeline import Batch, Batches, open_batches
from dualcodec_jax.data.reader import GrainReader
from dualcodec_jax.data.records import Record
from dualcodec_jax.data.transforms import Clip, ClipMaker

pytest.importorskip("grain")

RATE = 16000
SEGMENT = 400


def ramp(number: int, size: int = 1000) -> np.ndarray:
    """Samples that tell which file they are of and where they were."""
    return (number * 1024 + np.arange(size)) / 32768


def origin(batch: Batch) -> list[tuple[int, int]]:
    """(file, start) of every row."""
    first = np.rint(batch["audio"][:, 0] * 32768).astype(int)
    return [(value // 1024, value % 1024) for value in first.tolist()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven ramps, two damaged files, one short one."""
    path = tmp_path_factory.mktemp("audio")
    for number in range(7):
        soundfile.write(path / f"{number}.wav", ramp(number), RATE, subtype="PCM_16")
    (path / "8.wav").write_text("text, renamed")
    (path / "9.flac").write_bytes(b"fLaC" + bytes(100))
    return path


def config(folder: Path, **changes: Any) -> DataConfig:
    fields: dict[str, Any] = {
        "kind": "folder",
        "locations": (str(folder),),
        "segment_length": SEGMENT,
        "sample_rate": RATE,
        "max_broken": 2,
        "max_broken_fraction": None,
        "prefetch": 4,
    }
    return DataConfig(**{**fields, **changes})


def take(batches: Batches, count: int) -> list[Batch]:
    return list(itertools.islice(batches, count))


def assert_equal(some: Sequence[Batch], others: Sequence[Batch]) -> None:
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        assert set(one) == set(other)
        for name, values in one.items():
            np.testing.assert_array_equal(values, other[name])


def test_batches_have_the_documented_form(folder: Path) -> None:
    with open_batches(config(folder), 3) as batches:
        batch = next(batches)
    assert set(batch) == {"audio", "num_samples"}
    assert (batch["audio"].shape, batch["audio"].dtype) == ((3, SEGMENT), np.float32)
    assert batch["num_samples"].tolist() == [SEGMENT] * 3
    assert batch["num_samples"].dtype == np.int32
    for row, (number, start) in zip(batch["audio"], origin(batch), strict=True):
        expected = ramp(number)[start : start + SEGMENT].astype(np.float32)
        np.testing.assert_allclose(row, expected, atol=2**-16)


def test_the_seed_decides_everything(folder: Path) -> None:
    runs = []
    for seed in (0, 0, 1):
        with open_batches(config(folder, seed=seed), 3) as batches:
            runs.append(take(batches, 6))
    assert_equal(runs[0], runs[1])
    assert origin(runs[0][0]) != origin(runs[2][0])


def test_every_epoch_has_all_files_in_another_order_with_other_crops(folder: Path) -> None:
    with open_batches(config(folder), 7) as batches:
        epochs = [origin(batch) for batch in take(batches, 3)]
        assert batches.report.epoch in (2, 3)  # the last records may be damaged ones
    files = [[file for file, _ in epoch] for epoch in epochs]
    assert all(sorted(epoch) == list(range(7)) for epoch in files)
    assert files[0] != files[1] != files[2]
    starts = [dict(epoch) for epoch in epochs]
    assert all(starts[0][file] != starts[1][file] for file in range(7))
    with open_batches(config(folder, shuffle=False, crop="start"), 7) as batches:
        for batch in take(batches, 2):
            assert origin(batch) == [(file, 0) for file in range(7)]


def test_seeds_do_not_share_orders_across_epochs(folder: Path) -> None:
    with open_batches(config(folder, seed=0), 7) as batches:
        second = [file for file, _ in origin(take(batches, 2)[1])]
    with open_batches(config(folder, seed=1), 7) as batches:
        first = [file for file, _ in origin(next(batches))]
    assert second != first


@pytest.mark.parametrize("stop", [1, 2, 3, 5])
def test_resume_is_exact(folder: Path, stop: int) -> None:
    with open_batches(config(folder), 3) as batches:
        take(batches, stop)
        state = json.loads(json.dumps(batches.get_state()))
        rest = take(batches, 6)
        report = batches.report
    with open_batches(config(folder), 3) as batches:
        batches.set_state(state)
        assert batches.get_state() == state
        assert_equal(take(batches, 6), rest)
        assert batches.report == report
        batches.set_state(state)  # also on a running iterator
        assert_equal(take(batches, 6), rest)


def test_resume_at_the_very_end_of_an_epoch(folder: Path) -> None:
    # Nine records of which seven are clips: batches of 7 end exactly with each epoch.
    only = DataConfig(**{**vars(config(folder)), "locations": (str(folder / "[0-6].wav"),)})
    with open_batches(only, 7) as batches:
        next(batches)
        state = batches.get_state()
        assert state["reader"] == {"position": 7}
        assert batches.report.epoch == 1
        rest = take(batches, 2)
    with open_batches(only, 7) as batches:
        batches.set_state(state)
        assert_equal(take(batches, 2), rest)


def test_workers_change_nothing(folder: Path) -> None:
    with open_batches(config(folder), 3) as batches:
        expected = take(batches, 7)
        report = batches.report
    with open_batches(config(folder, num_workers=2), 3) as batches:
        assert_equal(take(batches, 3), expected[:3])
        state = json.loads(json.dumps(batches.get_state()))
        assert_equal(take(batches, 4), expected[3:])
        assert batches.report == report
        batches.set_state(state)
        assert_equal(take(batches, 4), expected[3:])
    with open_batches(config(folder), 3) as batches:  # and the state fits any number of them
        batches.set_state(state)
        assert_equal(take(batches, 4), expected[3:])


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_every_epoch(folder: Path, shuffle: bool, processes: int) -> None:
    records = config(folder, shuffle=shuffle)
    source = Ramps(7)
    epochs: list[Counter[int]] = [Counter() for _ in range(3)]
    crops = []
    for process in range(processes):
        reader = GrainReader(
            ClipMaker(source, records), records, process_index=process, process_count=processes
        )
        share = reader.share
        assert share is not None
        for epoch in range(3):
            for _ in range(share):
                clip = next(reader)
                assert isinstance(clip, Clip)
                epochs[epoch][clip.index] += 1
                crops.append(clip.audio[0])
        reader.close()
    # Each record exactly once per epoch, whichever process has it.
    assert epochs == [Counter(range(7))] * 3
    assert len(set(crops)) == len(crops)


def test_state_is_refused_by_another_run(folder: Path) -> None:
    state = open_batches(config(folder), 3).get_state()
    for other, own, message in (
        (config(folder, seed=3), {}, "seed: 0 saved, 3 now"),
        (config(folder, shuffle=False), {}, "shuffle: True saved, False now"),
        (config(folder), {"process_index": 1, "process_count": 2}, "processes: 1 saved, 2 now"),
        (config(folder / "[0-6].wav"), {}, "records: 9 saved, 7 now"),
    ):
        with pytest.raises(DataStateError, match=message):
            open_batches(other, 3, **own).set_state(state)
    batches = open_batches(config(folder), 3)
    with pytest.raises(DataStateError, match="version"):
        batches.set_state({**state, "version": 0})
    with pytest.raises(DataStateError, match="damaged"):
        batches.set_state({**state, "rejected": 3})
    with pytest.raises(DataStateError, match="damaged"):
        batches.set_state({key: value for key, value in state.items() if key != "reader"})
    for position in (-1, "3", None, 2**70):
        with pytest.raises(DataStateError, match="saved position"):
            batches.set_state({**state, "reader": {"position": position}})


def test_rejects_are_counted_and_named(folder: Path) -> None:
    with open_batches(config(folder), 7) as batches:
        take(batches, 4)
        report = batches.report
    assert set(report.rejected) == {"damaged"}
    assert report.drawn == report.used + report.rejected["damaged"]
    assert report.used == 28
    assert sorted(report.broken) == ["8.wav", "9.flac"]  # once each, however often they came


@pytest.mark.parametrize(
    "limit",
    [
        {"max_broken": 1},
        {"max_broken": 0},
        {"max_broken": None, "max_broken_fraction": 0.2},
        {"max_broken": 5, "max_broken_fraction": 0.0},
    ],
)
def test_too_many_damaged_files_stop_the_run(folder: Path, limit: dict[str, Any]) -> None:
    batches = open_batches(config(folder, **limit), 7)
    with pytest.raises(BrokenDataError, match=r"8\.wav|9\.flac"):
        take(batches, 3)
    batches.close()
    for allowed in (
        {"max_broken": None},
        {"max_broken": None, "max_broken_fraction": 0.25},
    ):
        with open_batches(config(folder, **allowed), 7) as batches:
            take(batches, 3)


@pytest.mark.parametrize("changes", [{"min_seconds": 1.0}, {"languages": ("en",)}])
@pytest.mark.parametrize("repeat", [True, False])
def test_no_usable_clip_is_an_error_not_an_endless_loop(
    folder: Path, changes: dict[str, Any], repeat: bool
) -> None:
    with (
        open_batches(config(folder, repeat=repeat, **changes), 3) as batches,
        pytest.raises(BrokenDataError, match=r"7 too short|9 other or unknown language"),
    ):
        next(batches)


def test_resume_keeps_the_count_towards_that_error(folder: Path) -> None:
    with open_batches(config(folder), 1) as batches:
        next(batches)
        state = batches.get_state()
    state["since_used"] = {"too short": 8}
    with open_batches(config(folder, min_seconds=1.0), 1) as batches:
        batches.set_state(state)
        with pytest.raises(BrokenDataError, match="no usable clip among 9 records"):
            next(batches)


def test_evaluation_reads_everything_once_and_fills_up(folder: Path) -> None:
    evaluation = config(folder).for_evaluation(segment_length=1200)
    for workers in (0, 2):
        with open_batches(DataConfig(**{**vars(evaluation), "num_workers": workers}), 4) as batches:
            result = list(batches)
            assert next(batches, None) is None
        assert [origin(batch)[0] for batch in result] == [(0, 0), (4, 0)]
        assert [batch["num_samples"].tolist() for batch in result] == [
            [1000] * 4,
            [1000] * 3 + [0],
        ]
        assert not result[1]["audio"][3].any()
        assert not result[0]["audio"][:, 1000:].any()


def test_evaluation_gives_every_process_as_many_batches(folder: Path) -> None:
    evaluation = config(folder, max_broken=3).for_evaluation()
    counts, files = [], []
    for process in range(2):
        own = {"process_index": process, "process_count": 2}
        with open_batches(evaluation, 2, **own) as batches:
            result = list(batches)
        counts.append(len(result))
        files += [
            file
            for batch in result
            for (file, _), size in zip(origin(batch), batch["num_samples"], strict=True)
            if size
        ]
    assert counts == [3, 3]
    assert sorted(files) == list(range(7))


def test_restore_within_and_after_an_evaluation(folder: Path) -> None:
    evaluation = config(folder).for_evaluation()
    with open_batches(evaluation, 4) as batches:
        next(batches)
        state = batches.get_state()
        rest = list(batches)
        end = batches.get_state()
    with open_batches(evaluation, 4) as batches:
        batches.set_state(state)
        assert_equal(list(batches), rest)
        batches.set_state(end)
        assert list(batches) == []


class Ramps:
    """A source in memory, of records that are too many for files."""

    def __init__(self, count: int) -> None:
        self.records = []
        for number in range(count):
            stream = io.BytesIO()
            soundfile.write(stream, ramp(number), RATE, format="WAV", subtype="PCM_16")
            self.records.append(Record(str(number), stream.getvalue()))

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Record:
        return self.records[index]


class Failing(Ramps):
    """The same, with a record that the source itself cannot give."""

    def __getitem__(self, index: int) -> Record:
        if index == 2:
            raise DataError("shard is gone")
        return super().__getitem__(index)


def test_own_sources_and_their_failures(folder: Path) -> None:
    with open_batches(config(folder), 6, source=Failing(7)) as batches:
        take(batches, 2)
        assert batches.report.broken == ("record 2",)


def test_what_is_not_the_datas_fault_ends_the_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "soxr", None)
    with (
        open_batches(config(folder, sample_rate=24000), 2) as batches,
        pytest.raises(DataError, match="soxr"),
    ):
        next(batches)


def test_one_record_is_enough(folder: Path) -> None:
    with open_batches(config(folder), 3, source=Ramps(1)) as batches:
        starts = {start for batch in take(batches, 3) for _, start in origin(batch)}
    assert len(starts) > 5


def test_wrong_arguments(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="batch_size"):
        open_batches(config(folder), 0)
    with pytest.raises(DataError, match="cannot be shared by 20 processes"):
        open_batches(config(folder), 1, process_index=19, process_count=20)
    with pytest.raises(DataError, match="process_index"):
        open_batches(config(folder), 1, process_index=2, process_count=2)
    monkeypatch.setitem(__import__("sys").modules, "grain", None)
    with pytest.raises(DataError, match=r"dualcodec-jax\[train\]"):
        open_batches(config(folder), 1)
