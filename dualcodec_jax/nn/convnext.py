"""ConvNeXt blocks for one-dimensional sequences.

Source: upstream ``cnn.ConvNeXtBlock`` (no layer scale, no conditioning).
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from dualcodec_jax.config import DualCodecConfig
from dualcodec_jax.nn import ops
from dualcodec_jax.nn.layers import Dense, DepthwiseConv1d, LayerNorm, WNConv1d

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


class ConvNeXtEncoder(nn.Module):
    """Pointwise projection, then ConvNeXt blocks.

    ``[B, T, semantic_dim] → [B, T, convnext_dim]``.
    """

    config: DualCodecConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        cfg = self.config
        self.proj = WNConv1d(cfg.convnext_dim, kernel_size=1, dtype=self.dtype)
        self.block = [
            ConvNeXtBlock(cfg.convnext_dim, cfg.convnext_hidden_dim, cfg.is_causal, self.dtype)
            for _ in range(cfg.convnext_layers)
        ]

    def __call__(self, x: Array, lengths: Array | None = None) -> Array:
        x = self.proj(x).astype(x.dtype)
        for block in self.block:
            x = block(x, lengths)
        return x


class ConvNeXtDecoder(nn.Module):
    """ConvNeXt blocks, then a pointwise projection.

    ``[B, T, convnext_dim] → [B, T, semantic_dim]``.
    """

    config: DualCodecConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        cfg = self.config
        self.block = [
            ConvNeXtBlock(cfg.convnext_dim, cfg.convnext_hidden_dim, cfg.is_causal, self.dtype)
            for _ in range(cfg.convnext_layers)
        ]
        self.proj = WNConv1d(cfg.semantic_dim, kernel_size=1, dtype=self.dtype)

    def __call__(self, x: Array, lengths: Array | None = None) -> Array:
        for block in self.block:
            x = block(x, lengths)
        return self.proj(x).astype(x.dtype)
