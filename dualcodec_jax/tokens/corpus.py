"""What is tokenised: a source of records, the ids of its items, and a digest of their list."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dualcodec_jax.data.config import DataConfig
from dualcodec_jax.data.errors import DataError
from dualcodec_jax.data.records import Record, Source
from dualcodec_jax.data.sources import open_source
from dualcodec_jax.data.tar import index_shard
from dualcodec_jax.data.tfds_source import INFO_FILE, find_dataset
from dualcodec_jax.errors import InputError
from dualcodec_jax.paths import AUDIO_SUFFIXES, find_audio_files, find_files
from dualcodec_jax.tokens.ids import path_id
from dualcodec_jax.tokens.manifest_source import ManifestSource, is_listing

Kind = Literal["folder", "manifest", "tar", "tfds"]
KINDS: tuple[Kind, ...] = ("folder", "manifest", "tar", "tfds")


@dataclass(frozen=True)
class Corpus:
    """Recordings in a fixed order.

    Attributes:
        kind: of the source.
        locations: as the user named them.
        split: of a TFDS data set, else None.
        source: the records.
        digest: SHA-256 of the list of items: the names of files, or of tar shards and where their
            members are, or what a TFDS data set says of itself. Not of what is in the recordings.
    """

    kind: Kind
    locations: tuple[str, ...]
    split: str | None
    source: Source
    digest: str

    def item_id(self, record: Record) -> str:
        """The id of a record: its key; of a file or the member of a tar shard, without suffix."""
        if self.kind in ("folder", "tar"):
            return path_id(record.key)
        return record.key


def open_corpus(
    locations: Sequence[str | Path] | str | Path,
    kind: Kind | None = None,
    *,
    split: str = "train",
    path_column: str | None = None,
    id_column: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Corpus:
    """Open recordings in random access.

    Args:
        locations: files, folders, globs; ``.jsonl``, ``.csv`` or ``.tsv`` listings; tar shards;
            or one TFDS data set folder.
        kind: None: look at what is there.
        split: of a TFDS data set.
        path_column: of a listing; see :class:`ManifestSource`.
        id_column: of a listing.
        progress: called with (shards done, shards) while tar shards are indexed.

    Raises:
        DataError: nothing usable is there, or two items have one id.
        AudioError, InputError: no audio files, or two with one name.
    """
    given = [locations] if isinstance(locations, str | Path) else locations
    names = tuple(str(name) for name in given)
    if not names:
        raise DataError("no source given; name files, folders, listings, shards or a data set")
    chosen = kind or guess_kind(names)
    if chosen == "manifest":
        listing = ManifestSource(names, path_column=path_column, id_column=id_column)
        return Corpus(chosen, names, None, listing, _digest(_unique(listing.ids)))
    if path_column or id_column:
        raise DataError(f"columns are those of a listing; the source is of kind {chosen}")
    if chosen not in KINDS:
        raise DataError(f"kind must be one of {', '.join(KINDS)}; got {chosen!r}")
    config = DataConfig(kind=chosen, locations=names, split=split, segment_length=1)
    source = open_source(config, progress=progress)
    if chosen == "folder":
        ids = [path_id(relative.as_posix()) for _, relative in find_audio_files(names)]
        return Corpus(chosen, names, None, source, _digest(_unique(ids)))
    if chosen == "tar":
        return Corpus(chosen, names, None, source, _tar_digest(names))
    facts = (find_dataset(names[0]) / INFO_FILE).read_text(encoding="utf-8")
    return Corpus(chosen, names, split, source, _digest([facts, split, str(len(source))]))


def _holds(path: Path, *suffixes: str) -> bool:
    """Whether a folder has such files, hidden ones aside."""
    try:
        return path.is_dir() and bool(find_files(path, suffixes))
    except InputError:
        return False


def guess_kind(locations: Sequence[str]) -> Kind:
    """What there is: listings and shards by their suffix, a data set by its files, else audio."""
    paths = [Path(name).expanduser() for name in locations]
    if all(is_listing(path) for path in paths):
        return "manifest"
    if any(is_listing(path) for path in paths):
        raise DataError("listings and other sources cannot be mixed; tokenise them separately")
    if all(p.suffix == ".tar" or _holds(p, ".tar") for p in paths):
        if mixed := [p for p in paths if _holds(p, *AUDIO_SUFFIXES)]:
            raise DataError(
                f"{mixed[0]} holds both tar shards and recordings; say which are meant: --kind tar "
                "or --kind folder"
            )
        return "tar"
    if len(paths) == 1 and paths[0].is_dir():
        try:
            find_dataset(paths[0])
        except DataError as error:
            if "name one of them" in str(error):
                raise
        else:
            return "tfds"
    return "folder"


def _unique(ids: list[str]) -> list[str]:
    if len(set(ids)) < len(ids):
        twice = [name for name, count in Counter(ids).items() if count > 1]
        more = f", and {len(twice) - 3} more" if len(twice) > 3 else ""
        raise DataError(
            f"{len(twice)} ids occur more than once: {', '.join(twice[:3])}{more}; give every "
            "recording an id of its own (a file's is its path without suffix; --id-column names a "
            "listing's column of ids)"
        )
    return ids


def _tar_digest(locations: Sequence[str]) -> str:
    shards = [path for path, _ in find_files(locations, {".tar"}, error=DataError)]
    _unique([path.name for path in shards])

    def parts() -> Iterable[str | memoryview | bytes]:
        for path in shards:
            yield path.name
            yield index_shard(path).rows.tobytes()

    return _digest(parts())


def _digest(parts: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()
