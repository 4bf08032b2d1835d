"""Numerical kernels of the networks, in the forms that XLA runs fast.

Each is equal to the textbook form (``tests/test_ops.py`` holds that form beside it) up to
float32 rounding. Arrays are channels-last, ``[B, T, C]``. The compute dtype is chosen by
the caller: float32 runs at the highest matmul precision of the backend, so that codes do
not depend on TF32 or bfloat16 passes.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

HIGHEST = lax.Precision.HIGHEST


def mask_time(x: Array, lengths: Array | None) -> Array:
    """Zero the positions of ``x [B, T, ...]`` at and past ``lengths [B]``.

    Padded positions must be zero at the input of every convolution that is wider than
    one sample: that is what the zero padding of an unpadded utterance looks like.
    """
    if lengths is None:
        return x
    valid = jnp.arange(x.shape[1])[None, :] < lengths[:, None]
    return jnp.where(valid.reshape(valid.shape + (1,) * (x.ndim - 2)), x, 0)


def weight_norm(v: Array, g: Array) -> Array:
    """w = g · v / ‖v‖, the L2 norm over every axis on which ``g`` has size 1.

    Source: ``torch.nn.utils.weight_norm`` with dim 0 (no epsilon).
    """
    axes = tuple(axis for axis, size in enumerate(g.shape) if size == 1)
    return v * (g / jnp.sqrt(jnp.sum(v * v, axis=axes, keepdims=True)))


def matmul(x: Array, kernel: Array, dtype: jnp.dtype) -> Array:
    """``x [..., I] @ kernel [I, O]`` with operands in ``dtype`` and a float32 (or wider) result."""
    out = jnp.promote_types(dtype, jnp.float32)
    return jnp.matmul(
        x.astype(dtype), kernel.astype(dtype), precision=HIGHEST, preferred_element_type=out
    )


# π in three parts whose first two have few enough bits that q·π is exact for |q| < 2^15.
_PI_PARTS = (3.140625, 0.0009670257568359375, 6.2771141529083251953e-07)


def _fit_sin_squared(degree: int = 6) -> tuple[float, ...]:
    """Coefficients of P with sin²(r) ≈ r²·P(r²) on [−π/2, π/2], lowest order first."""
    limit = (np.pi / 2) ** 2
    nodes = limit / 2 * (1 + np.cos(np.pi * (np.arange(64) + 0.5) / 64))
    fit = np.polynomial.Chebyshev.fit(nodes, np.sin(np.sqrt(nodes)) ** 2 / nodes, degree)
    return tuple(float(c) for c in fit.convert(kind=np.polynomial.Polynomial).coef)


_SIN_SQUARED = _fit_sin_squared()


def sin_squared(x: Array) -> Array:
    """sin²(x), by a polynomial on one period in float32; 26 times as fast as ``jnp.sin`` on CPU.

    Absolute error below 5e-7 for |x| < 1e4. Other dtypes wider than float32 use ``jnp.sin``.
    """
    if x.dtype != jnp.float32:
        return jnp.square(jnp.sin(x))
    periods = jnp.round(x * np.float32(1 / np.pi))
    reduced = x
    for part in _PI_PARTS:
        reduced = reduced - periods * np.float32(part)
    square = reduced * reduced
    result = jnp.full_like(square, _SIN_SQUARED[-1])
    for coefficient in _SIN_SQUARED[-2::-1]:
        result = result * square + np.float32(coefficient)
    return result * square


def snake(x: Array, alpha: Array) -> Array:
    """x + sin²(αx) / (α + 1e-9) for ``x [B, T, C]`` and ``alpha [C]``; float32 inside.

    Source: upstream ``dac_layers.snake``.
    """
    return _snake(x.astype(jnp.promote_types(x.dtype, jnp.float32)), alpha).astype(x.dtype)


def _snake_plain(x: Array, alpha: Array) -> Array:
    return x + sin_squared(alpha * x) * (1 / (alpha + 1e-9))


@jax.custom_vjp
def _snake(x: Array, alpha: Array) -> Array:
    return _snake_plain(x, alpha)


def _snake_backward(residuals: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
    """The derivative; on a CPU the slope of α is made whole before it is summed.

    XLA would compute it inside the sum, on one core and value by value, which takes ten times as
    long.
    """

    def whole(x: Array, alpha: Array, slope: Array) -> tuple[Array, Array]:
        wide, summed = jax.vjp(lambda alpha: jnp.broadcast_to(alpha, x.shape), alpha)
        _, pullback = jax.vjp(_snake_plain, x, wide)
        to_x, to_alpha = lax.optimization_barrier(pullback(slope))
        return to_x, summed(to_alpha)[0]

    def plain(x: Array, alpha: Array, slope: Array) -> tuple[Array, Array]:
        _, pullback = jax.vjp(_snake_plain, x, alpha)
        to_x, to_alpha = pullback(slope)
        return to_x, to_alpha

    return lax.platform_dependent(*residuals, slope, cpu=whole, default=plain)


_snake.defvjp(lambda x, alpha: (_snake_plain(x, alpha), (x, alpha)), _snake_backward)


def layer_norm(x: Array, scale: Array, bias: Array, *, eps: float) -> Array:
    """Layer normalisation over the last axis, in float32 or wider."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    return centred * lax.rsqrt(variance + eps) * scale + bias


