"""The discriminators of adversarial training: multi-period and multi-band STFT.

Source: upstream ``discriminator.py``, from the Descript Audio Codec. Its multi-scale
discriminator is never built there (``rates=[]``) and does not exist here.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax import struct
from jax import Array

from dualcodec_jax.audio.spectral import reflect_pad, stft, stride_padding
from dualcodec_jax.config import Band, DiscriminatorConfig
from dualcodec_jax.errors import InputError
from dualcodec_jax.nn.conv import conv2d
from dualcodec_jax.nn.layers import WeightNorm, result_dtype, torch_uniform
from dualcodec_jax.nn.ops import add_bias

LEAKY_SLOPE = 0.1
PERIOD_STRIDE = 3
# Kernel size and stride, over (frames, bins), of the convolutions of one band.
BAND_CONVS = (((3, 9), (1, 1)), *(((3, 9), (1, 2)),) * 3, ((3, 3), (1, 1)))


@struct.dataclass
class DiscriminatorOutput:
    """What one sub-discriminator says of a batch; time is the second axis of every array.

    Attributes:
        score: one unbounded number per patch, ``[B, T', W, 1]`` float32, trained towards 1 on
            real audio and 0 on generated; W is the period, or the strided bins of all bands
            side by side.
        features: activations of every layer before the score, in the compute dtype, in
            upstream's order. A period p on N samples gives T = ⌊N / p⌋ + 1 rows, then
            ``[B, ⌈T / 3ᵏ⌉, p, C]`` for k = 1, 2, 3, 4, 4. A window on N samples gives, band
            after band, ``[B, ⌈N / hop⌉, ⌈W / 2ᵏ⌉, C]`` for k = 0, 1, 2, 3, 3 on a band of W
            bins.
    """

    score: Array
    features: tuple[Array, ...]


class WNConv2d(WeightNorm):
    """Weight-normalised 2-D convolution, ``[B, H, W, I] → [B, H', W', O]``.

    Zero-padded by half a kernel (of odd size) on every side.
    ``weight_v [kh, kw, I, O]``, ``weight_g [1, 1, 1, O]``, ``bias [O]``.
    """

    features: int
    kernel_size: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        height, width = self.kernel_size
        inputs = x.shape[-1]
        fan_in = inputs * height * width
        kernel = self.kernel(
            (height, width, inputs, self.features), (1, 1, 1, self.features), fan_in
        )
        bias = self.param("bias", torch_uniform(fan_in), (self.features,))
        dtype = result_dtype(x, self.dtype)
        y = conv2d(x.astype(dtype), kernel, stride=self.stride)
        return add_bias(y, bias)


def leaky_relu(x: Array) -> Array:
    """x where positive, else 0.1 · x; the slope at 0 is 0.1, as in torch."""
    return jnp.where(x > 0, x, x * LEAKY_SLOPE)


def _score(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class PeriodDiscriminator(nn.Module):
    """Convolutions over every ``period``-th sample, one column per phase.

    ``audio [B, N, 1]`` is mirrored at its end up to the next multiple of the period: by a
    whole period where N already is one.
    """

    period: int
    channels: tuple[int, ...]
    dtype: Any = jnp.float32

    def setup(self) -> None:
        last = len(self.channels) - 1
        self.conv = [
            WNConv2d(features, (5, 1), (1 if index == last else PERIOD_STRIDE, 1), self.dtype)
            for index, features in enumerate(self.channels)
        ]
        self.conv_post = WNConv2d(1, (3, 1), dtype=self.dtype)

    def __call__(self, audio: Array) -> DiscriminatorOutput:
        padding = period_padding(audio.shape[1], self.period)
        padded = reflect_pad(audio[..., 0], 0, padding)
        x = padded.reshape(padded.shape[0], -1, self.period, 1)
        features = []
        for conv in self.conv:
            x = leaky_relu(conv(x))
            features.append(x)
        return DiscriminatorOutput(score=_score(self.conv_post(x)), features=tuple(features))


class BandStack(nn.Module):
    """The convolutions of one frequency band, ``[B, frames, W, 2] → five activations``."""

    channels: int
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.conv = [
            WNConv2d(self.channels, kernel_size, stride, self.dtype)
            for kernel_size, stride in BAND_CONVS
        ]

    def __call__(self, x: Array) -> list[Array]:
        features = []
        for conv in self.conv:
            x = leaky_relu(conv(x))
            features.append(x)
        return features


class SpectralDiscriminator(nn.Module):
    """Convolutions over the real and imaginary parts of a spectrogram, band by band.

    Frames of ``window_length`` samples hop by a quarter of it; ``bands`` are fractions of
    the bins. The transform of ``audio [B, N, 1]`` is float32 in every compute dtype.
    """

    window_length: int
    bands: tuple[Band, ...]
    channels: int
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.band = [BandStack(self.channels, self.dtype) for _ in self.bands]
        self.conv_post = WNConv2d(1, (3, 3), dtype=self.dtype)

    def __call__(self, audio: Array) -> DiscriminatorOutput:
        spectrum = stft(
            audio[..., 0], self.window_length, self.window_length // 4, match_stride=True
        )
        x = jnp.stack([spectrum.real, spectrum.imag], axis=-1)
        features: list[Array] = []
        outputs: list[Array] = []
        edges = band_bins(self.window_length, self.bands)
        for (low, high), stack in zip(edges, self.band, strict=True):
            activations = stack(x[:, :, low:high])
            features += activations
            outputs.append(activations[-1])
        score = self.conv_post(jnp.concatenate(outputs, axis=2))
        return DiscriminatorOutput(score=_score(score), features=tuple(features))


class Discriminator(nn.Module):
    """All sub-discriminators on the same peak-normalised audio.

    ``dtype`` is the compute dtype of the convolutions; everything before them and the
    scores are float32.
    """

    config: DiscriminatorConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        cfg = self.config
        self.period = [
            PeriodDiscriminator(period, cfg.period_channels, self.dtype) for period in cfg.periods
        ]
        self.spectral = [
            SpectralDiscriminator(size, cfg.bands, cfg.spectral_channels, self.dtype)
            for size in cfg.fft_sizes
        ]

    def __call__(self, audio: Array) -> tuple[DiscriminatorOutput, ...]:
        """Judge ``audio [B, N, 1]``, float32: one output per period, then one per window.

        Raises:
            InputError: if there are too few samples for the paddings by reflection.
        """
        check_length(audio.shape[1], self.config)
        audio = normalize(audio)
        return tuple(self.judge(audio, index) for index in range(self.config.count))

    def judge(self, audio: Array, index: int) -> DiscriminatorOutput:
        """One sub-discriminator's output on audio that :func:`normalize` has been through."""
        return (*self.period, *self.spectral)[index](audio)


def normalize(audio: Array) -> Array:
    """Remove the mean of each item of ``audio [B, N, 1]``, then scale its peak to 0.8.

    Source: upstream ``Discriminator.preprocess``.
    """
    audio = audio - jnp.mean(audio, axis=1, keepdims=True)
    level = jnp.abs(audio)
    # Not jnp.max: where several samples share the peak it splits the gradient between
    # them, and torch gives all of it to the first.
    peak = jnp.take_along_axis(level, jnp.argmax(level, axis=1, keepdims=True), axis=1)
    return 0.8 * audio / (peak + 1e-9)


def period_padding(num_samples: int, period: int) -> int:
    """Samples mirrored at the end: 1…``period``, never none."""
    return period - num_samples % period


def band_bins(window_length: int, bands: tuple[Band, ...]) -> list[tuple[int, int]]:
    """First bin and end of each band, rounded down: fractions of ``window_length // 2 + 1``."""
    bins = window_length // 2 + 1
    return [(int(low * bins), int(high * bins)) for low, high in bands]


def min_samples(config: DiscriminatorConfig) -> int:
    """A length in samples from which on every length has enough for every padding.

    Some shorter ones do as well: paddings depend on the remainders by the periods and hops.
    """
    hops = [(size, size // 4) for size in config.fft_sizes]
    needs = [period + 1 for period in config.periods]
    needs += [stride_padding(0, size, hop)[1] + hop for size, hop in hops]
    return max(needs, default=1)


def check_length(num_samples: int, config: DiscriminatorConfig) -> None:
    """Raise :class:`InputError` unless every padding by reflection has the samples it needs."""
    paddings = [period_padding(num_samples, period) for period in config.periods]
    paddings += [stride_padding(num_samples, size, size // 4)[1] for size in config.fft_sizes]
    if num_samples <= max(paddings, default=0):
        raise InputError(
            f"audio of {num_samples} samples is too short for this discriminator, which mirrors "
            f"{max(paddings)} of them at the end: use at least {min_samples(config)} samples"
        )
