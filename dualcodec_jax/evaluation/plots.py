"""Pictures of an evaluation: rate against quality, and how clips differ. Needs matplotlib."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dualcodec_jax.evaluation.summary import Column, Estimate, Row, Summary, clip_value
from dualcodec_jax.train.plots import new_figure

_COLORS = ("#1f5fa8", "#d1495b", "#2e8b57", "#e08a1e", "#7b4fa3", "#0f8b8d", "#8a5a44", "#555555")
_COLUMNS = 3
_WIDTH, _HEIGHT = 4.6, 3.6  # of a panel, in inches
_MAX_POINTS = 400  # drawn for one system; a violin of more says the same
_MAX_LABELS = 30  # points of a panel that all have their numbers
_LEGEND_COLUMNS = 4
_WIDE = 1.25  # ratio of rates from which an axis is logarithmic


def draw_rates(summary: Summary) -> Any:
    """Rate against every measure of quality, systems of one family joined; None if there are none.

    Raises:
        ConfigError: matplotlib is missing.
    """
    columns = [column for column in summary.columns if column.is_metric]
    rows = [row for row in summary.rows if not row.system.is_original and "kbit_s" in row.cells]
    columns = [column for column in columns if any(column.key in row.cells for row in rows)]
    if not columns or not rows:
        return None
    figure, axes = _grid(len(columns), _WIDTH, _HEIGHT)
    families = _families(rows)
    for axis, column in zip(axes, columns, strict=False):
        _draw_rate(axis, column, families, summary.rows)
    drawn: dict[str, Any] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        drawn |= dict(zip(labels, handles, strict=True))
    names = [name for name in families if name in drawn]
    figure.legend(
        [drawn[name] for name in names],
        names,
        loc="outside upper left",
        ncols=_LEGEND_COLUMNS,
        fontsize=8,
        frameon=False,
    )
    return figure


def draw_distributions(summary: Summary) -> Any:
    """Every clip's value of every metric, by system; None if there are none.

    Raises:
        ConfigError: matplotlib is missing.
    """
    drawn = []
    for column in summary.columns:
        if not column.is_metric:
            continue
        values = [(row, clip_values(row, column)) for row in summary.rows]
        values = [(row, found) for row, found in values if found]
        if values:
            drawn.append((column, values))
    if not drawn:
        return None
    height = 1.0 + 0.32 * max(len(values) for _, values in drawn)
    figure, axes = _grid(len(drawn), _WIDTH, height)
    for axis, (column, values) in zip(axes, drawn, strict=False):
        _draw_distribution(axis, column, values)
    return figure


def clip_values(row: Row, column: Column) -> list[float]:
    """The values of a column, clip by clip, without those that have none."""
    values = [clip_value(clip, column) for clip in row.system.clips]
    return [value for value in values if value is not None]


def _grid(count: int, width: float, height: float) -> tuple[Any, list[Any]]:
    columns = min(_COLUMNS, count)
    lines = math.ceil(count / columns)
    figure = new_figure(width * columns, height * lines)
    axes = figure.subplots(lines, columns, squeeze=False).ravel().tolist()
    for axis in axes[count:]:
        axis.set_axis_off()
    return figure, axes


def _families(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by what stands before ``@`` or, without it, before the first ``:``."""
    families: dict[str, list[Row]] = {}
    for row in rows:
        name = row.system.name
        key = name.rpartition("@")[0] if "@" in name else name.partition(":")[0]
        families.setdefault(key, []).append(row)
    return families


def _draw_rate(
    axis: Any, column: Column, families: Mapping[str, Sequence[Row]], all_rows: Sequence[Row]
) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    measured = [row for family in families.values() for row in family if column.key in row.cells]
    for index, (name, family) in enumerate(families.items()):
        points = sorted(
            (
                (row.cells["kbit_s"].value, row.cells[column.key], row.system.name[len(name) + 1 :])
                for row in family
                if column.key in row.cells
            ),
            key=lambda point: (point[0], point[2]),
        )
        if points:
            _draw_family(axis, name, points, _COLORS[index % len(_COLORS)], len(measured))
    for row in all_rows:
        if row.system.is_original and column.key in row.cells:
            axis.axhline(row.cells[column.key].value, color="#888", linestyle=":", linewidth=1.2)
            axis.annotate(
                "original",
                (1.0, row.cells[column.key].value),
                xycoords=("axes fraction", "data"),
                xytext=(-2, 2),
                textcoords="offset points",
                ha="right",
                fontsize=7,
                color="#666",
            )
    rates = [row.cells["kbit_s"].value for row in measured]
    if min(rates) > 0 and max(rates) > _WIDE * min(rates):
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_xlim(min(rates) / 1.5, max(rates) * 2.2)
    arrow = {True: " ↑", False: " ↓", None: ""}[column.higher_is_better]
    _finish(axis, f"{column.title}{arrow}")
    axis.set_xlabel("kbit/s", fontsize=8)


def _draw_family(
    axis: Any, family: str, points: Sequence[tuple[float, Estimate, str]], color: str, count: int
) -> None:
    """The points are named by what follows the family in the name of a system."""
    rates = [rate for rate, _, _ in points]
    values = [cell.value for _, cell, _ in points]
    below = [0.0 if cell.low is None else max(0.0, cell.value - cell.low) for _, cell, _ in points]
    above = [
        0.0 if cell.high is None else max(0.0, cell.high - cell.value) for _, cell, _ in points
    ]
    axis.errorbar(
        rates,
        values,
        yerr=(below, above),
        label=family,
        color=color,
        marker="o",
        markersize=4,
        linewidth=1.2,
        elinewidth=0.8,
        capsize=2,
    )
    if count > _MAX_LABELS:  # the ends of every family
        points = [points[0], points[-1]] if len(points) > 1 else points
    for rate, cell, variant in points:
        axis.annotate(
            variant,
            (rate, cell.value),
            xytext=(0, 5),
            textcoords="offset points",
            ha="center",
            fontsize=7,
            color=color,
        )


def _draw_distribution(
    axis: Any, column: Column, values: Sequence[tuple[Row, list[float]]]
) -> None:
    rng = np.random.default_rng(0)
    for position, (row, found) in enumerate(values):
        color = "#888888" if row.system.is_original else _COLORS[position % len(_COLORS)]
        shown = np.asarray(found)
        if shown.size > _MAX_POINTS:
            shown = rng.choice(shown, _MAX_POINTS, replace=False)
        jitter = position + rng.uniform(-0.22, 0.22, shown.size)
        axis.scatter(shown, jitter, s=12, alpha=0.5, color=color, linewidths=0)
        box = axis.boxplot(
            found, positions=[position], orientation="horizontal", widths=0.55, showfliers=False
        )
        for artists in box.values():
            for artist in artists:
                artist.set(color="#222", linewidth=0.9)
    axis.set_yticks(range(len(values)), [row.system.name for row, _ in values], fontsize=7)
    axis.set_ylim(len(values) - 0.4, -0.6)
    _finish(axis, column.title)


def _finish(axis: Any, title: str) -> None:
    axis.set_title(title, fontsize=10)
    axis.grid(True, alpha=0.2, linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(which="both", labelsize=7)
