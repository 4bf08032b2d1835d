"""DNSMOS P.808, a mean opinion score predicted from the output alone."""

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

SAMPLE_RATE = 16000


class DnsMos(ClipMetric):
    """P.808 score of DNSMOS, weights from the package.

    Windows of 9.01 s, 1 s apart, are averaged; a shorter clip is repeated. Samples beyond ±1 are
    clipped, as a 16-bit file would. The overall score of P.835 saturates and is not used.
    """

    requirements: ClassVar = {
        "speechmos": "speechmos",
        # which it imports without saying so
        "onnxruntime": "onnxruntime",
        "librosa": "librosa",
        "requests": "requests",
    }

    def __init__(self) -> None:
        super().__init__(
            MetricInfo(
                name="dnsmos",
                title="DNSMOS P.808",
                unit="MOS",
                higher_is_better=True,
                range=(1.0, 5.0),
                intrusive=False,
                packages=tuple(self.requirements.values()),
                source="Reddy et al. 2021, package speechmos",
                version=versions("speechmos", "onnxruntime"),
            )
        )
        self._run = load_package("speechmos.dnsmos").run

    def _value(self, original: np.ndarray, output: np.ndarray, sample_rate: int) -> float:
        samples = np.clip(resampled(output, sample_rate, SAMPLE_RATE), -1, 1)
        with others_code():
            return float(self._run(samples, SAMPLE_RATE)["p808_mos"])
