"""Recordings to evaluate on, with their transcripts: folders, manifests, published test sets."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dualcodec_jax.data.errors import DataError
from dualcodec_jax.data.folder import FolderSource
from dualcodec_jax.data.records import FileSlice, Record, record_from_metadata
from dualcodec_jax.errors import InputError
from dualcodec_jax.paths import AUDIO_SUFFIXES

MANIFEST_SUFFIXES = frozenset({".jsonl", ".csv", ".tsv"})
PATH_KEYS = ("file_name", "path", "audio_filepath", "audio", "wav")
"""Names under which a manifest has the recording, the first present one counting."""
SEED_TTS_LIST, SEED_TTS_LANGUAGES, SEED_TTS_AUDIO = "meta.lst", ("en", "zh"), "wavs"
MAX_LIST_BYTES = 2**28

_TRANSCRIPTS = tuple("*/" * depth + "*.trans.txt" for depth in range(5))
"""LibriSpeech's, from a chapter's folder up to the folder that holds ``LibriSpeech``."""


@dataclasses.dataclass(frozen=True)
class Item:
    """One recording.

    Attributes:
        id: unique in its list; ASCII letters, digits, ``_``, ``-`` and ``.``, so that it can name
            files.
        path: of the audio file.
        text: transcript, if any.
        language: as the data set writes it, ``en`` say.
        speaker: id, if known.
    """

    id: str
    path: Path
    text: str | None = None
    language: str | None = None
    speaker: str | None = None


def load_items(locations: Sequence[str | Path] | str | Path) -> list[Item]:
    """Recordings at the locations, in order. Audio is not opened.

    A location is one of:

    * a folder, file or glob pattern of audio files, with transcripts as
      :class:`~dualcodec_jax.data.folder.FolderSource` finds them, and a column ``speaker``;
    * a manifest: JSON lines (``.jsonl``), or a table with a header (``.csv``, ``.tsv``), with one
      of the columns :data:`PATH_KEYS`, relative to the manifest, and those of the folder's tables;
    * LibriSpeech as published, whole, one subset (``test-clean``), or less; the recordings may
      have been converted to another format;
    * Seed-TTS-Eval as published, whole, one language (``en``), or a list (``en/meta.lst``): the
      real recordings in ``wavs``, not the prompts.

    Raises:
        AudioError, InputError: no audio files at a location.
        DataError: a list or table is damaged, or names no recording that is there.
    """
    places = [locations] if isinstance(locations, str | Path) else list(locations)
    if not places:
        raise InputError("no recordings given; name files, folders, lists or a data set")
    items: dict[str, Item] = {}
    for place in places:
        for record in _records(Path(place).expanduser()):
            item = _item(record)
            name, number = item.id, 1
            while name in items:  # another location, or told apart by what has become "_"
                number += 1
                name = f"{item.id}_{number}"
            items[name] = dataclasses.replace(item, id=name)
    return list(items.values())


def _records(place: Path) -> Iterator[Record]:
    if place.is_file() and place.suffix == ".lst":
        return _seed_tts([place])
    if place.is_file() and place.suffix.lower() in MANIFEST_SUFFIXES:
        return _manifest(place)
    if place.is_dir():
        candidates = [place / SEED_TTS_LIST]
        candidates += [place / language / SEED_TTS_LIST for language in SEED_TTS_LANGUAGES]
        if lists := [path for path in candidates if path.is_file()]:
            return _seed_tts(lists)
        for pattern in _TRANSCRIPTS:
            if transcripts := sorted(place.glob(pattern)):
                return _librispeech(place, transcripts)
    source = FolderSource(place)
    return (source[index] for index in range(len(source)))


def _item(record: Record) -> Item:
    if not isinstance(record.audio, FileSlice):
        raise TypeError(f"{record.key}: the audio must be a file")
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", str(Path(record.key).with_suffix("")))
    speaker = record.extra.get("speaker")
    return Item(
        id=name.strip(".") or "clip",
        path=record.audio.path,
        text=record.text,
        language=record.language,
        speaker=None if speaker in (None, "") else str(speaker),
    )


def _librispeech(place: Path, transcripts: Sequence[Path]) -> Iterator[Record]:
    empty = True
    for path in transcripts:
        texts = dict(line.split(" ", 1) for line in _lines(path) if " " in line)
        for stem, audio in _audio_by_stem(path.parent).items():
            extra = {"speaker": stem.partition("-")[0]}
            yield Record(audio.name, FileSlice(audio), texts.get(stem), "en", extra=extra)
            empty = False
    if empty:
        raise DataError(f"{place}: has transcripts (*.trans.txt), but no audio files beside them")


def _audio_by_stem(folder: Path) -> dict[str, Path]:
    """Audio files of a folder in order; of one recording in two formats the first."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in AUDIO_SUFFIXES:
            found.setdefault(path.stem, path)
    return found


def _seed_tts(lists: Sequence[Path]) -> Iterator[Record]:
    """Lines are ``UTT|prompt text|prompt file|text`` and, in some lists, ``|file``."""
    several = len(lists) > 1
    for path in lists:
        language = path.parent.name if path.parent.name in SEED_TTS_LANGUAGES else None
        names = set()
        for number, line in enumerate(_lines(path), start=1):
            if not line.strip():
                continue
            fields = line.strip().split("|")
            if len(fields) not in (4, 5):
                raise DataError(
                    f"{path}, line {number}: {len(fields)} fields between |; Seed-TTS-Eval has "
                    "UTT|prompt text|prompt file|text"
                )
            file = fields[4] if len(fields) == 5 else f"{SEED_TTS_AUDIO}/{fields[0]}.wav"
            audio = path.parent / file
            if not audio.is_file() or fields[0] in names:
                continue
            names.add(fields[0])
            key = f"{language}/{fields[0]}.wav" if several else f"{fields[0]}.wav"
            yield Record(key, FileSlice(audio), fields[3], language)
        if not names:
            raise DataError(
                f"{path}: none of its recordings is in {path.parent / SEED_TTS_AUDIO}; unpack the "
                "whole of Seed-TTS-Eval (lists without real recordings cannot be used)"
            )


def _manifest(path: Path) -> Iterator[Record]:
    lines = _lines(path)
    if path.suffix.lower() == ".jsonl":
        rows = _json_rows(path, lines)
    else:
        delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        rows = enumerate(csv.DictReader(lines, delimiter=delimiter), start=2)
    empty = True
    for number, row in rows:
        name = next((row[key] for key in PATH_KEYS if row.get(key)), None)
        if not isinstance(name, str):
            raise DataError(f"{path}, line {number}: names no file; use a column {PATH_KEYS[0]}")
        audio = path.parent / Path(name).expanduser()
        if not audio.is_file():
            raise DataError(f"{path}, line {number}: {audio} does not exist")
        rest = {key: value for key, value in row.items() if key is not None and value != name}
        key = Path(name).name if Path(name).is_absolute() else name
        yield record_from_metadata(key, FileSlice(audio), rest)
        empty = False
    if empty:
        raise DataError(f"{path}: names no recording")


def _json_rows(path: Path, lines: Sequence[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: is not JSON ({error})") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: is not a JSON object")
        yield number, row


def _lines(path: Path) -> list[str]:
    if path.stat().st_size > MAX_LIST_BYTES:
        raise DataError(f"{path}: larger than {MAX_LIST_BYTES} bytes; not a list of recordings")
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text; convert it") from error
