"""The log of a run: what is written, and what a resumed run makes of it."""

from __future__ import annotations

import io
import json
import math
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dualcodec_jax.errors import ConfigError, InputError
from dualcodec_jax.train import logs
from dualcodec_jax.train.logs import RunLog, cut_records, duration, read_records


def quiet(folder: Path, **options: Any) -> RunLog:
    return RunLog(folder, **{"tensorboard": False, "progress": False} | options)


def write_steps(folder: Path, steps: range, start_step: int = 0) -> None:
    with quiet(folder, start_step=start_step) as log:
        for step in steps:
            log.write(step, {"loss/mel": step / 10})


def steps(folder: Path) -> list[float]:
    return [record["step"] for record in read_records(folder / "metrics.jsonl")]


def test_records_hold_step_time_and_values(tmp_path: Path) -> None:
    with quiet(tmp_path / "new" / "run") as log:
        log.write(5, {"loss/mel": 0.5})
    (record,) = read_records(tmp_path / "new" / "run" / "metrics.jsonl")
    assert record["step"] == 5
    assert record["loss/mel"] == 0.5
    assert record["time"] > 1e9


def test_values_that_json_lacks_are_strings_that_float_reads(tmp_path: Path) -> None:
    with quiet(tmp_path) as log:
        log.write(1, {"nan": math.nan, "up": math.inf, "down": -math.inf})
    line = (tmp_path / "metrics.jsonl").read_text()

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    assert json.loads(line, parse_constant=refuse)["nan"] == "NaN"
    (record,) = read_records(tmp_path / "metrics.jsonl")
    assert math.isnan(record["nan"])
    assert (record["up"], record["down"]) == (math.inf, -math.inf)


def test_a_resumed_run_continues_without_duplicates(tmp_path: Path) -> None:
    write_steps(tmp_path, range(10, 60, 10))
    write_steps(tmp_path, range(40, 80, 10), start_step=30)
    assert steps(tmp_path) == [10, 20, 30, 40, 50, 60, 70]
    superseded = read_records(tmp_path / logs.SUPERSEDED_FILE)
    assert [record["step"] for record in superseded] == [40, 50]


def test_a_half_written_last_line_goes(tmp_path: Path) -> None:
    write_steps(tmp_path, range(1, 4))
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step": 4, "loss/m')
    assert steps(tmp_path) == [1, 2, 3]
    write_steps(tmp_path, range(4, 6), start_step=3)
    assert steps(tmp_path) == [1, 2, 3, 4, 5]


def test_an_unbroken_file_is_left_as_it_is(tmp_path: Path) -> None:
    write_steps(tmp_path, range(1, 4))
    path = tmp_path / "metrics.jsonl"
    inode = path.stat().st_ino
    assert cut_records(path, 3) == 0
    assert path.stat().st_ino == inode
    assert cut_records(tmp_path / "none.jsonl", 3) == 0


@pytest.mark.parametrize("line", ["not json", "[1]", '{"time": 1}', '{"step": "x"}', "{}"])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 2}}\n')
    with pytest.raises(InputError, match="line 2 is damaged"):
        read_records(path)
    with pytest.raises(InputError, match="line 2 is damaged"), quiet(tmp_path):
        pass


def test_only_the_primary_process_writes(tmp_path: Path) -> None:
    with quiet(tmp_path / "run", primary=False) as log:
        log.write(1, {"x": 1.0})
        log.advance(1)
        log.say("hello")
    assert not (tmp_path / "run").exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"), quiet(tmp_path / "file"):
        pass


def test_tensorboard_gets_the_values(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    with quiet(tmp_path, tensorboard=True) as log:
        log.write(1, {"loss/mel": 1.0, "loss/nan": math.nan})
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"loss/mel" in events.read_bytes()


class FakeRun:
    """Of wandb: remembers what it is told."""

    def __init__(self, **options: Any) -> None:
        self.options, self.logged, self.finished = options, [], False

    def define_metric(self, *_: Any, **__: Any) -> None:
        pass

    def log(self, values: dict[str, Any]) -> None:
        self.logged.append(values)

    def finish(self) -> None:
        self.finished = True


def test_wandb_continues_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[FakeRun] = []

    def init(**options: Any) -> FakeRun:
        runs.append(FakeRun(**options))
        return runs[-1]

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    for start_step in (0, 1):
        with quiet(tmp_path, wandb="codec", config={"a": 1}, start_step=start_step) as log:
            log.write(start_step + 1, {"x": 1.0})
    first, second = runs
    assert first.options["id"] == second.options["id"]
    assert first.options["config"] == {"a": 1}
    assert second.logged == [{"step": 2, "x": 1.0}]
    assert second.finished


@pytest.mark.parametrize("name", ["wandb", "tensorboardX"])
def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    options = {"wandb": "x"} if name == "wandb" else {"tensorboard": True}
    with pytest.raises(ConfigError, match=f"pip install {name}"), quiet(tmp_path, **options):
        pass


VALUES = {
    "loss/total": 20.0,
    "speed/steps_per_second": 2.0,
    "speed/audio_seconds_per_second": 19.2,
    "speed/eta_seconds": 3725.0,
}


def test_plain_lines_come_at_intervals_off_a_terminal(tmp_path: Path) -> None:
    output = io.StringIO()
    console = Console(file=output, soft_wrap=True)
    with quiet(tmp_path, progress=True, console=console, total_steps=9, line_seconds=1e9) as log:
        log.write(1, {"eval/mel": 1.0})
        log.write(1, VALUES)
        log.write(2, VALUES)
        log.say("a [note]")
    assert output.getvalue().splitlines() == [
        "step 1/9 · total 20.000 · 2 steps/s · 19.2 audio-s/s · ETA 01:02:05",
        "a [note]",
    ]


def test_a_bar_shows_losses_and_speed_on_a_terminal(tmp_path: Path) -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=150)
    with quiet(tmp_path, progress=True, console=console, total_steps=9, name="run") as log:
        log.advance(1)
        log.write(2, VALUES)
        log.write(2, {"eval/mel": 1.0})
    for text in ("run", "2/9", "total 20.000", "2 steps/s", "19.2 audio-s/s", "ETA 01:02:05"):
        assert text in output.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(59.6, "00:01:00"), (90061, "1d 01:01:01"), (math.inf, "unknown"), (math.nan, "unknown")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_damaged_evaluation_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "eval" / "step_00000005"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text('{"step": 5, "values": {"mel": 1}}')
    assert logs.read_evaluations(tmp_path) == {5: {"eval/mel": 1.0}}
    (folder / "metrics.json").write_text("{")
    with pytest.raises(InputError, match="step_00000005"):
        logs.read_evaluations(tmp_path)
