"""Audio files in and out, through soundfile (libsndfile), and the search for them.

libsndfile is lenient: it clamps sizes that lie, stops early without an error, and trusts
estimates. What this module adds is that every such file is either refused with one clear
:class:`AudioError` or read whole, with a note where the signal is not what it seems.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import io
import math
import operator
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dualcodec_jax.errors import AudioError, DualCodecError, InputError

DEFAULT_MAX_SECONDS = 300.0
"""Longest audio file that :func:`read_audio` decodes unless told otherwise, in seconds."""
AUDIO_SUFFIXES = frozenset(
    {".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff"}
)
"""File name suffixes that :func:`find_audio_files` takes from folders, in lower case."""
MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 1000, 768_000
"""Sample rates that are believed, in Hz."""

_READABLE = "wav, flac, ogg (Vorbis or Opus), mp3, aiff"
# Of the formats libsndfile knows, those whose header can be checked against the content,
# and those whose header is an estimate.
_EXACT_FORMATS = frozenset({"WAV", "WAVEX", "RF64", "AIFF", "FLAC"})
_ESTIMATED_FORMATS = frozenset({"OGG", "MP3"})
_FOREIGN_SUFFIXES = frozenset(
    {".m4a", ".m4b", ".aac", ".mp4", ".mov", ".3gp", ".wma", ".amr", ".webm", ".mkv", ".ape"}
)
_WRITABLE = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
}
_EIGHT_BIT = frozenset({"PCM_U8", "PCM_S8", "ULAW", "ALAW"})
_BYTES_PER_VALUE = {
    "PCM_U8": 1,
    "PCM_S8": 1,
    "ULAW": 1,
    "ALAW": 1,
    "PCM_16": 2,
    "PCM_24": 3,
    "PCM_32": 4,
    "FLOAT": 4,
    "DOUBLE": 8,
}
_BLOCK_VALUES = 1 << 18  # decoded at a time, all channels together
_MIN_CLIPPED = 10  # a peak-normalised file has one or two samples at full scale
_UNKNOWN_FRAMES = (1 << 63) - 1  # libsndfile's SF_COUNT_MAX: a FLAC written to a pipe
_MAX_CHUNKS = 10_000
# Writers that cannot seek back leave a size near 2 or 4 GiB: ffmpeg 0xFFFFFFFF, sox
# 0x7FFFF000 rounded down to whole samples, arecord 0x80000000.
_PLACEHOLDER_SIZE = 0x7FFF_0000
_MP3_LENGTH_FACTOR = 64  # more than the ratio of the highest to the lowest MP3 bit rate
_MP3_FRAME = 1152
_MAX_RATES = {"OGG": 200_000, "FLAC": 655_350}  # libsndfile crashes on higher ones


@dataclass(frozen=True)
class AudioInfo:
    """What the header of an audio file says.

    Attributes:
        path: the file.
        sample_rate: in Hz.
        channels: number of channels.
        num_samples: samples per channel; an estimate for MP3; ``None`` if the header does
            not say (a FLAC file written to a pipe).
        seconds: duration, or ``None`` as above.
        format: libsndfile's name of the container, such as ``WAV``.
        subtype: libsndfile's name of the sample format, such as ``PCM_16``.
    """

    path: Path
    sample_rate: int
    channels: int
    num_samples: int | None
    seconds: float | None
    format: str
    subtype: str


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


@dataclass(frozen=True)
class _Chunk:
    """The chunk of a RIFF or AIFF file that holds the samples; sizes in bytes."""

    declared: int
    available: int
    size_at: int
    is_placeholder: bool


@dataclass(frozen=True)
class _Header:
    info: AudioInfo
    patch_at: int | None  # where a WAV data size of 0 has to be replaced for libsndfile
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


class _View(io.FileIO):
    """A file as libsndfile should see it: with four bytes replaced, or seemingly longer.

    A WAV data size of 0 makes libsndfile read nothing, and the length it estimates for an
    MP3 file without a frame count (from the bit rate of the first frame) silently cuts
    files of variable bit rate. libsndfile finds the end of both by itself if allowed to.
    """

    def __init__(self, path: Path, *, patch_at: int | None = None, length_factor: int = 1):
        super().__init__(path, "rb")
        self._patch_at = patch_at
        self._surplus = (length_factor - 1) * os.fstat(self.fileno()).st_size
        self._from_end = False
        self.exhausted = False

    def readinto(self, buffer: Any) -> int:
        start = super().tell()
        count = super().readinto(buffer) or 0
        self.exhausted = count < len(buffer)
        if self._patch_at is not None:
            view = memoryview(buffer).cast("B")
            for at in range(max(start, self._patch_at), min(start + count, self._patch_at + 4)):
                view[at - start] = 0xFF
        return count

    # The length is asked for by seeking to the end; a tag is also read there, so that only
    # what tell() says may change.
    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        if whence != os.SEEK_CUR:
            self._from_end = whence == os.SEEK_END
        super().seek(offset, whence)
        return self.tell()

    def tell(self) -> int:
        return super().tell() + (self._surplus if self._from_end else 0)


def audio_info(path: str | Path) -> AudioInfo:
    """Read the header of an audio file.

    Raises:
        AudioError: as :func:`read_audio`, as far as the header and the file size tell.
    """
    return _read_header(_existing_file(path)).info


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
    file = _existing_file(path)
    header = _read_header(file)
    info = header.info
    # The estimate of an MP3 file's length can be several times too long.
    if max_seconds is not None and info.seconds is not None and info.format != "MP3":
        if info.seconds > max_seconds:
            raise AudioError(_too_long(file, f"is {info.seconds:.3f} s long,", max_seconds))
    samples, stats = _decode(header, max_seconds)
    if stats.nonfinite:
        raise AudioError(
            f"{file}: {stats.nonfinite} of {stats.count * info.channels} sample values are NaN or "
            "infinite (or too large for 32-bit floats); repair the file or export it again"
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
    soundfile = _soundfile()
    with replacing(target) as temporary:
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
                f"({_reason(error)}); try .wav"
            ) from error


def find_audio_files(inputs: Sequence[str | Path] | str | Path) -> list[tuple[Path, Path]]:
    """Expand files, folders and glob patterns into audio files; see :func:`find_files`.

    Raises:
        AudioError: an input is missing or leads to no audio file.
        InputError: two files would have the same place below an output folder.
    """
    return find_files(inputs, AUDIO_SUFFIXES)


def find_files(
    inputs: Sequence[str | Path] | str | Path,
    suffixes: Iterable[str],
    *,
    error: type[DualCodecError] = AudioError,
) -> list[tuple[Path, Path]]:
    """Expand files, folders and glob patterns, in the order given, each one sorted.

    A plain file is taken whatever its suffix. Folders, also those that a pattern matches,
    are searched recursively for the suffixes, leaving out hidden files and folders and not
    following links to folders. A file reached twice is listed once.

    Args:
        inputs: paths or patterns (``*``, ``?``, ``[...]``, ``**``); a path that exists is
            never taken for a pattern.
        suffixes: suffixes to look for, in lower case, with the dot.
        error: class of the error for missing inputs.

    Returns:
        Pairs of a file and the relative path that keeps the folder structure below an output
        folder: relative to the folder given, or to the part of a pattern before the first
        wildcard; of a plain file, its name.

    Raises:
        DualCodecError: of class ``error``, if an input is missing or leads to no file.
        InputError: two files have the same relative path.
    """
    wanted = frozenset(suffixes)
    names = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
    if not names:
        raise error("no input files given; name files, folders or glob patterns")
    found: dict[Path, Path] = {}
    for name in names:
        for file, relative in _expand(os.fspath(name), wanted, error):
            other = found.setdefault(relative, file)
            if other != file and not os.path.samefile(other, file):
                raise InputError(
                    f"{other} and {file} would both become {relative} below the output folder; "
                    "process them separately or give their common folder"
                )
    return [(file, relative) for relative, file in found.items()]


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``, which replaces ``path`` on success.

    If the block raises, what ``path`` held stays and the temporary file goes. Missing
    folders are created; a symbolic link is written through.

    Raises:
        InputError: ``path`` is a folder or a device, or cannot be written.
    """
    if "\0" in str(path):
        raise InputError(f"{str(path)!r}: a path cannot contain a null character")
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise InputError(f"{path}: is a folder; give the name of a file to write")
    if target.exists() and not target.is_file():
        raise InputError(f"{path}: is not a regular file; give the name of a file to write")
    temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror or error}); choose another place or make "
            "room"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _soundfile() -> Any:
    try:
        import soundfile  # type: ignore[import-untyped]
    except (ImportError, OSError) as error:
        raise AudioError(
            f"audio files need the package soundfile, which cannot be imported ({error}); run "
            "pip install soundfile"
        ) from error
    return soundfile


