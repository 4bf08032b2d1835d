"""Numerical kernels of the networks, in the forms that XLA runs fast.

Each is equal to the textbook form (``tests/test_ops.py`` holds that form beside it) up to
float32 rounding. Arrays are channels-last, ``[B, T, C]``. The compute dtype is chosen by
the caller: float32 runs at the highest matmul precision of the backend, so that codes do
not depend on TF32 or bfloat16 passes.
"""

from __future__ import annotations

from collections.abc import Callable

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


def _fit_even(function: Callable[[np.ndarray], np.ndarray], degree: int) -> tuple[float, ...]:
    """Coefficients of P with function(r) ≈ P(r²) on [−π/2, π/2], lowest order first."""
    limit = (np.pi / 2) ** 2
    nodes = limit / 2 * (1 + np.cos(np.pi * (np.arange(64) + 0.5) / 64))
    fit = np.polynomial.Chebyshev.fit(nodes, function(np.sqrt(nodes)), degree)
    return tuple(float(c) for c in fit.convert(kind=np.polynomial.Polynomial).coef)


_SIN_SQUARED = _fit_even(lambda r: np.sin(r) ** 2 / r**2, degree=6)
_SIN_DOUBLE = _fit_even(lambda r: np.sin(2 * r) / r, degree=6)


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    result = jnp.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        result = result * x + np.float32(coefficient)
    return result


def _within_period(x: Array) -> Array:
    """x less the nearest multiple of π, float32."""
    periods = jnp.round(x * np.float32(1 / np.pi))
    for part in _PI_PARTS:
        x = x - periods * np.float32(part)
    return x


def sin_squared(x: Array) -> Array:
    """sin²(x), by a polynomial on one period in float32; 26 times as fast as ``jnp.sin`` on CPU.

    Absolute error below 5e-7 for |x| < 1e4. Other dtypes wider than float32 use ``jnp.sin``.
    """
    if x.dtype != jnp.float32:
        return jnp.square(jnp.sin(x))
    square = jnp.square(_within_period(x))
    return _polynomial(_SIN_SQUARED, square) * square


def sin_double(x: Array) -> Array:
    """sin(2x), the derivative of :func:`sin_squared`, likewise; absolute error below 1.5e-6."""
    if x.dtype != jnp.float32:
        return jnp.sin(2 * x)
    reduced = _within_period(x)
    return _polynomial(_SIN_DOUBLE, jnp.square(reduced)) * reduced


def snake(x: Array, alpha: Array) -> Array:
    """x + sin²(αx) / (α + 1e-9) for ``x [B, T, C]`` and ``alpha [C]``; float32 inside.

    Source: upstream ``dac_layers.snake``.
    """
    return _snake(x.astype(jnp.promote_types(x.dtype, jnp.float32)), alpha).astype(x.dtype)


@jax.custom_vjp
def _snake(x: Array, alpha: Array) -> Array:
    return x + sin_squared(alpha * x) * (1 / (alpha + 1e-9))


def _snake_forward(x: Array, alpha: Array) -> tuple[Array, tuple[Array, Array]]:
    return _snake(x, alpha), (x, alpha)


def _snake_backward(residuals: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
    x, alpha = residuals
    inverse = 1 / (alpha + 1e-9)
    double = sin_double(alpha * x)
    to_x = slope * (1 + double * (alpha * inverse))
    to_alpha = slope * inverse * (x * double - sin_squared(alpha * x) * inverse)
    return to_x, channel_sum(to_alpha)


_snake.defvjp(_snake_forward, _snake_backward)


@jax.custom_vjp
def add_bias(x: Array, bias: Array) -> Array:
    """``x [..., C] + bias [C]`` in the dtype of ``x``; the gradient of ``bias`` in its own."""
    return (x + bias).astype(x.dtype)


def _add_bias_backward(bias: Array, slope: Array) -> tuple[Array, Array]:
    return slope, channel_sum(slope.astype(bias.dtype))


add_bias.defvjp(lambda x, bias: (add_bias(x, bias), bias), _add_bias_backward)


def channel_sum(x: Array) -> Array:
    """Sum of ``x [..., C]`` over all axes but the last, ``[C]``.

    On a CPU as a product with ones: XLA would compute ``x`` inside the sum, value by value, which
    takes ten times as long (``benchmarks/conv_gradients.py``).
    """

    def product(x: Array) -> Array:
        rows = lax.optimization_barrier(x).reshape(-1, x.shape[-1])
        return jnp.matmul(jnp.ones((rows.shape[0],), x.dtype), rows, precision=HIGHEST)

    def plain(x: Array) -> Array:
        return jnp.sum(x, axis=tuple(range(x.ndim - 1)))

    return lax.platform_dependent(x, cpu=product, default=plain)


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
