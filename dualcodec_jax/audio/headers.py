"""What the headers of audio files say, and whether to believe it.

libsndfile is lenient: it clamps sizes that lie, and trusts estimates. Here sizes are compared
with the file, and where a header is known to be wrong, libsndfile is made to look past it.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

from dualcodec_jax.errors import AudioError

MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 1000, 768_000
"""Sample rates that are believed, in Hz."""
# Of the formats libsndfile knows, those whose header can be checked against the content,
# and those whose header is an estimate.
EXACT_FORMATS = frozenset({"WAV", "WAVEX", "RF64", "AIFF", "FLAC"})
ESTIMATED_FORMATS = frozenset({"OGG", "MP3"})

_READABLE = "wav, flac, ogg (Vorbis or Opus), mp3, aiff"
_FOREIGN_SUFFIXES = frozenset(
    {".m4a", ".m4b", ".aac", ".mp4", ".mov", ".3gp", ".wma", ".amr", ".webm", ".mkv", ".ape"}
)
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
_UNKNOWN_FRAMES = (1 << 63) - 1  # libsndfile's SF_COUNT_MAX: a FLAC written to a pipe
_MAX_CHUNKS = 10_000
# Writers that cannot seek back leave a size of 0, or one near 2 or 4 GiB: ffmpeg 0xFFFFFFFF, sox
# 0x7FFFF000 rounded down to whole samples, arecord 0x80000000.
_PLACEHOLDERS = (range(1), range(0x7FFF_0000, 0x8000_0001), range(0xFFFF_0000, 1 << 32))
_LEAST_PLACEHOLDER = 0x7FFF_0000  # of sizes that the file does not reach
_MP3_LENGTH_FACTOR = 64  # more than the ratio of the highest to the lowest MP3 bit rate
_MP3_FRAME_BYTES = 1152

ByteOrder = Literal["little", "big"]
_BYTE_ORDERS: dict[bytes, ByteOrder] = {
    b"RIFF": "little",
    b"RF64": "little",
    b"RIFX": "big",
    b"FORM": "big",
}


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


class View(io.FileIO):
    """A file as libsndfile should see it: with some bytes replaced, or seemingly longer.

    A WAV data size that stands for an unknown one makes libsndfile read no further, and the
    length it estimates for an MP3 file without a frame count (from the bit rate of the first
    frame) silently cuts files of variable bit rate. libsndfile finds the end of both by itself
    if allowed to.

    Attributes:
        is_longer: whether the file seems longer than it is.
        is_exhausted: whether the last read wanted more than there is.
    """

    def __init__(
        self, path: Path, *, patches: Mapping[int, bytes] | None = None, length_factor: int = 1
    ):
        super().__init__(path, "rb")
        self.is_longer = length_factor > 1
        self.is_exhausted = False
        self._patches = patches or {}
        self._surplus = (length_factor - 1) * os.fstat(self.fileno()).st_size
        self._from_end = False

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` with what libsndfile should see; return the number of bytes."""
        start = super().tell()
        count = super().readinto(buffer) or 0
        self.is_exhausted = count < len(buffer)
        view = memoryview(buffer).cast("B")
        for first, patch in self._patches.items():
            for at in range(max(start, first), min(start + count, first + len(patch))):
                view[at - start] = patch[at - first]
        return count

    # The length is asked for by seeking to the end; a tag is also read there, so that only
    # what tell() says may change.
    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move as a file does; return what :meth:`tell` says then."""
        if whence != os.SEEK_CUR:
            self._from_end = whence == os.SEEK_END
        super().seek(offset, whence)
        return self.tell()

    def tell(self) -> int:
        """The position, which is beyond the end after a seek from the end of a longer view."""
        return super().tell() + (self._surplus if self._from_end else 0)


@dataclass(frozen=True)
class Header:
    """A header that was checked, as :func:`read_header` returns it.

    Attributes:
        info: what it says.
        notes: sentences for the user on what looks wrong.
        patches: what has to be replaced for libsndfile, by its offset in bytes.
    """

    info: AudioInfo
    notes: tuple[str, ...]
    patches: Mapping[int, bytes]

    @contextlib.contextmanager
    def open_samples(self) -> Iterator[tuple[Any, View | None]]:
        """Yield a ``SoundFile`` that decodes all there is, and the view it reads, if any."""
        path = self.info.path
        with contextlib.ExitStack() as stack:
            view = None
            if self.info.format == "MP3" and not _has_frame_count(path):
                view = stack.enter_context(View(path, length_factor=_MP3_LENGTH_FACTOR))
            elif self.patches:
                view = stack.enter_context(View(path, patches=self.patches))
            yield stack.enter_context(_open(path, view)), view


@dataclass(frozen=True)
class _Chunk:
    """The chunk of a RIFF or AIFF file that holds the samples; sizes in bytes."""

    declared: int
    available: int
    is_placeholder: bool = False
    patches: Mapping[int, bytes] = field(default_factory=dict)


def read_header(path: str | Path) -> Header:
    """Read and check the header of an audio file.

    Raises:
        AudioError: the file is missing, a folder, empty, not audio, truncated as far as the
            header and the file size tell, or has a sample rate outside 1000 to 768000 Hz.
    """
    file = _existing_file(path)
    chunk = _data_chunk(file)
    is_streamed = chunk is not None and chunk.is_placeholder
    patches = {} if chunk is None else chunk.patches
    with contextlib.ExitStack() as stack:
        view = stack.enter_context(View(file, patches=patches)) if patches else None
        reader = stack.enter_context(_open(file, view))
        rate, channels, frames = reader.samplerate, reader.channels, reader.frames
        file_format, subtype = reader.format, reader.subtype
    if not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE:
        raise AudioError(
            f"{file}: sample rate {rate} Hz is outside {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz; "
            "the header is damaged, or resample the file first"
        )
    if chunk is not None and not is_streamed:
        declared = _declared_frames(chunk, frames, subtype, channels)
        if declared > frames:
            raise truncated(file, declared, frames)
    if frames <= 0:
        raise no_samples(file)
    known = None if frames == _UNKNOWN_FRAMES else frames
    seconds = None if known is None else known / rate
    notes = ("streamed file without a data size: read to the end of the file",)
    info = AudioInfo(file, rate, channels, known, seconds, file_format, subtype)
    return Header(info, notes if is_streamed else (), patches)


def import_soundfile() -> Any:
    """The module ``soundfile``; raises :class:`AudioError` if it or libsndfile is missing."""
    try:
        import soundfile
    except (ImportError, OSError) as error:
        raise AudioError(
            f"audio files need the package soundfile, which cannot be imported ({error}); run "
            "pip install soundfile"
        ) from error
    return soundfile


def reason(error: Exception) -> str:
    """libsndfile's words for an error, without the file name."""
    return str(getattr(error, "error_string", error)).rstrip(". ")


