"""Where arrays live on a mesh of devices: one function makes the mesh, ordered rules place leaves.

The mesh has three axes. ``data`` and ``fsdp`` both split the batch; ``fsdp`` also splits large
parameters and their optimiser state, which are gathered layer by layer when needed. ``tensor`` is
for models whose rules name it; the codec's do not.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from dualcodec_jax.errors import ConfigError

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")

REPLICATED, SPLIT = "replicated", "split"
RULES: tuple[tuple[str, str], ...] = (
    # A search reads the whole codebook.
    (r"(^|/)codebook$", REPLICATED),
    (r"(^|/)(weight_v|kernel)$", SPLIT),
    (r"", REPLICATED),
)
"""(pattern, placement) of a leaf's path; the first pattern that is found decides."""

MIN_SPLIT_SIZE = 2**14
"""Leaves with fewer elements are replicated: gathering them would cost more than it saves."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Devices along each axis; −1 (at most once) takes all that remain."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


def make_mesh(config: MeshConfig | None = None, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh over ``devices`` (default: all, of all processes).

    Raises:
        ConfigError: if the axes do not use exactly the devices that there are.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = list(dataclasses.astuple(config or MeshConfig()))
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise ConfigError(f"mesh axes must be positive, at most one of them -1; got {sizes}")
    if -1 in sizes:
        known = -math.prod(sizes)
        sizes[sizes.index(-1)] = len(devices) // known
    if math.prod(sizes) != len(devices):
        shape = ", ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))
        raise ConfigError(f"the mesh {shape} does not fit {len(devices)} devices")
    # Explicit axes, the default, refuse gradients of convolutions.
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The leading axis of a batch, split over ``data`` and ``fsdp``."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def shards(mesh: Mesh) -> int:
    """Parts that a batch is split into."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def tree_shardings(tree: Any, mesh: Mesh) -> Any:
    """The sharding of every leaf of ``tree`` (arrays or shapes), by :data:`RULES`."""

    def sharding(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return NamedSharding(mesh, partition(name, tuple(leaf.shape), mesh))

    return jax.tree_util.tree_map_with_path(sharding, tree)


def partition(name: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """How the leaf at path ``name`` is split: its largest divisible axis over ``fsdp``, or not."""
    placement = next(what for pattern, what in RULES if re.search(pattern, name))
    parts = mesh.shape["fsdp"]
    divisible = [axis for axis, size in enumerate(shape) if size % parts == 0 and size >= parts]
    if placement == REPLICATED or math.prod(shape) < MIN_SPLIT_SIZE or parts == 1 or not divisible:
        return PartitionSpec()
    widest = max(divisible, key=lambda axis: (shape[axis], axis))
    return PartitionSpec(*("fsdp" if axis == widest else None for axis in range(widest + 1)))


def place(tree: Any, mesh: Mesh) -> Any:
    """``tree`` on the mesh, by :data:`RULES`. Every process must hold the same values."""
    return jax.device_put(tree, tree_shardings(tree, mesh))


def global_batch(local: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """One array over all processes from the items ``[B_local, …]`` that each of them read."""
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, value)
        for name, value in local.items()
    }
