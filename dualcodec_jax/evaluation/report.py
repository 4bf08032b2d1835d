"""An evaluation as files: Markdown, CSV, JSON, and a page to look at and listen to."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from dualcodec_jax import webpage
from dualcodec_jax.audio.load import load_audio
from dualcodec_jax.errors import AudioError, ConfigError, InputError
from dualcodec_jax.evaluation.cache import AUDIO_FOLDER
from dualcodec_jax.evaluation.clip import COMPARISON_RATE
from dualcodec_jax.evaluation.presets import Preset
from dualcodec_jax.evaluation.results import (
    ORIGINAL,
    RESULTS_FILE,
    ClipResult,
    Results,
    SystemResult,
)
from dualcodec_jax.evaluation.summary import WER, Column, Summary, clip_value, summarise
from dualcodec_jax.evaluation.tables import listings, markdown, table_csv, tables
from dualcodec_jax.paths import replacing
from dualcodec_jax.train.plots import check_available, draw_spectrograms, png_bytes

MARKDOWN_FILE, CSV_FILE, HTML_FILE = "table.md", "table.csv", "report.html"
MAX_MEDIA_BYTES = 16 * 2**20
"""Audio and spectrograms that a page takes in, as files."""
RANK_BY = ("pesq_wb", "estoi", "stoi", "distillmos", "mel")
"""Metrics by which clips are called best and worst: the first one that was measured."""
PICKS = ("best", "median", "worst")
_SHOWN_SECONDS = 15.0  # of a spectrogram


def write_results(
    results: Results, output: str | Path, preset: Preset | None = None, rank_by: str | None = None
) -> list[Path]:
    """Write or replace the four files of an evaluation.

    Args:
        results: of :func:`~.runner.evaluate`.
        output: its folder, where the report finds the audio.
        preset: the paper's table to print beside.
        rank_by: metric, or ``wer``, by which the report chooses clips to hear; None: see
            :data:`RANK_BY`.

    Raises:
        InputError: a file cannot be written, or ``rank_by`` has no values.
    """
    folder = Path(output)
    contents = {
        MARKDOWN_FILE: markdown(results, preset),
        CSV_FILE: table_csv(results),
        RESULTS_FILE: json.dumps(results.to_json(), indent=1, ensure_ascii=False) + "\n",
        HTML_FILE: html_page(results, folder, preset, rank_by=rank_by),
    }
    paths = [folder / name for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        with replacing(path, overwrite=True) as temporary:
            temporary.write_text(content, encoding="utf-8")
    return paths


def html_page(
    results: Results,
    folder: Path,
    preset: Preset | None = None,
    *,
    rank_by: str | None = None,
    max_media_bytes: int = MAX_MEDIA_BYTES,
) -> str:
    """A page that needs no other file: tables, plots, clips to hear.

    Args:
        results: what to show.
        folder: of the evaluation, with its audio.
        preset: the paper's table to print beside.
        rank_by: metric that chooses clips.
        max_media_bytes: bound on audio and spectrograms, as files; clips beyond it are named.

    Raises:
        InputError: ``rank_by`` has no values.
    """
    summary = summarise(results)
    ranking = _ranking(summary, rank_by)
    title = results.title or "Evaluation"
    body = []
    for index, table in enumerate(tables(results, preset)):
        level = "h1" if index == 0 else "h2"
        body.append(f"<{level}>{webpage.escaped(table.title)}</{level}>")
        body.append(webpage.table(table.header, table.rows, table.marked))
        body.append(webpage.notes(table.notes))
    try:
        check_available()
        body += _pictures(summary)
        draws = True
    except ConfigError as error:
        body.append(f"<p>{webpage.escaped(f'No pictures: {error}.')}</p>")
        draws = False
    if ranking is not None:
        body += _clips(results, summary, ranking, folder, webpage.Budget(max_media_bytes), draws)
    for heading, lines in listings(results):
        body += [f"<h2>{webpage.escaped(heading)}</h2>", webpage.notes(lines)]
    return webpage.page(title, body)


def rankable(results: Results) -> list[str]:
    """Metrics, ``wer`` among them, by which clips can be ranked: those that have values."""
    return list(_rankable(summarise(results)))


def _rankable(summary: Summary) -> dict[str, Column]:
    return {column.key: column for column in summary.columns if column.is_metric}


def _ranking(summary: Summary, rank_by: str | None) -> Column | None:
    """The column that orders clips."""
    columns = _rankable(summary)
    if rank_by is not None:
        if rank_by not in columns:
            known = ", ".join(columns) or "no metric"
            raise InputError(
                f"clips cannot be ranked by {rank_by!r}, of which there are no values; use {known}"
            )
        return columns[rank_by]
    # Many clips have no word errors: a weak order.
    names = (*RANK_BY, *(name for name in columns if name != WER), WER)
    return next((columns[name] for name in names if name in columns), None)


def _pictures(summary: Summary) -> list[str]:
    from dualcodec_jax.evaluation.plots import draw_distributions, draw_rates

    body = []
    titles = {"Rate and quality": draw_rates, "Clip by clip": draw_distributions}
    for title, draw in titles.items():
        figure = draw(summary)
        if figure is not None:
            body += [f"<h2>{title}</h2>", webpage.image(png_bytes(figure), title)]
    return body


def picks(system: SystemResult, column: Column) -> dict[str, ClipResult]:
    """The best, the median and the worst clip of a system by a metric; fewer of fewer clips."""
    ranked = sorted(
        (clip for clip in system.clips if clip_value(clip, column) is not None),
        key=lambda clip: (clip_value(clip, column), clip.id),
        reverse=bool(column.higher_is_better),
    )
    if not ranked:
        return {}
    chosen = {"worst": ranked[-1], "median": ranked[(len(ranked) - 1) // 2], "best": ranked[0]}
    found: dict[str, ClipResult] = {}
    for name in PICKS:
        if chosen[name] not in found.values():
            found[name] = chosen[name]
    return found


@dataclasses.dataclass(frozen=True)
class _Pick:
    """A clip to show.

    Attributes:
        system: whose.
        kind: best, median or worst.
        clip: its results.
    """

    system: SystemResult
    kind: str
    clip: ClipResult


def _clips(
    results: Results,
    summary: Summary,
    column: Column,
    folder: Path,
    budget: webpage.Budget,
    draws: bool,
) -> list[str]:
    """Players and spectrograms, as far as the budget goes: first the worst clips of all systems."""
    chosen = [
        _Pick(system, kind, clip)
        for system in results.systems
        if not system.is_original
        for kind, clip in picks(system, column).items()
    ]
    shown: dict[_Key, str] = {}
    without_audio: list[str] = []
    too_large: list[str] = []
    for kind in reversed(PICKS):
        for pick in (pick for pick in chosen if pick.kind == kind):
            files = _files(pick, folder)
            content = _clip(pick, files, summary, budget, draws) if files else None
            if content is None:
                left_out = too_large if files else without_audio
                left_out.append(f"{pick.clip.id} ({pick.system.name})")
            else:
                shown[pick.system.name, kind] = content
    notes = []
    if without_audio and not (shown or too_large):
        notes.append("No audio was kept, so there are no clips to hear.")
    elif without_audio:
        notes.append(f"Without audio: {', '.join(without_audio)}")
    if too_large:
        place = f"{AUDIO_FOLDER}/SYSTEM/CLIP.flac"
        notes.append(f"In {place}, left out to keep the page small: {', '.join(too_large)}")
    paragraphs = [f"<p>{webpage.escaped(note)}</p>" for note in notes]
    if not shown:
        return ["<h2>Clips</h2>", *paragraphs] if chosen else []
    body = [f"<h2>Clips: best, median and worst by {webpage.escaped(column.title)}</h2>"]
    for name in dict.fromkeys(pick.system.name for pick in chosen):
        found = [shown[name, kind] for kind in PICKS if (name, kind) in shown]
        if found:
            body += [f"<h3>{webpage.escaped(name)}</h3>", *found]
    return body + paragraphs


_Key = tuple[str, str]


def _files(pick: _Pick, folder: Path) -> dict[str, Path]:
    """Audio of the original, if it was kept, and of the system; empty without the latter."""
    names = {"original": ORIGINAL, pick.system.name: pick.system.folder}
    paths = {
        label: folder / AUDIO_FOLDER / name / f"{pick.clip.id}.flac"
        for label, name in names.items()
    }
    files = {label: path for label, path in paths.items() if path.is_file()}
    return files if pick.system.name in files else {}


def _clip(
    pick: _Pick, files: Mapping[str, Path], summary: Summary, budget: webpage.Budget, draws: bool
) -> str | None:
    """A figure with players; None without room for it."""
    sounds = {label: path.read_bytes() for label, path in files.items()}
    if not budget.take(sum(len(content) for content in sounds.values())):
        return None
    players = "\n".join(webpage.player(label, content) for label, content in sounds.items())
    picture = _spectrograms(files) if draws else b""
    shown = ""
    if picture and budget.take(len(picture)):
        shown = webpage.image(picture, f"spectrograms of {pick.clip.id}")
    return (
        f"<figure><figcaption>{webpage.escaped(f'{pick.kind}: {pick.clip.id}')}</figcaption>\n"
        f"<p>{webpage.escaped(_numbers(pick.clip, summary))}</p>\n"
        f'<div class="players">\n{players}\n</div>\n{shown}</figure>'
    )


def _numbers(clip: ClipResult, summary: Summary) -> str:
    """All that was measured of a clip, in a line."""
    parts = []
    for column in summary.columns:
        value = clip.values.get(column.key)
        if value is not None:
            parts.append(f"{column.title} {value:.{column.decimals}f}")
    if clip.errors is not None:
        unit = "characters" if clip.counts_characters else "words"
        parts.append(f"{clip.errors} errors in {clip.words} {unit}: “{clip.transcript}”")
    return "; ".join(parts)


def _spectrograms(files: Mapping[str, Path]) -> bytes:
    """The files' spectrograms one above the other; empty if one cannot be read."""
    limit = int(_SHOWN_SECONDS * COMPARISON_RATE)
    try:
        signals = {
            label: load_audio(path, COMPARISON_RATE, max_seconds=None).samples[:limit]
            for label, path in files.items()
        }
    except AudioError:
        return b""
    return png_bytes(draw_spectrograms(signals, COMPARISON_RATE))
