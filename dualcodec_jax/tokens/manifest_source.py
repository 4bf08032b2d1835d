"""A listing of recordings, JSONL, CSV or TSV, as a source of records."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dualcodec_jax.data.errors import DataError
from dualcodec_jax.data.records import FileSlice, Record, record_from_metadata
from dualcodec_jax.errors import InputError
from dualcodec_jax.tokens.ids import path_id

LISTING_SUFFIXES = frozenset({".jsonl", ".csv", ".tsv"})
PATH_COLUMNS = ("path", "audio_path", "audio_filepath", "file_name", "file", "audio", "wav")
"""Columns that are taken for the path of the recording, the first present one counting."""
ID_COLUMNS = ("id", "utterance_id", "utt_id", "key")
"""The same for the id; without one it comes from the path, see :func:`path_id`."""

Row = dict[str, Any]


class ManifestSource:
    """Recordings that listings name, in their order.

    JSONL: one object a line. CSV and TSV: a header line; TSV has no quoting. Besides path and id,
    ``text`` (or ``sentence``, …), ``language``, ``dnsmos``, ``duration`` are used as in other data
    sets, and what has another name is kept. Relative paths start at the folder of the listing.

    Args:
        locations: ``.jsonl``, ``.csv`` or ``.tsv`` files.
        path_column: column of the path; None: the first of :data:`PATH_COLUMNS`.
        id_column: column of the id; None: the first of :data:`ID_COLUMNS` that there is.

    Raises:
        DataError: a listing is missing, damaged, empty, or has no path column.
    """

    def __init__(
        self,
        locations: Sequence[str | Path] | str | Path,
        *,
        path_column: str | None = None,
        id_column: str | None = None,
    ) -> None:
        names = [locations] if isinstance(locations, str | Path) else list(locations)
        self._folders = [Path(name).parent for name in names]
        self._items: list[tuple[int, str, str, Row]] = []
        for number, name in enumerate(names):
            for line, row in _rows(Path(name)):
                where = f"{name}, line {line}"
                path = _column(row, path_column, PATH_COLUMNS)
                if not path:
                    wanted = path_column or f"one of {', '.join(PATH_COLUMNS)}"
                    raise DataError(f"{where}: no path in column {wanted}; name it: --path-column")
                key = _column(row, id_column, ID_COLUMNS)
                if not key and id_column is not None:
                    raise DataError(f"{where}: no id in column {id_column}; correct the line")
                try:
                    self._items.append((number, path, key or path_id(path), row))
                except InputError as error:
                    raise DataError(f"{where}: {error}; correct the line") from None
        if not self._items:
            raise DataError(f"{', '.join(map(str, names))}: lists no recordings")

    @property
    def ids(self) -> list[str]:
        """The id of every recording."""
        return [key for _, _, key, _ in self._items]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Record:
        """The record of line ``index``, counted over all listings."""
        number, path, key, row = self._items[index]
        return record_from_metadata(key, FileSlice(self._folders[number] / path), row)


def is_listing(location: str | Path) -> bool:
    """Whether ``location`` is named like a listing."""
    return Path(location).suffix.lower() in LISTING_SUFFIXES


def _column(row: Row, wanted: str | None, known: Sequence[str]) -> str | None:
    """Take a value out of ``row``; a number becomes text."""
    name = wanted or next((n for n in known if row.get(n) not in (None, "")), None)
    value = row.pop(name, None) if name is not None else None
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(value)


def _rows(path: Path) -> Iterator[tuple[int, Row]]:
    """(line number, columns) of a listing."""
    suffix = path.suffix.lower()
    if suffix not in LISTING_SUFFIXES:
        raise DataError(f"{path}: a listing ends in {', '.join(sorted(LISTING_SUFFIXES))}")
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            if suffix == ".jsonl":
                yield from _json_rows(path, stream)
            else:
                yield from _table_rows(path, stream, tabs=suffix == ".tsv")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: is not a UTF-8 text table ({error})") from error


def _json_rows(path: Path, lines: Iterator[str]) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: not a JSON object; correct the line")
        yield number, row


def _table_rows(path: Path, lines: Iterator[str], *, tabs: bool) -> Iterator[tuple[int, Row]]:
    if tabs:
        reader = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.DictReader(lines)
    for row in reader:
        values: Mapping[Any, Any] = row
        if None in values or None in values.values():
            raise DataError(
                f"{path}, line {reader.line_num}: has not as many fields as the header; "
                f"{'remove stray tabs' if tabs else 'quote fields that contain commas'}"
            )
        # An empty field is one that is not there.
        yield reader.line_num, {name: value for name, value in row.items() if value != ""}