@functools.cache
def _reader_class() -> Any:
    class Reader(_soundfile().SoundFile):  # type: ignore[misc]
        # SoundFile seeks after every read of a seekable file, to where it already is. That
        # alters what MP3 decodes to, and fails on FLAC files of unknown length.
        def seekable(self) -> bool:
            return False

    return Reader


def _existing_file(path: str | Path) -> Path:
    file = Path(path)
    try:
        size = file.stat().st_size
    except (FileNotFoundError, ValueError):
        raise AudioError(f"{file}: no such file; check the path") from None
    except OSError as error:
        raise AudioError(f"{file}: cannot be read ({error.strerror})") from error
    if file.is_dir():
        raise AudioError(f"{file}: is a folder; give an audio file, or expand it first")
    if not file.is_file():
        raise AudioError(f"{file}: is not a regular file; save the audio to a file first")
    if not os.access(file, os.R_OK):
        raise AudioError(f"{file}: cannot be read (permission denied)")
    if size == 0:
        raise AudioError(f"{file}: is empty (0 bytes)")
    return file


@contextlib.contextmanager
def _open(file: Path, view: _View | None = None) -> Iterator[Any]:
    """Open with libsndfile, yielding a ``SoundFile`` of one of the supported formats."""
    soundfile = _soundfile()
    if file.suffix.lower() == ".raw":  # soundfile would want to know rate and format
        raise AudioError(f"{file}: headerless audio cannot be read; supported: {_READABLE}")
    try:
        # Bytes, because soundfile cannot encode names that are not valid UTF-8.
        name = str(file) if os.name == "nt" else os.fsencode(file)
        reader = _reader_class()(name if view is None else view)
    except soundfile.SoundFileError as error:
        raise AudioError(_not_audio(file, _reason(error))) from error
    with reader:
        if reader.format not in _EXACT_FORMATS | _ESTIMATED_FORMATS:
            raise AudioError(_not_audio(file, f"format {reader.format}"))
        yield reader


