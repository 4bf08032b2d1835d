"""Whisper's log-mel spectrogram, jittable and length-aware.

Source: ``transformers`` ``WhisperFeatureExtractor``. That one pads all audio with zeros to 30 s;
here the zeros follow an item's true end, and the spectrogram ends there too.
"""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from dualcodec_jax.audio.fbank import overlapping_frames
from dualcodec_jax.audio.mel import mel_basis
from dualcodec_jax.audio.spectral import hann_window, reflect_pad
from dualcodec_jax.lengths import (
    FBANK_HOP,
    FBANK_LENGTH,
    SEMANTIC_SAMPLE_RATE,
    ceil_div,
    whisper_frames,
)
from dualcodec_jax.nn.ops import mask_time

POWER_FLOOR = 1e-10
RANGE = 8.0
"""Decades of power below the loudest bin of an item that are told apart."""


def whisper_log_mel(audio: Array, lengths: Array, num_mels: int) -> Array:
    """Normalised logarithm of the mel power, float32 ``[B, F, num_mels]``.

    Args:
        audio: ``[B, N]`` at 16 kHz.
        lengths: int ``[B]``, true lengths in samples; what lies past them changes nothing.
        num_mels: mel bins.

    Frames of 25 ms every 10 ms, centred; the start is mirrored. F is that of N samples, and
    frames past an item's own number are 0.
    """
    half, size = FBANK_LENGTH // 2, audio.shape[1]
    # The zeros past the end are mirrored as well, if the start of the audio is all there is.
    extended = jnp.pad(mask_time(audio, lengths), ((0, 0), (0, max(0, half + 1 - size))))
    padded = reflect_pad(extended, half, 0)
    # A loud onset may lie in the frames that straddle the end, which the range is taken over too.
    frames = ceil_div(size + half, FBANK_HOP)
    power = _power(overlapping_frames(padded, frames))
    basis = jnp.asarray(mel_basis(SEMANTIC_SAMPLE_RATE, FBANK_LENGTH, num_mels))
    mel = jnp.matmul(power, basis.T, precision=lax.Precision.HIGHEST)
    mel = jnp.log10(jnp.maximum(mel, POWER_FLOOR))
    loudest = jnp.max(mel, axis=(1, 2), keepdims=True)
    scaled = (jnp.maximum(mel, loudest - RANGE) + 4) / 4
    return mask_time(scaled[:, : whisper_frames(size)], whisper_frames(lengths))


def _power(frames: Array) -> Array:
    """Power spectra ``[B, F, 201]`` of ``frames [B, F, 400]``."""
    matrix = jnp.asarray(_transform())
    spectrum = jnp.matmul(frames, matrix, precision=lax.Precision.HIGHEST)
    real, imaginary = jnp.split(jnp.square(spectrum), 2, axis=-1)
    return real + imaginary


@functools.lru_cache(maxsize=1)
def _transform() -> np.ndarray:
    """Window and DFT as one matrix ``[400, 402]``, real parts first, float32 from float64."""
    basis = np.fft.rfft(np.eye(FBANK_LENGTH)) * hann_window(FBANK_LENGTH)[:, None].astype(
        np.float64
    )
    return np.concatenate([basis.real, basis.imag], axis=1).astype(np.float32)
