"""Training in processes of its own: signals to one or all of several, and kills at any moment."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile

pytest.importorskip("grain")
pytest.importorskip("hydra")
pytest.importorskip("orbax.checkpoint")

from dualcodec_jax.train.export import load_run
from dualcodec_jax.train.logs import read_records

pytestmark = pytest.mark.slow  # Every process imports JAX and traces its step.
ROOT = Path(__file__).parent.parent
SHORT = (0, 2, 4)
MANY = 100_000
"""Steps that no run of these tests reaches."""
SETTINGS = (
    "model=tiny",
    "model.model.encoder_dim=16",
    "model.model.encoder_rates=[20,24]",
    "model.model.decoder_dim=32",
    "model.model.decoder_rates=[24,20]",
    "model.model.n_codebooks=1",
    "model.model.semantic_downsample_factor=1",
    "model.model.convnext_layers=1",
    "model.discriminator.bands=[[0.0,1.0]]",
    "model.semantic.num_layers=1",
    "machine.w2v_path=random",
    "data=audio_folder",
    f"data.locations={ROOT / 'tests' / 'data'}",
    "data.segment_speech.segment_length=4800",
    "trainer.batch_size=1",
    "trainer.args.resume=true",
    "trainer.cfg.bypass_rate=0.0",  # one program instead of two
    "trainer.cfg.losses.mel_scales.window_lengths=[512]",
    "trainer.cfg.losses.mel_scales.n_mels=[40]",
    "trainer.cfg.train.log_every=1",
    "trainer.cfg.train.tracker=null",
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """So that the first process compiles quickly, and the others do not."""
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("xla")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


class Training:
    """``train_jax.py`` in a process; what it says goes to a file."""

    def __init__(self, folder: Path, environment: dict[str, str], log: Path, *options: str) -> None:
        self.log = log
        where = (f"machine.log_dir={folder.parent}", f"trainer.exp_name={folder.name}")
        command = [sys.executable, "-W", "error", str(ROOT / "train_jax.py")]
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [*command, *SETTINGS, *where, *options], env=environment, stderr=file
            )

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def finish(self) -> None:
        assert self.process.wait(timeout=300) == 0, self.said()[-3000:]


@contextmanager
def training(
    folder: Path, environment: dict[str, str], *options: str, processes: int = 1
) -> Iterator[list[Training]]:
    """Processes that train the run in ``folder``; they do not outlive the block."""
    extra: list[dict[str, str]] = [{}]
    if processes > 1:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        common = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(processes)}
        extra = [common | {"JAX_PROCESS_ID": str(index)} for index in range(processes)]
    with ExitStack() as stack:
        started = []
        for index, own in enumerate(extra):
            log = folder.parent / f"{folder.name}.{index}.log"
            one = Training(folder, environment | own, log, *options)
            started.append(one)
            stack.callback(one.process.wait)
            stack.callback(one.process.kill)
        yield started


def wait_until(condition: Callable[[], bool], trainings: list[Training]) -> None:
    """Wait for a condition that comes true while all of ``trainings`` run."""
    end = time.monotonic() + 300
    while not condition():
        for one in trainings:
            assert one.process.poll() is None, one.said()[-3000:]
        assert time.monotonic() < end, trainings[0].said()[-3000:]
        time.sleep(0.01)


def steps_logged(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def losses(folder: Path) -> dict[float, dict[str, float]]:
    """Everything but time, by step; every step once."""
    records = read_records(folder / "metrics.jsonl")
    assert [record["step"] for record in records] == list(range(1, len(records) + 1))
    return {
        record["step"]: {
            name: value
            for name, value in record.items()
            if name != "time" and not name.startswith("speed/")
        }
        for record in records
    }


def saved_state(folder: Path) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_flatten_with_path(load_run(folder)[1])[0]
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


# Two processes ------------------------------------------------------------------------------


def signalled(
    folder: Path,
    environment: dict[str, str],
    steps: int,
    receivers: tuple[int, ...],
    number: signal.Signals,
) -> int:
    """Start two processes, send a signal once there are so many steps; the step they stop at."""
    most = f"trainer.cfg.train.max_steps={MANY}"
    with training(folder, environment, most, processes=2) as pair:
        wait_until(lambda: steps_logged(folder) >= steps, pair)
        for index in receivers:
            pair[index].process.send_signal(number)
        for one in pair:
            one.finish()
        said = pair[0].said()
    (checkpoint,) = (folder / "checkpoints").glob("[0-9]*")
    step = int(checkpoint.name)
    assert steps <= step < MANY
    assert f"stopped by {number.name} at step {step}, which is saved" in said
    return step


@pytest.fixture(scope="module")
def stopped(
    tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]
) -> tuple[Path, int]:
    """A run of two processes of which one was asked to stop, and at which step it stopped."""
    folder = tmp_path_factory.mktemp("two") / "run"
    return folder, signalled(folder, environment, 3, (1,), signal.SIGTERM)


def test_a_signal_to_one_process_stops_both_at_one_step(stopped: tuple[Path, int]) -> None:
    folder, step = stopped
    checkpoint = folder / "checkpoints" / f"{step:08d}"
    assert (folder / "checkpoints" / "checksums" / f"{step:08d}.json").exists()
    meta = json.loads((checkpoint / "meta" / "metadata").read_text(encoding="utf-8"))
    assert [data["batches"] for data in meta["data_states"]] == [step, step]
    assert len(losses(folder)) == step
    _, state = load_run(folder)
    assert int(state.step) == step


def test_two_processes_go_on_where_they_stopped(
    stopped: tuple[Path, int], tmp_path: Path, environment: dict[str, str]
) -> None:
    """And as a run would that was stopped later, by Ctrl-C, which all of its processes get."""
    folder, step = stopped
    end = step + 2
    last = f"trainer.cfg.train.max_steps={end}"
    with training(folder, environment, last, processes=2) as pair:
        for one in pair:
            one.finish()
        assert f"resumed at step {step}" in pair[0].said()
    assert len(losses(folder)) == end
    other = tmp_path / "run"
    assert signalled(other, environment, end, (0, 1), signal.SIGINT) >= end
    assert {at: values for at, values in losses(other).items() if at <= end} == losses(folder)


def test_two_processes_end_their_passes_together(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    """Though one of them gets more of the clips that are too short."""
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    for index in range(8):
        seconds = 0.5 if index in SHORT else 1.0
        noise = np.random.default_rng(index).normal(0, 0.1, int(24000 * seconds))
        soundfile.write(recordings / f"{index}.wav", noise, 24000)
    options = (
        f"data.locations={recordings}",
        "data.filter.min_seconds=0.9",
        "data.shuffle.enabled=false",
        "trainer.cfg.train.max_epoch=1",
        f"trainer.cfg.train.max_steps={MANY}",
    )
    folder = tmp_path / "run"
    with training(folder, environment, *options, processes=2) as pair:
        for one in pair:
            one.finish()
    # Every second clip is process 0's: one of its clips is left, or all four of the other's.
    assert len(losses(folder)) == 4


# Kills --------------------------------------------------------------------------------------


def has_saved_and_logged(folder: Path, steps: int) -> bool:
    if steps_logged(folder) < steps:
        return False
    return any(path.name.isdigit() for path in (folder / "checkpoints").iterdir())


def test_kills_change_nothing(tmp_path: Path, environment: dict[str, str]) -> None:
    """Two kills, during a save or not, and a run that goes on from what they left."""
    options = ("trainer.cfg.train.max_steps=30", "trainer.cfg.train.save_checkpoint_stride=[3]")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    with training(whole, environment, *options) as (one,):
        one.finish()
    rng = random.Random(0)
    for first in (4, 14):
        steps, rest = rng.randint(first, first + 6), rng.uniform(0, 0.1)
        with training(killed, environment, *options) as (one,):
            wait_until(partial(has_saved_and_logged, killed, steps), [one])
            time.sleep(rest)
            one.process.kill()
            assert one.process.wait() == -signal.SIGKILL
    with training(killed, environment, *options) as (one,):
        one.finish()
        assert "resumed at step" in one.said()
    assert losses(killed) == losses(whole)
    actual, expected = saved_state(killed), saved_state(whole)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)
