"""Convolutions against the textbook's, and their gradients against those that JAX derives."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dualcodec_jax.nn import conv

# Compiled whole: one compilation a test instead of one an operation.
conv1d = jax.jit(conv.conv1d, static_argnames=("stride", "dilation", "padding"))
conv_transpose1d = jax.jit(conv.conv_transpose1d, static_argnames="padding")
depthwise_conv1d = jax.jit(conv.depthwise_conv1d, static_argnames="padding")
conv2d = jax.jit(conv.conv2d, static_argnames="stride")

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


def textbook_conv1d(
    x: np.ndarray, kernel: np.ndarray, stride: int, dilation: int, padding: tuple[int, int]
) -> np.ndarray:
    """Cross-correlation of ``x [B, T, I]`` and ``kernel [k, I, O]``, tap by tap."""
    x = np.pad(x, ((0, 0), padding, (0, 0)))
    span = (kernel.shape[0] - 1) * dilation
    starts = range(0, x.shape[1] - span, stride)
    windows = np.stack([x[:, s : s + span + 1 : dilation] for s in starts], axis=1)
    return np.einsum("btki,kio->bto", windows, kernel)


def textbook_conv_transpose1d(
    x: np.ndarray, weight: np.ndarray, stride: int, padding: int
) -> np.ndarray:
    """Zeros inserted between the samples of ``x [B, T, I]``; torch's ``weight [I, O, k]``."""
    batch, length, inputs = x.shape
    taps = weight.shape[2]
    spread = np.zeros((batch, (length - 1) * stride + 1, inputs))
    spread[:, ::stride] = x
    kernel = weight[:, :, ::-1].transpose(2, 0, 1)
    return textbook_conv1d(spread, kernel, 1, 1, (taps - 1 - padding,) * 2)


def polyphase(weight: np.ndarray, stride: int) -> np.ndarray:
    """Torch's ``[I, O, 2s]`` as ``[2, I, s, O]``, the later taps first."""
    late, early = weight[:, :, stride:], weight[:, :, :stride]
    return np.stack([late, early]).transpose(0, 1, 3, 2)


@pytest.mark.parametrize(
    ("taps", "stride", "dilation", "padding"),
    [
        (7, 1, 1, (3, 3)),
        (7, 1, 9, (27, 27)),
        (10, 5, 1, (3, 3)),
        (4, 2, 1, (1, 1)),
        (3, 1, 1, (2, 0)),
    ],
)
def test_conv1d_is_the_textbook_sum(
    taps: int, stride: int, dilation: int, padding: tuple[int, int]
) -> None:
    x, kernel = normal(2, 30, 3), normal(taps, 3, 4)
    expected = textbook_conv1d(x, kernel, stride, dilation, padding)
    options: Any = {"stride": stride, "dilation": dilation, "padding": padding}
    assert_close(conv1d(np.float32(x), np.float32(kernel), **options), expected)
    with jax.enable_x64(True):
        assert_close(conv1d(x, kernel, **options), expected, FLOAT64)


