"""Results as Markdown and CSV, with the paper's rows beside ours."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections.abc import Mapping, Sequence

from dualcodec_jax.evaluation.paper import PaperRow
from dualcodec_jax.evaluation.presets import Preset
from dualcodec_jax.evaluation.results import ClipResult, Results, SystemResult
from dualcodec_jax.evaluation.summary import (
    Column,
    Estimate,
    Row,
    Summary,
    summarise,
    word_errors,
)

EMPTY = "–"
UNKNOWN_MACHINE = "an unknown machine"
"""Stands for that of results which do not say it."""
MAX_PROBLEMS = 50
"""Failures that a table lists; the others are counted."""
_ASYMMETRY = 0.15  # of an interval's half-widths, up to which it is written with ±


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells as text.

    Attributes:
        title: heading.
        header: of the columns; the first one is that of names.
        rows: as wide as the header.
        notes: sentences below.
        marked: indices of rows that are not ours.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    marked: frozenset[int] = frozenset()


def tables(results: Results, preset: Preset | None = None) -> list[Table]:
    """All tables of an evaluation, the main one first."""
    summary = summarise(results)
    found = [main_table(results, summary)]
    if preset is not None:
        found.append(paper_table(summary, preset))
    if books := codebook_table(results):
        found.append(books)
    if compared := codes_table(results):
        found.append(compared)
    return found


def main_table(results: Results, summary: Summary) -> Table:
    """One row a system."""
    total = max((len(system.clips) for system in results.systems), default=0)
    rows = []
    for row in summary.rows:
        cells = [shown(row.cells.get(column.key), column.decimals) for column in summary.columns]
        done = sum(clip.bits is not None for clip in row.system.clips)
        rows.append([row.label, *cells, str(done) if done == total else f"{done} of {total}"])
    seconds = sum(clip.seconds or 0.0 for clip in results.systems[0].clips)
    notes = [
        f"{total} recordings, {seconds / 60:.1f} minutes. Mean over clips ± half the 95 % "
        "confidence interval, or [the interval]; WER and CER are ratios over all clips.",
        *_hardware_notes(results),
    ]
    better = [c for c in summary.columns if c.is_metric and c.higher_is_better is not None]
    ups = "; ".join(column.title for column in better if column.higher_is_better)
    downs = "; ".join(column.title for column in better if not column.higher_is_better)
    notes += [f"Higher is better: {ups}."] if ups else []
    notes += [f"Lower is better: {downs}."] if downs else []
    for info in results.recognisers:
        notes.append(f"Recogniser of {info['language']}: {info['name']} ({info['version']}).")
    header = ["system", *(column.title for column in summary.columns), "clips"]
    return Table(results.title or "Evaluation", header, rows, notes)


def _hardware_notes(results: Results) -> list[str]:
    """What took the times of coding; earlier runs may have been on another machine."""
    systems: dict[str, list[str]] = {}  # by machine
    for system in results.systems:
        timed = [clip for clip in system.clips if clip.encode_seconds is not None]
        for name in dict.fromkeys(clip.hardware or UNKNOWN_MACHINE for clip in timed):
            if not system.is_original:
                systems.setdefault(name, []).append(system.name)
    if not systems:
        return []
    meaning = "Real-time factors are computing time by duration, one clip at a time, on"
    if len(systems) == 1:
        return [f"{meaning} {next(iter(systems))}."]
    machines = "; ".join(f"{name} ({', '.join(names)})" for name, names in systems.items())
    return [f"{meaning} several machines, so they do not compare: {machines}."]


def paper_table(summary: Summary, preset: Preset) -> Table:
    """The paper's rows, below each of them ours of the same system, then our others."""
    rows: list[list[str]] = []
    marked: set[int] = set()
    used: set[str] = set()
    for paper in preset.rows:
        marked.add(len(rows))
        rows.append(_paper_cells(paper, preset))
        for row in summary.rows:
            if paper.codec in (row.system.spec, row.system.name):
                used.add(row.system.name)
                rows.append(_our_cells(row, preset))
    others = [row for row in summary.rows if row.system.name not in used]
    rows += [_our_cells(row, preset) for row in others]
    notes = ["Rows with “paper” are the paper's, the others were measured here.", *preset.notes]
    title = f"Beside the paper's {preset.name.replace('table', 'Table ')}: {preset.title}"
    return Table(title, ["system", *preset.columns.values()], rows, notes, frozenset(marked))


