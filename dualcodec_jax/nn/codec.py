"""The generators: DualCodec, and the DAC without a semantic stream that it is compared with.

Source: upstream ``dualcodec_model.DualCodec`` and ``dac_model.DAC``; paper section 3.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax import struct
from jax import Array

from dualcodec_jax.config import DualCodecConfig
from dualcodec_jax.nn.convnext import ConvNeXtDecoder, ConvNeXtEncoder
from dualcodec_jax.nn.dac import DAC, fit
from dualcodec_jax.nn.layers import WNConv1d
from dualcodec_jax.nn.quantize import QuantizerOutput, ResidualVectorQuantize


@struct.dataclass
class CodecOutput:
    """Result of a full pass of a generator.

    Attributes:
        audio: ``[B, N, 1]``, cut or zero-padded to the input's length.
        semantic_latent: ``[B, T, semantic_dim]``, the reconstruction of the semantic features, or
            their prediction from the first code; None with ``encoding="dac"``.
        semantic: the semantic quantizer's result; None without a semantic stream.
        acoustic: the acoustic stack's result; None when it was bypassed.
    """

    audio: Array
    semantic_latent: Array | None
    semantic: QuantizerOutput | None
    acoustic: QuantizerOutput | None

    @property
    def codes(self) -> Array:
        """Int32 ``[B, n, T]``, of the quantizers that were run."""
        outputs = [output for output in (self.semantic, self.acoustic) if output is not None]
        return jnp.concatenate([output.codes for output in outputs], axis=1)


def make_codec(config: DualCodecConfig, dtype: Any = jnp.float32) -> DualCodec | DacCodec:
    """The module of ``config.encoding``; both have the methods ``encode`` and ``decode``."""
    return (DualCodec if config.is_dual else DacCodec)(config, dtype)


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
            cfg.convnext_dim, (cfg.semantic_codebook_size,), cfg.semantic_codebook_dim
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
        """Waveform stream, see :meth:`~dualcodec_jax.nn.dac.DAC.encode`."""
        return self.dac.encode(audio, num_samples)

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
        return self.synthesise(self.dequantize(codes, num_frames), num_frames)

    def dequantize(self, codes: Array, num_frames: Array | None = None) -> Array:
        """``codes [B, n, T]`` → what the DAC decoder reads, ``[B, T, latent_dim]``."""
        latent = self._semantic_latent(self.semantic_vq.decode(codes[:, :1]), num_frames)
        if codes.shape[1] > 1:
            latent = latent + self.dac.quantizer.decode(codes[:, 1:])
        return latent

    def synthesise(self, latent: Array, num_frames: Array | None = None) -> Array:
        """The DAC decoder alone: ``[B, T, latent_dim]`` → ``[B, decoded_samples(T), 1]``."""
        return self.dac.decoder(latent, num_frames)

    def __call__(
        self,
        audio: Array,
        features: Array,
        n_quantizers: int | None = None,
        active: Array | None = None,
        bypass: bool = False,
    ) -> CodecOutput:
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
        decoded = fit(self.dac.decoder(decoder_input), audio.shape[1])
        if not self.config.decode_semantic_for_codec:
            latent = self.convnext_decoder(latent)
        return CodecOutput(
            audio=decoded,
            semantic_latent=latent,
            semantic=semantic,
            acoustic=acoustic,
        )


class DacCodec(nn.Module):
    """A DAC that quantizes the waveform alone: the paper's baseline.

    With ``encoding="dac_distilled"`` the vector of the first code also predicts the semantic
    features, so that it learns what they hold; decoding does not use the prediction. Arguments are
    those of :class:`DualCodec`; features and bypassing play no part. Source: ``dac_model.DAC``.
    """

    config: DualCodecConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        cfg = self.config
        self.dac = DAC(cfg, self.dtype)
        if cfg.encoding == "dac_distilled":
            self.distill_projection = WNConv1d(cfg.convnext_dim, kernel_size=1, dtype=self.dtype)
            self.convnext_decoder = ConvNeXtDecoder(cfg, self.dtype)

    def encode(
        self,
        audio: Array,
        features: Array | None,
        n_quantizers: int,
        num_samples: Array | None = None,
        num_frames: Array | None = None,
    ) -> Array:
        """Codes int32 ``[B, n_quantizers, T]`` of ``audio [B, N, 1]``, T = ⌈N / hop⌉."""
        return self.dac.quantizer(self.dac.encode(audio, num_samples), n_quantizers).codes

    def decode(self, codes: Array, num_frames: Array | None = None) -> Array:
        """Waveform ``[B, decoded_samples(T), 1]`` of ``codes [B, n, T]``, any prefix n ≥ 1."""
        return self.synthesise(self.dequantize(codes), num_frames)

    def dequantize(self, codes: Array, num_frames: Array | None = None) -> Array:
        """As :meth:`DualCodec.dequantize`."""
        return self.dac.quantizer.decode(codes)

    def synthesise(self, latent: Array, num_frames: Array | None = None) -> Array:
        """As :meth:`DualCodec.synthesise`."""
        return self.dac.decoder(latent, num_frames)

    def __call__(
        self,
        audio: Array,
        features: Array | None = None,
        n_quantizers: int | None = None,
        active: Array | None = None,
        bypass: bool = False,
    ) -> CodecOutput:
        """Reconstruct ``audio [B, N, 1]`` (training and initialisation)."""
        output = self.dac.quantizer(self.dac.encode(audio), n_quantizers, active)
        predicted = None
        if self.config.encoding == "dac_distilled":
            predicted = self.convnext_decoder(
                self.distill_projection(output.first).astype(output.first.dtype)
            )
        decoded = self.dac.decoder(output.quantized)
        return CodecOutput(
            audio=fit(decoded, audio.shape[1]),
            semantic_latent=predicted,
            semantic=None,
            acoustic=output,
        )
