"""Factorized-codebook vector quantization and the residual stack.

Everything here computes in float32 (or wider): codes must not depend on the compute
precision of the networks around them. Source: upstream ``dac_quantize.py``.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from flax import struct
from jax import Array, lax

from dualcodec_jax.nn import ops
from dualcodec_jax.nn.layers import WNConv1d


@struct.dataclass
class QuantizerOutput:
    """Result of one quantizer or of the residual stack.

    Attributes:
        quantized: ``[B, T, D]``; straight-through, so gradients reach the input.
        codes: int32 ``[B, n, T]``.
        latents: ``[B, n, T, d]``, projected inputs before quantization.
        commitment_loss: ``[B]`` for one quantizer, a scalar for the stack.
        codebook_loss: the same.
        first: the first layer's share of ``quantized``, ``[B, T, D]``.
    """

    quantized: Array
    codes: Array
    latents: Array
    commitment_loss: Array
    codebook_loss: Array
    first: Array


class VectorQuantize(nn.Module):
    """Project to ``codebook_dim``, take the codebook row of greatest cosine, project back.

    Losses are mean squared errors per item (the paper says L1; the released code does not).
    """

    input_dim: int
    codebook_size: int
    codebook_dim: int
    zero_bias: bool = False

    def setup(self) -> None:
        self.in_proj = WNConv1d(self.codebook_dim, kernel_size=1, zero_bias=self.zero_bias)
        self.out_proj = WNConv1d(self.input_dim, kernel_size=1, zero_bias=self.zero_bias)
        # Loaded parameters may be numpy arrays, which traced codes cannot index.
        self.codebook = jnp.asarray(
            self.param(
                "codebook", nn.initializers.normal(1.0), (self.codebook_size, self.codebook_dim)
            )
        )

    def __call__(self, z: Array) -> QuantizerOutput:
        """Quantize ``z [B, T, D]``; ``codes`` is ``[B, 1, T]``, losses are per item ``[B]``."""
        latents = self.in_proj(z)
        codes = ops.nearest_codes(lax.stop_gradient(latents), lax.stop_gradient(self.codebook))
        rows = self.codebook[codes]
        commitment = jnp.mean(jnp.square(latents - lax.stop_gradient(rows)), axis=(1, 2))
        codebook = jnp.mean(jnp.square(rows - lax.stop_gradient(latents)), axis=(1, 2))
        quantized = self.out_proj(latents + lax.stop_gradient(rows - latents))
        return QuantizerOutput(
            quantized=quantized,
            codes=codes[:, None],
            latents=latents[:, None],
            commitment_loss=commitment,
            codebook_loss=codebook,
            first=quantized,
        )

    def decode(self, codes: Array) -> Array:
        """``codes [B, T]`` → ``[B, T, D]``. Out-of-range codes are the caller's to refuse."""
        return self.out_proj(self.codebook[codes])


class ResidualVectorQuantize(nn.Module):
    """A stack of quantizers, each coding what the ones before left over.

    At inference ``n_quantizers`` (static) runs only the first layers. In training, quantizer
    dropout is ``active [B]``: layers with index ≥ active contribute neither to the sum nor to
    the losses of an item, while codes and residuals go on. Losses are summed over layers and
    averaged over the *full* batch, as upstream does.
    """

    input_dim: int
    codebook_sizes: tuple[int, ...]
    codebook_dim: int
    zero_bias: bool = False

    def setup(self) -> None:
        self.quantizer = [
            VectorQuantize(self.input_dim, size, self.codebook_dim, self.zero_bias)
            for size in self.codebook_sizes
        ]

    def __call__(
        self, z: Array, n_quantizers: int | None = None, active: Array | None = None
    ) -> QuantizerOutput:
        """Quantize ``z [B, T, D]`` with the first ``n_quantizers`` layers (default: all)."""
        residual, total = z, jnp.zeros_like(z)
        commitment = codebook = jnp.zeros((), z.dtype)
        outputs = []
        for index, quantizer in enumerate(self.quantizer[:n_quantizers]):
            output = quantizer(residual)
            weight = jnp.ones(z.shape[0], z.dtype) if active is None else 1.0 * (index < active)
            total = total + output.quantized * weight[:, None, None]
            residual = residual - output.quantized
            commitment += jnp.mean(output.commitment_loss * weight)
            codebook += jnp.mean(output.codebook_loss * weight)
            outputs.append(output)
        return QuantizerOutput(
            quantized=total,
            codes=jnp.concatenate([output.codes for output in outputs], axis=1),
            latents=jnp.concatenate([output.latents for output in outputs], axis=1),
            commitment_loss=commitment,
            codebook_loss=codebook,
            first=outputs[0].quantized,
        )

    def decode(self, codes: Array) -> Array:
        """Sum of the first ``n`` layers' vectors for ``codes [B, n, T]``, ``[B, T, D]``."""
        total = self.quantizer[0].decode(codes[:, 0])
        for index, quantizer in enumerate(self.quantizer[1 : codes.shape[1]], start=1):
            total = total + quantizer.decode(codes[:, index])
        return total
