"""Tokenising in processes of their own: devices, several processes, and kills at any moment."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("array_record")

from dualcodec_jax.tokens.source import TokenSource
from dualcodec_jax.tokens.verify import verify

pytestmark = pytest.mark.slow  # Every process imports JAX and traces its programs.

CLIPS, SHARD_SIZE = 24, 2
SHARDS = CLIPS // SHARD_SIZE
COMMAND = (sys.executable, "-W", "error", "-m", "dualcodec_jax.cli.main", "tokenize")
OPTIONS = ("--model", "tiny", "--weights", "random", "--batch-seconds", "5", "--readers", "2")
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips below 2 s, and one that is encoded in windows."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(CLIPS):
        rng = np.random.default_rng(number)
        seconds = 2.7 if number == 7 else rng.uniform(0.05, 1.8)
        noise = 0.1 * rng.standard_normal(round(seconds * 24000))
        soundfile.write(folder / f"{number:02d}.wav", noise, 24000)
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """So that the first process compiles quickly, and the others do not."""
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": QUICK,
        "DUALCODEC_JAX_CACHE": str(tmp_path_factory.mktemp("cache")),
    }


@contextmanager
def tokenizing(
    clips: Path, output: Path, environments: Sequence[dict[str, str]], *options: str
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that tokenise into ``output``; they do not outlive the block."""
    windows = ("--whole-seconds", "2", "--window-seconds", "1.2", "--overlap-seconds", "0.56")
    command = [*COMMAND, str(clips), "-o", str(output), *OPTIONS, *windows, *options]
    command += ["--shard-size", str(SHARD_SIZE)]
    with ExitStack() as stack:
        started = []
        for number, environment in enumerate(environments):
            log = stack.enter_context(_log(output, number).open("wb"))
            process = subprocess.Popen(command, env=environment, stderr=log)
            started.append(process)
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield started


def _log(output: Path, number: int) -> Path:
    return output.parent / f"{output.name}.{number}.log"


def finish(processes: list[subprocess.Popen[bytes]], output: Path) -> list[str]:
    said = []
    for number, process in enumerate(processes):
        status = process.wait(timeout=300)
        said.append(_log(output, number).read_text(encoding="utf-8"))
        assert status == 0, said[-1][-3000:]
    return said


def contents(folder: Path) -> dict[str, bytes]:
    # What a killed process left goes when it is a minute old.
    return {path.name: path.read_bytes() for path in folder.glob("[!.]*")}


@pytest.fixture(scope="module")
def whole(
    clips: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run of one process on one device."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    with tokenizing(clips, folder, [environment]) as processes:
        finish(processes, folder)
    assert verify(folder).problems == []
    assert [record.id for record in TokenSource(folder)] == [f"{n:02d}" for n in range(CLIPS)]
    return folder


def test_eight_devices_give_the_same_records(
    clips: Path, environment: dict[str, str], whole: Path, tmp_path: Path
) -> None:
    eight = environment | {"XLA_FLAGS": f"{QUICK} --xla_force_host_platform_device_count=8"}
    with tokenizing(clips, tmp_path / "out", [eight]) as processes:
        finish(processes, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(whole)


def test_two_processes_give_the_same_records(
    clips: Path, environment: dict[str, str], whole: Path, tmp_path: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    common = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    two = [environment | common | {"JAX_PROCESS_ID": str(index)} for index in range(2)]
    with tokenizing(clips, tmp_path / "out", two) as processes:
        said = finish(processes, tmp_path / "out")
    assert [f"{CLIPS // 2} recordings" in text for text in said] == [True, True]
    assert [f"complete: {CLIPS} records" in text for text in said] == [True, False]
    assert contents(tmp_path / "out") == contents(whole)


def test_parts_need_not_know_of_each_other(
    clips: Path, environment: dict[str, str], whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with tokenizing(clips, out, [environment], "--part", "1/2") as processes:
        (said,) = finish(processes, out)
    assert "6 shards are left to other processes" in said
    with tokenizing(clips, out, [environment], "--part", "0/2") as processes:
        finish(processes, out)
    assert contents(out) == contents(whole)


def test_kills_change_nothing(
    clips: Path, environment: dict[str, str], whole: Path, tmp_path: Path
) -> None:
    """Three kills, while a shard is written or not, and a run that goes on from what they left."""
    out = tmp_path / "out"
    rng = random.Random(0)
    left = []
    for first in (1, 4, 8):
        rest = rng.uniform(0, 0.05)
        with tokenizing(clips, out, [environment]) as (process,):
            end = time.monotonic() + 300
            while len(list(out.glob("codes-*.json"))) < first:
                assert process.poll() is None, _log(out, 0).read_text()[-3000:]
                assert time.monotonic() < end
                time.sleep(0.001)
            time.sleep(rest)
            process.kill()
            assert process.wait() == -signal.SIGKILL
        left.append(len(list(out.glob("codes-*.json"))))
    assert left == sorted(left)
    assert left[-1] < SHARDS
    with tokenizing(clips, out, [environment]) as processes:
        (said,) = finish(processes, out)
    assert "from an earlier run" in said
    assert Counter(record.index for record in TokenSource(out)) == dict.fromkeys(range(CLIPS), 1)
    assert verify(out).problems == []
    assert contents(out) == contents(whole)
