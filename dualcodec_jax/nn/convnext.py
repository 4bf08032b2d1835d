"""ConvNeXt blocks for one-dimensional sequences.

Source: upstream ``cnn.ConvNeXtBlock`` (no layer scale, no conditioning).
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from dualcodec_jax.nn import ops
from dualcodec_jax.nn.layers import Dense, DepthwiseConv1d, LayerNorm

KERNEL_SIZE = 7


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution of 7 → layer norm → linear → exact GELU → linear, plus the input.

    ``[B, T, dim] → [B, T, dim]``. Causal blocks pad 6 frames on the left, others 3 on both
    sides; only the latter need ``lengths [B]`` to ignore padding.
    """

    dim: int
    hidden_dim: int
    is_causal: bool
    dtype: Any = jnp.float32

    def setup(self) -> None:
        half = KERNEL_SIZE // 2
        padding = (KERNEL_SIZE - 1, 0) if self.is_causal else (half, half)
        self.dwconv = DepthwiseConv1d(KERNEL_SIZE, padding)
        self.norm = LayerNorm(eps=1e-6)
        self.pwconv1 = Dense(self.hidden_dim, dtype=self.dtype)
        self.pwconv2 = Dense(self.dim, dtype=self.dtype)

    def __call__(self, x: Array, lengths: Array | None = None) -> Array:
        y = x if self.is_causal else ops.mask_time(x, lengths)
        y = self.norm(self.dwconv(y))
        return x + self.pwconv2(ops.gelu_exact(self.pwconv1(y)))
