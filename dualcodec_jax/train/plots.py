"""Pictures: curves over steps, spectrograms. Needs matplotlib, without its global state."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dualcodec_jax.audio.spectral import hann_window
from dualcodec_jax.errors import ConfigError
from dualcodec_jax.paths import replacing

DPI = 110
WINDOW, HOP = 1024, 256
DYNAMIC_RANGE = 80.0
"""Decibels below the loudest point of the first signal that a spectrogram shows."""

_SMOOTHED_FROM = 300  # points; fewer are drawn as they are
_SMOOTHED_OVER = 60  # a curve is smoothed over this part of its points
_COLUMN_INCHES, _ROW_INCHES = 5.0, 3.1
_LEGEND_ENTRIES = 14
_LOG_FROM = 5.0  # ratio of the largest to the smallest value
_COLORS = ("#1f5fa8", "#d1495b", "#2e8b57", "#e08a1e", "#7b4fa3", "#0f8b8d", "#8a5a44", "#555555")

Scale = Literal["linear", "log"]


@dataclasses.dataclass(frozen=True)
class Curve:
    """One line in a panel.

    Attributes:
        label: in the legend; empty for none.
        x: steps.
        y: values; those that are not finite leave a gap.
        color: index of a colour, or a position 0…1 on a colour map.
        dashed: whether the line is.
        exact: whether to draw it as it is, however many points it has.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    color: int | float = 0
    dashed: bool = False
    exact: bool = False


@dataclasses.dataclass(frozen=True)
class Panel:
    """One set of axes.

    Attributes:
        title: what it shows.
        ylabel: quantity and unit.
        curves: lines.
        scale: of the y axis; ``log`` is used only where values span much, and none is 0 or less.
        limits: of the y axis, where None leaves a side to the data.
    """

    title: str
    ylabel: str
    curves: Sequence[Curve]
    scale: Scale = "linear"
    limits: tuple[float | None, float | None] = (None, None)


def check_available() -> None:
    """Raise :class:`ConfigError` if matplotlib cannot be imported."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"pictures need the package matplotlib, which cannot be imported ({error}); run pip "
            "install matplotlib"
        ) from error


def draw_panels(panels: Sequence[Panel], *, columns: int = 3, title: str = "") -> Any:
    """A figure with a grid of panels.

    Raises:
        ConfigError: matplotlib is missing.
    """
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = new_figure(_COLUMN_INCHES * columns, _ROW_INCHES * rows + (0.4 if title else 0))
    if title:
        figure.suptitle(title, fontsize=13)
    for index, panel in enumerate(panels):
        _draw_panel(figure.add_subplot(rows, columns, index + 1), panel)
    return figure


def draw_spectrograms(signals: Mapping[str, np.ndarray], sample_rate: int) -> Any:
    """A figure with the spectrograms of ``signals [N]``, the first on top, on one colour scale.

    Raises:
        ConfigError: matplotlib is missing.
    """
    figure = new_figure(9.0, 2.4 * len(signals))
    axes = figure.subplots(len(signals), 1, sharex=True, squeeze=False)[:, 0]
    decibels = {name: spectrogram(samples) for name, samples in signals.items()}
    top = max(float(next(iter(decibels.values())).max()), -100.0)
    for axis, (name, image) in zip(axes, decibels.items(), strict=True):
        mesh = axis.imshow(
            image.T,
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=top - DYNAMIC_RANGE,
            vmax=top,
            extent=(0, image.shape[0] * HOP / sample_rate, 0, sample_rate / 2000),
            interpolation="nearest",
        )
        axis.set_title(name, fontsize=10, loc="left")
        axis.set_ylabel("frequency (kHz)")
    axes[-1].set_xlabel("time (s)")
    figure.colorbar(mesh, ax=list(axes), label="level (dB)", pad=0.01)
    return figure


def spectrogram(samples: np.ndarray) -> np.ndarray:
    """Level in dB ``[frames, WINDOW / 2 + 1]`` of ``samples [N]``; 0 dB is a full-scale sine."""
    padded = np.pad(samples, (WINDOW // 2, WINDOW // 2 + HOP))
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    magnitude = np.abs(np.fft.rfft(frames * hann_window(WINDOW), axis=-1)) / (WINDOW / 4)
    return 20 * np.log10(np.maximum(magnitude, 1e-8))


def png_bytes(figure: Any) -> bytes:
    """A figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def write_png(figure: Any, path: str | Path) -> None:
    """Write or replace a PNG file, in one step."""
    with replacing(path, overwrite=True) as temporary:
        temporary.write_bytes(png_bytes(figure))


