"""Curves of one or several runs, as a picture or a self-contained HTML page."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from dualcodec_jax import webpage
from dualcodec_jax.errors import InputError
from dualcodec_jax.paths import replacing
from dualcodec_jax.train import plots
from dualcodec_jax.train.logs import (
    EVAL_FOLDER,
    EVAL_METRICS_FILE,
    METRICS_FILE,
    ORIGINAL_FOLDER,
    RVQ1,
    Record,
    duration,
    read_evaluations,
    read_records,
)
from dualcodec_jax.train.plots import Curve, Panel

SUFFIXES = (".png", ".html")
MAX_MEDIA_BYTES = 16 * 2**20
"""Audio and spectrograms of the newest evaluation that an HTML page takes in, all runs together."""

_LOSSES_FIRST = ("total", "mel", "adversarial", "feature_matching", "discriminator")
_EVAL_LABELS = {
    "mel": ("Evaluation: mel distance", "mel distance (lower is better)"),
    "stoi": ("Evaluation: STOI", "STOI, 0…1 (higher is better)"),
    "pesq": ("Evaluation: PESQ", "PESQ-wb, 1…4.64 (higher is better)"),
}


@dataclasses.dataclass(frozen=True)
class Run:
    """What is known of a training run.

    Attributes:
        name: of its folder, or as much of the path as tells runs apart.
        folder: of the run.
        records: log points, by step; those of evaluations hold ``eval/…`` values.
    """

    name: str
    folder: Path
    records: list[Record]

    def series(self, name: str) -> tuple[list[float], list[float]]:
        """Steps and values of every record that has the value."""
        pairs = [(record["step"], record[name]) for record in self.records if name in record]
        return [step for step, _ in pairs], [value for _, value in pairs]

    def names(self, prefix: str) -> list[str]:
        """Names of values that start with ``prefix``, in the order of their first appearance."""
        names = dict.fromkeys(name for record in self.records for name in record)
        return [name for name in names if name.startswith(prefix)]

    def last(self, name: str) -> float | None:
        """The newest value, if there is one."""
        return next((record[name] for record in reversed(self.records) if name in record), None)


def read_run(folder: str | Path) -> Run:
    """Read the log and the evaluations of a run.

    Raises:
        InputError: there is no such folder, it is not that of a run, or it has no records.
    """
    folder = Path(folder)
    path = folder / METRICS_FILE
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder; give the folder of a training run")
    if not path.is_file():
        raise InputError(f"{folder}: is not the folder of a training run: it has no {METRICS_FILE}")
    evaluations = [
        {"step": float(step), **values} for step, values in read_evaluations(folder).items()
    ]
    # An evaluation's own file counts, not its copy in the log.
    evaluated = {record["step"] for record in evaluations}
    records = [
        {
            name: value
            for name, value in record.items()
            if not (name.startswith("eval/") and record["step"] in evaluated)
        }
        for record in read_records(path)
    ]
    if not records:
        raise InputError(f"{path}: has no records yet; wait for the run's first log point")
    ordered = sorted(records + evaluations, key=lambda record: record["step"])
    return Run(folder.resolve().name, folder, ordered)


def read_runs(folders: Sequence[str | Path]) -> list[Run]:
    """Read several runs; runs whose folders have one name are called by their paths.

    Raises:
        InputError: as :func:`read_run`.
    """
    runs = [read_run(folder) for folder in folders]
    names = [run.name for run in runs]
    return [
        dataclasses.replace(run, name=str(run.folder)) if names.count(run.name) > 1 else run
        for run in runs
    ]


def write_report(runs: Sequence[Run], path: str | Path, *, overwrite: bool = False) -> None:
    """Write the curves to a PNG picture or an HTML page, by the suffix of ``path``.

    Raises:
        InputError: no runs, another suffix, or a path that cannot be written.
        ConfigError: matplotlib is missing.
    """
    path = Path(path)
    if not runs:
        raise InputError("a report needs at least one run")
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: give a name that ends in {' or '.join(SUFFIXES)}")
    plots.check_available()
    if path.suffix.lower() == ".png":
        panels = [panel for _, of_section in sections(runs) for panel in of_section]
        content = plots.png_bytes(plots.draw_panels(panels, title=_title(runs)))
    else:
        content = html_page(runs).encode()
    with replacing(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(content)


# Panels -------------------------------------------------------------------------------------


def sections(runs: Sequence[Run]) -> list[tuple[str, list[Panel]]]:
    """Panels by topic, without the empty ones; a colour stands for one run if there are several.

    Raises:
        InputError: the records have nothing to draw.
    """
    found = {
        "Losses": _losses(runs),
        "Evaluation": _evaluation(runs),
        "Codebooks": _codebooks(runs),
        "Gradients and learning rates": _optimisation(runs),
        "Speed and skipped steps": _speed(runs),
    }
    filled = [
        (title, [panel for panel in panels if panel.curves]) for title, panels in found.items()
    ]
    filled = [(title, panels) for title, panels in filled if panels]
    if not filled:
        raise InputError("the runs' records have no values that could be drawn")
    return filled


def _losses(runs: Sequence[Run]) -> list[Panel]:
    names = dict.fromkeys(name for run in runs for name in run.names("loss/"))
    names.pop("loss/not_finite", None)
    first = [f"loss/{name}" for name in _LOSSES_FIRST if f"loss/{name}" in names]
    ordered = [*first, *(name for name in names if name not in first)]
    return [
        Panel(
            f"Loss: {_words(name.removeprefix('loss/'))}",
            "loss" if name in ("loss/total", "loss/discriminator") else "loss, before its weight",
            _one_curve_a_run(runs, name),
            scale="log",
        )
        for name in ordered
    ]


def _evaluation(runs: Sequence[Run]) -> list[Panel]:
    panels = []
    for name, (title, ylabel) in _EVAL_LABELS.items():
        curves = []
        for suffix, label, dashed in (("", "all codes", False), (f"_{RVQ1}", "RVQ-1", True)):
            of_runs = _one_curve_a_run(runs, f"eval/{name}{suffix}", dashed=dashed)
            curves += [_relabelled(curve, label) for curve in of_runs]
        panels.append(Panel(title, ylabel, curves))
    return panels


def _codebooks(runs: Sequence[Run]) -> list[Panel]:
    perplexity = Panel(
        "Codebook perplexity", "perplexity (codes)", _quantizers(runs, "perplexity/"), scale="log"
    )
    usage = Panel(
        "Codebook usage", "codes in use (%)", _percent(_quantizers(runs, "usage/")), limits=(0, 102)
    )
    of_clips = Panel(
        "Perplexity on the evaluation clips",
        "perplexity (codes)",
        _quantizers(runs, "eval/perplexity/"),
        scale="log",
    )
    return [perplexity, usage, of_clips]


def _optimisation(runs: Sequence[Run]) -> list[Panel]:
    panels = []
    for network in ("generator", "discriminator"):
        norms = _one_curve_a_run(runs, f"norm/{network}")
        panels.append(
            Panel(f"Gradient norm: {network}", "L2 norm, before clipping", norms, scale="log")
        )
    for network in ("generator", "discriminator"):
        rates = _one_curve_a_run(runs, f"rate/{network}")
        panels.append(Panel(f"Learning rate: {network}", "learning rate", rates, limits=(0, None)))
    return panels


def _speed(runs: Sequence[Run]) -> list[Panel]:
    bad_steps = [
        dataclasses.replace(curve, exact=True) for curve in _one_curve_a_run(runs, "run/bad_steps")
    ]
    data = _percent(_one_curve_a_run(runs, "speed/data_share"))
    return [
        Panel(
            "Speed",
            "steps per second",
            _one_curve_a_run(runs, "speed/steps_per_second"),
            limits=(0, None),
        ),
        Panel(
            "Throughput",
            "seconds of audio per second",
            _one_curve_a_run(runs, "speed/audio_seconds_per_second"),
            limits=(0, None),
        ),
        Panel("Waiting for data", "share of the time (%)", data, limits=(0, 102)),
        Panel("Skipped steps", "steps skipped so far", bad_steps, limits=(0, None)),
    ]


def _one_curve_a_run(runs: Sequence[Run], name: str, *, dashed: bool = False) -> list[Curve]:
    return [
        Curve(run.name if len(runs) > 1 else "", *run.series(name), color=index, dashed=dashed)
        for index, run in enumerate(runs)
        if run.series(name)[0]
    ]


def _quantizers(runs: Sequence[Run], prefix: str) -> list[Curve]:
    """One curve a quantizer; with several runs, the semantic one and the acoustic ones' mean."""
    if len(runs) == 1:
        names = sorted(runs[0].names(prefix), key=_quantizer)
        last = max([_quantizer(name) for name in names], default=0)
        return [
            Curve(
                _quantizer_label(_quantizer(name)),
                *runs[0].series(name),
                color=_quantizer(name) / max(last, 1),
            )
            for name in names
        ]
    curves = []
    for index, run in enumerate(runs):
        names = sorted(run.names(prefix), key=_quantizer)
        groups = {"semantic": names[:1], "acoustic, mean": names[1:]}
        for label, group in groups.items():
            x, y = _mean_series(run, group)
            if x:
                dashed = label != "semantic"
                curves.append(Curve(f"{run.name}: {label}", x, y, color=index, dashed=dashed))
    return curves


