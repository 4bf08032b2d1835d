"""The page's pictures: neutral ink on nothing, so that they can lie on light and on dark."""

from __future__ import annotations

from typing import Any

import numpy as np

from dualcodec_jax.container import CodeFile
from dualcodec_jax.pictures import DYNAMIC_RANGE, MELS, mel_decibels
from dualcodec_jax.train.plots import new_figure

INK, WAVE = "#8b93a1", "#4a90d9"
POINTS, DPI = 11, 144
MAX_COLUMNS = 2000
"""Of waveform and tokens; more do not show."""


def sound(samples: np.ndarray, sample_rate: int, reference: np.ndarray) -> Any:
    """Waveform above mel spectrogram of ``samples [N]``, on the scales of ``reference``.

    Returns:
        RGBA, uint8 ``[height, width, 4]``.
    """
    figure = new_figure(5.6, 3.6)
    wave, mel = figure.subplots(2, 1, sharex=True, height_ratios=(2, 3))
    peak = max(float(np.abs(reference).max()), 1e-3)
    step = -(-samples.size // MAX_COLUMNS)
    whole = np.pad(samples, (0, -samples.size % step)).reshape(-1, step)
    time = np.arange(len(whole)) * step / sample_rate
    wave.fill_between(time, whole.min(axis=1), whole.max(axis=1), color=WAVE, linewidth=0.5)
    wave.set_ylim(-1.1 * peak, 1.1 * peak)
    wave.set_yticks([])
    image = mel_decibels(samples, sample_rate)
    top = float(mel_decibels(reference, sample_rate).max())
    mel.imshow(
        image.T,
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=top - DYNAMIC_RANGE,
        vmax=top,
        extent=(0, samples.size / sample_rate, 0, MELS),
        interpolation="nearest",
    )
    mel.set_ylabel("mel bin")
    mel.set_xlabel("time (s)")
    return _pixels(figure)


def spectrograms(signals: dict[str, np.ndarray], sample_rate: int) -> Any:
    """Mel spectrograms below each other, on the scale of the first; RGBA as :func:`sound`."""
    figure = new_figure(5.6, 0.4 + 1.15 * len(signals))
    axes = figure.subplots(len(signals), 1, sharex=True, squeeze=False)[:, 0]
    images = [mel_decibels(samples, sample_rate) for samples in signals.values()]
    top = float(images[0].max())
    for axis, image, (name, samples) in zip(axes, images, signals.items(), strict=True):
        axis.imshow(
            image.T,
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=top - DYNAMIC_RANGE,
            vmax=top,
            extent=(0, samples.size / sample_rate, 0, MELS),
            interpolation="nearest",
        )
        axis.set_title(name, fontsize=POINTS, loc="left", color=INK)
        axis.set_yticks([])
    axes[-1].set_xlabel("time (s)")
    return _pixels(figure)


def tokens(codes: CodeFile, count: int) -> Any:
    """The grid of codes: a row for each quantizer, a column for each frame; RGBA as :func:`sound`.

    Colours only tell codes of a row apart. Rows past ``count`` are not used, and pale.
    """
    grid = codes.codes[:, :MAX_COLUMNS]
    sizes = np.asarray(codes.codebook_sizes, float)[:, None]
    figure = new_figure(11.6, 0.7 + 0.3 * len(grid))
    axes = figure.subplots()
    from matplotlib import colormaps

    colours = np.stack(
        [
            colormaps["cividis" if row == 0 else "viridis"](values)
            for row, values in enumerate(grid / sizes)
        ]
    )
    colours[count:, :, 3] = 0.2
    frame = codes.hop_length / codes.sample_rate
    height, width = grid.shape
    axes.imshow(
        colours,
        aspect="auto",
        extent=(0, width * frame, height - 0.5, -0.5),
        interpolation="nearest",
    )
    axes.set_yticks(range(height), ["semantic", *(f"acoustic {n}" for n in range(1, height))])
    axes.set_xlabel("time (s)")
    return _pixels(figure)


def _pixels(figure: Any) -> Any:
    figure.set_facecolor("none")
    for axes in figure.axes:
        axes.set_facecolor("none")
        axes.spines[["top", "right"]].set_visible(False)
        for spine in axes.spines.values():
            spine.set_color(INK)
        axes.tick_params(colors=INK, labelsize=POINTS - 1)
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set_color(INK)
            label.set_fontsize(POINTS)
    figure.set_dpi(DPI)
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba()).copy()
