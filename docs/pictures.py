"""Draw the pictures of the documentation: ``python docs/pictures.py [FOLDER]``.

Every number in them comes from the configurations or from the demo model. They have no background
and colours of middle lightness, so that they can be read on light pages and on dark ones.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import re
import sys
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch

import dualcodec_jax
from dualcodec_jax.config import PRESETS, W2vBertConfig
from dualcodec_jax.evaluation.metrics.mel import MelDistance
from dualcodec_jax.files import decode_codes, encode_samples
from dualcodec_jax.lengths import SEMANTIC_SAMPLE_RATE
from dualcodec_jax.paths import replacing

IMAGES = Path(__file__).parent / "images"
INK, BLUE, ORANGE, VIOLET, GREEN = "#7a7a7a", "#2f7ab8", "#cf6a1f", "#8d63b8", "#2f8f66"
COLUMNS = 300
"""Of a waveform, which is drawn as its smallest and largest values in each."""
STYLE: Any = {
    "svg.hashsalt": "dualcodec_jax",  # the same picture is the same file
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def main() -> None:
    """Write all pictures to the folder that was named, or to ``docs/images``."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES
    for path in write_pictures(folder):
        sys.stdout.write(f"{path}: {path.stat().st_size} bytes\n")


def write_pictures(folder: Path) -> list[Path]:
    """Write or replace all pictures in ``folder``; returns their paths."""
    paths = []
    with mpl.rc_context(STYLE):
        for name, draw in PICTURES.items():
            path = folder / f"{name}.svg"
            with replacing(path, overwrite=True) as temporary:
                temporary.write_text(_svg(draw()), encoding="utf-8")
            paths.append(path)
    return paths


def weights_note() -> str:
    """Which weights the pictures were drawn with; in each of them as its description."""
    file = resources.files("dualcodec_jax") / "assets" / "demo" / "model.safetensors"
    return f"demo weights {hashlib.sha256(file.read_bytes()).hexdigest()[:16]}"


def _svg(figure: Figure) -> str:
    """A figure as SVG, without a background, comments, and digits that nobody can see."""
    buffer = io.StringIO()
    metadata = {"Date": None, "Description": weights_note()}
    figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    return re.sub(r"(\.\d{3})\d+|\n *<!--[^>]*-->|(?<=\n) +", r"\1", buffer.getvalue())


@dataclasses.dataclass(frozen=True)
class Box:
    """A box of the diagram: middle, colour, lines of text, size; in units of the drawing."""

    x: float
    y: float
    color: str
    text: str
    width: float = 1.5
    height: float = 0.8