def _read_header(file: Path) -> _Header:
    """Read and check the header; see :func:`read_audio` for the errors."""
    chunk = _data_chunk(file)
    patch_at, notes = None, []
    if chunk is not None and chunk.is_placeholder:
        notes.append("streamed file without a data size: read to the end of the file")
        patch_at = None if chunk.declared else chunk.size_at
    with contextlib.ExitStack() as stack:
        view = None
        if patch_at is not None:
            view = stack.enter_context(_View(file, patch_at=patch_at))
        reader = stack.enter_context(_open(file, view))
        rate, channels, frames = reader.samplerate, reader.channels, reader.frames
        file_format, subtype = reader.format, reader.subtype
    if not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE:
        raise AudioError(
            f"{file}: sample rate {rate} Hz is outside {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz; "
            "the header is damaged, or resample the file first"
        )
    if chunk is not None and not chunk.is_placeholder:
        declared = _declared_frames(chunk, frames, subtype, channels)
        if declared > frames:
            raise AudioError(_truncated(file, declared, frames))
    if frames <= 0:
        raise AudioError(f"{file}: has no samples; the file is empty or was cut short")
    known = None if frames == _UNKNOWN_FRAMES else frames
    seconds = None if known is None else known / rate
    info = AudioInfo(file, rate, channels, known, seconds, file_format, subtype)
    return _Header(info, patch_at, tuple(notes))


def _declared_frames(chunk: _Chunk, frames: int, subtype: str, channels: int) -> int:
    """Samples per channel that the header promises, given the ``frames`` that are there."""
    if chunk.declared <= chunk.available:
        return frames
    if subtype in _BYTES_PER_VALUE:
        return chunk.declared // (_BYTES_PER_VALUE[subtype] * channels)
    return chunk.declared * max(frames, 1) // max(chunk.available, 1)


