"""A few training steps of the tiny model in a process of its own; used by test_train_sharding.

Virtual devices and ``jax.distributed`` are settings of a whole process. The result, losses and
all leaves of the state, goes to an npz file.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

OPTIONS = json.loads(sys.argv[1]) if __name__ == "__main__" else {}

if OPTIONS:
    # Optimising the code of so small a model takes longer than running it.
    os.environ["XLA_FLAGS"] = (
        f"--xla_force_host_platform_device_count={OPTIONS['devices']} "
        "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    )
    os.environ["JAX_PLATFORMS"] = "cpu"
    # In float32 the order of a sum, amplified by kinks, would hide a small fault.
    os.environ["JAX_ENABLE_X64"] = "true"

import dataclasses

import jax
import numpy as np
from micro import OBJECTIVE

import dualcodec_jax
from dualcodec_jax import sharding
from dualcodec_jax.checkpoint import Checkpoints
from dualcodec_jax.sharding import MeshConfig, global_batch, make_mesh, place
from dualcodec_jax.train.export import placed_shapes
from dualcodec_jax.train.state import new_state, state_shapes
from dualcodec_jax.train.step import jit_step

BATCH, SAMPLES, STEPS = 8, 4800, 2


def batches() -> list[dict[str, np.ndarray]]:
    """One global batch per step."""
    rng = np.random.default_rng(0)
    return [{"audio": 0.1 * rng.standard_normal((BATCH, SAMPLES))} for _ in range(STEPS)]


def doubled(tree: Any) -> Any:
    """A tree in float64."""
    return jax.tree.map(lambda x: x.astype(np.float64) if x.dtype == np.float32 else x, tree)


def run(mesh_config: MeshConfig, accumulate: int = 1, save: str | None = None) -> Any:
    """Train; the losses and the last state."""
    config = dataclasses.replace(OBJECTIVE, accumulate=accumulate)
    mesh = make_mesh(mesh_config)
    params, statistics = dualcodec_jax.random_semantic(config.model.semantic)
    frozen = place(doubled({"semantic": params, "statistics": statistics}), mesh)
    state = place(doubled(new_state(config)), mesh)
    step = jit_step(config, mesh, state)
    terms: dict[str, np.ndarray] = {}
    size = BATCH // jax.process_count()
    share = slice(jax.process_index() * size, (jax.process_index() + 1) * size)
    for index, batch in enumerate(batches()):
        local = {name: value[share] for name, value in batch.items()}
        state, values = step(state, frozen, global_batch(local, mesh), bypass=False)
        terms |= {f"terms/{index}/{name}": np.asarray(value) for name, value in values.items()}
    if save is not None:
        with Checkpoints(save) as checkpoints:
            checkpoints.save(STEPS, state, None, {})
    return terms | described(state)


def restored(mesh_config: MeshConfig, folder: str) -> dict[str, np.ndarray]:
    """The state saved in ``folder``, read onto a mesh."""
    state = jax.eval_shape(doubled, state_shapes(OBJECTIVE))
    target = placed_shapes(state, make_mesh(mesh_config))
    with Checkpoints(folder) as checkpoints:
        result = checkpoints.restore(target)
    assert result is not None
    return described(result.state)


def described(state: Any) -> dict[str, np.ndarray]:
    """All leaves by path, and how many of them are split."""
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    result = {
        f"state/{jax.tree_util.keystr(path, simple=True, separator='/')}": _whole(leaf)
        for path, leaf in leaves
    }
    return result | {"split": np.asarray(sum(not x.is_fully_replicated for _, x in leaves))}


def _whole(leaf: Any) -> np.ndarray:
    from jax.experimental import multihost_utils

    if jax.process_count() > 1:
        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
    return np.asarray(leaf)


if __name__ == "__main__":
    if "process" in OPTIONS:
        jax.distributed.initialize(OPTIONS["coordinator"], OPTIONS["processes"], OPTIONS["process"])
    sharding.MIN_SPLIT_SIZE = 64
    mesh = MeshConfig(**OPTIONS["mesh"])
    if "restore" in OPTIONS:
        values = restored(mesh, OPTIONS["restore"])
    else:
        values = run(mesh, OPTIONS.get("accumulate", 1), OPTIONS.get("save"))
    if jax.process_index() == 0:
        np.savez(OPTIONS["output"], **values)