def draw_streams() -> Figure:
    """The way of audio to codes and back, through both streams."""
    codec, semantic = PRESETS["12hz_v1"].codec, W2vBertConfig()
    other = PRESETS["25hz_v1"].codec
    rate = f"{codec.sample_rate / 1000:g} kHz"
    frames = f"{codec.frame_rate:g} or {other.frame_rate:g} Hz"
    books = f"{codec.n_codebooks} or {other.n_codebooks}"
    top, middle, bottom = 3.3, 2.2, 1.1
    features = Box(
        2.75, top, ORANGE, f"w2v-BERT 2.0\n{semantic.num_layers} layers, frozen", width=1.75
    )
    pooled = Box(4.8, top, ORANGE, f"ConvNeXt encoder\n{frames}", width=1.85)
    first = Box(6.75, top, VIOLET, "semantic\ncodebook", width=1.4)
    latent = Box(8.6, top, ORANGE, "ConvNeXt\ndecoder", width=1.4)
    encoder = Box(2.75, bottom, BLUE, "DAC\nencoder", width=1.75)
    rest = Box(6.75, bottom, VIOLET, f"{books} acoustic\ncodebooks (RVQ)", width=1.8)
    decoder = Box(10.5, bottom, BLUE, "DAC\ndecoder", width=1.3)
    figure = Figure(figsize=(9.6, 3.9))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 12.3), ylim=(0, 5), aspect="equal")
    axes.axis("off")
    for box in (features, pooled, first, latent, encoder, rest, decoder):
        _draw_box(axes, box)
    _label(axes, 0.75, middle, f"speech\n{rate}")
    _label(axes, 11.85, middle, f"speech\n{rate}")
    _arrow(axes, [(0.75, middle + 0.35), (0.75, top), (features.x - 0.88, top)])
    _label(axes, 1.25, top + 0.2, f"{SEMANTIC_SAMPLE_RATE // 1000} kHz", size=8)
    _arrow(axes, [(0.75, middle - 0.35), (0.75, bottom), (encoder.x - 0.88, bottom)])
    for left, right in ((features, pooled), (pooled, first), (first, latent)):
        _arrow(axes, [(left.x + left.width / 2, top), (right.x - right.width / 2, top)])
    _arrow(axes, [(encoder.x + 0.88, bottom), (4.63, bottom)])
    _sign(axes, 4.8, bottom, "−")
    _arrow(axes, [(4.97, bottom), (rest.x - 0.9, bottom)])
    _arrow(axes, [(latent.x, top - 0.4), (latent.x, middle), (4.8, middle), (4.8, bottom + 0.17)])
    _label(axes, 6.75, middle + 0.17, "what the semantic code says already", size=8)
    _arrow(axes, [(rest.x + 0.9, bottom), (8.43, bottom)])
    _arrow(axes, [(8.6, middle), (8.6, bottom + 0.17)])
    _sign(axes, 8.6, bottom, "+")
    _arrow(axes, [(8.77, bottom), (decoder.x - 0.65, bottom)])
    _arrow(axes, [(decoder.x + 0.65, bottom), (11.85, bottom), (11.85, middle - 0.35)])
    _arrow(axes, [(first.x, top + 0.4), (first.x, top + 0.8)], VIOLET)
    _label(axes, first.x, top + 1.05, "1 semantic code a frame: what is said", VIOLET)
    _arrow(axes, [(rest.x, bottom - 0.4), (rest.x, bottom - 0.75)], VIOLET)
    _label(axes, rest.x, bottom - 0.95, f"{books} acoustic codes a frame: how it sounds", VIOLET)
    return figure


def draw_residuals() -> Figure:
    """Residual quantization of points in a plane, and of speech by the demo model."""
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    plane, errors, audio = figure.subplots(1, 3, width_ratios=(1.25, 1, 1))
    points, books = _plane_codebooks()
    _draw_plane(plane, books, points)
    residuals = [points]
    for book in books:
        residuals.append(residuals[-1] - book[_nearest(residuals[-1], book)])
    sizes = [float(np.sqrt(np.mean(np.square(rest)))) for rest in residuals]
    errors.plot(range(len(sizes)), sizes, "o-", color=BLUE)
    errors.set(
        title="what is left, 2000 points",
        xlabel="codes",
        ylabel="root mean square",
        xticks=range(len(sizes)),
        ylim=(0, None),
    )
    distances = _demo_distances()
    audio.plot(range(1, len(distances) + 1), distances, "o-", color=VIOLET)
    audio.set(
        title="speech through the demo model",
        xlabel="codes a frame",
        ylabel="mel distance to the original",
        xticks=range(1, len(distances) + 1),
        ylim=(0, None),
    )
    return figure