def brief_table(results: Results) -> Table:
    """The main table for a narrow screen: no intervals, no empty columns."""
    summary = summarise(results)
    columns = [c for c in summary.columns if any(c.key in row.cells for row in summary.rows)]
    rows = [
        [row.label, *(shown(row.cells.get(c.key), c.decimals, interval=False) for c in columns)]
        for row in summary.rows
    ]
    header = ["system", *(column.title for column in columns)]
    return Table(results.title or "Evaluation", header, rows)


def codebook_table(results: Results) -> Table | None:
    """Usage and entropy of each quantizer; None if no system has codes."""
    systems = [system for system in results.systems if system.codebooks]
    if not systems:
        return None
    width = max(len(system.codebooks) for system in systems)
    rows = []
    for system in systems:
        cells = [f"{100 * use.usage:.1f} % · {use.entropy:.2f}" for use in system.codebooks]
        sizes = list(dict.fromkeys(str(use.size) for use in system.codebooks))
        frames = str(system.codebooks[0].frames)
        rows.append(
            [system.name, " + ".join(sizes), frames, *cells, *[EMPTY] * (width - len(cells))]
        )
    header = ["system", "codebook sizes", "codes each", *(f"VQ {i + 1}" for i in range(width))]
    notes = [
        "Share of the codebook that occurred, and entropy of the codes in bits (at most log2 of "
        "the size). Both grow with the number of codes counted: compare equal numbers.",
    ]
    return Table("Codebook usage and entropy", header, rows, notes)


def codes_table(results: Results) -> Table | None:
    """Equal codes of pairs of systems; None if there are no pairs."""
    if not results.compared:
        return None
    width = max(len(pair.total) for pair in results.compared)
    rows = []
    for pair in results.compared:
        shares = [100 * e / t for e, t in zip(pair.equal, pair.total, strict=True)]
        whole = 100 * sum(pair.equal) / sum(pair.total)
        cells = [f"{share:.3f}" for share in (whole, *shares)]
        name = f"{pair.first} = {pair.second}"
        rows.append([name, str(pair.clips), *cells, *[EMPTY] * (width + 1 - len(cells))])
    header = ["systems", "clips", "all, %", *(f"VQ {i + 1}, %" for i in range(width))]
    return Table("Equal codes", header, rows)


def shown(estimate: Estimate | None, decimals: int, *, interval: bool = True) -> str:
    """``2.31 ± 0.05``, ``9.8 [7.1, 13.0]`` where the interval is lopsided, or a dash."""
    if estimate is None:
        return EMPTY
    value = _number(estimate.value, decimals)
    if estimate.low is None or estimate.high is None or not interval:
        return value
    below, above = estimate.value - estimate.low, estimate.high - estimate.value
    if abs(above - below) <= _ASYMMETRY * (above + below):
        return f"{value} ± {(above + below) / 2:.{decimals}f}"
    return f"{value} [{estimate.low:.{decimals}f}, {estimate.high:.{decimals}f}]"


def markdown(results: Results, preset: Preset | None = None) -> str:
    """The tables as one Markdown document."""
    parts = []
    for index, table in enumerate(tables(results, preset)):
        lines = [f"{'#' if index == 0 else '##'} {table.title}", "", *_markdown_rows(table)]
        if table.notes:
            lines += ["", *(f"- {_escaped(note)}" for note in table.notes)]
        parts.append("\n".join(lines))
    for title, lines in listings(results):
        parts.append("\n".join([f"## {title}", "", *(f"- {_escaped(line)}" for line in lines)]))
    return "\n\n".join(parts) + "\n"