def _mean_series(run: Run, names: Sequence[str]) -> tuple[list[float], list[float]]:
    by_step: dict[float, list[float]] = {}
    for name in names:
        for step, value in zip(*run.series(name), strict=True):
            by_step.setdefault(step, []).append(value)
    return list(by_step), [math.fsum(values) / len(values) for values in by_step.values()]


def _quantizer(name: str) -> int:
    return int(name.rsplit("/", 1)[1])


def _quantizer_label(quantizer: int) -> str:
    return "0 semantic" if quantizer == 0 else str(quantizer)


def _percent(curves: Iterable[Curve]) -> list[Curve]:
    return [dataclasses.replace(curve, y=[100 * y for y in curve.y]) for curve in curves]


def _relabelled(curve: Curve, label: str) -> Curve:
    return dataclasses.replace(curve, label=f"{curve.label}: {label}" if curve.label else label)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _title(runs: Sequence[Run]) -> str:
    return " · ".join(f"{run.name} (step {run.records[-1]['step']:.0f})" for run in runs)


# HTML ---------------------------------------------------------------------------------------


def html_page(runs: Sequence[Run], *, max_media_bytes: int = MAX_MEDIA_BYTES) -> str:
    """A page that needs no other file: curves, last values, newest evaluation to listen to.

    Args:
        runs: to compare.
        max_media_bytes: bound on audio and spectrograms, as files; clips beyond it are named.

    Raises:
        InputError: the records have nothing to draw.
        ConfigError: matplotlib is missing.
    """
    body = [f"<h1>Training report</h1>\n<p>{webpage.escaped(_title(runs))}</p>"]
    body += ["<h2>Last values</h2>", _table(runs)]
    for title, panels in sections(runs):
        picture = plots.png_bytes(plots.draw_panels(panels))
        body.append(f"<h2>{webpage.escaped(title)}</h2>\n{webpage.image(picture, title)}")
    budget = webpage.Budget(max_media_bytes)
    for run in runs:
        body += _clips(run, budget)
    return webpage.page(_title(runs), body)


