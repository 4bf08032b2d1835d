"""STOI (Taal et al. 2011) and ESTOI (Jensen and Taal 2016) by the package ``pystoi``."""

from __future__ import annotations

import warnings
from typing import ClassVar

import numpy as np

from dualcodec_jax.evaluation.metrics.base import (
    ClipMetric,
    MetricInfo,
    load_package,
    versions,
)


class Stoi(ClipMetric):
    """Intelligibility, 1 for the original; silence made from speech has about 0.

    The package resamples to 10 kHz and leaves out frames that are silent in the original; with
    fewer than 30 left (0.4 s), a clip has no value.

    Args:
        extended: ESTOI.
    """

    requirements: ClassVar = {"pystoi": "pystoi"}

    silent_output = True

    def __init__(self, *, extended: bool) -> None:
        super().__init__(
            MetricInfo(
                name="estoi" if extended else "stoi",
                title="ESTOI" if extended else "STOI",
                unit="",
                higher_is_better=True,
                range=(-1.0, 1.0),
                intrusive=True,
                packages=tuple(self.requirements.values()),
                source="Jensen and Taal 2016" if extended else "Taal et al. 2011",
                version=versions("pystoi"),
            )
        )
        self._stoi, self._extended = load_package("pystoi").stoi, extended

    def _value(self, original: np.ndarray, output: np.ndarray, sample_rate: int) -> float | None:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Not enough STFT frames")
            try:
                return float(self._stoi(original, output, sample_rate, extended=self._extended))
            except RuntimeWarning:
                return None
