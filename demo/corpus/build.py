"""From sources to folders of FLAC files with their tables."""

from __future__ import annotations

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from corpus.clips import SAMPLE_RATE, Rejected, clips
from corpus.packages import Packages
from corpus.sources import SPLITS, VALID, Item, Source, splits
from dualcodec_jax.audio.reader import read_audio
from dualcodec_jax.audio.writer import write_audio
from dualcodec_jax.errors import InputError
from dualcodec_jax.paths import replacing

logger = logging.getLogger(__name__)

METADATA = "metadata.jsonl"
SOURCES = "sources.json"
UPDATE_EVERY = 100
"""Items of a synthetic source after which the tables are written again."""

Progress = Callable[[str, Iterable[Item], int], Iterable[Item]]
"""Given a source's name, its items and their number, hands the items on and shows progress."""


@dataclass(frozen=True, slots=True)
class Row:
    """One clip, as its line in ``metadata.jsonl`` has it; duration in s, level in dB."""

    file_name: str
    text: str | None
    language: str
    speaker: str
    source: str
    duration: float
    level: float


class Corpus:
    """The output folder.

    Args:
        folder: gets ``train``, ``valid``, ``heldout`` with a table each, and ``sources.json``.
        packages: where the sources find theirs.
    """

    def __init__(self, folder: Path, packages: Packages) -> None:
        self._folder = folder
        self._packages = packages
        self._rows = {split: _read_rows(folder / split / METADATA) for split in SPLITS}
        reports = folder / SOURCES
        self._reports: dict[str, dict[str, Any]] = (
            json.loads(reports.read_text(encoding="utf-8")) if reports.exists() else {}
        )

    def add(self, source: Source, progress: Progress) -> Counter[str]:
        """Make a source's clips; those of synthetic sources only where they are missing.

        Returns:
            How many clips there are and how many items were left out, by reason.

        Raises:
            InputError: a package, program or the output folder cannot be used.
        """
        items = list(source.items(self._packages))
        split_of = dict(zip([item.name for item in items], splits(source, items), strict=True))
        if len(split_of) < len(items):
            raise InputError(f"{source.name}: two items have one name; report this")
        rows: dict[str, list[Row]] = defaultdict(list)
        counts: Counter[str] = Counter()
        for done, item in enumerate(progress(source.name, items, len(items)), start=1):
            split = split_of[item.name]
            made = self._make(source, item, split)
            if isinstance(made, Rejected):
                counts[made] += 1
                logger.debug("%s/%s: %s", source.name, item.name, made)
                continue
            rows[split] += made
            counts["clips"] += len(made)
            if source.synthetic and done % UPDATE_EVERY == 0:
                self._write(source, rows)
        self._write(source, rows)
        self._remove_others(source, rows)
        return counts

    def _make(self, source: Source, item: Item, split: str) -> list[Row] | Rejected:
        """The clips of an item, written to disk."""
        target = self._folder / split / source.name / f"{item.name}.flac"
        if source.synthetic and target.exists():
            return [_row(source, item, target, item.text, read_audio(target).samples)]
        audio = item.audio()
        pieces = Rejected.SILENT if audio is None else clips(*audio)
        if isinstance(pieces, Rejected):
            return pieces
        rows = []
        for index, piece in enumerate(pieces, start=1):
            if len(pieces) > 1:
                target = target.with_name(f"{item.name}-part{index}.flac")
            write_audio(target, piece, SAMPLE_RATE)
            text = item.text if len(pieces) == 1 else None
            rows.append(_row(source, item, target, text, piece))
        return rows

    def _write(self, source: Source, rows: dict[str, list[Row]]) -> None:
        """Put the rows of ``source`` into the tables, in place of those that it had."""
        for split in SPLITS:
            others = [row for row in self._rows[split] if row.source != source.name]
            self._rows[split] = sorted(others + rows.get(split, []), key=lambda row: row.file_name)
            lines = [json.dumps(asdict(row), ensure_ascii=False) for row in self._rows[split]]
            if lines:
                with replacing(self._folder / split / METADATA, overwrite=True) as path:
                    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self._reports[source.name] = self._report(source, rows)
        with replacing(self._folder / SOURCES, overwrite=True) as path:
            text = json.dumps(self._reports, ensure_ascii=False, indent=2, sort_keys=True)
            path.write_text(text + "\n", encoding="utf-8")

    def _remove_others(self, source: Source, rows: dict[str, list[Row]]) -> None:
        """Delete clips that an earlier version of the source had, or had in another split."""
        for split in SPLITS:
            wanted = {Path(row.file_name).name for row in rows.get(split, [])}
            for path in (self._folder / split / source.name).glob("*.flac"):
                if path.name not in wanted:
                    logger.info("removing %s, which is no longer part of it", path)
                    path.unlink()

    def _report(self, source: Source, rows: dict[str, list[Row]]) -> dict[str, Any]:
        """What ``sources.json`` says of a source."""
        clips_made = [row for split in rows.values() for row in split]
        seconds = sum(row.duration for row in clips_made)
        return {
            "split": "train" if source.training else "heldout",
            "licence": source.licence,
            "attribution": source.attribution,
            "synthetic": source.synthetic,
            "clips": len(clips_made),
            "valid_clips": len(rows.get(VALID, [])),
            "hours": round(seconds / 3600, 4),
            "languages": sorted({row.language for row in clips_made}),
            "speakers": sorted({row.speaker for row in clips_made}),
            "level_db": round(float(np.median([row.level for row in clips_made] or [0])), 1),
            "packages": [
                {
                    "name": package.name,
                    "registry": "Debian" if package.debian else "PyPI",
                    "file": self._packages.digests[package][0],
                    "sha256": self._packages.digests[package][1],
                    "licence": package.licence,
                }
                for package in source.packages
                if package in self._packages.digests
            ],
        }


def _read_rows(table: Path) -> list[Row]:
    if not table.exists():
        return []
    return [Row(**json.loads(line)) for line in table.read_text(encoding="utf-8").splitlines()]


def _row(source: Source, item: Item, path: Path, text: str | None, audio: np.ndarray) -> Row:
    power = float(np.mean(np.square(audio, dtype=np.float64)))
    return Row(
        file_name=f"{source.name}/{path.name}",
        text=text,
        language=item.language,
        speaker=item.speaker,
        source=source.name,
        duration=round(audio.size / SAMPLE_RATE, 4),
        level=round(10 * float(np.log10(max(power, 1e-12))), 1),
    )
