"""Tar shards read in place, through an index: nothing is ever extracted.

The layout is Emilia's (and WebDataset's): members ``NAME.mp3`` and ``NAME.json`` per utterance.
An index file lists where they are. It is a line of JSON, which also says which shard it belongs
to, and fixed-size little-endian rows.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tarfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dualcodec_jax.data.errors import DataError
from dualcodec_jax.data.records import FileSlice, Record, record_from_metadata
from dualcodec_jax.errors import InputError
from dualcodec_jax.paths import AUDIO_SUFFIXES, find_files, replacing

logger = logging.getLogger(__name__)

INDEX_VERSION = 2
INDEX_SUFFIX = ".index"
MAX_JSON_BYTES = 2**20
MAX_MEMBERS = 1_000_000
MAX_KEY_BYTES = 512

_BLOCK = 512
_HEADER_LIMIT = 2**16


@dataclass(frozen=True)
class ShardIndex:
    """Where the utterances of one shard are.

    Attributes:
        shard: the tar file.
        rows: structured array ``[utterances]`` with the fields ``audio_offset``,
            ``audio_size``, ``json_offset``, ``json_size`` (0: none) in bytes, and ``key``.
        skipped: members left out, by reason.
    """

    shard: Path
    rows: NDArray[Any]
    skipped: dict[str, int] = field(default_factory=dict)


class TarSource:
    """Utterances of tar shards in random access.

    Only regular members count; links, devices and oversized JSON are left out and counted. Audio
    of more than :data:`~dualcodec_jax.data.records.MAX_SLICE_BYTES` is a record that cannot be
    read. A member's name is a label, so that a hostile one does no harm.

    Args:
        locations: ``.tar`` files, folders or glob patterns.
        index_folder: where index files are kept; None: beside the shards. A shard's index is
            made again if its size or modification time changes. If it cannot be written, it
            is kept in memory.
        progress: called with (shards done, shards).

    Raises:
        DataError: no shards, a damaged one, or no utterances.
    """

    def __init__(
        self,
        locations: Sequence[str | Path] | str | Path,
        *,
        index_folder: str | Path | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        shards = [path for path, _ in find_files(locations, {".tar"}, error=DataError)]
        self._indices = []
        for done, shard in enumerate(shards):
            if progress is not None:
                progress(done, len(shards))
            self._indices.append(index_shard(shard, index_folder))
        if progress is not None:
            progress(len(shards), len(shards))
        self._ends = np.cumsum([len(index.rows) for index in self._indices])
        self.skipped: Counter[str] = Counter()
        for index in self._indices:
            self.skipped.update(index.skipped)
        if self.skipped:
            counts = ", ".join(f"{count} {name}" for name, count in sorted(self.skipped.items()))
            logger.warning("tar members left out: %s", counts)
        if not len(self):
            raise DataError(
                f"{len(shards)} tar shards have no audio members (left out: {dict(self.skipped)}); "
                f"expected NAME.mp3 and NAME.json; audio suffixes are "
                f"{', '.join(sorted(AUDIO_SUFFIXES))}"
            )

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Record:
        """The record of utterance ``index``: shards in order, members in theirs."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self._ends, index, side="right"))
        shard = self._indices[number]
        row = shard.rows[index - (int(self._ends[number - 1]) if number else 0)]
        key = f"{shard.shard.name}/{bytes(row['key']).decode('utf-8', 'replace')}"
        audio = FileSlice(shard.shard, int(row["audio_offset"]), int(row["audio_size"]))
        metadata: dict[str, Any] = {}
        if row["json_size"]:
            place = FileSlice(shard.shard, int(row["json_offset"]), int(row["json_size"]))
            metadata = _metadata(place, key)
        return record_from_metadata(key, audio, metadata)

    def __getstate__(self) -> dict[str, Any]:
        # A mapped array would be pickled whole: workers map the index files again.
        state = self.__dict__.copy()
        state["_indices"] = [
            (index.shard, index.rows.filename if isinstance(index.rows, np.memmap) else index)
            for index in self._indices
        ]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._indices = [
            place if isinstance(place, ShardIndex) else _must_read(Path(place), shard)
            for shard, place in state["_indices"]
        ]


def index_shard(shard: Path, index_folder: str | Path | None = None) -> ShardIndex:
    """The index of one shard: from its index file if that fits, else made and written.

    Raises:
        DataError: the shard is damaged, compressed, or has too many members.
    """
    path = _index_path(shard, index_folder)
    index = _read_index(path, shard)
    if index is not None:
        return index
    index = _make_index(shard)
    try:
        _write_index(path, index)
    except InputError as error:
        logger.warning("the index of %s is kept in memory only: %s", shard, error)
        return index
    return _must_read(path, shard)


def _index_path(shard: Path, index_folder: str | Path | None) -> Path:
    if index_folder is None:
        return shard.with_name(shard.name + INDEX_SUFFIX)
    # Shards of different folders may have one name.
    place = hashlib.sha256(str(shard.resolve()).encode("utf-8", "replace")).hexdigest()[:12]
    return Path(index_folder) / f"{shard.stem}-{place}.tar{INDEX_SUFFIX}"


