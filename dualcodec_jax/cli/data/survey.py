"""How ``data inspect`` shows a data set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from dualcodec_jax.errors import InputError

if TYPE_CHECKING:
    from dualcodec_jax.data.inspection import Survey


BARS = 12
BAR_WIDTH = 40


def facts_of(survey: Survey) -> dict[str, Any]:
    """A survey as JSON types."""
    seconds = sorted(survey.seconds)
    return {
        "clips": survey.clips,
        "hours": survey.hours,
        "damaged": dict(survey.broken),
        "shortest": seconds[0] if seconds else None,
        "median": seconds[len(seconds) // 2] if seconds else None,
        "longest": seconds[-1] if seconds else None,
        "sample_rates": {str(rate): n for rate, n in survey.sample_rates.most_common()},
        "formats": dict(survey.formats.most_common()),
        "languages": dict(survey.languages.most_common()),
        "with_text": survey.with_text,
        "with_quality": survey.with_quality,
    }


def show(survey: Survey) -> None:
    """Print a table with a histogram of durations."""
    facts = facts_of(survey)
    table = Table(show_header=False, box=None)
    table.add_row("clips", str(facts["clips"]))
    unknown = survey.clips - len(survey.seconds)
    note = f" (and {unknown} clips of unknown duration)" if unknown else ""
    table.add_row("duration", f"{survey.hours:.3f} h{note}")
    for name in ("sample_rates", "formats", "languages"):
        values = ", ".join(f"{key}: {count}" for key, count in facts[name].items())
        table.add_row(name.replace("_", " "), values)
    table.add_row("with transcript", str(facts["with_text"]))
    table.add_row("with quality score", str(facts["with_quality"]))
    if survey.seconds:
        table.add_row(
            "seconds", f"{facts['shortest']:.2f} … {facts['median']:.2f} … {facts['longest']:.2f}"
        )
        for label, count, share in _histogram(survey):
            table.add_row(label, f"{'█' * round(BAR_WIDTH * share)} {count}")
    Console().print(table)


def _histogram(survey: Survey) -> Iterator[tuple[str, int, float]]:
    """Range in seconds, clips in it, and their number relative to the largest."""
    import numpy as np

    counts, edges = np.histogram(survey.seconds, bins=BARS)
    for count, low, high in zip(counts.tolist(), edges[:-1], edges[1:], strict=True):
        yield f"{low:.2f}–{high:.2f} s", count, count / counts.max()


def plot_durations(survey: Survey, path: Path, overwrite: bool) -> None:
    """Draw the histogram of durations as a PNG file."""
    import importlib

    from dualcodec_jax.paths import replacing

    try:
        importlib.import_module("matplotlib").use("Agg")
        pyplot = importlib.import_module("matplotlib.pyplot")
    except ImportError as error:
        raise InputError("--plot needs matplotlib; run pip install matplotlib") from error
    with replacing(path, overwrite=overwrite) as temporary:
        figure, axes = pyplot.subplots(figsize=(7, 4))
        axes.hist(survey.seconds, bins=50)
        axes.set_xlabel("duration in seconds")
        axes.set_ylabel("clips")
        axes.set_title(f"{survey.clips} clips, {survey.hours:.2f} hours")
        figure.savefig(temporary, format="png", dpi=150)
        pyplot.close(figure)
