"""Codebooks that follow the data: a moving mean of what each row stands for, and a new place for
rows that nothing is assigned to.

Upstream moves codebooks by gradient alone, which takes hundreds of thousands of steps; this is for
training that is shorter than that. Off by default. Sources: van den Oord et al., "Neural Discrete
Representation Learning" (2017), appendix A.1, for the moving mean; Dhariwal et al., "Jukebox"
(2020), section 3, for the restarts.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from dualcodec_jax.config import DualCodecConfig
from dualcodec_jax.train.config import CodebookConfig

Path = tuple[str, ...]
Params = dict


@struct.dataclass
class Assignment:
    """What the quantizers that were run made of a batch.

    Attributes:
        codes: int32 ``[B, n, T]``.
        latents: float32 ``[B, n, T, d]``, what was quantized.
    """

    codes: Array
    latents: Array


def update_codebooks(
    config: CodebookConfig,
    codec: DualCodecConfig,
    params: Params,
    assignment: Assignment,
    frequency: Array,
    key: Array,
) -> tuple[Params, Array]:
    """Move the rows of every codebook that was run.

    Args:
        config: static.
        codec: static.
        params: of the generator.
        assignment: of the batch.
        frequency: float32 ``[n_quantizers, codebook_size]``, how often each code is used.
        key: for drawing new places.

    Returns:
        Parameters and frequencies; a row that got a new place counts as used averagely.
    """
    for index in range(assignment.codes.shape[1]):
        path = _path(codec, index)
        rows = _get(params, path)
        codes = assignment.codes[:, index].reshape(-1)
        latents = assignment.latents[:, index].reshape(codes.shape[0], -1)
        moved = _move(rows, codes, latents, config.rate)
        size = rows.shape[0]
        dead = frequency[index, :size] < config.restart / size
        drawn = jax.random.randint(jax.random.fold_in(key, index), (size,), 0, codes.shape[0])
        moved = jnp.where(dead[:, None], latents[drawn], moved)
        used = jnp.where(dead, 1 / size, frequency[index, :size])
        frequency = frequency.at[index, :size].set(used)
        params = _replaced(params, path, moved.astype(rows.dtype))
    return params, frequency


def _move(rows: Array, codes: Array, latents: Array, rate: float) -> Array:
    """Rows go towards the mean of their ``latents [M, d]`` by 1 − (1 − rate)^(number of these)."""
    counts = jnp.zeros(rows.shape[0], rows.dtype).at[codes].add(1)
    sums = jnp.zeros(rows.shape, rows.dtype).at[codes].add(latents)
    means = sums / jnp.maximum(counts, 1)[:, None]
    return rows + (1 - (1 - rate) ** counts)[:, None] * (means - rows)


def _path(codec: DualCodecConfig, index: int) -> Path:
    """Of the codebook of row ``index`` of the codes."""
    if not codec.is_dual:
        return ("dac", "quantizer", f"quantizer_{index}", "codebook")
    if index == 0:
        return ("semantic_vq", "quantizer_0", "codebook")
    return ("dac", "quantizer", f"quantizer_{index - 1}", "codebook")


def _get(tree: Params, path: Path) -> Array:
    for name in path:
        tree = tree[name]
    return tree  # type: ignore[return-value]


def _replaced(tree: Params, path: Path, value: Array) -> Params:
    name, *rest = path
    inner = _replaced(tree[name], tuple(rest), value) if rest else value
    return {**tree, name: inner}
