"""How periodic speech is, lag by lag: the target of the training loss on pitch.

Source of the normalised autocorrelation: P. Boersma, "Accurate short-term analysis of the
fundamental frequency and the harmonics-to-noise ratio of a sampled sound", 1993.
"""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
from jax import Array

from dualcodec_jax.audio.spectral import hann_window

LOWEST, OCTAVES, BINS = 60.0, 3, 64
"""Pitch candidates: Hz of the lowest, and how many up to how many octaves above it."""
WINDOW_SECONDS = 0.085
"""Five periods of the lowest candidate."""
LOW_PASS = 1200.0
"""Hz. What lies above blurs nothing, but peaks narrower than candidates could fall between them."""
SILENCE = 1e-3
"""Root mean square below which a frame is not periodic."""


def candidates() -> np.ndarray:
    """The pitches that are looked at, in Hz, ``[BINS]``, evenly spaced in logarithm."""
    return LOWEST * 2 ** (np.arange(BINS) * OCTAVES / BINS)


def periodicity(audio: Array, hop: int, sample_rate: int) -> Array:
    """Normalised autocorrelation ``[B, T, BINS]`` at the lags of :func:`candidates`.

    1 where a frame repeats itself after that lag, about 0 in noise and in silence.

    Args:
        audio: ``[B, N]``.
        hop: samples a frame; frame t is centred on sample (t + ½) · hop.
        sample_rate: of ``audio``, in Hz.
    """
    window_length = round(WINDOW_SECONDS * sample_rate)
    size = 2 ** (2 * window_length - 1).bit_length()
    count = -(-audio.shape[1] // hop)
    left = (window_length - hop) // 2
    right = max((count - 1) * hop + window_length - left - audio.shape[1], 0)
    padded = jnp.pad(audio, ((0, 0), (left, right)))
    starts = np.arange(count)[:, None] * hop + np.arange(window_length)
    frames = padded[:, starts]
    frames -= frames.mean(axis=-1, keepdims=True)
    spectrum = jnp.fft.rfft(frames * hann_window(window_length), size)
    power = (jnp.square(spectrum.real) + jnp.square(spectrum.imag)) * _low_pass(size, sample_rate)
    correlation = jnp.fft.irfft(power, size) / _window_correlation(window_length, size)
    energy = jnp.maximum(correlation[..., :1], SILENCE**2 * window_length)
    lags = sample_rate / candidates()
    below = np.floor(lags).astype(int)
    share = (lags - below).astype(np.float32)
    return (correlation[..., below] * (1 - share) + correlation[..., below + 1] * share) / energy


@functools.lru_cache(maxsize=8)
def _low_pass(size: int, sample_rate: int) -> np.ndarray:
    """Weights of the powers of a transform of ``size``: 1, falling to 0 at twice LOW_PASS."""
    frequency = np.fft.rfftfreq(size, 1 / sample_rate)
    phase = np.clip(frequency / LOW_PASS - 1, 0, 1)
    return (0.5 + 0.5 * np.cos(np.pi * phase)).astype(np.float32)


@functools.lru_cache(maxsize=8)
def _window_correlation(length: int, size: int) -> np.ndarray:
    """Autocorrelation of the window, normalised; 1 where it is too small to divide by."""
    spectrum = np.fft.rfft(hann_window(length).astype(np.float64), size)
    correlation = np.fft.irfft(np.abs(spectrum) ** 2, size)
    correlation /= correlation[0]
    return np.where(correlation > 0.01, correlation, 1).astype(np.float32)
