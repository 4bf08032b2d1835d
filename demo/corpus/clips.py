"""From recordings to clips: resampling, trimming, splitting, and what is no speech."""

from __future__ import annotations

import enum

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 24000
MIN_SECONDS = 0.8
MAX_SECONDS = 20.0

FRAME = SAMPLE_RATE // 50
"""Samples in a frame of the level measurement: 20 ms."""
MARGIN = SAMPLE_RATE // 5
"""Samples kept before and after speech, if there are as many."""
DYNAMIC_RANGE_DB = 40.0
"""Frames this far below the loud ones count as pause."""
SILENCE_DB = -55.0
"""Clips whose loud frames are below this level, relative to full scale, count as silent."""
SPECTRUM = 1024
"""Samples in a frame of the tone and noise measurement."""
TONE_SHARE = 0.98
"""Share of a frame's energy in its five strongest bins from which on it is a tone."""
NOISE_FLATNESS = 0.3
"""Spectral flatness from which on a clip is noise; speech has 0.001 to 0.1."""

Samples = NDArray[np.float32]


class Rejected(enum.StrEnum):
    """Why a clip is left out."""

    SHORT = "too short"
    SILENT = "silent"
    TONE = "tone"
    NOISE = "noise"


def clips(samples: NDArray[np.floating], sample_rate: float) -> list[Samples] | Rejected:
    """Cut one recording into clips.

    Args:
        samples: mono ``[N]``, full scale being 1.
        sample_rate: in Hz.

    Returns:
        Clips at 24 kHz of 0.8 to 20 s, without long silence at the ends and with no sample
        above 1, or why there are none.
    """
    audio = trim(limit(resample(samples, sample_rate)))
    if audio.size < MIN_SECONDS * SAMPLE_RATE:
        return Rejected.SHORT
    if np.percentile(levels(audio), 95) < SILENCE_DB:
        return Rejected.SILENT
    tone, flatness = tonality(audio)
    if tone > TONE_SHARE:
        return Rejected.TONE
    if flatness > NOISE_FLATNESS:
        return Rejected.NOISE
    pieces = [trim(piece) for piece in split(audio)]
    return [piece for piece in pieces if piece.size >= MIN_SECONDS * SAMPLE_RATE]


def resample(samples: NDArray[np.floating], sample_rate: float) -> Samples:
    """Resample ``[N]`` to 24 kHz with soxr, high quality."""
    import soxr

    audio = np.asarray(samples, np.float32)
    return audio if sample_rate == SAMPLE_RATE else soxr.resample(audio, sample_rate, SAMPLE_RATE)


def limit(audio: Samples) -> Samples:
    """Divide by the largest magnitude if it exceeds 1; otherwise the level is left alone."""
    peak = float(np.max(np.abs(audio), initial=0.0))
    return audio / np.float32(peak) if peak > 1 else audio


def levels(audio: Samples) -> NDArray[np.float64]:
    """Level of each 20 ms ``[⌈N / 480⌉]`` in dB relative to full scale, -120 at least."""
    padded = np.pad(audio.astype(np.float64), (0, -audio.size % FRAME))
    power = np.mean(padded.reshape(-1, FRAME) ** 2, axis=1)
    return 10 * np.log10(np.maximum(power, 1e-12))


def trim(audio: Samples) -> Samples:
    """Cut silence at both ends, leaving 0.2 s."""
    if not audio.size:
        return audio
    level = levels(audio)
    active = np.flatnonzero(level > np.percentile(level, 95) - DYNAMIC_RANGE_DB)
    if not active.size:
        return audio[:0]
    start = max(0, int(active[0]) * FRAME - MARGIN)
    return audio[start : (int(active[-1]) + 1) * FRAME + MARGIN]


def split(audio: Samples, max_seconds: float = MAX_SECONDS) -> list[Samples]:
    """Cut at the quietest 0.2 s of the middle third until no piece is longer."""
    if audio.size <= max_seconds * SAMPLE_RATE:
        return [audio]
    level = levels(audio)
    smooth = np.convolve(10 ** (level / 10), np.full(10, 0.1), mode="same")
    first = len(smooth) // 3
    middle = (first + int(np.argmin(smooth[first : 2 * first + 1]))) * FRAME
    return [*split(audio[:middle], max_seconds), *split(audio[middle:], max_seconds)]


def tonality(audio: Samples) -> tuple[float, float]:
    """What tells tones and noise from speech, over the frames that are not pause.

    Returns:
        Mean share of a frame's energy in its five strongest frequency bins, and median
        spectral flatness (geometric over arithmetic mean of power) below 8 kHz.
    """
    if audio.size < SPECTRUM:
        return 0.0, 0.0
    frames = np.lib.stride_tricks.sliding_window_view(audio, SPECTRUM)[:: SPECTRUM // 2]
    energy = np.sum(frames.astype(np.float64) ** 2, axis=1)
    loud = energy > np.percentile(energy, 95) * 10 ** (-DYNAMIC_RANGE_DB / 20)
    power = np.abs(np.fft.rfft(frames[loud] * np.hanning(SPECTRUM), axis=1)) ** 2
    power = power[:, : 8000 * SPECTRUM // SAMPLE_RATE] + 1e-12
    strongest = np.sort(power, axis=1)[:, -5:].sum(axis=1) / power.sum(axis=1)
    flatness = np.exp(np.mean(np.log(power), axis=1)) / np.mean(power, axis=1)
    return float(np.mean(strongest)), float(np.median(flatness))
