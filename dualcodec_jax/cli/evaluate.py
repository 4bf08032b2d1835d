"""``evaluate``: any codecs on any recordings, measured as the paper does."""

from __future__ import annotations

import contextlib
import enum
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from dualcodec_jax.cli.common import (
    FAILED,
    RELEASED,
    chosen_model,
    console,
    reports_errors,
    show_error,
    show_note,
)
from dualcodec_jax.errors import InputError

if TYPE_CHECKING:
    from dualcodec_jax.evaluation.presets import Preset
    from dualcodec_jax.evaluation.results import Results
    from dualcodec_jax.evaluation.runner import Progress as Report
    from dualcodec_jax.evaluation.tables import Table as Texts

OURS = ("dualcodec", "upstream")
"""Families whose number of quantizers ``-n`` chooses."""
MAX_SHOWN = 10
"""Failures that are printed; the files have all of them."""


class PresetChoice(enum.StrEnum):
    """Values of ``--preset``."""

    table2 = "table2"
    table3 = "table3"
    table5 = "table5"


@reports_errors
def evaluate(
    audio: Annotated[
        list[str],
        typer.Argument(
            metavar="AUDIO...",
            help="Recordings: files, folders, patterns, manifests, LibriSpeech or Seed-TTS-Eval.",
        ),
    ],
    codecs: Annotated[
        list[str] | None,
        typer.Option(
            "--codec",
            "-c",
            metavar="SPEC",
            help="Codec, as in docs/other_codecs.md: dualcodec:12hz_v1, dualcodec:FOLDER, opus:6 "
            "…; repeatable. Default: the released model if its weights are configured, else the "
            "demo model, with each of its numbers of quantizers.",
            show_default=False,
        ),
    ] = None,
    counts: Annotated[
        list[int] | None,
        typer.Option(
            "-n",
            metavar="N",
            min=1,
            help="Codes a frame of every dualcodec and upstream codec; repeatable.",
            show_default=False,
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics",
            metavar="A,B",
            help="Names of metrics (docs/evaluation.md). Default: all that are installed.",
            show_default=False,
        ),
    ] = None,
    recognisers: Annotated[
        list[str] | None,
        typer.Option(
            "--recogniser",
            metavar="SPEC",
            help="Speech recogniser for word error rates, one a language. Default: faster-whisper "
            "(English) if it is installed.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for results; an earlier run goes on.")
    ] = Path("results"),
    preset: Annotated[
        PresetChoice | None,
        typer.Option("--preset", help="Protocol of one of the paper's tables.", show_default=False),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", min=1, help="Use so many recordings, evenly spread.", show_default=False
        ),
    ] = None,
    max_seconds: Annotated[
        float, typer.Option("--max-seconds", help="Longer recordings fail; inf: none does.")
    ] = 300.0,
    no_audio: Annotated[
        bool, typer.Option("--no-audio", help="Do not keep the decoded audio.")
    ] = False,
    rank_by: Annotated[
        str | None,
        typer.Option(
            "--rank-by",
            metavar="METRIC",
            help="Metric, or wer, that chooses the best, median and worst clips of the report.",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Measure all again, whatever was measured before.")
    ] = False,
) -> None:
    """Measure codecs on recordings: table.md, table.csv, results.json and report.html.

    What an earlier run in the same folder measured is not measured again. Exit status 1 if a
    recording failed, or a codec, metric or recogniser that was asked for by name cannot run.
    """
    import dataclasses

    from dualcodec_jax.compilation import enable_cache
    from dualcodec_jax.evaluation.datasets import load_items
    from dualcodec_jax.evaluation.presets import PRESETS
    from dualcodec_jax.evaluation.report import rankable, write_results
    from dualcodec_jax.evaluation.runner import check_output
    from dualcodec_jax.evaluation.runner import evaluate as run
    from dualcodec_jax.evaluation.summary import WER

    enable_cache()
    check_output(output, overwrite=overwrite)
    items = load_items(audio)
    protocol = None if preset is None else PRESETS[preset.value]
    specs = choose_systems(codecs, counts, protocol)
    asked_metrics = [name.strip() for name in (metrics or "").split(",") if name.strip()]
    names = None if metrics is None else asked_metrics
    if names is None and protocol is not None:
        names = list(protocol.metrics)
    with _progress() as report:
        results = run(
            specs,
            items,
            metrics=names,
            recogniser=recognisers or None,
            output=output,
            keep_audio=not no_audio,
            progress=report,
            limit=limit,
            max_seconds=max_seconds,
            overwrite=overwrite,
        )
    title = "Evaluation" if protocol is None else protocol.title
    command = shlex.join(["dualcodec-jax", *sys.argv[1:]])
    environment = {**results.environment, "command": command}
    results = dataclasses.replace(results, title=title, environment=environment)
    if rank_by is not None and rank_by not in rankable(results):
        show_note(f"clips are not ranked by {rank_by}, of which there are no values")
        rank_by = None
    paths = write_results(results, output, protocol, rank_by)
    _show(results, protocol)
    console.print(f"written: {', '.join(map(str, paths))}", highlight=False)
    of_preset = () if protocol is None else protocol.codecs
    numbered = [spec for spec in specs if counts and spec not in of_preset]
    wanted = [f"codec {spec}" for spec in codecs or numbered]
    wanted += [f"metric {name}" for name in asked_metrics]
    # A recogniser's name may differ from its spec, and the default one is not named.
    kinds = ["recogniser "] if recognisers else []
    kinds += ["recogniser ", "word errors "] if WER in asked_metrics else []
    if results.problems or any(
        _asked_for(name, wanted) or name.startswith(tuple(kinds)) for name in results.absent
    ):
        raise typer.Exit(FAILED)


