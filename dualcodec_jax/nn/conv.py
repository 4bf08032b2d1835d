"""Convolutions, channels-last, in the forms that XLA runs fast, forward and backward.

On a CPU the gradients that XLA derives for some shapes are up to a hundred times slower than the
convolution: those of the polyphase and of the period convolutions with respect to the kernel, and
those of strided ones with respect to the input. There the gradients are taken of an equal form, a
matrix product or a convolution without a stride. ``tests/test_conv.py`` compares the forms;
``benchmarks/conv_gradients.py`` times them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from dualcodec_jax.nn.ops import HIGHEST

Form = Callable[[Array, Array], Array]
"""A convolution as a function of input and kernel."""


def conv1d(
    x: Array, kernel: Array, *, stride: int = 1, dilation: int = 1, padding: tuple[int, int]
) -> Array:
    """Cross-correlation of ``x [B, T, I]`` with ``kernel [k, I, O]`` in the dtype of ``x``."""
    kernel = kernel.astype(x.dtype)
    if stride > 1 and dilation == 1:
        return _strided(x, kernel, stride, padding)
    return _conv1d_plain(x, kernel, stride=stride, dilation=dilation, padding=padding)


def conv_transpose1d(x: Array, kernel: Array, *, padding: int) -> Array:
    """Transposed convolution of kernel size 2s and stride s, in polyphase form.

    Output sample t = m·s + φ sees inputs m and m − 1 only, through taps φ and φ + s. So it
    is an ordinary convolution of two taps to s × O channels, reshaped and cropped: no
    multiplications by inserted zeros.

    Args:
        x: ``[B, T, I]``.
        kernel: ``[2, I, s, O]``; entry 0 holds taps s…2s−1 (for input m − 1), entry 1 taps 0…s−1.
        padding: samples cropped from each end, as in torch.

    Returns:
        ``[B, (T − 1)·s − 2·padding + 2s, O]``.
    """
    batch, length, inputs = x.shape
    _, _, stride, features = kernel.shape
    flat = kernel.reshape(2, inputs, stride * features).astype(x.dtype)
    y = _two_taps(x, flat).reshape(batch, (length + 1) * stride, features)
    return y[:, padding : y.shape[1] - padding]


def conv2d(x: Array, kernel: Array, *, stride: tuple[int, int] = (1, 1)) -> Array:
    """Cross-correlation of ``x [B, H, W, I]`` and ``kernel [kh, kw, I, O]``, in the dtype of ``x``.

    Zero-padded by half a kernel (of odd size) on every side.
    """
    return _conv2d(x, kernel.astype(x.dtype), stride)


def depthwise_conv1d(x: Array, kernel: Array, *, padding: tuple[int, int]) -> Array:
    """Depthwise cross-correlation of ``x [B, T, C]`` with ``kernel [k, C]``.

    Written as shifted multiply-adds: on CPU grouped convolutions are many times slower.
    """
    taps = kernel.shape[0]
    padded = jnp.pad(x, ((0, 0), padding, (0, 0)))
    length = padded.shape[1] - taps + 1
    return sum(
        (padded[:, tap : tap + length] * kernel[tap] for tap in range(1, taps)),
        start=padded[:, :length] * kernel[0],
    )


# Gradients ----------------------------------------------------------------------------------


def _gradients(
    x: Array, kernel: Array, slope: Array, *, plain: Form, for_input: Form, for_kernel: Form
) -> tuple[Array, Array]:
    """Those of ``plain``; on a CPU by way of two equal forms."""

    def of(for_input: Form, for_kernel: Form, x: Array, kernel: Array, slope: Array) -> Any:
        _, to_input = jax.vjp(lambda x: for_input(x, kernel), x)
        _, to_kernel = jax.vjp(lambda kernel: for_kernel(x, kernel), kernel)
        return to_input(slope)[0], to_kernel(slope)[0]

    return lax.platform_dependent(
        x,
        kernel,
        slope,
        cpu=functools.partial(of, for_input, for_kernel),
        default=functools.partial(of, plain, plain),
    )


def _conv1d_plain(
    x: Array, kernel: Array, *, stride: int = 1, dilation: int = 1, padding: tuple[int, int]
) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride,),
        padding=(padding,),
        rhs_dilation=(dilation,),
        dimension_numbers=("NWC", "WIO", "NWC"),
        precision=HIGHEST,
    )


def _blocks_product(x: Array, kernel: Array, stride: int, padding: tuple[int, int]) -> Array:
    """For strided kernels: blocks of s samples side by side, in one matrix product."""
    taps = -(-kernel.shape[0] // stride)
    outputs = (x.shape[1] + sum(padding) - kernel.shape[0]) // stride + 1
    covered = stride * (outputs - 1 + taps)
    right = max(covered - padding[0] - x.shape[1], 0)
    padded = jnp.pad(x, ((0, 0), (padding[0], right), (0, 0)))[:, :covered]
    blocks = padded.reshape(x.shape[0], outputs - 1 + taps, -1)
    windows = [blocks[:, tap : tap + outputs] for tap in range(taps)]
    wide = jnp.pad(kernel, ((0, stride * taps - kernel.shape[0]), (0, 0), (0, 0)))
    flat = wide.reshape(-1, kernel.shape[-1])
    return jnp.matmul(jnp.concatenate(windows, axis=-1), flat, precision=HIGHEST)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _strided(x: Array, kernel: Array, stride: int, padding: tuple[int, int]) -> Array:
    return _conv1d_plain(x, kernel, stride=stride, padding=padding)


def _strided_forward(
    x: Array, kernel: Array, stride: int, padding: tuple[int, int]
) -> tuple[Array, tuple[Array, Array]]:
    return _conv1d_plain(x, kernel, stride=stride, padding=padding), (x, kernel)


def _strided_backward(
    stride: int, padding: tuple[int, int], residuals: tuple[Array, Array], slope: Array
) -> tuple[Array, Array]:
    plain = functools.partial(_conv1d_plain, stride=stride, padding=padding)
    product = functools.partial(_blocks_product, stride=stride, padding=padding)
    return _gradients(*residuals, slope, plain=plain, for_input=product, for_kernel=plain)


_strided.defvjp(_strided_forward, _strided_backward)


def _two_taps_plain(x: Array, kernel: Array) -> Array:
    return _conv1d_plain(x, kernel, padding=(1, 1))


def _two_taps_product(x: Array, kernel: Array) -> Array:
    padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
    pairs = jnp.concatenate([padded[:, :-1], padded[:, 1:]], axis=-1)
    return jnp.matmul(pairs, kernel.reshape(-1, kernel.shape[-1]), precision=HIGHEST)


@jax.custom_vjp
def _two_taps(x: Array, kernel: Array) -> Array:
    """``x [B, T, I]``, ``kernel [2, I, O]`` → ``[B, T + 1, O]``, zero-padded by one."""
    return _two_taps_plain(x, kernel)


def _two_taps_backward(residuals: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
    product = _two_taps_product
    return _gradients(
        *residuals, slope, plain=_two_taps_plain, for_input=product, for_kernel=product
    )


_two_taps.defvjp(lambda x, kernel: (_two_taps_plain(x, kernel), (x, kernel)), _two_taps_backward)


def _conv2d_plain(x: Array, kernel: Array, stride: tuple[int, int]) -> Array:
    height, width = kernel.shape[0] // 2, kernel.shape[1] // 2
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=stride,
        padding=((height, height), (width, width)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=HIGHEST,
    )


def _columns_product(x: Array, kernel: Array, stride: tuple[int, int]) -> Array:
    """For kernels of width 1: the taps side by side in one matrix product."""
    taps, step = kernel.shape[0], stride[0]
    padded = jnp.pad(x, ((0, 0), (taps // 2, taps // 2), (0, 0), (0, 0)))
    last = (padded.shape[1] - taps) // step * step
    columns = [padded[:, tap : tap + last + 1 : step] for tap in range(taps)]
    flat = kernel.reshape(-1, kernel.shape[-1])
    return jnp.matmul(jnp.concatenate(columns, axis=-1), flat, precision=HIGHEST)


def _strides_in_channels(x: Array, kernel: Array, stride: tuple[int, int]) -> Array:
    """For strides along the width: s neighbours become s · I channels, and the stride 1."""
    step, (height, width, inputs, features) = stride[1], kernel.shape
    taps = -(-width // step)
    outputs = (x.shape[2] - 1 + 2 * (width // 2) - (width - 1)) // step + 1
    # Columns that the windows cover, each widened to whole strides.
    covered = step * (outputs - 1 + taps)
    right = covered - x.shape[2] - width // 2
    widths = ((0, 0), (0, 0), (width // 2, max(right, 0)), (0, 0))
    padded = jnp.pad(x, widths)[:, :, :covered]
    folded = padded.reshape(*x.shape[:2], covered // step, step * inputs)
    wide = jnp.pad(kernel, ((0, 0), (0, step * taps - width), (0, 0), (0, 0)))
    return lax.conv_general_dilated(
        folded,
        wide.reshape(height, taps, step * inputs, features),
        window_strides=(1, 1),
        padding=((height // 2, height // 2), (0, 0)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=HIGHEST,
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv2d(x: Array, kernel: Array, stride: tuple[int, int]) -> Array:
    return _conv2d_plain(x, kernel, stride)


def _conv2d_forward(
    x: Array, kernel: Array, stride: tuple[int, int]
) -> tuple[Array, tuple[Array, Array]]:
    return _conv2d_plain(x, kernel, stride), (x, kernel)


def _conv2d_backward(
    stride: tuple[int, int], residuals: tuple[Array, Array], slope: Array
) -> tuple[Array, Array]:
    plain = functools.partial(_conv2d_plain, stride=stride)
    for_input = for_kernel = plain
    if residuals[1].shape[1] == 1 and stride[1] == 1:
        for_input = for_kernel = functools.partial(_columns_product, stride=stride)
    elif stride[0] == 1 and stride[1] > 1:
        for_input = functools.partial(_strides_in_channels, stride=stride)
    return _gradients(*residuals, slope, plain=plain, for_input=for_input, for_kernel=for_kernel)


_conv2d.defvjp(_conv2d_forward, _conv2d_backward)
