"""Training checkpoints: round trips, retention, damage, kills, other meshes."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("orbax.checkpoint")

import jax
import jax.numpy as jnp

from dualcodec_jax.checkpoint import CheckpointError, Checkpoints
from dualcodec_jax.errors import WeightsError
from dualcodec_jax.sharding import make_mesh, tree_shardings

CONFIG = {"model": "tiny", "lr": 1e-4}


def state(value: float = 0.0) -> dict[str, Any]:
    return {
        "kernel": jnp.full((64, 8), float(value)) + jnp.arange(8),
        "step": jnp.asarray(int(value), jnp.int32),
        "nested": {"bias": jnp.full((8,), -float(value))},
    }


def target(tree: Any) -> Any:
    shardings = tree_shardings(tree, make_mesh())
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
        shardings,
    )


def save(folder: Path, steps: list[int], **options: Any) -> None:
    with Checkpoints(folder, **options) as checkpoints:
        for step in steps:
            checkpoints.save(step, state(step), {"position": step}, CONFIG)


def restored(folder: Path, step: int | None = None) -> Any:
    with Checkpoints(folder) as checkpoints:
        return checkpoints.restore(target(state()), step)


def test_round_trip(tmp_path: Path) -> None:
    save(tmp_path, [7])
    result = restored(tmp_path)
    assert result.step == 7
    assert result.data_states == [{"position": 7}]
    assert result.config == CONFIG
    for a, b in zip(jax.tree.leaves(result.state), jax.tree.leaves(state(7)), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_nothing_saved(tmp_path: Path) -> None:
    assert restored(tmp_path) is None
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.config() is None
        assert checkpoints.steps() == []


def test_retention(tmp_path: Path) -> None:
    with Checkpoints(tmp_path, keep_last=2, keep_every=10) as checkpoints:
        for step in (5, 10, 15, 20, 25, 30, 31):
            checkpoints.save(step, state(step), None, CONFIG)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [10, 20, 30, 31]
    names = {path.stem for path in (tmp_path / "checksums").glob("*.json")}
    assert names == {"00000010", "00000020", "00000030", "00000031"}


def test_saving_a_step_twice_keeps_the_first(tmp_path: Path) -> None:
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, state(3), None, CONFIG)
        checkpoints.save(3, state(4), None, CONFIG)
    assert int(restored(tmp_path).state["step"]) == 3


def largest_file(folder: Path) -> Path:
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def delete(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [flip_a_byte, truncate, delete])
@pytest.mark.parametrize("which", ["array", "meta"])
def test_a_damaged_checkpoint_falls_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Any, which: str
) -> None:
    save(tmp_path, [1, 2], keep_last=2)
    folder = tmp_path / "00000002"
    damage(largest_file(folder) if which == "array" else folder / "meta" / "metadata")
    with caplog.at_level(logging.WARNING):
        result = restored(tmp_path)
    assert result.step == 1
    assert "checkpoint 2 is damaged" in caplog.text
    assert "has changed" in caplog.text


def test_all_damaged(tmp_path: Path) -> None:
    save(tmp_path, [1, 2], keep_last=2)
    for step in ("00000001", "00000002"):
        truncate(largest_file(tmp_path / step))
    with pytest.raises(CheckpointError, match=r"none of the checkpoints \[1, 2\] can be read"):
        restored(tmp_path)


def test_a_checkpoint_without_checksums_counts(tmp_path: Path) -> None:
    """As left by a process that was killed right after the save."""
    save(tmp_path, [1])
    (tmp_path / "checksums" / "00000001.json").unlink()
    assert restored(tmp_path).step == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tree: tree | {"more": jnp.zeros(3)}, "missing more"),
        (lambda tree: {"step": tree["step"], "nested": tree["nested"]}, "unexpected kernel"),
        (lambda tree: tree | {"kernel": jnp.zeros((64, 9))}, r"kernel is float32 \[64, 8\]"),
        (lambda tree: tree | {"step": jnp.zeros((), jnp.float32)}, "step is int32"),
    ],
)
def test_another_tree_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    save(tmp_path, [1])
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(WeightsError, match=message):
        checkpoints.restore(target(change(state())))


def test_another_format_version_is_refused(tmp_path: Path) -> None:
    save(tmp_path, [1])
    meta = tmp_path / "00000001" / "meta" / "metadata"
    values = json.loads(meta.read_text())
    meta.write_text(json.dumps(values | {"format_version": 99}))
    (tmp_path / "checksums" / "00000001.json").unlink()
    with pytest.raises(CheckpointError, match="format version 99"):
        restored(tmp_path)


KILLED = """
import sys, jax.numpy as jnp
sys.path.insert(0, sys.argv[2])
from test_checkpoint import CONFIG, Checkpoints, state
with Checkpoints(sys.argv[1], keep_last=3) as checkpoints:
    for step in range(1, 10_000):
        checkpoints.save(step, state(step), {"position": step}, CONFIG)
        print(step, flush=True)
"""


def test_kill_at_random_moments(tmp_path: Path) -> None:
    """Whatever is left can be restored, and is what was saved under its step."""
    rng = np.random.default_rng(0)
    newest = 0
    for _ in range(4):
        command = [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent)]
        environment = os.environ | {"JAX_PLATFORMS": "cpu"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
            assert process.stdout is not None
            for _ in range(2):
                process.stdout.readline()
            time.sleep(rng.uniform(0, 0.3))
            process.send_signal(signal.SIGKILL)
        result = restored(tmp_path)
        assert result is not None
        assert int(result.state["step"]) == result.step
        assert result.data_states == [{"position": result.step}]
        np.testing.assert_array_equal(result.state["kernel"], state(result.step)["kernel"])
        newest = max(newest, result.step)
    assert newest >= 2
