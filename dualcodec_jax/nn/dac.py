"""The snake-activated convolutional encoder and decoder of DAC, and its quantizer.

Source: upstream ``dac_model.py``, whose convolutions are non-causal.

Padded batches: with ``lengths``, every position past an item's end is zeroed before each
convolution that looks beyond one sample, so that an item's output does not depend on its
padding.
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from dualcodec_jax.config import DualCodecConfig
from dualcodec_jax.lengths import acoustic_frames, ceil_div, upsampled_length
from dualcodec_jax.nn.layers import Snake, WNConv1d, WNConvTranspose1d
from dualcodec_jax.nn.ops import mask_time
from dualcodec_jax.nn.quantize import ResidualVectorQuantize

DILATIONS = (1, 3, 9)


class ResidualUnit(nn.Module):
    """Snake → dilated convolution of 7 → snake → pointwise convolution, added to the input."""

    dim: int
    dilation: int
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.snake_0 = Snake()
        self.conv_0 = WNConv1d(
            self.dim,
            kernel_size=7,
            dilation=self.dilation,
            padding=3 * self.dilation,
            zero_bias=True,
            dtype=self.dtype,
        )
        self.snake_1 = Snake()
        self.conv_1 = WNConv1d(self.dim, kernel_size=1, zero_bias=True, dtype=self.dtype)

    def __call__(self, x: Array, lengths: Array | None = None) -> Array:
        y = self.conv_0(mask_time(self.snake_0(x), lengths))
        return x + self.conv_1(self.snake_1(y))


class EncoderBlock(nn.Module):
    """Three residual units, then snake and a strided convolution to ``2 · dim`` channels."""

    dim: int
    stride: int
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.res = [ResidualUnit(self.dim, d, self.dtype) for d in DILATIONS]
        self.snake = Snake()
        self.conv = WNConv1d(
            2 * self.dim,
            kernel_size=2 * self.stride,
            stride=self.stride,
            padding=math.ceil(self.stride / 2),
            zero_bias=True,
            dtype=self.dtype,
        )

    def __call__(self, x: Array, lengths: Array | None = None) -> Array:
        for unit in self.res:
            x = unit(x, lengths)
        return self.conv(mask_time(self.snake(x), lengths))


class Encoder(nn.Module):
    """Waveform ``[B, L, 1]`` → latent ``[B, L / prod(rates), latent_dim]``.

    ``L`` and ``lengths [B]`` (samples) must be multiples of the product of ``rates``.
    """

    dim: int
    rates: tuple[int, ...]
    latent_dim: int
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.conv_in = WNConv1d(
            self.dim, kernel_size=7, padding=3, zero_bias=True, dtype=self.dtype
        )
        self.block = [
            EncoderBlock(self.dim * 2**index, stride, self.dtype)
            for index, stride in enumerate(self.rates)
        ]
        self.snake_out = Snake()
        self.conv_out = WNConv1d(
            self.latent_dim, kernel_size=3, padding=1, zero_bias=True, dtype=self.dtype
        )

    def __call__(self, x: Array, lengths: Array | None = None) -> Array:
        x = self.conv_in(mask_time(x, lengths))
        for block, stride in zip(self.block, self.rates, strict=True):
            x = block(x, lengths)
            lengths = None if lengths is None else lengths // stride
        return self.conv_out(mask_time(self.snake_out(x), lengths))


class DecoderBlock(nn.Module):
    """Snake and a transposed convolution to ``dim // 2`` channels, then three residual units."""

    dim: int
    stride: int
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.snake = Snake()
        self.upsample = WNConvTranspose1d(self.dim // 2, self.stride, self.dtype)
        self.res = [ResidualUnit(self.dim // 2, d, self.dtype) for d in DILATIONS]

    def __call__(self, x: Array, lengths: Array | None = None) -> Array:
        x = self.upsample(mask_time(self.snake(x), lengths))
        lengths = None if lengths is None else upsampled_length(lengths, self.stride)
        for unit in self.res:
            x = unit(x, lengths)
        return x


class Decoder(nn.Module):
    """Latent ``[B, T, latent_dim]`` → waveform ``[B, decoded_samples(T), 1]`` in (−1, 1), float32.

    ``lengths [B]`` counts latent frames.
    """

    dim: int
    rates: tuple[int, ...]
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.conv_in = WNConv1d(
            self.dim, kernel_size=7, padding=3, zero_bias=True, dtype=self.dtype
        )
        self.block = [
            DecoderBlock(self.dim // 2**index, stride, self.dtype)
            for index, stride in enumerate(self.rates)
        ]
        self.snake_out = Snake()
        self.conv_out = WNConv1d(1, kernel_size=7, padding=3, zero_bias=True, dtype=self.dtype)

    def __call__(self, x: Array, lengths: Array | None = None) -> Array:
        x = self.conv_in(mask_time(x, lengths))
        for block, stride in zip(self.block, self.rates, strict=True):
            x = block(x, lengths)
            lengths = None if lengths is None else upsampled_length(lengths, stride)
        y = self.conv_out(mask_time(self.snake_out(x), lengths))
        return mask_time(jnp.tanh(y.astype(jnp.promote_types(y.dtype, jnp.float32))), lengths)


class DAC(nn.Module):
    """Waveform encoder, residual quantizer and waveform decoder."""

    config: DualCodecConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        cfg = self.config
        self.encoder = Encoder(cfg.encoder_dim, cfg.encoder_rates, cfg.latent_dim, self.dtype)
        self.quantizer = ResidualVectorQuantize(
            cfg.latent_dim, cfg.dac_codebook_sizes, cfg.codebook_dim, zero_bias=True
        )
        self.decoder = Decoder(cfg.decoder_dim, cfg.decoder_rates, self.dtype)

    def encode(self, audio: Array, num_samples: Array | None = None) -> Array:
        """Waveform ``audio [B, N, 1]`` → latent ``[B, ⌈N / hop⌉, latent_dim]``.

        ``num_samples [B]`` gives true lengths; audio past them is ignored.
        """
        cfg = self.config
        padded = ceil_div(audio.shape[1], cfg.hop_length) * cfg.hop_length
        audio = mask_time(audio, num_samples)
        audio = jnp.pad(audio, ((0, 0), (0, padded - audio.shape[1]), (0, 0)))
        hops = None if num_samples is None else acoustic_frames(num_samples, cfg) * cfg.hop_length
        return self.encoder(audio, hops).astype(jnp.promote_types(audio.dtype, jnp.float32))


def fit(audio: Array, num_samples: int) -> Array:
    """Cut or zero-pad ``audio [B, N, 1]`` at its end to ``num_samples``."""
    missing = max(0, num_samples - audio.shape[1])
    return jnp.pad(audio[:, :num_samples], ((0, 0), (0, missing), (0, 0)))