def _table(runs: Sequence[Run]) -> str:
    names = dict.fromkeys(name for run in runs for name in run.names(""))
    for name in ("step", "time"):
        names.pop(name, None)
    rows = [
        [label, *(show(run) for run in runs)]
        for label, show in (("step", _last_step), ("wall time", _wall_time))
    ]
    for name in sorted(names, key=_table_order):
        values = [run.last(name) for run in runs]
        rows.append([name, *("–" if x is None else _number(name, x) for x in values)])
    return webpage.table(["value", *(run.name for run in runs)], rows)


def _table_order(name: str) -> tuple[int, str, int]:
    """Losses first; quantizer 10 after quantizer 9."""
    group, _, rest = name.rpartition("/")
    number = int(rest) if rest.isdecimal() else -1
    return (0 if group == "loss" else 1, group if number >= 0 else name, number)


def _last_step(run: Run) -> str:
    return f"{run.records[-1]['step']:.0f}"


def _wall_time(run: Run) -> str:
    """From the first log point to the last; pauses between sessions are part of it."""
    times = [record["time"] for record in run.records if "time" in record]
    return duration(max(times) - min(times)) if times else "–"


def _number(name: str, value: float) -> str:
    return duration(value) if name == "speed/eta_seconds" else f"{value:.4g}"


def _clips(run: Run, budget: webpage.Budget) -> list[str]:
    """The newest evaluation: audio players and spectrograms, as far as the budget goes."""
    root = run.folder / EVAL_FOLDER
    done = sorted(root.glob(f"step_*/{EVAL_METRICS_FILE}"))
    if not done:
        return []
    folder = done[-1].parent
    content = json.loads(done[-1].read_text(encoding="utf-8"))
    title = f"Clips of {run.name} at step {content['step']}"
    parts, left_out = [f"<h2>{webpage.escaped(title)}</h2>"], []
    for name, values in content.get("clips", {}).items():
        sounds = {
            "original": root / ORIGINAL_FOLDER / f"{name}.wav",
            "all codes": folder / f"{name}.wav",
            "semantic code alone (RVQ-1)": folder / f"{name}.{RVQ1}.wav",
        }
        sounds = {label: path for label, path in sounds.items() if path.is_file()}
        picture = folder / f"{name}.png"
        if not budget.take(sum(path.stat().st_size for path in sounds.values())):
            left_out.append(name)
            continue
        players = "\n".join(
            webpage.player(label, path.read_bytes(), "audio/wav") for label, path in sounds.items()
        )
        shown = ""
        if picture.is_file() and budget.take(picture.stat().st_size):
            shown = webpage.image(picture.read_bytes(), f"spectrograms of {name}")
        numbers = ", ".join(f"{_words(key)} {value:.3g}" for key, value in values.items())
        parts.append(
            f"<figure><figcaption>{webpage.escaped(name)}</figcaption>\n<p>{webpage.escaped(numbers)}</p>\n"
            f'<div class="players">\n{players}\n</div>\n{shown}</figure>'
        )
    if left_out:
        text = f"Left out to keep the page small, see {folder}: {', '.join(left_out)}"
        parts.append(f"<p>{webpage.escaped(text)}</p>")
    return parts
