"""Mel filters on the Slaney scale, as librosa makes them."""

from __future__ import annotations

import functools

import numpy as np

from dualcodec_jax.audio.spectral import hann_window

_LINEAR_STEP = 200 / 3
"""Hertz per mel below 1 kHz; above, frequencies grow by 6.4 times in 27 mels."""
_BREAK_HZ = 1000.0
_LOG_STEP = np.log(6.4) / 27


@functools.lru_cache(maxsize=32)
def mel_basis(sample_rate: int, window_length: int, n_mels: int) -> np.ndarray:
    """Triangular filters of unit area ``[n_mels, window_length // 2 + 1]``, float32, read-only.

    From 0 Hz to half the sample rate. Where there are more filters than bins, some are empty.
    Source: ``librosa.filters.mel`` (Slaney scale and normalisation), equal bit for bit.
    """
    bins = np.fft.rfftfreq(window_length, 1 / sample_rate)
    edges = _to_hertz(np.linspace(0, _to_mel(sample_rate / 2), n_mels + 2))
    ramps = edges[:, None] - bins
    widths = np.diff(edges)[:, None]
    rising, falling = -ramps[:-2] / widths[:-1], ramps[2:] / widths[1:]
    basis = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    basis *= (2 / (edges[2:] - edges[:-2]))[:, None]
    basis.flags.writeable = False  # Shared by the cache.
    return basis


def mel_magnitudes(
    samples: np.ndarray, sample_rate: int, window_length: int, n_mels: int
) -> np.ndarray:
    """Mel magnitudes ``[frames, n_mels]`` of ``samples [N]``, N > window_length / 2, in numpy.

    As :func:`dualcodec_jax.losses.mel_spectrogram`, which JAX compiles for every N.
    """
    padded = np.pad(samples, window_length // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, window_length)
    windowed = frames[:: window_length // 4] * hann_window(window_length)
    return np.abs(np.fft.rfft(windowed)) @ mel_basis(sample_rate, window_length, n_mels).T


def _to_mel(hertz: float) -> float:
    if hertz < _BREAK_HZ:
        return hertz / _LINEAR_STEP
    return _BREAK_HZ / _LINEAR_STEP + np.log(hertz / _BREAK_HZ) / _LOG_STEP


def _to_hertz(mels: np.ndarray) -> np.ndarray:
    first = _BREAK_HZ / _LINEAR_STEP
    linear = _LINEAR_STEP * mels
    return np.where(mels >= first, _BREAK_HZ * np.exp(_LOG_STEP * (mels - first)), linear)
