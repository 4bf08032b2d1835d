"""Audio files in and out, through soundfile (libsndfile).

libsndfile stops early without an error and does not look at the signal. What this module adds
is that every file is either refused with one clear :class:`AudioError` or read whole, with a
note where the signal is not what it seems.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dualcodec_jax.audio.headers import (
    EXACT_FORMATS,
    MAX_SAMPLE_RATE,
    MIN_SAMPLE_RATE,
    AudioInfo,
    Header,
    View,
    import_soundfile,
    no_samples,
    read_header,
    reason,
    truncated,
)
from dualcodec_jax.errors import AudioError, InputError
from dualcodec_jax.paths import replacing

DEFAULT_MAX_SECONDS = 300.0
"""Longest audio file that :func:`read_audio` decodes unless told otherwise, in seconds."""

_WRITABLE = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
}
_MAX_RATES = {"OGG": 200_000, "FLAC": 655_350}  # libsndfile crashes on higher ones
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
    if max_seconds is not None and not max_seconds > 0:
        raise InputError(f"max_seconds must be positive or None; got {max_seconds!r}")
    header = read_header(path)
    info = header.info
    # The estimate of an MP3 file's length can be several times too long.
    announced = 0.0 if info.seconds is None or info.format == "MP3" else info.seconds
    if max_seconds is not None and announced > max_seconds:
        raise _too_long(info, f"is {announced:.3f} s long,", max_seconds)
    samples, stats = _decode(header, max_seconds)
    if stats.nonfinite:
        raise AudioError(
            f"{info.path}: {stats.nonfinite} of {stats.count * info.channels} sample values are "
            "NaN or infinite (or too large for 32-bit floats); repair the file or export it again"
        )
    return Audio(samples, info.sample_rate, (*header.notes, *_signal_notes(info, stats)))


def write_audio(path: str | Path, samples: Any, sample_rate: int) -> None:
    """Write mono audio: 16-bit WAV or FLAC, or Ogg Vorbis, by the suffix of ``path``.

    Values are clipped to [-1, 1]. Missing folders are created. The file appears under its
    name only when it is complete.

    Args:
        path: file to write or replace; ends in .wav, .flac or .ogg.
        samples: floating-point array ``[N]`` or ``[1, N]`` (NumPy, JAX, ...), N > 0.
        sample_rate: in Hz, 1000 to 768000 (FLAC 655350, Ogg Vorbis 200000).

    Raises:
        InputError: for another suffix, shape, dtype or sample rate, NaN or infinite values,
            or a path that cannot be written.
        AudioError: if the encoder refuses, for instance an odd sample rate above 65535 in FLAC.
    """
    target = Path(path)
    try:
        file_format, subtype = _WRITABLE[target.suffix.lower()]
    except KeyError:
        raise InputError(
            f"{target}: unknown suffix {target.suffix!r} for audio; use {', '.join(_WRITABLE)}"
        ) from None
    rate = _checked_rate(sample_rate, _MAX_RATES.get(file_format, MAX_SAMPLE_RATE))
    data = _writable_samples(samples, subtype)
    soundfile = import_soundfile()
    with replacing(target, overwrite=True) as temporary:
        try:
            with soundfile.SoundFile(
                temporary, "w", rate, 1, format=file_format, subtype=subtype
            ) as file:
                # In blocks, because libsndfile's Vorbis encoder overflows the stack on long ones.
                for start in range(0, len(data), _BLOCK_VALUES):
                    file.write(data[start : start + _BLOCK_VALUES])
        except soundfile.SoundFileError as error:
            raise AudioError(
                f"{target}: cannot be written as {file_format} at {rate} Hz "
                f"({reason(error)}); try .wav"
            ) from error


def _decode(header: Header, max_seconds: float | None) -> tuple[NDArray[np.float32], _Stats]:
    """Decode a checked file block by block, mixing it to mono float32 ``[N]``."""
    info = header.info
    limit = math.inf if max_seconds is None else max_seconds * info.sample_rate
    stats = _Stats(1 - 2.0**-7 if info.subtype in {"PCM_U8", "PCM_S8"} else 1 - 2.0**-15)
    parts: list[NDArray[np.float32]] = []
    with header.open_samples() as (reader, view):
        for block in _blocks(reader, view, info, stats):
            stats.add(block)
            if stats.count > limit:
                raise _too_long(info, "decodes to", max_seconds)
            if not stats.nonfinite:
                mono = block[:, 0] if info.channels == 1 else block.mean(axis=1, dtype=np.float64)
                parts.append(mono.astype(np.float32))
    expected = info.num_samples
    if info.format in EXACT_FORMATS and expected is not None and stats.count < expected:
        raise truncated(info.path, expected, stats.count)
    if stats.count == 0:
        raise no_samples(info.path)
    return np.concatenate(parts) if parts else np.zeros(0, np.float32), stats


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


def _checked_rate(sample_rate: Any, highest: int) -> int:
    try:
        rate = operator.index(sample_rate)
    except TypeError:
        raise InputError(f"sample_rate must be an integer in Hz; got {sample_rate!r}") from None
    if not MIN_SAMPLE_RATE <= rate <= highest:
        raise InputError(
            f"sample_rate must be {MIN_SAMPLE_RATE} to {highest} Hz in this format; got {rate}"
        )
    return rate


def _writable_samples(samples: Any, subtype: str) -> NDArray[np.int16] | NDArray[np.float32]:
    """Check samples ``[N]`` or ``[1, N]``; return clipped int16 or float32 ``[N]``."""
    try:
        array = np.asarray(samples)
    except ValueError as error:
        raise InputError(f"samples must be an array [N] or [1, N]: {error}") from error
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        raise InputError(
            f"samples must be floating point in [-1, 1]; got {array.dtype} (divide int16 by 32768)"
        )
    if array.size == 0 or array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[0] != 1):
        raise InputError(
            f"samples must have shape [N] or [1, N] with N > 0 (mono); got {array.shape}"
        )
    flat: NDArray[Any] = array.reshape(-1).astype(
        np.float32 if array.dtype.itemsize <= 4 else np.float64
    )
    if bad := int(np.count_nonzero(~np.isfinite(flat))):
        raise InputError(f"samples: {bad} of {flat.size} values are NaN or infinite")
    clipped: NDArray[np.float64] = np.clip(flat, -1, 1)
    if subtype != "PCM_16":
        return clipped.astype(np.float32)
    # Not left to libsndfile, which scales by 32767 here but by 32768 when reading.
    steps: NDArray[np.float64] = np.minimum(np.rint(clipped * 32768), 32767)
    return steps.astype(np.int16)
