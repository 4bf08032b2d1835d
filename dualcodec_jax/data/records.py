"""One utterance as sources hand it out: encoded audio and what is known about it."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

TEXT_KEYS = ("text", "transcription", "sentence", "transcript")
"""Names under which metadata has the transcript, the first present one counting."""
QUALITY_KEYS = ("dnsmos", "quality")
"""The same for a quality score; Emilia has DNSMOS."""
MAX_SLICE_BYTES = 2**28
"""Largest part of a file that is read: it goes to memory."""

_KNOWN_KEYS = {*TEXT_KEYS, *QUALITY_KEYS, "language", "duration"}


@dataclass(frozen=True, slots=True)
class FileSlice:
    """Bytes of a file that are read when needed: all of it, or a tar member.

    Attributes:
        path: the file.
        offset: of the first byte.
        size: number of bytes; None: up to the end.
    """

    path: Path
    offset: int = 0
    size: int | None = None

    def read(self) -> bytes:
        """The bytes.

        Raises:
            OSError: if the file cannot be read, or the part is larger than
                :data:`MAX_SLICE_BYTES`.
        """
        if self.size is not None and self.size > MAX_SLICE_BYTES:
            raise OSError(
                errno.EFBIG,
                f"{self.size >> 20} MiB in {self.path.name}, where {MAX_SLICE_BYTES >> 20} MiB are "
                "the limit: extract it to a file of its own, or cut it into shorter recordings",
            )
        with self.path.open("rb") as stream:
            stream.seek(self.offset)
            return stream.read() if self.size is None else stream.read(self.size)


@dataclass(frozen=True, slots=True)
class Record:
    """One utterance.

    Attributes:
        key: name by which the item is reported: a relative path or an utterance id.
        audio: an encoded audio file, in memory or on disk.
        text: transcript, if any.
        language: as the data set writes it, ``en`` say.
        quality: a score, larger is better (Emilia: DNSMOS); never NaN.
        duration: in seconds as the metadata claim, unchecked; never NaN.
        features: cached semantic features, float16 or float32 ``[T, D]``.
        extra: other metadata, ``speaker`` say.
    """

    key: str
    audio: bytes | FileSlice
    text: str | None = None
    language: str | None = None
    quality: float | None = None
    duration: float | None = None
    features: NDArray[Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def audio_bytes(self) -> bytes:
        """The encoded audio file.

        Raises:
            OSError: if it cannot be read.
        """
        return self.audio if isinstance(self.audio, bytes) else self.audio.read()

    @contextlib.contextmanager
    def audio_path(self) -> Iterator[Path]:
        """Yield a path under which the audio can be opened, by this process, meanwhile.

        Raises:
            OSError: if it cannot be read.
        """
        audio = self.audio
        if isinstance(audio, FileSlice) and audio.offset == 0 and audio.size is None:
            yield audio.path
            return
        with _memory_file(self.audio_bytes()) as path:
            yield path


class Source(Protocol):
    """Random access to records; picklable, so that worker processes can have it."""

    def __len__(self) -> int:
        """Number of records, at least 1."""

    def __getitem__(self, index: int, /) -> Record:
        """The record at ``index`` in [0, len)."""


def record_from_metadata(
    key: str, audio: bytes | FileSlice, metadata: Mapping[str, Any], **known: Any
) -> Record:
    """A record with the metadata that data sets commonly have, by their usual names.

    Args:
        key: see :class:`Record`.
        audio: see :class:`Record`.
        metadata: Emilia's JSON, say: ``text``, ``language``, ``dnsmos``, ``duration``; all
            others, a second text say, become ``extra``. Empty values count as missing.
        **known: fields of the record that do not come from the metadata.
    """
    text, quality = _first(metadata, TEXT_KEYS), _first(metadata, QUALITY_KEYS)
    used = {text, quality, "language", "duration"}
    return Record(
        key=key,
        audio=audio,
        text=_text(metadata.get(text)),
        language=_text(metadata.get("language")),
        quality=_number(metadata.get(quality)),
        duration=_number(metadata.get("duration")),
        extra={
            name: value
            for name, value in metadata.items()
            if name not in used and not (value is None and name in _KNOWN_KEYS)
        },
        **known,
    )


def _first(metadata: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """The first of ``names`` that has a value."""
    return next((name for name in names if metadata.get(name) is not None), names[0])


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return value if isinstance(value, str) and value else None


def _number(value: Any) -> float | None:
    # np.generic because TFDS gives float32 scalars; a bool is an int to Python.
    if isinstance(value, bool) or not isinstance(value, int | float | str | np.generic):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


@contextlib.contextmanager
def _memory_file(data: bytes) -> Iterator[Path]:
    """Yield a path to a file with ``data``; in memory where the system can (Linux)."""
    if hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd"):
        with os.fdopen(os.memfd_create("audio"), "wb") as stream:
            stream.write(data)
            stream.flush()
            yield Path(f"/proc/self/fd/{stream.fileno()}")
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "audio")
        path.write_bytes(data)
        yield path