def _data_chunk(file: Path) -> _Chunk | None:
    """Find the samples of a WAV or AIFF file; ``None`` for other files."""
    with file.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        form = stream.read(12)
        orders: dict[bytes, Any] = {b"RIFF": "little", b"RF64": "little"}
        orders |= {b"RIFX": "big", b"FORM": "big"}
        order = orders.get(form[:4])
        if order is None:
            return None
        size64 = None
        for _ in range(_MAX_CHUNKS):
            head = stream.read(8)
            if len(head) < 8:
                return None
            name, declared = head[:4], int.from_bytes(head[4:], order)
            start = stream.tell()
            if name == b"ds64":
                size64 = int.from_bytes(stream.read(16)[8:], "little")
            elif name == b"SSND":  # starts with two fields of its own
                return _Chunk(declared - 8, size - start - 8, start - 4, False)
            elif name == b"data":
                if size64 is not None and declared == 0xFFFFFFFF:
                    return _Chunk(size64, size - start, start - 4, size64 >= (1 << 63))
                if declared:
                    is_placeholder = declared > size - start and declared >= _PLACEHOLDER_SIZE
                else:
                    is_placeholder = start < size and not _only_chunks(stream, start, size, order)
                return _Chunk(declared, size - start, start - 4, is_placeholder)
            stream.seek(start + declared + declared % 2)
    return None


def _has_frame_count(file: Path) -> bool:
    """Whether the first frame of an MP3 file says how many follow."""
    with file.open("rb") as stream:
        tag = stream.read(10)
        if tag[:3] == b"ID3" and len(tag) == 10:
            size = functools.reduce(lambda total, byte: total << 7 | byte & 127, tag[6:], 0)
            stream.seek(10 + size)
            tag = b""
        first = tag + stream.read(_MP3_FRAME)
    return any(name in first for name in (b"Xing", b"Info", b"VBRI"))


def _only_chunks(stream: Any, start: int, size: int, order: Any) -> bool:
    """Whether the rest of a RIFF file is well-formed chunks, not unannounced samples."""
    for _ in range(_MAX_CHUNKS):
        if start >= size:
            break
        stream.seek(start)
        head = stream.read(8)
        if len(head) < 8 or not all(32 <= byte < 127 for byte in head[:4]):
            return False
        declared = int.from_bytes(head[4:], order)
        start += 8 + declared + declared % 2
    return start in (size, size + 1)  # the last padding byte may be missing


def _decode(header: _Header, max_seconds: float | None) -> tuple[NDArray[np.float32], _Stats]:
    """Decode a checked file block by block, mixing it to mono float32 ``[N]``."""
    info = header.info
    limit = math.inf if max_seconds is None else max_seconds * info.sample_rate
    stats = _Stats(1 - 2.0**-7 if info.subtype in {"PCM_U8", "PCM_S8"} else 1 - 2.0**-15)
    parts: list[NDArray[np.float32]] = []
    with contextlib.ExitStack() as stack:
        view = None
        if info.format == "MP3" and not _has_frame_count(info.path):
            view = stack.enter_context(_View(info.path, length_factor=_MP3_LENGTH_FACTOR))
        elif header.patch_at is not None:
            view = stack.enter_context(_View(info.path, patch_at=header.patch_at))
        reader = stack.enter_context(_open(info.path, view))
        for block in _blocks(reader, info, stats, view):
            stats.add(block)
            if stats.count > limit:
                raise AudioError(_too_long(info.path, "decodes to", max_seconds))
            if not stats.nonfinite:
                mono = block[:, 0] if info.channels == 1 else block.mean(axis=1, dtype=np.float64)
                parts.append(mono.astype(np.float32))
    expected = info.num_samples
    if info.format in _EXACT_FORMATS and expected is not None and stats.count < expected:
        raise AudioError(_truncated(info.path, expected, stats.count))
    if stats.count == 0:
        raise AudioError(f"{info.path}: has no samples; the file is empty or was cut short")
    return np.concatenate(parts) if parts else np.zeros(0, np.float32), stats