def argmin_last(x: Array, block: int = 128) -> Array:
    """Index of the first minimum over the last axis, int32.

    Two levels: minima of blocks, then the position inside the winning block. XLA reduces
    values much faster than (value, index) pairs.
    """
    size = x.shape[-1]
    if size % block or size <= block:
        return jnp.argmin(x, axis=-1).astype(jnp.int32)
    blocks = x.reshape(*x.shape[:-1], size // block, block)
    winner = jnp.argmin(jnp.min(blocks, axis=-1), axis=-1)
    row = jnp.take_along_axis(blocks, winner[..., None, None], axis=-2)[..., 0, :]
    return (winner * block + jnp.argmin(row, axis=-1)).astype(jnp.int32)


def nearest_codes(latents: Array, codebook: Array) -> Array:
    """Index of the codebook row with the greatest cosine similarity, first on ties.

    Always float32: in bfloat16 about 3 % of the codes would change.

    Args:
        latents: ``[..., d]``.
        codebook: ``[K, d]``.

    Returns:
        int32 ``[...]``.

    Source: upstream ``dac_quantize.VectorQuantize.decode_latents``, the same expression.
    """
    encodings = l2_normalize(latents)
    rows = l2_normalize(codebook)
    distances = (
        jnp.sum(jnp.square(encodings), axis=-1, keepdims=True)
        - jnp.matmul(2 * encodings, rows.T, precision=HIGHEST)
        + jnp.sum(jnp.square(rows), axis=-1)
    )
    return argmin_last(distances)


def l2_normalize(x: Array, eps: float = 1e-12) -> Array:
    """x / max(‖x‖, eps) over the last axis (``torch.nn.functional.normalize``)."""
    return x / jnp.maximum(jnp.sqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True)), eps)


def relative_position_scores(
    by_distance: Array, positions: Array, *, left: int, right: int, num_keys: int
) -> Array:
    """Spread per-distance scores over keys.

    out[q, r] = in[q, clip(r − positions[q], −left, right) + left].

    A gather of the projected distances; the ``[Q, S, d]`` tensor of embeddings never exists.
    (Measured on CPU: a skew by padding and reshaping takes ten times as long.)

    Args:
        by_distance: ``[..., Q, left + 1 + right]``, queries × clipped distances.
        positions: int ``[Q]``, time positions of the queries.
        left: greatest distance of an earlier key that has an embedding of its own.
        right: the same for later keys.
        num_keys: S.

    Returns:
        ``[..., Q, S]``.
    """
    distance = jnp.clip(jnp.arange(num_keys)[None, :] - positions[:, None], -left, right) + left
    index = distance.reshape((1,) * (by_distance.ndim - 2) + distance.shape)
    return jnp.take_along_axis(by_distance, index, axis=-1, mode="promise_in_bounds")


def gelu_exact(x: Array) -> Array:
    """Gaussian error linear unit with the error function, not the tanh approximation."""
    return jax.nn.gelu(x, approximate=False)
