"""The DualCodec generator: a semantic and an acoustic stream over one decoder.

Source: upstream ``dualcodec_model.DualCodec``; paper section 3.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax import struct
from jax import Array

from dualcodec_jax.config import DualCodecConfig
from dualcodec_jax.lengths import acoustic_frames, ceil_div
from dualcodec_jax.nn.convnext import ConvNeXtBlock
from dualcodec_jax.nn.dac import Decoder, Encoder
from dualcodec_jax.nn.layers import WNConv1d
from dualcodec_jax.nn.ops import mask_time
from dualcodec_jax.nn.quantize import QuantizerOutput, ResidualVectorQuantize


@struct.dataclass
class DualCodecOutput:
    """Result of a full pass of the generator.

    Attributes:
        audio: ``[B, N, 1]``, cut or zero-padded to the input's length.
        semantic_latent: ``[B, T, semantic_dim]``, the reconstruction of the semantic features.
        semantic: the semantic quantizer's result.
        acoustic: the acoustic stack's result; None when it was bypassed.
    """

    audio: Array
    semantic_latent: Array
    semantic: QuantizerOutput
    acoustic: QuantizerOutput | None


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


class DAC(nn.Module):
    """Waveform encoder, residual quantizer and waveform decoder."""

    config: DualCodecConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        cfg = self.config
        self.encoder = Encoder(cfg.encoder_dim, cfg.encoder_rates, cfg.latent_dim, self.dtype)
        self.quantizer = ResidualVectorQuantize(
            cfg.latent_dim, cfg.n_codebooks, cfg.codebook_size, cfg.codebook_dim, zero_bias=True
        )
        self.decoder = Decoder(cfg.decoder_dim, cfg.decoder_rates, self.dtype)


class DualCodec(nn.Module):
    """The generator. Arrays are channels-last; ``dtype`` is the compute dtype of the networks.

    Codes, codebook search and everything between quantizer and latent stay float32.
    """

    config: DualCodecConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        cfg = self.config
        self.dac = DAC(cfg, self.dtype)
        self.convnext_encoder = ConvNeXtEncoder(cfg, self.dtype)
        self.semantic_vq = ResidualVectorQuantize(
            cfg.convnext_dim, 1, cfg.semantic_codebook_size, cfg.semantic_codebook_dim
        )
        self.convnext_decoder = ConvNeXtDecoder(cfg, self.dtype)

    def encode_semantic(
        self, features: Array, lengths: Array | None = None
    ) -> tuple[Array, QuantizerOutput]:
        """Semantic stream: pooled features ``[B, T, semantic_dim]`` → (latent, quantizer result).

        The latent is what the acoustic stream subtracts: ``[B, T, latent_dim]``.
        """
        output = self.semantic_vq(self.convnext_encoder(features, lengths))
        return self._semantic_latent(output.quantized, lengths), output

    def _semantic_latent(self, quantized: Array, lengths: Array | None) -> Array:
        if not self.config.decode_semantic_for_codec:
            return quantized
        return self.convnext_decoder(quantized, lengths)

    def encode_acoustic(self, audio: Array, num_samples: Array | None = None) -> Array:
        """Waveform stream: ``audio [B, N, 1]`` → latent ``[B, ⌈N / hop⌉, latent_dim]``.

        ``num_samples [B]`` gives true lengths; audio past them is ignored.
        """
        cfg = self.config
        padded = ceil_div(audio.shape[1], cfg.hop_length) * cfg.hop_length
        audio = mask_time(audio, num_samples)
        audio = jnp.pad(audio, ((0, 0), (0, padded - audio.shape[1]), (0, 0)))
        hops = None if num_samples is None else acoustic_frames(num_samples, cfg) * cfg.hop_length
        return self.dac.encoder(audio, hops).astype(jnp.promote_types(audio.dtype, jnp.float32))

    def encode(
        self,
        audio: Array,
        features: Array,
        n_quantizers: int,
        num_samples: Array | None = None,
        num_frames: Array | None = None,
    ) -> Array:
        """Codes of ``audio [B, N, 1]`` with pooled features ``[B, T, semantic_dim]``.

        Args:
            audio: waveform.
            features: normalised, pooled semantic features; T sets the number of frames.
            n_quantizers: codes per frame, 1…``config.n_quantizers``.
            num_samples: true lengths ``[B]`` of the audio.
            num_frames: true lengths ``[B]`` of the features.

        Returns:
            int32 ``[B, n_quantizers, T]``; row 0 is semantic. Past true lengths: undefined.
        """
        latent, semantic = self.encode_semantic(features, num_frames)
        if n_quantizers == 1:
            return semantic.codes
        acoustic = self.encode_acoustic(audio, num_samples)
        residual = acoustic[:, : latent.shape[1]] - latent
        codes = self.dac.quantizer(residual, n_quantizers - 1).codes
        return jnp.concatenate([semantic.codes, codes], axis=1)

    def decode(self, codes: Array, num_frames: Array | None = None) -> Array:
        """Waveform ``[B, decoded_samples(T), 1]`` of ``codes [B, n, T]``, any prefix n ≥ 1.

        Audio past an item's true length is zero.
        """
        latent = self._semantic_latent(self.semantic_vq.decode(codes[:, :1]), num_frames)
        if codes.shape[1] > 1:
            latent = latent + self.dac.quantizer.decode(codes[:, 1:])
        return self.dac.decoder(latent, num_frames)

    def __call__(
        self,
        audio: Array,
        features: Array,
        n_quantizers: int | None = None,
        active: Array | None = None,
        bypass: bool = False,
    ) -> DualCodecOutput:
        """Reconstruct ``audio [B, N, 1]`` (training and initialisation).

        Args:
            audio: waveform.
            features: normalised, pooled semantic features ``[B, T, semantic_dim]``.
            n_quantizers: codes per frame including the semantic one; 1 implies ``bypass``.
            active: quantizer dropout, see :class:`ResidualVectorQuantize`.
            bypass: decode from the semantic latent alone (static).
        """
        latent, semantic = self.encode_semantic(features)
        acoustic = None
        decoder_input = latent
        if not (bypass or n_quantizers == 1):
            residual = self.encode_acoustic(audio)[:, : latent.shape[1]] - latent
            count = None if n_quantizers is None else n_quantizers - 1
            acoustic = self.dac.quantizer(residual, count, active)
            decoder_input = acoustic.quantized + latent
        decoded = self.dac.decoder(decoder_input)[:, : audio.shape[1]]
        missing = audio.shape[1] - decoded.shape[1]
        if not self.config.decode_semantic_for_codec:
            latent = self.convnext_decoder(latent)
        return DualCodecOutput(
            audio=jnp.pad(decoded, ((0, 0), (0, missing), (0, 0))),
            semantic_latent=latent,
            semantic=semantic,
            acoustic=acoustic,
        )
