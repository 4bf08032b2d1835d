"""PESQ (ITU-T P.862, P.862.1, P.862.2) by the package ``pesq``."""

from __future__ import annotations

import subprocess
import sys
from typing import ClassVar, Literal

import numpy as np

from dualcodec_jax.evaluation.metrics.base import (
    ClipMetric,
    MetricInfo,
    load_package,
    resampled,
    versions,
)

RATES = {"nb": 8000, "wb": 16000}
_RANGES = {"nb": (0.999, 4.549), "wb": (0.999, 4.644)}
"""Ends of the two mappings to MOS-LQO; below, the raw score is unbounded."""

LONG_SECONDS = 15.0
"""The package overruns its memory at more than 50 utterances, for which 20 s are enough (each has
at least 0.2 s and a pause of 0.2 s): longer clips are measured in a process of their own."""

_TOO_LITTLE = ("NoUtterancesError", "BufferTooShortError")
_CHILD = """
import sys, numpy, pesq
pair = numpy.frombuffer(sys.stdin.buffer.read(), numpy.float32).reshape(2, -1)
try:
    print(pesq.pesq(int(sys.argv[1]), *pair, sys.argv[2]))
except pesq.PesqError as error:
    print(type(error).__name__)
"""


class Pesq(ClipMetric):
    """MOS-LQO; the level is aligned by the algorithm.

    Args:
        band: ``nb``: narrow, at 8 kHz; ``wb``: wide, at 16 kHz.
    """

    requirements: ClassVar = {"pesq": "pesq"}

    def __init__(self, band: Literal["nb", "wb"]) -> None:
        super().__init__(
            MetricInfo(
                name=f"pesq_{band}",
                title=f"PESQ_{band}",
                unit="MOS-LQO",
                higher_is_better=True,
                range=_RANGES[band],
                intrusive=True,
                packages=tuple(self.requirements.values()),
                source="ITU-T P.862.1 and P.862.2, package pesq",
                version=versions("pesq"),
            )
        )
        self._package, self._band = load_package("pesq"), band

    def _value(self, original: np.ndarray, output: np.ndarray, sample_rate: int) -> float | None:
        rate = RATES[self._band]
        pair = [resampled(clip, sample_rate, rate) for clip in (original, output)]
        if pair[0].size > LONG_SECONDS * rate:
            result = _in_child(rate, pair, self._band)
        else:
            try:
                result = self._package.pesq(rate, *pair, self._band)
            except self._package.PesqError as error:
                result = type(error).__name__
        if result in _TOO_LITTLE:
            return None
        if isinstance(result, str) and result.endswith("Error"):
            raise RuntimeError(result)
        return float(result)


def _in_child(rate: int, pair: list[np.ndarray], band: str) -> str:
    """The value or the name of the error, from a process whose end is not the end of the run."""
    samples = np.stack([clip[: min(map(len, pair))] for clip in pair]).astype(np.float32)
    result = subprocess.run(
        [sys.executable, "-P", "-c", _CHILD, str(rate), band],
        input=samples.tobytes(),
        capture_output=True,
        check=False,
    )
    if result.returncode:
        raise RuntimeError(
            f"the package fails with status {result.returncode}, as it does for more than 50 "
            f"utterances; use clips of at most {LONG_SECONDS:g} s"
        )
    return result.stdout.decode().strip()
