"""Audio files in, through soundfile (libsndfile).

libsndfile stops early without an error and does not look at the signal. What this module adds
is that every file is either refused with one clear :class:`AudioError` or read whole, with a
note where the signal is not what it seems.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dualcodec_jax.audio.headers import (
    EXACT_FORMATS,
    AudioInfo,
    View,
    import_soundfile,
    no_samples,
    read_header,
    reason,
    truncated,
)
from dualcodec_jax.errors import AudioError, InputError

DEFAULT_MAX_SECONDS = 300.0
"""Longest audio file that :func:`read_audio` decodes unless told otherwise, in seconds."""

_EIGHT_BIT = frozenset({"PCM_U8", "PCM_S8", "ULAW", "ALAW"})
_BLOCK_VALUES = 1 << 18  # decoded at a time, all channels together
_MP3_FRAME = 1152  # samples
_MIN_CLIPPED = 10  # a peak-normalised file has one or two samples at full scale


@dataclass(frozen=True)
class Audio:
    """A decoded audio file.

    Attributes:
        samples: float32 ``[N]``, mono, finite, N > 0, at :attr:`sample_rate`. Nominally in
            [-1, 1]; files that go beyond are not rescaled.
        sample_rate: in Hz, 1000 to 768000.
        notes: sentences for the user on what was changed or looks wrong.
    """

    samples: NDArray[np.float32]
    sample_rate: int
    notes: tuple[str, ...]


@dataclass
class _Stats:
    """Running facts about all channels of the decoded signal."""

    full_scale: float
    count: int = 0
    nonfinite: int = 0
    clipped: int = 0
    peak: float = 0.0

    def add(self, block: NDArray[np.float32]) -> None:
        magnitude = np.abs(block)
        self.count += len(block)
        self.nonfinite += int(np.count_nonzero(~np.isfinite(magnitude)))
        self.clipped += int(np.count_nonzero(magnitude >= self.full_scale))
        self.peak = max(self.peak, float(magnitude.max()))


def audio_info(path: str | Path) -> AudioInfo:
    """Read the header of an audio file.

    Raises:
        AudioError: as :func:`read_audio`, as far as the header and the file size tell.
    """
    return read_header(path).info


def read_audio(path: str | Path, *, max_seconds: float | None = DEFAULT_MAX_SECONDS) -> Audio:
    """Decode an audio file to mono; no resampling.

    The length is checked before decoding and again while decoding, in blocks, so that a
    small file which decodes to gigabytes costs nothing.

    Args:
        path: a wav, flac, ogg, opus, mp3 or aiff file; its content counts, not its name.
        max_seconds: longest duration accepted; ``None`` for no limit.

    Returns:
        Samples as float32 ``[N]``, their rate in Hz, and notes.

    Raises:
        AudioError: the file is missing, a folder, empty, not audio, damaged, truncated, too
            long, has a sample rate outside 1000 to 768000 Hz, or NaN or infinite samples.
        InputError: ``max_seconds`` is not a positive number.
    """
    reader = AudioReader(path, max_seconds=max_seconds)
    samples = np.concatenate(list(reader))
    return Audio(samples, reader.info.sample_rate, reader.notes)


class AudioReader:
    """An audio file as blocks of mono samples, for files that memory cannot hold.

    Iterating gives float32 ``[N]``, any N > 0, at ``info.sample_rate``, and raises as
    :func:`read_audio`: what is wrong further on in a file shows when it is reached.

    Attributes:
        info: what the header says.
        notes: sentences for the user; those on the signal when all of it was read.
    """

    def __init__(self, path: str | Path, *, max_seconds: float | None = None) -> None:
        """Check the header. Arguments and errors: see :func:`read_audio`."""
        if max_seconds is not None and not max_seconds > 0:
            raise InputError(f"max_seconds must be positive or None; got {max_seconds!r}")
        self._header, self._max_seconds = read_header(path), max_seconds
        self.info, self.notes = self._header.info, self._header.notes
        # The estimate of an MP3 file's length can be several times too long.
        seconds = self.info.seconds
        announced = 0.0 if seconds is None or self.info.format == "MP3" else seconds
        if max_seconds is not None and announced > max_seconds:
            raise _too_long(self.info, f"is {announced:.3f} s long,", max_seconds)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Decode the file from its beginning."""
        info = self.info
        limit = math.inf if self._max_seconds is None else self._max_seconds * info.sample_rate
        stats = _Stats(1 - 2.0**-7 if info.subtype in {"PCM_U8", "PCM_S8"} else 1 - 2.0**-15)
        with self._header.open_samples() as (reader, view):
            for block in _blocks(reader, view, info, stats):
                stats.add(block)
                if stats.count > limit:
                    raise _too_long(info, "decodes to", self._max_seconds)
                if not stats.nonfinite:
                    yield _mono(block)
        expected = info.num_samples
        if info.format in EXACT_FORMATS and expected is not None and stats.count < expected:
            raise truncated(info.path, expected, stats.count)
        if stats.count == 0:
            raise no_samples(info.path)
        if stats.nonfinite:
            raise AudioError(
                f"{info.path}: {stats.nonfinite} of {stats.count * info.channels} sample values "
                "are NaN or infinite (or too large for 32-bit floats); repair the file or export "
                "it again"
            )
        self.notes = (*self._header.notes, *_signal_notes(info, stats))