def draw_bitrates() -> Figure:
    """Bits a second for every number of codes a frame, at each model's frame rate."""
    figure = Figure(figsize=(7.6, 2.5), layout="constrained")
    axes = figure.subplots()
    names, colors = ("12hz_v1", "25hz_v1", "demo"), (ORANGE, BLUE, GREEN)
    labels = []
    for row, (name, color) in enumerate(zip(names, colors, strict=True)):
        codec = PRESETS[name].codec
        counts = range(1, codec.n_quantizers + 1)
        kilobits = [codec.bitrate(count) / 1000 for count in counts]
        axes.plot(kilobits, [row] * len(kilobits), "o-", color=color, markersize=13)
        for count, x in zip(counts, kilobits, strict=True):
            axes.annotate(
                str(count), (x, row), ha="center", va="center_baseline", fontsize=8, color="white"
            )
        labels.append(f"{name}\n{codec.frame_rate:g} frames a second")
    axes.set(
        title="codes a frame",
        xlabel="kbit/s",
        xlim=(0, None),
        yticks=range(len(names)),
        yticklabels=labels,
        ylim=(len(names) - 0.5, -0.5),
    )
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=INK, alpha=0.25, linewidth=0.6)
    return figure


def draw_tokens() -> Figure:
    """One second of the bundled recording, and the codes that the demo model has for it."""
    inference, samples = demo(), speech()
    codec, codes = inference.config.codec, encode_samples(inference, samples)
    first, count = round(codec.frame_rate), round(codec.frame_rate)
    shown, sizes = codes.codes[:, first : first + count], codes.codebook_sizes
    begin, end = first / codec.frame_rate, (first + count) / codec.frame_rate
    piece = samples[first * codec.hop_length : (first + count) * codec.hop_length]
    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    wave, grid = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.5))
    columns = piece[: piece.size // COLUMNS * COLUMNS].reshape(COLUMNS, -1)
    times = np.linspace(begin, end, COLUMNS)
    wave.fill_between(times, columns.min(axis=1), columns.max(axis=1), color=BLUE, linewidth=0.6)
    wave.set(title=f"one second of speech, {piece.size} samples", yticks=[])
    wave.spines["left"].set_visible(False)
    rows, width = len(shown), 1 / codec.frame_rate
    shades = [_shades(line, size) for line, size in zip(shown, sizes, strict=True)]
    shades[0] = _shades(shown[0], sizes[0], ORANGE)
    grid.imshow(shades, extent=(begin, end, rows, 0), aspect="auto", interpolation="nearest")
    for row, column in np.ndindex(shown.shape):
        place = (begin + (column + 0.5) * width, row + 0.52)
        code = str(shown[row, column])
        grid.text(*place, code, ha="center", va="center", fontsize=6.5, color="#222222")
    grid.hlines(range(1, rows), begin, end, color="white", linewidth=1)
    grid.vlines(begin + width * np.arange(1, count), 0, rows, color="white", linewidth=1)
    grid.set(
        title=f"the same for the demo model: {shown.size} codes, {count} frames of {rows}",
        xlim=(begin, end),
        ylim=(rows, 0),
        xlabel="time (s)",
        yticks=np.arange(rows) + 0.5,
        yticklabels=["semantic", *(f"acoustic {row}" for row in range(1, rows))],
    )
    grid.tick_params(axis="y", length=0)
    grid.spines["left"].set_visible(False)
    return figure


def _shades(codes: np.ndarray, size: int, color: str = BLUE) -> np.ndarray:
    """Pale colours ``[T, 3]`` for ``codes [T]``, the darker the greater they are."""
    strength = 0.15 + 0.35 * codes[:, None] / size
    return 1 - (1 - np.array(mpl.colors.to_rgb(color))) * strength


def _draw_box(axes: Any, box: Box) -> None:
    axes.add_patch(
        FancyBboxPatch(
            (box.x - box.width / 2, box.y - box.height / 2),
            box.width,
            box.height,
            boxstyle="round,pad=0,rounding_size=0.1",
            facecolor=box.color,
            linewidth=0,
        )
    )
    _label(axes, box.x, box.y, box.text, "white", size=9)


def _label(axes: Any, x: float, y: float, text: str, color: str = INK, size: float = 9.5) -> None:
    axes.text(x, y, text, ha="center", va="center", fontsize=size, color=color)


def _sign(axes: Any, x: float, y: float, text: str) -> None:
    axes.add_patch(Circle((x, y), 0.17, facecolor="none", edgecolor=INK))
    _label(axes, x, y, text, size=12)


def _arrow(axes: Any, points: Sequence[tuple[float, float]], color: str = INK) -> None:
    """A line through the points, with a head at the last."""
    xs, ys = zip(*points[:-1], strict=True)
    axes.plot(xs, ys, color=color, linewidth=1.3, solid_capstyle="butt")
    style = {"arrowstyle": "-|>", "color": color, "linewidth": 1.3, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", points[-1], points[-2], arrowprops=style)


def _plane_codebooks(stages: int = 4, size: int = 8) -> tuple[np.ndarray, list[np.ndarray]]:
    """Points ``[N, 2]``, and codebooks ``[size, 2]`` by k-means of what is left of them."""
    rng = np.random.default_rng(3)
    points = rng.normal(size=(2000, 2))
    residual, books = points, []
    for _ in range(stages):
        book = residual[rng.choice(len(residual), size, replace=False)]
        for _ in range(50):
            assigned = _nearest(residual, book)
            book = np.stack([residual[assigned == row].mean(axis=0) for row in range(size)])
        books.append(book)
        residual = residual - book[_nearest(residual, book)]
    return points, books


def _nearest(points: np.ndarray, book: np.ndarray) -> np.ndarray:
    return np.argmin(np.square(points[:, None] - book).sum(axis=-1), axis=1)


def _draw_plane(axes: Any, books: Sequence[np.ndarray], points: np.ndarray) -> None:
    """How the sum of codebook rows comes nearer to one of the points."""
    shown = books[:3]
    steps, residual = [], points
    for book in shown:
        steps.append(book[_nearest(residual, book)])
        residual = residual - steps[-1]
    # The point whose shortest step is the longest, so that all can be seen.
    chosen = np.linalg.norm(steps, axis=-1).min(axis=0).argmax()
    ends = np.cumsum([step[chosen] for step in steps], axis=0)
    starts = np.concatenate([np.zeros((1, 2)), ends[:-1]])
    for number, (book, color) in enumerate(zip(shown, (BLUE, VIOLET, GREEN), strict=True)):
        begin, end = starts[number], ends[number]
        axes.plot(*(begin + book).T, "o", color=color, markersize=5 - number, alpha=0.6)
        style = {"arrowstyle": "-|>", "color": color, "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", end, begin, arrowprops=style)
        place = (begin + end) / 2
        axes.annotate(f"{number + 1}", place, (4, 4), textcoords="offset points", color=color)
    axes.plot(*points[chosen], "*", color=ORANGE, markersize=12, zorder=3)
    axes.set(title="three codes for one vector (star)", aspect="equal")


def demo() -> dualcodec_jax.Inference:
    """The demo model."""
    return dualcodec_jax.Inference(dualcodec_jax.get_model("demo"))


def speech() -> np.ndarray:
    """The bundled recording, float32 ``[N]`` at 24 kHz."""
    clip = resources.files("dualcodec_jax") / "assets" / "librivox.flac"
    return dualcodec_jax.load_audio(Path(str(clip))).samples


def _demo_distances() -> list[float | None]:
    """Mel distance of the bundled recording for every number of codes a frame."""
    inference, samples, metric = demo(), speech(), MelDistance()
    codes = encode_samples(inference, samples)
    distances = []
    for count in range(1, codes.n_quantizers + 1):
        audio = decode_codes(inference, codes, count)
        distances.append(metric.measure(samples, audio, codes.sample_rate))
    return distances


PICTURES: dict[str, Callable[[], Figure]] = {
    "streams": draw_streams,
    "residuals": draw_residuals,
    "bitrates": draw_bitrates,
    "tokens": draw_tokens,
}
"""File names without suffix, and what draws them."""

if __name__ == "__main__":
    main()
