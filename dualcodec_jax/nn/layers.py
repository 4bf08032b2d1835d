"""Leaf layers with PyTorch's parameterisation and initial values.

Weight-normalised layers hold ``weight_v``, ``weight_g`` and ``bias``. After
:func:`fold_weight_norm` the same modules run on ``kernel`` and ``bias``: the form for
inference, without the norm in every call.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from dualcodec_jax.nn import conv, ops

Initializer = Callable[..., Array]
Params = dict[str, Any]


def torch_uniform(fan_in: int) -> Initializer:
    """U(±1/√fan_in), PyTorch's default for convolution and linear weights and biases."""
    limit = 1 / math.sqrt(fan_in)

    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return init


def _norm_like(v: Array, shape: tuple[int, ...]) -> Array:
    axes = tuple(axis for axis, size in enumerate(shape) if size == 1)
    return jnp.sqrt(jnp.sum(v * v, axis=axes, keepdims=True))


class WeightNorm(nn.Module):
    """Base of the weight-normalised layers: yields the kernel, folded or not."""

    def kernel(self, shape: tuple[int, ...], gain: tuple[int, ...], fan_in: int) -> Array:
        """The kernel of ``shape``; ``gain`` is the shape of ``weight_g``, 1 on the normed axes."""
        if self.has_variable("params", "kernel"):
            return self.param("kernel", torch_uniform(fan_in), shape)
        v = self.param("weight_v", torch_uniform(fan_in), shape)
        # Effective upstream initialisation: the gain is the norm of v.
        g = self.param("weight_g", lambda _: _norm_like(v, gain))
        return ops.weight_norm(v, g)


class WNConv1d(WeightNorm):
    """Weight-normalised 1-D convolution, ``[B, T, I] → [B, T', O]``.

    ``weight_v [k, I, O]``, ``weight_g [1, 1, O]``, ``bias [O]``.
    """

    features: int
    kernel_size: int
    stride: int = 1
    dilation: int = 1
    padding: int = 0
    zero_bias: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        inputs = x.shape[-1]
        fan_in = inputs * self.kernel_size
        kernel = self.kernel(
            (self.kernel_size, inputs, self.features), (1, 1, self.features), fan_in
        )
        init = nn.initializers.zeros if self.zero_bias else torch_uniform(fan_in)
        bias = self.param("bias", init, (self.features,))
        if self.kernel_size == 1 and self.stride == 1:
            y = ops.matmul(x, kernel[0], result_dtype(x, self.dtype))
            return ops.add_bias(y, bias).astype(result_dtype(x, self.dtype))
        y = conv.conv1d(
            x.astype(result_dtype(x, self.dtype)),
            kernel,
            stride=self.stride,
            dilation=self.dilation,
            padding=(self.padding, self.padding),
        )
        return ops.add_bias(y, bias)


class WNConvTranspose1d(WeightNorm):
    """Weight-normalised transposed convolution, kernel 2s, stride s, padding ⌈s/2⌉.

    ``[B, T, I] → [B, s·T − (s mod 2), O]``. The norm is per *input* channel, as in torch:
    ``weight_v [2, I, s, O]`` (polyphase, see :func:`conv.conv_transpose1d`),
    ``weight_g [1, I, 1, 1]``, ``bias [O]``.
    """

    features: int
    stride: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        inputs = x.shape[-1]
        fan_in = self.features * 2 * self.stride
        kernel = self.kernel((2, inputs, self.stride, self.features), (1, inputs, 1, 1), fan_in)
        bias = self.param("bias", torch_uniform(fan_in), (self.features,))
        x = x.astype(result_dtype(x, self.dtype))
        y = conv.conv_transpose1d(x, kernel, padding=math.ceil(self.stride / 2))
        return ops.add_bias(y, bias)


class Snake(nn.Module):
    """x + sin²(αx) / (α + 1e-9), ``alpha [C]`` starting at 1."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        alpha = self.param("alpha", nn.initializers.ones, (x.shape[-1],))
        return ops.snake(x, alpha)


class Dense(nn.Module):
    """Linear layer, ``kernel [I, O]`` and ``bias [O]``; operands in ``dtype``, float32 result."""

    features: int
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        init = torch_uniform(x.shape[-1])
        kernel = self.param("kernel", init, (x.shape[-1], self.features))
        y = ops.matmul(x, kernel, result_dtype(x, self.dtype))
        return ops.add_bias(y, self.param("bias", init, (self.features,))) if self.use_bias else y


class DepthwiseConv1d(nn.Module):
    """Depthwise convolution, ``kernel [k, C]`` and ``bias [C]``; float32."""

    kernel_size: int
    padding: tuple[int, int]
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        init = torch_uniform(self.kernel_size)
        kernel = self.param("kernel", init, (self.kernel_size, x.shape[-1]))
        y = conv.depthwise_conv1d(x, kernel, padding=self.padding)
        return y + self.param("bias", init, (x.shape[-1],)) if self.use_bias else y


class LayerNorm(nn.Module):
    """Layer normalisation over channels with ``scale`` and ``bias``; float32."""

    eps: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        return ops.layer_norm(x, scale, bias, eps=self.eps)


def result_dtype(x: Array, dtype: Any) -> Any:
    """``dtype``, or wider where ``x`` is float64 (used by tests to bound rounding errors)."""
    return jnp.promote_types(x.dtype, dtype) if x.dtype == jnp.float64 else dtype


def fold_weight_norm(params: Params) -> Params:
    """Replace every ``weight_v``, ``weight_g`` pair by the ``kernel`` that it stands for.

    The tree otherwise keeps its shape, and the same modules accept it. Not invertible:
    keep the original for training and for export to PyTorch.
    """
    if "weight_v" in params:
        rest = {name: value for name, value in params.items() if not name.startswith("weight_")}
        return {"kernel": ops.weight_norm(params["weight_v"], params["weight_g"]), **rest}
    return {
        name: fold_weight_norm(value) if isinstance(value, dict) else value
        for name, value in params.items()
    }
