"""Kaldi-style log-mel filterbank of w2v-BERT 2.0, jittable and length-aware.

Source: ``transformers`` ``SeamlessM4TFeatureExtractor``, which computes spectra in float64.
Accelerators have no float64, and a float32 FFT loses the quiet bins of a frame (its rounding
noise lies only some 120 dB below the loudest one). So the whole linear part (mean removal,
pre-emphasis, window, DFT) is one float64 matrix made ahead of time, and the product with a
frame is formed from 8-bit slices of both factors. Each partial product is a sum of small
integers, exact in float32 on every backend and at any matmul precision; only the final
additions round. (The splitting is due to Ozaki et al., *Numer. Algorithms* 59, 2012.)
"""

from __future__ import annotations

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array, lax

from dualcodec_jax.lengths import (
    FBANK_HOP,
    FBANK_LENGTH,
    FBANK_STACK,
    SEMANTIC_SAMPLE_RATE,
    ceil_div,
    fbank_frames,
)

FFT_LENGTH = 512
NUM_MELS = 80
PREEMPHASIS = 0.97
LOW_HZ, HIGH_HZ = 20.0, 8000.0
MEL_FLOOR = 1.192092955078125e-07
FULL_SCALE = 2.0**15
VARIANCE_FLOOR = 1e-7
PADDING_VALUE = 1.0
"""Fills the missing half of an odd last frame; masked, so it never reaches an output."""

SLICE_BITS = 8
SLICES = 5
"""|slice| ≤ 128 and 400 terms: every partial product is an integer below 2^23, exact in float32.
Five slices hold frame and matrix to 40 bits below their peaks; smaller products are left out."""


@struct.dataclass
class SemanticInput:
    """Input of the self-supervised model.

    Attributes:
        features: float32 ``[B, S, 160]``, two stacked filterbank frames each.
        mask: bool ``[B, S]``, False past the end and on a last frame that is half padding.
    """

    features: Array
    mask: Array


def semantic_input(audio: Array, lengths: Array | None = None) -> SemanticInput:
    """Normalised, stacked filterbank of ``audio [B, N]`` at 16 kHz.

    ``lengths [B]`` are true lengths in samples; what lies past them changes nothing.
    """
    features = log_mel(audio)
    batch, frames, mels = features.shape
    counts = fbank_frames(
        jnp.full((batch,), audio.shape[1], jnp.int32) if lengths is None else lengths
    )
    features = normalize(features, counts)
    stacked = ceil_div(frames, FBANK_STACK)
    odd = stacked * FBANK_STACK - frames
    features = jnp.pad(features, ((0, 0), (0, odd), (0, 0)), constant_values=PADDING_VALUE)
    last = jnp.arange(stacked) * FBANK_STACK + FBANK_STACK - 1
    return SemanticInput(
        features=features.reshape(batch, stacked, mels * FBANK_STACK),
        mask=last[None, :] < counts[:, None],
    )


def normalize(features: Array, counts: Array) -> Array:
    """Zero mean and unit variance per item and mel bin over the first ``counts [B]`` frames.

    ``features [B, F, 80]``; the variance has one degree of freedom taken off. Frames past
    the count become :data:`PADDING_VALUE`.
    """
    valid = (jnp.arange(features.shape[1])[None, :] < counts[:, None])[..., None]
    total = counts[:, None, None].astype(features.dtype)
    mean = jnp.sum(jnp.where(valid, features, 0), axis=1, keepdims=True) / jnp.maximum(total, 1)
    centred = jnp.where(valid, features - mean, 0)
    variance = jnp.sum(jnp.square(centred), axis=1, keepdims=True) / jnp.maximum(total - 1, 1)
    return jnp.where(valid, centred / jnp.sqrt(variance + VARIANCE_FLOOR), PADDING_VALUE)


def log_mel(audio: Array) -> Array:
    """Natural logarithm of the mel power spectrum, float32 ``[B, F, 80]``.

    Frames of 25 ms every 10 ms, no padding at the edges, audio ``[B, N]`` scaled to 16 bits.
    """
    spectrum = _transform(overlapping_frames(audio, fbank_frames(audio.shape[1])))
    real, imaginary = jnp.split(spectrum, 2, axis=-1)
    power = jnp.square(real) + jnp.square(imaginary)
    mel = jnp.matmul(power, jnp.asarray(_mel_filters()), precision=lax.Precision.HIGHEST)
    return jnp.log(jnp.maximum(mel, MEL_FLOOR))