def smoothed(y: np.ndarray) -> np.ndarray:
    """Centred running mean over a part of the points; what is not finite does not count."""
    width = max(3, len(y) // _SMOOTHED_OVER) | 1
    finite = np.isfinite(y)
    kernel = np.ones(width)
    total = np.convolve(np.where(finite, y, 0.0), kernel, mode="same")
    count = np.convolve(finite.astype(float), kernel, mode="same")
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def new_figure(width: float, height: float) -> Any:
    """An empty figure of so many inches that no window or global state knows of.

    Raises:
        ConfigError: matplotlib is missing.
    """
    check_available()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _draw_panel(axes: Any, panel: Panel) -> None:
    for curve in panel.curves:
        _draw_curve(axes, curve)
    _format_axes(axes, panel)
    axes.set_title(panel.title, fontsize=11)
    axes.set_xlabel("step")
    axes.set_ylabel(panel.ylabel)
    axes.grid(True, which="both", alpha=0.2, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    labelled = [curve for curve in panel.curves if curve.label]
    if 1 < len(labelled) <= _LEGEND_ENTRIES:
        axes.legend(fontsize=7, ncols=1 if len(labelled) <= 4 else 2, framealpha=0.7)


def _draw_curve(axes: Any, curve: Curve) -> None:
    x, y = np.asarray(curve.x, float), np.asarray(curve.y, float)
    color = _color(curve.color)
    style = {"color": color, "linestyle": "--" if curve.dashed else "-"}
    if curve.exact or len(x) < _SMOOTHED_FROM:
        marker = "o" if len(x) < 25 else None
        axes.plot(x, y, linewidth=1.3, marker=marker, markersize=3, label=curve.label, **style)
        return
    axes.plot(x, y, linewidth=0.6, alpha=0.3, zorder=1, **style)
    axes.plot(x, smoothed(y), linewidth=1.4, label=curve.label, **style)


def _color(color: int | float) -> Any:
    if isinstance(color, int):
        return _COLORS[color % len(_COLORS)]
    from matplotlib import colormaps

    return colormaps["viridis"](0.92 * color)


def _format_axes(axes: Any, panel: Panel) -> None:
    from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

    values = [y for curve in panel.curves for y in curve.y if math.isfinite(y)]
    low, high = min(values, default=0.0), max(values, default=0.0)
    if panel.scale == "log" and low > 0 and high > _LOG_FROM * low:
        axes.set_yscale("log")
        plain = FuncFormatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_major_formatter(plain)
        axes.yaxis.set_minor_formatter(plain if high < 10 * low else FuncFormatter(_sparse))
    else:
        axes.ticklabel_format(axis="y", scilimits=(-3, 5), useOffset=False)
        bottom, top = panel.limits
        if bottom is not None and top is None:
            top = bottom + 1.1 * (high - bottom) if high > bottom else bottom + 1
        axes.set_ylim(bottom, top)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.tick_params(which="both", labelsize=8)


def _sparse(value: float, _: Any) -> str:
    """Labels for 2 and 5 times a power of ten: all of them would overlap."""
    return f"{value:g}" if f"{value:e}"[0] in "25" else ""
