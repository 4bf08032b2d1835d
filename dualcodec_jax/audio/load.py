"""Any audio file as mono float32 at the codec's sample rate."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np

from dualcodec_jax.audio.io import DEFAULT_MAX_SECONDS, Audio, read_audio
from dualcodec_jax.audio.resample import resample
from dualcodec_jax.lengths import bucket, resampled_length


def load_audio(
    path: str | Path,
    sample_rate: int = 24000,
    *,
    max_seconds: float | None = DEFAULT_MAX_SECONDS,
) -> Audio:
    """Read, mix to mono and resample (as torchaudio does) an audio file.

    Args:
        path: any file that libsndfile reads.
        sample_rate: of the result, in Hz.
        max_seconds: longer files are refused; None lifts the limit.

    Returns:
        float32 samples ``[N]``, with notes on whatever changed the signal.

    Raises:
        AudioError: if the file cannot be used; the message says why.
    """
    audio = read_audio(path, max_seconds=max_seconds)
    if audio.sample_rate == sample_rate:
        return audio
    note = f"resampled from {audio.sample_rate} to {sample_rate} Hz"
    return dataclasses.replace(
        audio,
        samples=resample_clip(audio.samples, audio.sample_rate, sample_rate),
        sample_rate=sample_rate,
        notes=(*audio.notes, note),
    )


def resample_clip(samples: np.ndarray, orig_rate: int, new_rate: int) -> np.ndarray:
    """Resample ``samples [N]``; lengths are padded to buckets, so few of them compile."""
    padded = np.zeros(bucket(samples.size), np.float32)
    padded[: samples.size] = samples
    result = _resample(padded, orig_rate, new_rate)
    return np.asarray(result)[: resampled_length(samples.size, orig_rate, new_rate)]


_resample = jax.jit(resample, static_argnums=(1, 2))