def _mono(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of the channels of ``block [N, channels]``, in an array of its own."""
    if block.shape[1] == 1:
        return block[:, 0].copy()
    return block.mean(axis=1, dtype=np.float64).astype(np.float32)


def _blocks(
    reader: Any, view: View | None, info: AudioInfo, stats: _Stats
) -> Iterator[NDArray[np.float32]]:
    """Yield the decoded signal as float32 ``[frames, channels]``, overwritten each time."""
    # An MP3 file that seems longer may end in an error, which loses the block.
    longer = view if view is not None and view.is_longer else None
    size = _MP3_FRAME if longer else max(1, _BLOCK_VALUES // info.channels)
    block = np.empty((size, info.channels), np.float32)
    while stats.count < reader.frames:
        # Never asking beyond the end: FLAC would take what follows, a tag say, for damage.
        out = block[: min(len(block), reader.frames - stats.count)]
        try:
            decoded = reader.read(dtype="float32", always_2d=True, out=out)
        except import_soundfile().SoundFileError as error:
            if longer and longer.is_exhausted:
                return
            of_how_many = "" if info.num_samples is None else f" of {info.num_samples}"
            raise AudioError(
                f"{info.path}: damaged or truncated: decoding stopped after "
                f"{stats.count}{of_how_many} samples ({reason(error)}); copy or export the file "
                "again"
            ) from error
        if len(decoded) == 0:
            return
        yield decoded


def _too_long(info: AudioInfo, what: str, max_seconds: float | None) -> AudioError:
    return AudioError(
        f"{info.path}: {what} more than max_seconds={max_seconds:g}; raise max_seconds "
        "(--max-seconds on the command line) or split the file"
    )


def _signal_notes(info: AudioInfo, stats: _Stats) -> Iterator[str]:
    if info.num_samples is not None and stats.count < info.num_samples:
        yield (
            f"the header announces {info.num_samples} samples, {stats.count} could be decoded: cut "
            "short, or the header is an estimate"
        )
    if info.channels > 1:
        yield f"{info.channels} channels mixed to mono by their mean"
    if info.subtype in _EIGHT_BIT:
        yield f"8-bit source ({info.subtype}): expect audible quantisation noise"
    if stats.peak == 0:
        yield "silent: all samples are zero"
    if stats.peak > 1:
        yield f"samples reach {stats.peak:.4g}, beyond [-1, 1]; not rescaled"
    elif stats.clipped >= _MIN_CLIPPED:
        share = 100 * stats.clipped / (stats.count * info.channels)
        yield f"clipped: {stats.clipped} samples ({share:.2g} %) at full scale"
