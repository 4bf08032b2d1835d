"""Any audio file as mono float32 at the codec's sample rate, whole or block by block."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dualcodec_jax.audio.reader import DEFAULT_MAX_SECONDS, Audio, AudioReader
from dualcodec_jax.audio.resample import StreamResampler


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
    stream = AudioStream(path, sample_rate, max_seconds=max_seconds)
    samples = np.concatenate(list(stream))
    return Audio(samples, sample_rate, stream.notes)


class AudioStream:
    """:func:`load_audio` block by block, for files of any length.

    Iterating gives float32 ``[N]``, any N, and raises :class:`AudioError` where the file cannot be
    used further.

    Attributes:
        seconds: duration according to the header; None if it does not say.
        notes: sentences on what changed the signal; complete when all of it was read.
    """

    def __init__(
        self, path: str | Path, sample_rate: int = 24000, *, max_seconds: float | None = None
    ) -> None:
        """Check the header. Arguments: see :func:`load_audio`."""
        self._reader, self._sample_rate = AudioReader(path, max_seconds=max_seconds), sample_rate
        self.seconds = self._reader.info.seconds
        self.notes = self._reader.notes

    def __iter__(self) -> Iterator[np.ndarray]:
        """Read the file from its beginning."""
        rate = self._reader.info.sample_rate
        resampler = StreamResampler(rate, self._sample_rate)
        for block in self._reader:
            yield resampler.push(block)
        yield resampler.finish()
        self.notes = self._reader.notes
        if rate != self._sample_rate:
            self.notes += (f"resampled from {rate} to {self._sample_rate} Hz",)
