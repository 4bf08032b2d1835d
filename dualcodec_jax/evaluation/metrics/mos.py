"""DistillMOS, a mean opinion score predicted from the output alone."""

from __future__ import annotations

import contextlib
import io
from typing import ClassVar

import numpy as np

from dualcodec_jax.evaluation.metrics.base import (
    ClipMetric,
    MetricInfo,
    load_package,
    loading,
    resampled,
    versions,
)

SAMPLE_RATE = 16000


class DistillMos(ClipMetric):
    """DistillMOS on the CPU, weights from the package.

    Windows of 7.68 s, at most 1 s apart, are averaged; a shorter clip is padded with zeros. The
    peak of each window is normalised, so the level does not count.
    """

    requirements: ClassVar = {
        "torch": "torch",
        "torchaudio": "torchaudio",
        "distillmos": "distillmos",
        "xls_r_sqa": "distillmos",
    }

    def __init__(self) -> None:
        super().__init__(
            MetricInfo(
                name="distillmos",
                title="DistillMOS",
                unit="MOS",
                higher_is_better=True,
                range=(1.0, 5.0),
                intrusive=False,
                packages=("distillmos",),
                source="Stahl and Gamper 2025, package distillmos",
                version=versions("distillmos", "torch"),
            )
        )
        self._torch = load_package("torch")
        package = load_package("distillmos")
        quiet = contextlib.redirect_stdout(io.StringIO())  # it prints a path
        with loading("the model", "reinstall distillmos"), quiet:
            self._model = package.ConvTransformerSQAModel().eval()

    def _value(self, original: np.ndarray, output: np.ndarray, sample_rate: int) -> float:
        samples = resampled(output, sample_rate, SAMPLE_RATE)
        with self._torch.inference_mode():
            return float(self._model(self._torch.from_numpy(np.array(samples[None])))[0])