def overlapping_frames(audio: Array, count: int) -> Array:
    """The first ``count`` frames ``[B, count, 400]`` of ``audio [B, N]``, every 160 samples.

    Zeros follow the audio. Made of blocks of 80 samples: no gather.
    """
    block = FBANK_LENGTH - 2 * FBANK_HOP
    batch, num_samples = audio.shape
    step, span = FBANK_HOP // block, FBANK_LENGTH // block
    if count == 0:
        return jnp.zeros((batch, 0, FBANK_LENGTH), audio.dtype)
    needed = (count - 1) * step + span
    audio = jnp.pad(audio, ((0, 0), (0, max(0, needed * block - num_samples))))
    blocks = audio[:, : needed * block].reshape(batch, needed, block)
    parts = [blocks[:, i : i + (count - 1) * step + 1 : step] for i in range(span)]
    return jnp.concatenate(parts, axis=-1)


def _transform(frames: Array) -> Array:
    """Real and imaginary spectra ``[B, F, 514]`` of ``frames [B, F, 400]``, to full float32."""
    peak = jnp.max(jnp.abs(frames), axis=-1, keepdims=True)
    _, exponent = jnp.frexp(jnp.where(peak > 0, peak, 1))
    slices = jnp.stack(_slices(jnp.ldexp(frames, SLICE_BITS - 1 - exponent), SLICES, jnp))
    matrix, scale = _operator()
    orders: list[Array] = [jnp.zeros(())] * SLICES
    for j, matrix_slice in enumerate(matrix):
        products = jnp.einsum(
            "kbfi,io->kbfo",
            slices[: SLICES - j],
            jnp.asarray(matrix_slice),
            precision=lax.Precision.HIGHEST,
        )
        for i, product in enumerate(products):
            orders[i + j] = orders[i + j] + product
    total = orders[0]
    for power, order in enumerate(orders[1:], start=1):
        total = total + order * 2.0 ** (-SLICE_BITS * power)
    return jnp.ldexp(total * scale, exponent - (SLICE_BITS - 1))


def _slices(values: Any, count: int, xp: Any) -> list[Any]:
    """Integers of at most 8 bits, each worth 2^−8 of the one before, that add up to ``values``."""
    slices = []
    for _ in range(count):
        slices.append(xp.round(values))
        values = (values - slices[-1]) * 2**SLICE_BITS
    return slices


@functools.lru_cache(maxsize=1)
def _operator() -> tuple[tuple[np.ndarray, ...], float]:
    """Frame → spectrum as one float64 matrix ``[400, 514]``, in 8-bit slices and a scale."""
    length = FBANK_LENGTH
    centre = np.eye(length) - 1 / length
    emphasis = np.eye(length) - PREEMPHASIS * np.eye(length, k=-1)
    emphasis[0, 0] = 1 - PREEMPHASIS
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / (length - 1))
    window = hann**0.85
    basis = np.fft.rfft(np.eye(length), n=FFT_LENGTH)
    linear = (centre.T @ emphasis.T * window) @ basis * FULL_SCALE
    matrix = np.concatenate([linear.real, linear.imag], axis=1)
    exponent = int(np.frexp(np.abs(matrix).max())[1])
    slices = _slices(np.ldexp(matrix, SLICE_BITS - 1 - exponent), SLICES, np)
    scale = 2.0 ** (exponent - (SLICE_BITS - 1))
    return tuple(s.astype(np.float32) for s in slices), scale


@functools.lru_cache(maxsize=1)
def _mel_filters() -> np.ndarray:
    """Triangular filters ``[257, 80]``, linear on the Kaldi mel scale, no area normalisation."""

    def mel(hertz: np.ndarray | float) -> np.ndarray:
        return 1127.0 * np.log(1.0 + np.asarray(hertz, np.float64) / 700.0)

    edges = np.linspace(mel(LOW_HZ), mel(HIGH_HZ), NUM_MELS + 2)
    bins = mel(np.arange(FFT_LENGTH // 2 + 1) * SEMANTIC_SAMPLE_RATE / FFT_LENGTH)[:, None]
    rising = (bins - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - bins) / np.diff(edges)[1:]
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
