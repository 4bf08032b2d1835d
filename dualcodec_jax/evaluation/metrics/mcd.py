"""Mel-cepstral distortion by the package ``pymcd``."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from dualcodec_jax.evaluation.metrics.base import (
    ClipMetric,
    MetricInfo,
    load_package,
    others_code,
    resampled,
    versions,
)


class MelCepstralDistortion(ClipMetric):
    """MCD with dynamic time warping: what ``pymcd`` calls ``dtw``.

    At 22.05 kHz: WORLD's spectral envelope every 5 ms (512-point transform), 14 mel-cepstral
    coefficients c_0 … c_13 (α = 0.65), frames paired by FastDTW on c_1 … c_13; then the mean over
    the pairs of (10 / ln 10) · √2 · ‖c − c'‖, which includes c_0 and so the level. For clips of one
    length, as here, the mode ``dtw_sl`` gives the same.

    The package hands WORLD's power spectrum over as an amplitude: distances are twice those of the
    textbook, and the square of the power is raised by 1e-8, so that bands with a power below about
    1e-4 (weak high frequencies, quiet clips) hardly count. Values of other programs do not compare.
    """

    requirements: ClassVar = {
        "pymcd": "pymcd",
        "pysptk": "pysptk",
        "pyworld": "pyworld",
        "fastdtw": "fastdtw",
        "librosa": "librosa",
        "pkg_resources": "setuptools<81",  # pysptk imports it
    }

    def __init__(self) -> None:
        super().__init__(
            MetricInfo(
                name="mcd",
                title="MCD",
                unit="dB",
                higher_is_better=False,
                range=None,
                intrusive=True,
                packages=("pymcd", "setuptools<81"),
                source="Kubichek 1993, package pymcd, mode dtw",
                version=versions("pymcd", "pysptk", "pyworld", "fastdtw"),
            )
        )
        self._mcd = load_package("pymcd.mcd").Calculate_MCD("dtw")
        self._fastdtw = load_package("fastdtw").fastdtw
        self._euclidean = load_package("scipy.spatial.distance").euclidean

    def _value(self, original: np.ndarray, output: np.ndarray, sample_rate: int) -> float | None:
        with others_code():
            x, y = (
                self._mcd.wav2mcep_numpy(resampled(clip, sample_rate, self._mcd.SAMPLING_RATE))
                for clip in (original, output)
            )
            _, path = self._fastdtw(x[:, 1:], y[:, 1:], dist=self._euclidean)
            pairs, cost = self._mcd.calculate_mcd_distance(x, y, path)
        return float(self._mcd.log_spec_dB_const * cost / pairs)
