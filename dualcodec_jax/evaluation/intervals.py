"""Confidence intervals over clips, by the bootstrap.

Clips are drawn with replacement, as many as there are, :data:`RESAMPLES` times; the interval lies
between percentiles of the statistic of the draws (Efron and Tibshirani 1993, chapter 13). It says
how far the value would move with other clips of the same kind. It knows nothing of other kinds of
clips, and with several clips of one speaker it is too narrow for other speakers. With few clips it
is too narrow as well: of 1000 simulated samples of a normal distribution, "95 %" held the mean of
84 % with 5 clips, 90 % with 10, 92 % with 30, 94 % with 100.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95
_CHUNK = 2**22
"""Draws at a time, to bound memory."""


@dataclasses.dataclass(frozen=True)
class Interval:
    """A statistic and its confidence interval.

    Attributes:
        value: over all clips; NaN without clips or words.
        low: end of the interval; NaN for fewer than two clips.
        high: the other end.
    """

    value: float
    low: float
    high: float


def mean_interval(
    values: Sequence[float] | np.ndarray, level: float = LEVEL, seed: int = 0
) -> Interval:
    """The mean of ``values``, one for each clip."""
    return ratio_interval(values, np.ones(len(values)), level, seed)


def ratio_interval(
    errors: Sequence[float] | np.ndarray,
    words: Sequence[float] | np.ndarray,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """Σ errors / Σ words, an error rate over all clips.

    Args:
        errors: of each clip.
        words: of each clip's reference. A draw without words is left out.
        level: probability that the interval is to have.
        seed: of the draws; the same values give the same interval.
    """
    numerators, denominators = np.asarray(errors, np.float64), np.asarray(words, np.float64)
    count = numerators.size
    if count == 0 or denominators.sum() <= 0:
        return Interval(math.nan, math.nan, math.nan)
    value = float(numerators.sum() / denominators.sum())
    if count == 1:
        return Interval(value, math.nan, math.nan)
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK // count)
    ratios: list[np.ndarray] = []
    for start in range(0, RESAMPLES, rows):
        drawn = rng.integers(count, size=(min(rows, RESAMPLES - start), count))
        total = denominators[drawn].sum(axis=1)
        ratios.append(numerators[drawn].sum(axis=1)[total > 0] / total[total > 0])
    tail = 50 * (1 - level)
    low, high = np.percentile(np.concatenate(ratios), [tail, 100 - tail])
    return Interval(value, float(low), float(high))
