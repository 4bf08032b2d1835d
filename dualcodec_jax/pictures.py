"""Pictures of sound. Needs matplotlib, whose global state is left alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dualcodec_jax.audio.mel import mel_magnitudes
from dualcodec_jax.train.plots import new_figure, write_png

WINDOW, MELS = 1024, 80
DYNAMIC_RANGE = 80.0
"""Decibels below the loudest point of the first signal that are shown."""


def write_comparison(signals: Mapping[str, np.ndarray], sample_rate: int, path: str | Path) -> Path:
    """Write a PNG: a row for each of ``signals [N]``, waveform left, mel spectrogram right.

    The first signal sets the scales. An existing file is replaced.

    Raises:
        ConfigError: matplotlib is missing.
    """
    figure = new_figure(12, 1.9 * len(signals))
    axes = figure.subplots(len(signals), 2, sharex=True, squeeze=False, width_ratios=(2, 3))
    images = [mel_decibels(samples, sample_rate) for samples in signals.values()]
    top = float(images[0].max())
    peak = max(float(np.abs(next(iter(signals.values()))).max()), 1e-3)
    for row, image, (name, samples) in zip(axes, images, signals.items(), strict=True):
        _draw_waveform(row[0], samples, sample_rate, peak)
        row[0].set_title(name, fontsize=10, loc="left")
        row[1].imshow(
            image.T,
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=top - DYNAMIC_RANGE,
            vmax=top,
            extent=(0, samples.size / sample_rate, 0, MELS),
            interpolation="nearest",
        )
        row[1].set_ylabel("mel bin")
    for axis in axes[-1]:
        axis.set_xlabel("time (s)")
    write_png(figure, path)
    return Path(path)


def mel_decibels(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Mel magnitudes in dB ``[frames, MELS]`` of ``samples [N]``."""
    mel = mel_magnitudes(samples, sample_rate, WINDOW, MELS)
    return 20 * np.log10(np.maximum(mel, 1e-6))


def _draw_waveform(axis: Any, samples: np.ndarray, sample_rate: int, peak: float) -> None:
    axis.plot(np.arange(samples.size) / sample_rate, samples, linewidth=0.4, color="#1f5fa8")
    axis.set_ylim(-1.1 * peak, 1.1 * peak)
    axis.spines[["top", "right"]].set_visible(False)
