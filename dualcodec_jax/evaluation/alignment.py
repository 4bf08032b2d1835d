"""Alignment in time before metrics that compare output and original."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

MAX_SHIFT_SECONDS = 0.1
MIN_CORRELATION = 0.3
"""Below it the peak is no evidence of a shift: vocoders keep no waveform, only its period. Speech
through Codec2 reaches 0.26, through Opus at 6 kbit/s 0.77."""


class Alignment(NamedTuple):
    """Two clips of one length that start together.

    Attributes:
        original: ``[N']``.
        output: ``[N']``.
        shift: samples by which the output was late; negative: early.
    """

    original: np.ndarray
    output: np.ndarray
    shift: int


def align(
    original: np.ndarray,
    output: np.ndarray,
    sample_rate: int,
    max_shift_seconds: float = MAX_SHIFT_SECONDS,
) -> Alignment:
    """Undo the delay of ``output [M]`` against ``original [N]`` and cut both to what they share.

    The delay is where their cross-correlation is highest, in whole samples, if the coefficient of
    correlation there reaches :data:`MIN_CORRELATION` and exceeds that without a shift; otherwise
    none, as of vocoders (Codec2): those must be without delay. Levels are kept.
    """
    shift = _shift(original, output, round(max_shift_seconds * sample_rate))
    original, output = original[max(-shift, 0) :], output[max(shift, 0) :]
    length = min(original.size, output.size)
    return Alignment(original[:length], output[:length], shift)


def _shift(original: np.ndarray, output: np.ndarray, most: int) -> int:
    most = min(most, min(original.size, output.size) - 1)
    if most <= 0:
        return 0
    if not (np.isfinite(original).all() and np.isfinite(output).all()):
        return 0
    size = 1 << (original.size + output.size - 1).bit_length()
    spectrum = np.fft.rfft(output.astype(np.float64), size)
    spectrum *= np.conj(np.fft.rfft(original.astype(np.float64), size))
    correlation = np.fft.irfft(spectrum, size)
    lags = np.arange(-most, most + 1)
    near = correlation[lags]  # of negative lags at the end
    best = int(lags[np.argmax(near)])
    energy = float(np.linalg.norm(original)) * float(np.linalg.norm(output))
    significant = near.max() >= MIN_CORRELATION * energy > 0 and near.max() > correlation[0]
    return best if significant else 0
