"""How far the convolutions see, in code frames, and so how long signals can be cut into windows.

A window that has the frames around it as context gives exactly what the whole would: an output
frame depends on no input outside :class:`Reach`.
"""

from __future__ import annotations

import dataclasses
import math

from dualcodec_jax.config import DualCodecConfig
from dualcodec_jax.lengths import ceil_div

RESIDUAL = sum(3 * dilation for dilation in (1, 3, 9))
"""Samples that the three residual units of a DAC block see on each side."""
KERNEL = 3
"""Samples that a convolution of 7 sees on each side."""
CONVNEXT = 6
"""Frames before the present one that a causal ConvNeXt block sees; others see half on each side."""


@dataclasses.dataclass(frozen=True)
class Reach:
    """Frames that an output frame depends on, besides its own.

    Attributes:
        past: number of earlier ones.
        future: number of later ones.
    """

    past: int
    future: int

    def __add__(self, other: Reach) -> Reach:
        return Reach(self.past + other.past, self.future + other.future)


def decoder_reach(config: DualCodecConfig) -> Reach:
    """Of the DAC decoder: code frames behind the ``hop_length`` samples of one."""
    first, last = -KERNEL, config.hop_length - 1 + KERNEL
    for stride in reversed(config.decoder_rates):
        # Transposed convolution: output t sees inputs m and m − 1, m = ⌊(t + padding) / stride⌋.
        padding = ceil_div(stride, 2)
        first = (first - RESIDUAL + padding) // stride - 1
        last = (last + RESIDUAL + padding) // stride
    return Reach(KERNEL - first, last + KERNEL)


def encoder_reach(config: DualCodecConfig) -> Reach:
    """Of the DAC encoder: frames of audio (hops) around that of one latent frame."""
    first, last = -1, 1
    for stride in reversed(config.encoder_rates):
        padding = ceil_div(stride, 2)
        first = first * stride - padding - RESIDUAL
        last = last * stride - padding + 2 * stride - 1 + RESIDUAL
    hop = config.hop_length
    return Reach(ceil_div(KERNEL - first, hop), ceil_div(last + KERNEL - (hop - 1), hop))


def convnext_reach(config: DualCodecConfig) -> Reach:
    """Of a stack of ConvNeXt blocks, before the semantic quantizer or after it."""
    frames = config.convnext_layers * CONVNEXT
    return Reach(frames, 0) if config.is_causal else Reach(frames // 2, frames // 2)


def latent_reach(config: DualCodecConfig) -> Reach:
    """From codes to the latent that the DAC decoder reads."""
    through_convnext = config.is_dual and config.decode_semantic_for_codec
    return convnext_reach(config) if through_convnext else Reach(0, 0)


def frames_in(seconds: float, config: DualCodecConfig) -> int:
    """Code frames that fit into a duration, at least one."""
    return max(1, math.floor(seconds * config.frame_rate))