@pytest.mark.parametrize("stride", [2, 4, 5, 6, 8])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 7, 3, 5)])
def test_conv_transpose1d_is_the_one_with_inserted_zeros(
    stride: int, shape: tuple[int, int, int, int]
) -> None:
    batch, length, inputs, outputs = shape
    x, weight = normal(batch, length, inputs), normal(inputs, outputs, 2 * stride)
    padding = -(-stride // 2)
    expected = textbook_conv_transpose1d(x, weight, stride, padding)
    assert expected.shape == (batch, length * stride - stride % 2, outputs)
    kernel = polyphase(weight, stride)
    with jax.enable_x64(True):
        y = conv_transpose1d(x, kernel, padding=padding)
        assert_close(y, expected, FLOAT64)
    y = conv_transpose1d(np.float32(x), np.float32(kernel), padding=padding)
    assert y.dtype == jnp.float32
    assert_close(y, expected)


@pytest.mark.parametrize("padding", [0, 1, 4])
def test_conv_transpose1d_crops_by_its_padding(padding: int) -> None:
    x, weight = normal(1, 5, 2), normal(2, 3, 8)
    expected = textbook_conv_transpose1d(x, weight, 4, padding)
    y = conv_transpose1d(np.float32(x), np.float32(polyphase(weight, 4)), padding=padding)
    assert_close(y, expected)


@pytest.mark.parametrize("padding", [(6, 0), (3, 3), (0, 0)])
def test_depthwise_conv1d_convolves_each_channel_alone(padding: tuple[int, int]) -> None:
    x, kernel = normal(2, 11, 4), normal(7, 4)
    expected = textbook_conv1d(x, kernel[:, :, None] * np.eye(4), 1, 1, padding)
    assert_close(depthwise_conv1d(np.float32(x), np.float32(kernel), padding=padding), expected)
    with jax.enable_x64(True):
        y = depthwise_conv1d(x, kernel, padding=padding)
        assert_close(y, expected, FLOAT64)


def test_depthwise_conv1d_shorter_than_its_kernel() -> None:
    x, kernel = normal(1, 2, 3), normal(7, 3)
    expected = textbook_conv1d(x, kernel[:, :, None] * np.eye(3), 1, 1, (6, 0))
    assert_close(depthwise_conv1d(np.float32(x), np.float32(kernel), padding=(6, 0)), expected)


def textbook_conv2d(x: np.ndarray, kernel: np.ndarray, stride: tuple[int, int]) -> np.ndarray:
    """Cross-correlation of ``x [B, H, W, I]`` and ``kernel [kh, kw, I, O]``, tap by tap."""
    height, width = kernel.shape[:2]
    x = np.pad(x, ((0, 0), (height // 2,) * 2, (width // 2,) * 2, (0, 0)))
    rows = range(0, x.shape[1] - height + 1, stride[0])
    columns = range(0, x.shape[2] - width + 1, stride[1])
    return np.stack(
        [
            np.stack(
                [np.einsum("bhwi,hwio->bo", x[:, r : r + height, c : c + width], kernel)
                 for c in columns],
                axis=1,
            )
            for r in rows
        ],
        axis=1,
    )  # fmt: skip


# Period discriminators: kernels of width 1. Spectral ones: strides along the width.
PLANES = [
    ((5, 1), (3, 1), 14, 3),
    ((5, 1), (3, 1), 15, 2),
    ((5, 1), (1, 1), 4, 3),
    ((3, 1), (1, 1), 5, 7),
    ((3, 9), (1, 1), 4, 11),
    ((3, 9), (1, 2), 4, 13),
    ((3, 9), (1, 2), 4, 12),
    ((3, 9), (1, 2), 2, 1),
    ((3, 9), (1, 3), 3, 20),
    ((3, 4), (1, 2), 3, 10),
    ((3, 3), (1, 1), 3, 5),
]


@pytest.mark.parametrize(("taps", "stride", "height", "width"), PLANES)
def test_conv2d_is_the_textbook_sum(
    taps: tuple[int, int], stride: tuple[int, int], height: int, width: int
) -> None:
    x, kernel = normal(2, height, width, 3), normal(*taps, 3, 4)
    expected = textbook_conv2d(x, kernel, stride)
    assert_close(conv2d(np.float32(x), np.float32(kernel), stride=stride), expected)
    with jax.enable_x64(True):
        assert_close(conv2d(x, kernel, stride=stride), expected, FLOAT64)


def pulled_back(function: Any, x: np.ndarray, kernel: np.ndarray) -> tuple[Any, Any]:
    """Gradients of a weighted sum of the output."""

    @jax.jit
    def gradients(x: jax.Array, kernel: jax.Array) -> Any:
        y, pull = jax.vjp(function, x, kernel)
        return pull(jnp.asarray(normal(*y.shape, seed=1), y.dtype))

    return gradients(x, kernel)


@pytest.mark.parametrize(("taps", "stride", "height", "width"), PLANES)
def test_conv2d_gradients(
    taps: tuple[int, int], stride: tuple[int, int], height: int, width: int
) -> None:
    x, kernel = normal(2, height, width, 3), normal(*taps, 3, 4)
    with jax.enable_x64(True):
        expected = pulled_back(lambda x, k: conv._conv2d_plain(x, k, stride), x, kernel)
        actual = pulled_back(lambda x, k: conv.conv2d(x, k, stride=stride), x, kernel)
        for ours, theirs in zip(actual, expected, strict=True):
            assert_close(ours, np.asarray(theirs), FLOAT64)


@pytest.mark.parametrize("stride", [2, 5])
@pytest.mark.parametrize("length", [1, 7])
def test_conv_transpose1d_gradients(stride: int, length: int) -> None:
    x, kernel = normal(2, length, 3), normal(2, 3, stride, 4)

    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        y = conv.conv1d(x, kernel.reshape(2, 3, -1), padding=(1, 1))
        return y.reshape(2, (length + 1) * stride, 4)[:, 1:-1]

    with jax.enable_x64(True):
        expected = pulled_back(plain, x, kernel)
        actual = pulled_back(lambda x, k: conv.conv_transpose1d(x, k, padding=1), x, kernel)
        for ours, theirs in zip(actual, expected, strict=True):
            assert_close(ours, np.asarray(theirs), FLOAT64)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gradients_have_the_dtype_of_their_argument(dtype: Any) -> None:
    """Kernels are float32 parameters also where the network computes in bfloat16."""
    kernel = jnp.ones((5, 1, 3, 4))
    for function, x, k in (
        (lambda x, k: conv.conv2d(x, k, stride=(3, 1)), jnp.ones((1, 9, 2, 3), dtype), kernel),
        (
            lambda x, k: conv.conv_transpose1d(x, k, padding=1),
            jnp.ones((1, 3, 3), dtype),
            jnp.ones((2, 3, 2, 4)),
        ),
    ):
        to_input, to_kernel = pulled_back(function, x, k)
        assert to_input.dtype == dtype
        assert to_kernel.dtype == jnp.float32