def truncated(file: Path, declared: int, decoded: int) -> AudioError:
    """The error for a file with fewer samples than it declares."""
    return AudioError(
        f"{file}: truncated or wrong header: header says {declared} samples, {decoded} could be "
        "decoded; copy or export the file again"
    )


def no_samples(file: Path) -> AudioError:
    """The error for a file with a header and nothing else."""
    return AudioError(f"{file}: has no samples; the file is empty or was cut short")


@functools.cache
def _reader_class() -> Any:
    class Reader(import_soundfile().SoundFile):  # type: ignore[misc]
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
def _open(file: Path, view: View | None) -> Iterator[Any]:
    """Open with libsndfile, yielding a ``SoundFile`` of one of the supported formats."""
    soundfile = import_soundfile()
    if file.suffix.lower() == ".raw":  # soundfile would want to know rate and format
        raise AudioError(f"{file}: headerless audio cannot be read; supported: {_READABLE}")
    try:
        # Bytes, because soundfile cannot encode names that are not valid UTF-8.
        name = str(file) if os.name == "nt" else os.fsencode(file)
        reader = _reader_class()(name if view is None else view)
    except soundfile.SoundFileError as error:
        raise _not_audio(file, reason(error)) from error
    with reader:
        if reader.format not in EXACT_FORMATS | ESTIMATED_FORMATS:
            raise _not_audio(file, f"format {reader.format}")
        yield reader


def _not_audio(file: Path, why: str) -> AudioError:
    with file.open("rb") as stream:
        head = stream.read(8)
    is_foreign = head[4:] == b"ftyp" or head[:4] == b"\x1aE\xdf\xa3"  # MP4, Matroska
    if is_foreign or file.suffix.lower() in _FOREIGN_SUFFIXES:
        return AudioError(
            f"{file}: this format cannot be read; convert it with ffmpeg first "
            f"(ffmpeg -i INPUT OUTPUT.wav); supported: {_READABLE}"
        )
    # libsndfile says of a damaged MP3 that it does not exist.
    detail = "" if "does not exist" in why else f" ({why})"
    return AudioError(
        f"{file}: is not an audio file, or a damaged one{detail}; supported: {_READABLE}"
    )


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
        order = _BYTE_ORDERS.get(stream.read(12)[:4])
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
                return _Chunk(declared - 8, size - start - 8)
            elif name == b"data":
                if size64 is not None and declared == 0xFFFFFFFF:
                    return _Chunk(size64, size - start, size64 >= (1 << 63))
                if declared > size - start:
                    return _Chunk(declared, size - start, declared >= _LEAST_PLACEHOLDER)
                end = start + declared + declared % 2
                if any(declared in sizes for sizes in _PLACEHOLDERS) and not _only_chunks(
                    stream, end, size, order
                ):
                    # libsndfile reads to the end of a file that was not closed: of any length.
                    unclosed = {4: (8).to_bytes(4, order), start - 4: bytes(4)}
                    return _Chunk(declared, size - start, True, unclosed)
                return _Chunk(declared, size - start)
            stream.seek(start + declared + declared % 2)
    return None


def _only_chunks(stream: BinaryIO, start: int, size: int, order: ByteOrder) -> bool:
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


def _has_frame_count(file: Path) -> bool:
    """Whether the first frame of an MP3 file says how many follow."""
    with file.open("rb") as stream:
        tag = stream.read(10)
        if tag[:3] == b"ID3" and len(tag) == 10:
            size = functools.reduce(lambda total, byte: total << 7 | byte & 127, tag[6:], 0)
            stream.seek(10 + size)
            tag = b""
        first = tag + stream.read(_MP3_FRAME_BYTES)
    return any(name in first for name in (b"Xing", b"Info", b"VBRI"))