def _blocks(
    reader: Any, info: AudioInfo, stats: _Stats, view: _View | None
) -> Iterator[NDArray[np.float32]]:
    """Yield the decoded signal as float32 ``[frames, channels]``, overwritten each time."""
    # An MP3 file that seems longer may end in an error, which loses the block.
    is_lengthened = view is not None and info.format == "MP3"
    size = _MP3_FRAME if is_lengthened else max(1, _BLOCK_VALUES // info.channels)
    block = np.empty((size, info.channels), np.float32)
    while stats.count < reader.frames:
        # Never asking beyond the end: FLAC would take what follows, a tag say, for damage.
        out = block[: min(len(block), reader.frames - stats.count)]
        try:
            decoded = reader.read(dtype="float32", always_2d=True, out=out)
        except _soundfile().SoundFileError as error:
            if is_lengthened and view is not None and view.exhausted:
                return
            of_how_many = "" if info.num_samples is None else f" of {info.num_samples}"
            raise AudioError(
                f"{info.path}: damaged or truncated: decoding stopped after "
                f"{stats.count}{of_how_many} samples ({_reason(error)}); copy or export the file "
                "again"
            ) from error
        if len(decoded) == 0:
            return
        yield decoded


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


def _reason(error: Exception) -> str:
    return str(getattr(error, "error_string", error)).rstrip(". ")


def _not_audio(file: Path, reason: str) -> str:
    with file.open("rb") as stream:
        head = stream.read(8)
    is_foreign = head[4:] == b"ftyp" or head[:4] == b"\x1aE\xdf\xa3"  # MP4, Matroska
    if is_foreign or file.suffix.lower() in _FOREIGN_SUFFIXES:
        return (
            f"{file}: this format cannot be read; convert it with ffmpeg first "
            f"(ffmpeg -i INPUT OUTPUT.wav); supported: {_READABLE}"
        )
    # libsndfile says of a damaged MP3 that it does not exist.
    detail = "" if "does not exist" in reason else f" ({reason})"
    return f"{file}: is not an audio file, or a damaged one{detail}; supported: {_READABLE}"


def _truncated(file: Path, declared: int, decoded: int) -> str:
    return (
        f"{file}: truncated or wrong header: header says {declared} samples, {decoded} could be "
        "decoded; copy or export the file again"
    )


def _too_long(file: Path, what: str, max_seconds: float | None) -> str:
    return (
        f"{file}: {what} more than max_seconds={max_seconds:g}; raise max_seconds "
        "(--max-seconds on the command line) or split the file"
    )


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


def _expand(
    name: str, suffixes: frozenset[str], error: type[DualCodecError]
) -> Iterator[tuple[Path, Path]]:
    """Yield (file, relative path) of one input."""
    path = Path(name)
    if "\0" in name:
        raise error(f"{name!r}: a path cannot contain a null character")
    listed = ", ".join(sorted(suffixes))
    if os.path.isdir(name):
        pairs = [(file, file.relative_to(path)) for file in _walk(path, suffixes)]
        if not pairs:
            raise error(f"{name}: no files with suffix {listed} in this folder")
    elif os.path.exists(name):
        pairs = [(path, Path(path.name))]
    elif glob.has_magic(name):
        pairs = list(_expand_glob(name, suffixes))
        if not pairs:
            raise error(f"{name}: the pattern matches no files with suffix {listed}")
    else:
        raise error(f"{name}: no such file or folder; check the path")
    yield from pairs


def _expand_glob(pattern: str, suffixes: frozenset[str]) -> Iterator[tuple[Path, Path]]:
    parts = Path(pattern).parts
    fixed = next(index for index, part in enumerate(parts) if re.search(r"[*?[]", part))
    base = Path(*parts[:fixed])
    if ".." in parts[fixed:]:
        raise InputError(f"{pattern}: '..' cannot follow a wildcard; resolve it first")
    for match in sorted(Path(name) for name in glob.glob(pattern, recursive=True)):
        for file in _walk(match, suffixes) if match.is_dir() else [match]:
            if file.suffix.lower() in suffixes:
                yield file, file.relative_to(base)


def _walk(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    """Files below a folder that have one of the suffixes and are not hidden, sorted."""
    files = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(file for file in files if file.suffix.lower() in suffixes)