def _row_type(key_bytes: int) -> np.dtype[Any]:
    return np.dtype(
        [
            ("audio_offset", "<i8"),
            ("audio_size", "<i8"),
            ("json_offset", "<i8"),
            ("json_size", "<i8"),
            ("key", f"S{key_bytes}"),
        ]
    )


def _identity(shard: Path) -> dict[str, Any]:
    status = shard.stat()
    return {"version": INDEX_VERSION, "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _write_index(path: Path, index: ShardIndex) -> None:
    header = {
        **_identity(index.shard),
        "count": len(index.rows),
        "key_bytes": index.rows.dtype["key"].itemsize,
        "skipped": index.skipped,
    }
    with replacing(path, overwrite=True) as temporary, temporary.open("wb") as stream:
        stream.write(json.dumps(header).encode() + b"\n")
        stream.write(index.rows.tobytes())


def _read_index(path: Path, shard: Path) -> ShardIndex | None:
    """The index in a file; None if there is none, or it is damaged or another shard's."""
    try:
        with path.open("rb") as stream:
            line = stream.readline(_HEADER_LIMIT)
            size = os.fstat(stream.fileno()).st_size
        header = json.loads(line)
        if any(header[name] != value for name, value in _identity(shard).items()):
            return None
        rows_type = _row_type(int(header["key_bytes"]))
        count = int(header["count"])
        if not 0 <= count <= MAX_MEMBERS or size != len(line) + count * rows_type.itemsize:
            return None
        skipped = {str(name): int(value) for name, value in header["skipped"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if not count:
        return ShardIndex(shard, np.zeros(0, rows_type), skipped)
    rows = np.memmap(path, rows_type, "r", offset=len(line), shape=(count,))
    return ShardIndex(shard, rows, skipped)


def _must_read(path: Path, shard: Path) -> ShardIndex:
    index = _read_index(path, shard)
    if index is None:
        raise DataError(f"{shard}: it or its index {path} changed while in use; start again")
    return index


def _make_index(shard: Path) -> ShardIndex:
    """List the utterances of a shard by reading its headers."""
    audio: dict[str, tuple[str, int, int]] = {}
    texts: dict[str, tuple[int, int]] = {}
    skipped: Counter[str] = Counter()
    size = shard.stat().st_size
    try:
        with tarfile.open(shard, "r:") as archive:
            count = 0
            while (member := archive.next()) is not None:
                count += 1
                if count > MAX_MEMBERS:
                    raise DataError(f"{shard}: more than {MAX_MEMBERS} members; split the shard")
                if member.offset_data + member.size > size and member.isreg():
                    raise DataError(f"{shard}: truncated; copy or download it again")
                _add_member(member, audio, texts, skipped)
            end = archive.offset
    except (tarfile.TarError, EOFError) as error:
        raise DataError(
            f"{shard}: is not an uncompressed tar file, or a damaged one ({error}); decompress it, "
            "or copy or download it again"
        ) from error
    except OSError as error:
        raise DataError(f"{shard}: cannot be read ({error.strerror or error})") from error
    _check_end(shard, end)
    without = sum(name not in audio for name in texts)
    if without:
        skipped["JSON without audio"] += without
    keys = [key.encode("utf-8", "replace")[:MAX_KEY_BYTES] for key, _, _ in audio.values()]
    rows = np.zeros(len(audio), _row_type(max(map(len, keys), default=1)))
    for row, key, (name, (_, offset, length)) in zip(rows, keys, audio.items(), strict=True):
        row["key"], row["audio_offset"], row["audio_size"] = key, offset, length
        row["json_offset"], row["json_size"] = texts.get(name, (0, 0))
    return ShardIndex(shard, rows, dict(skipped))


def _add_member(
    member: tarfile.TarInfo,
    audio: dict[str, tuple[str, int, int]],
    texts: dict[str, tuple[int, int]],
    skipped: Counter[str],
) -> None:
    """Note where a member is, under its name without suffix; or count why it is left out."""
    stem, suffix = os.path.splitext(member.name)
    suffix = suffix.lower()
    if member.isdir():
        return
    if not member.isreg() or member.issparse():
        skipped["links or special files"] += 1
    elif suffix == ".json":
        if member.size > MAX_JSON_BYTES:
            skipped["oversized JSON"] += 1
        else:
            texts[stem] = member.offset_data, member.size
    elif suffix in AUDIO_SUFFIXES:
        if stem in audio:
            skipped["second audio of one name"] += 1
        else:
            audio[stem] = member.name, member.offset_data, member.size
    else:
        skipped["other files"] += 1


def _check_end(shard: Path, end: int) -> None:
    """Raise unless the archive ends where tarfile stopped: it also stops, silently, at damage."""
    with shard.open("rb") as stream:
        stream.seek(end)
        block = stream.read(_BLOCK)
    if block.strip(b"\0"):
        raise DataError(
            f"{shard}: damaged at byte {end}: what follows is not a tar member; copy or download "
            "it again"
        )


def _metadata(place: FileSlice, key: str) -> dict[str, Any]:
    try:
        metadata = json.loads(place.read())
    except OSError as error:
        raise DataError(f"{place.path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict):
        # The audio may still be good; filters on what is missing then leave it out.
        logger.warning("%s: its JSON member is not a JSON object; metadata ignored", key)
        return {}
    return metadata