def choose_systems(
    codecs: Sequence[str] | None, counts: Sequence[int] | None, preset: Preset | None
) -> list[str]:
    """Specs of what to evaluate, with numbers of quantizers.

    Raises:
        InputError: a spec is not one, or the model that is taken where none is named has fewer
            quantizers.
    """
    from dualcodec_jax.evaluation.codecs.registry import parse_spec

    specs: list[str] = []
    chosen = list(codecs or ())
    if not chosen:
        ours = f"dualcodec:{chosen_model(None, None, instead=f'-c dualcodec:{RELEASED}')}"
        if preset is None:
            return _with_counts(ours, counts)
        specs += preset.codecs
        is_there = any(spec.startswith(f"{ours}@") for spec in specs)
        chosen = [] if is_there and not counts else [ours]
    for spec in chosen:
        parsed = parse_spec(spec)
        if parsed.n_quantizers is None and parsed.family in OURS and counts:
            specs += [f"{spec}@{count}" for count in counts]
        elif parsed.n_quantizers is None and preset is not None and preset.row_for(spec) is None:
            specs.append(_for_preset(spec, preset))
        else:
            specs.append(spec)
    return list(dict.fromkeys(specs))


def _with_counts(spec: str, counts: Sequence[int] | None) -> list[str]:
    """The codec with these numbers of quantizers, or with each that it has."""
    from dualcodec_jax.evaluation.codecs import open_codec

    number = open_codec(spec).info.n_quantizers or 0
    if too_many := [count for count in counts or () if count > number]:
        raise InputError(f"-n {too_many[0]}: {spec} has 1 to {number} quantizers")
    return [f"{spec}@{count}" for count in dict.fromkeys(counts or range(1, number + 1))]


def _for_preset(spec: str, preset: Preset) -> str:
    """The codec with as many quantizers as the protocol wants, or the nearest number it can have.

    As it is where it has no such number, or one that its argument fixes.
    """
    from dualcodec_jax.evaluation.clip import FAILURES
    from dualcodec_jax.evaluation.codecs import open_codec

    with contextlib.suppress(*FAILURES):  # the evaluation says so
        info = open_codec(spec).info
        wanted = preset.quantizers_for(info)
        if wanted is None:
            return spec
        numbers = range(1, (info.n_quantizers or 0) + 1)
        for number in sorted(numbers, key=lambda number: abs(number - wanted)):
            with contextlib.suppress(InputError):
                open_codec(f"{spec}@{number}")
                return f"{spec}@{number}"
    return spec


def _asked_for(name: str, wanted: Sequence[str]) -> bool:
    """Whether something absent was named by the user, with or without a number of quantizers."""
    return name in wanted or name.rpartition("@")[0] in wanted


def _show(results: Results, preset: Preset | None) -> None:
    """The table, the paper's beside it, then what did not run or failed."""
    from dualcodec_jax.evaluation.summary import summarise
    from dualcodec_jax.evaluation.tables import brief_table, paper_table

    _print_table(brief_table(results))
    if preset is not None:
        _print_table(paper_table(summarise(results), preset))
    for name, reason in results.absent.items():
        show_note(f"{name} not run: {reason}")
    problems = results.problems
    for system, clip, what, reason in problems[:MAX_SHOWN]:
        show_error(InputError(f"{system}, {clip}: {what}: {reason}"))
    if len(problems) > MAX_SHOWN:
        console.print(f"and {len(problems) - MAX_SHOWN} more failures", style="red")


def _print_table(table: Texts) -> None:
    """The table, or its transpose if that is what fits, with nothing cut off."""
    lines = [list(table.header), *(list(row) for row in table.rows)]
    screen = Console()
    grids = [_grid(table.title, version) for version in (lines, list(zip(*lines, strict=True)))]
    widths = [
        screen.measure(grid, options=screen.options.update(width=999)).maximum for grid in grids
    ]
    best = 0 if widths[0] <= max(screen.width, widths[1]) else 1
    # Wider than the screen: lines break there, which still leaves every figure to be read.
    Console(width=max(screen.width, widths[best])).print(grids[best])


def _grid(title: str, lines: Sequence[Sequence[str]]) -> Table:
    grid = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD)
    for index, name in enumerate(lines[0]):
        grid.add_column(escape(name), justify="right" if index else "left", no_wrap=True)
    for line in lines[1:]:
        grid.add_row(*map(escape, line))
    return grid


@contextlib.contextmanager
def _progress() -> Iterator[Report]:
    """A bar over systems × clips; yields the function that moves it."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("opening", total=None)
        yield lambda done, total, what: progress.update(
            task, completed=done, total=total, description=what
        )
