"""The training step on meshes of virtual devices, and in two processes, against one device."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("optax")

pytestmark = pytest.mark.slow  # Each process compiles a step.
WORKER = Path(__file__).parent / "train_worker.py"
LIMIT = 3e-7
"""Relative error of losses and moments in float64; what there is comes from the filterbank, which
is float32 by construction."""
SAVED = "saved"


def start(output: Path, **options: Any) -> subprocess.Popen[bytes]:
    arguments = json.dumps({**options, "output": str(output)})
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(WORKER), arguments],
        env=environment,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors.decode()[-3000:]


def run(output: Path, **options: Any) -> dict[str, np.ndarray]:
    finish(start(output, **options))
    with np.load(output) as file:
        return dict(file)


@pytest.fixture(scope="module")
def one_device(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    folder = tmp_path_factory.getbasetemp()
    saved = str(folder / SAVED)
    return run(folder / "one.npz", devices=1, mesh={"data": 1}, save=saved)


def error(actual: np.ndarray, expected: np.ndarray) -> float:
    difference = np.linalg.norm(actual.astype(np.float64) - expected)
    return float(difference / max(np.linalg.norm(expected.astype(np.float64)), 1e-30))


def check_same(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Losses, and the first moments, which are sums of gradients."""
    assert actual.keys() == expected.keys()
    terms = [name for name in expected if name.startswith("terms/")]
    assert len(terms) > 20
    for name in terms:
        assert error(actual[name], expected[name]) < LIMIT, name
    moments = [name for name in expected if "/mu/" in name]
    assert len(moments) > 200
    wrong = {name: error(actual[name], expected[name]) for name in moments}
    assert {name: value for name, value in wrong.items() if not value < LIMIT} == {}
    assert actual["state/step"] == 2


@pytest.mark.parametrize("mesh", [{"data": 8}, {"data": 2, "fsdp": 4}], ids=str)
def test_eight_devices(
    tmp_path: Path, one_device: dict[str, np.ndarray], mesh: dict[str, int]
) -> None:
    result = run(tmp_path / "mesh.npz", devices=8, mesh=mesh)
    assert (result.pop("split") > 60) == ("fsdp" in mesh)
    check_same(result | {"split": 0}, one_device)


def test_accumulation(tmp_path: Path, one_device: dict[str, np.ndarray]) -> None:
    """Four micro-batches of two: means of means of equal sizes are the mean."""
    result = run(tmp_path / "micro.npz", devices=1, mesh={"data": 1}, accumulate=4)
    check_same(result, one_device)


def test_two_processes(tmp_path: Path, one_device: dict[str, np.ndarray]) -> None:
    """Two processes of two devices each, with half of the batch."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{probe.getsockname()[1]}"
    output = tmp_path / "processes.npz"
    options = {"devices": 2, "mesh": {"data": 2, "fsdp": 2}, "processes": 2}
    processes = [
        start(output, **options, process=index, coordinator=coordinator) for index in range(2)
    ]
    for process in processes:
        finish(process)
    with np.load(output) as file:
        result = dict(file)
    result["split"] = one_device["split"]
    check_same(result, one_device)


@pytest.mark.parametrize("mesh", [{"data": 2, "fsdp": 4}, {"data": 8}], ids=str)
def test_restore_onto_another_mesh(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    one_device: dict[str, np.ndarray],
    mesh: dict[str, int],
) -> None:
    """A checkpoint of one device, bit for bit, on eight."""
    saved = str(tmp_path_factory.getbasetemp() / SAVED)
    result = run(tmp_path / "restored.npz", devices=8, mesh=mesh, restore=saved)
    assert (result.pop("split") > 60) == ("fsdp" in mesh)
    names = {name for name in one_device if name.startswith("state/")}
    assert result.keys() == names
    for name in names:
        np.testing.assert_array_equal(result[name], one_device[name])
