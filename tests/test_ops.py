"""Every kernel against its textbook form, in float64 numpy."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from dualcodec_jax.nn import ops

# Compiled whole: one compilation a test instead of one an operation.
sin_squared = jax.jit(ops.sin_squared)
sin_double = jax.jit(ops.sin_double)
snake = jax.jit(ops.snake)
layer_norm = jax.jit(ops.layer_norm, static_argnames="eps")
argmin_last = jax.jit(ops.argmin_last)
nearest_codes = jax.jit(ops.nearest_codes)
weight_norm = jax.jit(ops.weight_norm)
matmul = jax.jit(ops.matmul, static_argnames="dtype")
relative_position_scores = jax.jit(
    ops.relative_position_scores, static_argnames=("left", "right", "num_keys")
)

# float32 sums of a few hundred products of order one: some 10 ulp of the largest.
FLOAT32 = 2e-6
FLOAT64 = 1e-13


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).standard_normal(shape)


def assert_close(actual: Any, expected: np.ndarray, limit: float = FLOAT32) -> None:
    """Within ``limit`` of the greatest expected magnitude."""
    assert actual.shape == expected.shape
    error = np.max(np.abs(np.asarray(actual, np.float64) - expected))
    assert error <= limit * np.max(np.abs(expected)), error


def test_sin_squared_is_accurate_far_from_zero() -> None:
    """The bound that its docstring states, at the exact values of the float32 arguments."""
    rng = np.random.default_rng(0)
    spread = rng.uniform(-1e4, 1e4, 200_000)
    near_zeros = np.arange(-3183, 3184) * np.pi  # Where range reduction cancels most.
    for values in (spread, near_zeros, near_zeros + np.pi / 2, rng.uniform(-7, 7, 50_000)):
        x = values.astype(np.float32)
        error = np.abs(np.asarray(sin_squared(x)) - np.sin(x.astype(np.float64)) ** 2)
        assert error.max() < 5e-7


def test_sin_squared_is_exactly_zero_at_zero_and_never_leaves_its_range() -> None:
    x = np.random.default_rng(1).uniform(-1e4, 1e4, 200_000).astype(np.float32)
    y = np.asarray(sin_squared(x))
    assert y.min() >= 0
    assert y.max() <= 1 + 5e-7
    assert sin_squared(jnp.zeros(3)).tolist() == [0, 0, 0]


def test_sin_double_is_accurate_far_from_zero() -> None:
    rng = np.random.default_rng(0)
    zeros = np.arange(-6366, 6367) * np.pi / 2
    for values in (rng.uniform(-1e4, 1e4, 200_000), zeros, rng.uniform(-7, 7, 50_000)):
        x = values.astype(np.float32)
        error = np.abs(np.asarray(sin_double(x)) - np.sin(2 * x.astype(np.float64)))
        assert error.max() < 1.5e-6
    assert sin_double(jnp.zeros(3)).tolist() == [0, 0, 0]


def test_sin_squared_of_float64_is_not_the_polynomial() -> None:
    x = normal(1000) * 10
    with jax.enable_x64(True):
        y = sin_squared(x)
        assert y.dtype == jnp.float64
        assert np.max(np.abs(y - np.sin(x) ** 2)) < 1e-15
        assert np.max(np.abs(sin_double(x) - np.sin(2 * x))) < 1e-15


def snake_and_slopes(x: np.ndarray, alpha: np.ndarray) -> tuple[np.ndarray, ...]:
    """x + sin²(alpha x) / (alpha + 1e-9) and its derivatives with respect to x and alpha."""
    scale = 1 / (alpha + 1e-9)
    double = np.sin(2 * alpha * x)
    value = x + np.sin(alpha * x) ** 2 * scale
    by_x = 1 + double * alpha * scale
    by_alpha = x * double * scale - np.sin(alpha * x) ** 2 * scale**2
    return value, by_x, by_alpha


def test_snake_and_its_gradients() -> None:
    x = normal(2, 50, 6).astype(np.float32)
    alpha = np.array([1, 0.01, 0.3, 3, 5, -0.5], np.float32)
    expected = snake_and_slopes(x.astype(np.float64), alpha.astype(np.float64))
    assert_close(snake(x, alpha), expected[0], 5e-7)
    gradient = jax.jit(jax.grad(lambda *a: jnp.sum(ops.snake(*a)), argnums=(0, 1)))
    # Every sample as a channel of its own, to see each derivative.
    each = np.broadcast_to(alpha, x.shape).reshape(-1)
    by_x, by_alpha = (y.reshape(x.shape) for y in gradient(x.reshape(1, 1, -1), each))
    # alpha · x reaches 20, where float32 rounds it by 1e-6; slopes see twice that.
    for channel in range(len(alpha)):
        assert_close(by_x[..., channel], expected[1][..., channel], 3e-6)
        assert_close(by_alpha[..., channel], expected[2][..., channel], 3e-6)
    np.testing.assert_allclose(gradient(x, alpha)[1], expected[2].sum((0, 1)), rtol=1e-4)


def test_snake_gradients_are_those_of_its_plain_form() -> None:
    x, alpha = normal(1, 40, 3).astype(np.float32), np.array([0.5, 1, 2], np.float32)

    def plain(x: jax.Array, alpha: jax.Array) -> jax.Array:
        return x + jnp.sin(alpha * x) ** 2 / (alpha + 1e-9)

    upstream = normal(1, 40, 3, seed=1).astype(np.float32)
    actual = jax.vjp(snake, x, alpha)[1](upstream)
    expected = jax.vjp(plain, x, alpha)[1](upstream)
    for a, e in zip(actual, expected, strict=True):
        assert_close(a, np.asarray(e, np.float64), 5e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_add_bias_and_its_gradients(dtype: Any) -> None:
    x, slope = (jnp.asarray(normal(3, 50, 5, seed=seed), dtype) for seed in (0, 1))
    bias = normal(5).astype(np.float32)
    y, pullback = jax.vjp(jax.jit(ops.add_bias), x, bias)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, (x + bias).astype(dtype))
    to_x, to_bias = pullback(slope)
    np.testing.assert_array_equal(to_x, slope)
    assert to_bias.dtype == jnp.float32
    assert_close(to_bias, np.asarray(slope, np.float64).sum((0, 1)))


def test_channel_sum_of_any_rank() -> None:
    for shape in ((7,), (4, 7), (2, 3, 5, 7)):
        x = normal(*shape)
        assert_close(jax.jit(ops.channel_sum)(x.astype(np.float32)), x.reshape(-1, 7).sum(0))


def test_snake_computes_in_float32_and_returns_the_input_dtype() -> None:
    x = jnp.asarray(3 * normal(1, 64, 2), jnp.bfloat16)
    alpha = np.float32([0.7, 1.3])
    y = snake(x, alpha)
    assert y.dtype == jnp.bfloat16
    wide = snake(x.astype(jnp.float32), alpha)
    assert (y == wide.astype(jnp.bfloat16)).all()


def test_snake_of_alpha_zero_is_the_identity() -> None:
    """The 1e-9 is there for this; without it the result is NaN."""
    x = normal(1, 20, 2).astype(np.float32)
    np.testing.assert_array_equal(snake(x, np.zeros(2, np.float32)), x)


def test_snake_in_float64() -> None:
    x, alpha = normal(1, 50, 2), np.array([0.3, 5.0])
    with jax.enable_x64(True):
        y = snake(x, alpha)
        assert_close(y, snake_and_slopes(x, alpha)[0], 1e-15)


@pytest.mark.parametrize("size", [1, 64, 128, 129, 200, 256, 300, 1024, 16384])
def test_argmin_last_is_argmin(size: int) -> None:
    x = normal(5, 3, size).astype(np.float32)
    y = argmin_last(x)
    assert y.dtype == jnp.int32
    np.testing.assert_array_equal(y, np.argmin(x, axis=-1))


@pytest.mark.parametrize("size", [100, 128, 256, 384, 1024])
def test_argmin_last_takes_the_first_of_equal_minima(size: int) -> None:
    """Values from a set of three, so that nearly every row has ties, in and across blocks."""
    x = np.random.default_rng(size).integers(0, 3, (200, size)).astype(np.float32)
    x[0] = 7
    x[1, :] = 1
    x[1, [size // 2, size - 1]] = 0
    np.testing.assert_array_equal(argmin_last(x), np.argmin(x, axis=-1))


def test_nearest_codes_maximise_the_cosine() -> None:
    latents, codebook = normal(4, 25, 8), normal(512, 8, seed=1)
    unit = [v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (latents, codebook)]
    cosines = unit[0] @ unit[1].T
    runner_up = np.sort(cosines, axis=-1)[..., -2:]
    assert np.diff(runner_up).min() > 1e-6  # float32 can tell them apart
    y = nearest_codes(np.float32(latents), np.float32(codebook))
    assert y.dtype == jnp.int32
    np.testing.assert_array_equal(y, np.argmax(cosines, axis=-1))


def test_nearest_codes_ignore_magnitudes() -> None:
    """Powers of two scale without rounding; a Euclidean search would choose otherwise."""
    latents, codebook = normal(50, 8).astype(np.float32), normal(256, 8, seed=1)
    expected = nearest_codes(latents, np.float32(codebook))
    factors = 2.0 ** np.random.default_rng(0).integers(-8, 9, (256, 1))
    scaled = np.float32(codebook * factors)
    np.testing.assert_array_equal(nearest_codes(latents * 64, scaled), expected)


@pytest.mark.parametrize("copies", [2, 3])
def test_nearest_codes_take_the_first_of_equal_rows(copies: int) -> None:
    codebook = np.float32(np.tile(normal(128, 8), (copies, 1)))
    y = nearest_codes(codebook, codebook)
    np.testing.assert_array_equal(y, np.tile(np.arange(128), copies))


def test_l2_normalize_of_zero_is_zero() -> None:
    x = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
    np.testing.assert_allclose(ops.l2_normalize(x), [[0.6, 0.8], [0, 0]], rtol=1e-7)


def test_relative_position_scores_look_up_clipped_distances() -> None:
    left, right, num_keys = 5, 2, 12
    positions = np.array([0, 3, 7, 11, 15])  # Queries may lie past the keys: padded blocks.
    by_distance = normal(2, 3, len(positions), left + 1 + right).astype(np.float32)
    y = relative_position_scores(
        jnp.asarray(by_distance), jnp.asarray(positions), left=left, right=right, num_keys=num_keys
    )
    expected = np.empty((2, 3, len(positions), num_keys), np.float32)
    for row, position in enumerate(positions):
        for key in range(num_keys):
            distance = min(max(key - position, -left), right)
            expected[:, :, row, key] = by_distance[:, :, row, distance + left]
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize(
    ("v_shape", "g_shape"),
    [
        ((7, 3, 4), (1, 1, 4)),  # convolution: per output channel
        ((2, 3, 5, 4), (1, 3, 1, 1)),  # transposed: per input channel
        ((3, 1, 2, 4), (1, 1, 1, 4)),  # two-dimensional
        ((7, 3, 1), (1, 1, 1)),  # a single output channel
    ],
)
def test_weight_norm_scales_every_slice_to_its_gain(
    v_shape: tuple[int, ...], g_shape: tuple[int, ...]
) -> None:
    v, g = normal(*v_shape), normal(*g_shape, seed=1)
    axes = tuple(axis for axis, size in enumerate(g_shape) if size == 1)
    expected = g * v / np.sqrt(np.sum(v**2, axis=axes, keepdims=True))
    w = weight_norm(np.float32(v), np.float32(g))
    assert_close(w, expected, 1e-6)
    norms = np.sqrt(np.sum(np.square(np.asarray(w, np.float64)), axis=axes, keepdims=True))
    np.testing.assert_allclose(norms, np.abs(g), rtol=1e-6)
    with jax.enable_x64(True):
        assert_close(weight_norm(v, g), expected, FLOAT64)


@pytest.mark.parametrize("trailing", [(), (3,), (2, 2)])
def test_mask_time_zeroes_even_nan_past_the_length(trailing: tuple[int, ...]) -> None:
    x = normal(3, 5, *trailing).astype(np.float32)
    expected = x.copy()
    for item, length in enumerate((0, 2, 5)):
        x[item, length:] = np.nan
        expected[item, length:] = 0
    np.testing.assert_array_equal(ops.mask_time(x, jnp.array([0, 2, 5])), expected)


def test_mask_time_without_lengths_is_the_identity() -> None:
    x = jnp.ones((2, 3))
    assert ops.mask_time(x, None) is x


def test_mask_time_keeps_integers_integers() -> None:
    y = ops.mask_time(jnp.full((1, 3), 7), jnp.array([1]))
    assert y.dtype == jnp.int32
    assert y.tolist() == [[7, 0, 0]]


@pytest.mark.parametrize("offset", [0, 1000])
def test_layer_norm_with_and_without_a_large_mean(offset: float) -> None:
    x = (normal(2, 5, 64) + offset).astype(np.float32)
    scale, bias = normal(64, seed=1).astype(np.float32), normal(64, seed=2).astype(np.float32)
    wide = x.astype(np.float64)
    centred = wide - wide.mean(axis=-1, keepdims=True)
    expected = centred / np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + 1e-6) * scale + bias
    # The sum of 64 values near 1000 rounds by 0.004, the mean by 6e-5 and that times the scale.
    limit = 2e-6 if offset == 0 else 1e-4
    assert_close(layer_norm(x, scale, bias, eps=1e-6), expected, limit)
    with jax.enable_x64(True):
        y = layer_norm(wide, scale, bias, eps=1e-6)
        assert y.dtype == jnp.float64
        assert_close(y, expected, FLOAT64)


def test_layer_norm_uses_its_epsilon() -> None:
    x = 1e-3 * normal(1, 1, 64)
    centred = x - x.mean()
    for eps in (1e-5, 1e-6):
        expected = centred / np.sqrt(np.mean(centred**2) + eps)
        assert_close(
            layer_norm(np.float32(x), np.ones(64, np.float32), np.zeros(64, np.float32), eps=eps),
            expected,
        )


def test_layer_norm_of_bfloat16_is_float32() -> None:
    x = jnp.asarray(normal(1, 2, 32), jnp.bfloat16)
    y = layer_norm(x, jnp.ones(32), jnp.zeros(32), eps=1e-5)
    assert y.dtype == jnp.float32
    wide = layer_norm(x.astype(jnp.float32), jnp.ones(32), jnp.zeros(32), eps=1e-5)
    np.testing.assert_array_equal(y, wide)


def test_matmul_rounds_its_operands_and_not_its_result() -> None:
    x, kernel = normal(3, 5, 16).astype(np.float32), normal(16, 4).astype(np.float32)
    assert_close(matmul(x, kernel, jnp.float32), x.astype(np.float64) @ kernel)
    y = matmul(x, kernel, jnp.bfloat16)
    assert y.dtype == jnp.float32
    rounded = [np.asarray(jnp.asarray(v, jnp.bfloat16), np.float64) for v in (x, kernel)]
    assert_close(y, rounded[0] @ rounded[1])
    with jax.enable_x64(True):
        y = matmul(jnp.asarray(x, jnp.float64), kernel, jnp.float64)
        assert_close(y, x.astype(np.float64) @ kernel, FLOAT64)


def test_gelu_is_not_the_tanh_approximation() -> None:
    x = np.linspace(-5, 5, 101)
    expected = x / 2 * (1 + erf(x / np.sqrt(2)))
    # The approximation is off by up to 5e-4.
    assert np.max(np.abs(np.asarray(ops.gelu_exact(np.float32(x))) - expected)) < 1e-6
