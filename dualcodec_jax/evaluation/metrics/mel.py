"""The mel distance that training minimises, as a metric."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from dualcodec_jax.evaluation.metrics.base import ClipMetric, MetricInfo, resampled, versions

if TYPE_CHECKING:
    from dualcodec_jax.train.config import MelLossConfig

SAMPLE_RATE = 24000


class MelDistance(ClipMetric):
    """Multi-scale distance of mel spectrograms, :func:`dualcodec_jax.losses.mel_distance`.

    In numpy: clips have thousands of lengths, and JAX would compile each.

    Args:
        config: windows and numbers of bins; None: those of training.
        sample_rate: at which to compare, in Hz. Values at different rates do not compare.
    """

    silent_output = True

    def __init__(self, config: MelLossConfig | None = None, sample_rate: int = SAMPLE_RATE) -> None:
        from dualcodec_jax.train.config import MelLossConfig

        self._config = config or MelLossConfig()
        self._sample_rate = sample_rate
        settings = dataclasses.asdict(self._config)
        super().__init__(
            MetricInfo(
                name="mel",
                title="mel distance",
                unit="",
                higher_is_better=False,
                range=None,
                intrusive=True,
                packages=(),
                source="dualcodec_jax.losses.mel_distance",
                version=f"{versions()}, {sample_rate} Hz, "
                + ", ".join(f"{name} {value}" for name, value in settings.items()),
            )
        )

    def _value(self, original: np.ndarray, output: np.ndarray, sample_rate: int) -> float | None:
        from dualcodec_jax.audio.mel import mel_magnitudes

        config, rate = self._config, self._sample_rate
        pair = [resampled(clip, sample_rate, rate) for clip in (original, output)]
        if pair[0].size <= max(config.window_lengths) // 2:
            return None  # cannot be mirrored at its ends
        total = 0.0
        for window_length, n_mels in zip(config.window_lengths, config.n_mels, strict=True):
            kept = int(config.lowest * n_mels)
            target, found = (
                mel_magnitudes(clip, rate, window_length, n_mels)[:, :kept] for clip in pair
            )
            for difference in (_log_power(target) - _log_power(found), target - found):
                of_bins = np.square(difference) if config.distance == "squared" else difference
                total += float(np.mean(np.abs(of_bins), dtype=np.float64))
        return total


def _log_power(magnitude: np.ndarray) -> np.ndarray:
    from dualcodec_jax.losses import MEL_FLOOR

    return 2 * np.log10(np.maximum(magnitude, MEL_FLOOR))
