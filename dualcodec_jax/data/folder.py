"""Audio files in folders, with transcripts beside them if there are any."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dualcodec_jax.data.errors import DataError
from dualcodec_jax.data.records import FileSlice, Record, record_from_metadata
from dualcodec_jax.paths import find_audio_files

logger = logging.getLogger(__name__)

METADATA_NAMES = ("metadata.jsonl", "metadata.csv")
"""Transcript tables that are looked for beside the audio files and in the folders above."""
MAX_TRANSCRIPT_BYTES = 2**20
MAX_METADATA_BYTES = 2**31

Row = Mapping[str, Any]


class FolderSource:
    """Files found in folders, read when asked for.

    A transcript is taken from a row of ``metadata.jsonl`` or ``metadata.csv`` (in the folder of
    the file or one above, up to the location given), else from ``NAME.txt`` beside ``NAME.wav``.
    Tables are JSON lines or CSV with a column ``file_name`` (Hugging Face audiofolder), or
    ``ID|text|normalised text`` without a header (LJSpeech), where ID is a file name without
    suffix. Other columns, such as ``language``, ``duration`` or ``dnsmos``, are used too.

    Args:
        locations: files, folders or glob patterns; see :func:`~dualcodec_jax.paths.find_files`.

    Raises:
        AudioError, InputError: no audio files, or two with one name.
        DataError: a metadata table is damaged.
    """

    def __init__(self, locations: Sequence[str | Path] | str | Path) -> None:
        self._files = find_audio_files(locations)
        tables = {
            folder: table
            for folder in _folders(self._files)
            if (table := _read_table(folder)) is not None
        }
        self._rows = [_row(path, relative, tables) for path, relative in self._files]
        rows = sum(len(table) for table in tables.values())
        matched = sum(row is not None for row in self._rows)
        if matched < rows:
            logger.warning(
                "%d of %d rows of metadata tables name no audio file", rows - matched, rows
            )

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Record:
        """The record of file ``index`` in the order in which files were found."""
        path, relative = self._files[index]
        row = self._rows[index]
        if row is None:
            row = {"text": _transcript(path.with_suffix(".txt"))}
        return record_from_metadata(relative.as_posix(), FileSlice(path), row)


def _folders(files: Sequence[tuple[Path, Path]]) -> Iterator[Path]:
    """Folders that may hold the table of a file: its own and those up to the location given."""
    seen: set[Path] = set()
    for path, relative in files:
        # relative has one name per folder below the location, and the file's.
        for folder in list(path.parents)[: len(relative.parts)]:
            if folder not in seen:
                seen.add(folder)
                yield folder


def _row(path: Path, relative: Path, tables: Mapping[Path, Mapping[str, Row]]) -> Row | None:
    """The row of the nearest table that names a file, by path, or by name without suffix."""
    for folder in list(path.parents)[: len(relative.parts)]:
        table = tables.get(folder, {})
        for name in (path.relative_to(folder).as_posix(), path.stem):
            if name in table:
                return table[name]
    return None


def _transcript(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as stream:
        data = stream.read(MAX_TRANSCRIPT_BYTES + 1)
    if len(data) > MAX_TRANSCRIPT_BYTES:
        raise DataError(f"{path}: larger than {MAX_TRANSCRIPT_BYTES} bytes; not a transcript")
    try:
        return data.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: transcript is not UTF-8 text; convert it") from error


def _read_table(folder: Path) -> dict[str, Row] | None:
    """The table of a folder by file name or id; None if it has none."""
    path = next((folder / name for name in METADATA_NAMES if (folder / name).is_file()), None)
    if path is None:
        return None
    if path.stat().st_size > MAX_METADATA_BYTES:
        raise DataError(f"{path}: larger than {MAX_METADATA_BYTES} bytes; not a metadata table")
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            if path.suffix == ".jsonl":
                return _json_rows(path, stream)
            first = stream.readline()
            stream.seek(0)
            if "|" in first and "file_name" not in first:
                return _pipe_rows(stream)
            return _csv_rows(path, csv.DictReader(stream))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: is not a UTF-8 text table ({error})") from error


def _json_rows(path: Path, lines: Iterator[str]) -> dict[str, Row]:
    rows = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            rows[str(row.pop("file_name"))] = row
        except (ValueError, KeyError, AttributeError, TypeError):
            raise DataError(
                f"{path}, line {number}: not a JSON object with a 'file_name'; correct the line"
            ) from None
    return rows


def _pipe_rows(lines: Iterator[str]) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    for line in lines:
        name, *texts = line.rstrip("\r\n").split("|")
        if name:
            rows[name] = {"text": texts[-1] if texts else None}
    return rows


def _csv_rows(path: Path, reader: csv.DictReader[str]) -> dict[str, Row]:
    if "file_name" not in (reader.fieldnames or ()):
        raise DataError(
            f"{path}: has no column 'file_name', and is not in LJSpeech's form ID|text; add a "
            "header"
        )
    rows: dict[str, Row] = {}
    for row in reader:
        if None in row or None in row.values():
            raise DataError(
                f"{path}, line {reader.line_num}: has not as many fields as the header; quote "
                "fields that contain commas"
            )
        rows[row.pop("file_name")] = row
    return rows