def listings(results: Results) -> list[tuple[str, list[str]]]:
    """What did not run, failed or had no value, what measured, and where: headings and lines."""
    found = []
    if results.absent:
        found.append(("Not run", [f"{name}: {reason}" for name, reason in results.absent.items()]))
    if problems := results.problems:
        lines = [
            f"{system}, {clip}: {what}: {reason}"
            for system, clip, what, reason in problems[:MAX_PROBLEMS]
        ]
        if len(problems) > MAX_PROBLEMS:
            lines.append(f"and {len(problems) - MAX_PROBLEMS} more, see results.json")
        found.append(("Failed", lines))
    if results.without_value:
        lines = [
            f"{system}: {results.metrics[name]['title']} is not defined for {count} of "
            f"{len(results.system(system).clips)} clips (silence, mostly)"
            for system, name, count in results.without_value
        ]
        found.append(("Without a value", lines))
    versions = [f"{info['title']}: {info.get('version', '')}" for info in results.metrics.values()]
    versions += [f"{system.name}: {system.info['version']}" for system in results.systems]
    versions += [f"{name}: {value}" for name, value in results.environment.items()]
    found.append(("Versions", versions))
    return found


def table_csv(results: Results) -> str:
    """The main table with unrounded values; ``NAME_low``, ``NAME_high`` are the interval."""
    summary = summarise(results)
    fields = ["system"]
    for column in summary.columns:
        fields += [column.key]
        if _has_interval(column):
            fields += [f"{column.key}_low", f"{column.key}_high", f"{column.key}_clips"]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [*fields, "clips", "trained"], lineterminator="\n")
    writer.writeheader()
    for row in summary.rows:
        values: dict[str, object] = {"system": row.system.name}
        for column in summary.columns:
            cell = row.cells.get(column.key)
            if cell is None:
                continue
            values[column.key] = cell.value
            if _has_interval(column):
                values[f"{column.key}_low"] = cell.low
                values[f"{column.key}_high"] = cell.high
                values[f"{column.key}_clips"] = cell.count
        values["clips"] = sum(clip.bits is not None for clip in row.system.clips)
        values["trained"] = row.system.info.get("trained", True)
        writer.writerow(values)
    return buffer.getvalue()


def _has_interval(column: Column) -> bool:
    return column.is_metric


def _paper_cells(paper: PaperRow, preset: Preset) -> list[str]:
    cells = [
        EMPTY if key not in paper.values else f"{paper.values[key]:g}" for key in preset.columns
    ]
    return [f"paper {paper.id}: {paper.system}" if paper.id else f"paper: {paper.system}", *cells]


def _our_cells(row: Row, preset: Preset) -> list[str]:
    values = _paper_values(row)
    decimals = {"wer_en": 2, "wer_zh": 2, "encode_rtf": 3, "decode_rtf": 3, "n_quantizers": 0}
    cells = [shown(values.get(key), decimals.get(key, 2)) for key in preset.columns]
    return [row.label, *cells]


def _paper_values(row: Row) -> Mapping[str, Estimate]:
    """Our figures under the names of the paper's columns."""
    system, info = row.system, row.system.info
    values: dict[str, Estimate | None] = dict(row.cells)
    values["millions"] = row.cells.get("params_m")
    for side in ("encode", "decode"):
        count = info.get(f"{side}_parameters")
        values[f"{side}_millions"] = None if count is None else Estimate(count / 1e6)
    tokens, number = info.get("tokens_per_second"), info.get("n_quantizers")
    values["frame_rate"] = Estimate(tokens / number) if tokens and number else None
    values["wer_en"] = word_errors(_of_language(system, characters=False))
    values["wer_zh"] = word_errors(_of_language(system, characters=True))
    return {key: value for key, value in values.items() if value is not None}


def _of_language(system: SystemResult, *, characters: bool) -> list[ClipResult]:
    return [clip for clip in system.clips if clip.counts_characters == characters]


def _number(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}" if abs(value) < 100 or decimals < 2 else f"{value:.1f}"


def _markdown_rows(table: Table) -> list[str]:
    lines = [table.header, ["---", *["--:"] * (len(table.header) - 1)], *table.rows]
    return ["| " + " | ".join(_escaped(cell) for cell in line) + " |" for line in lines]


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_<>|])", r"\\\1", " ".join(text.split()))
