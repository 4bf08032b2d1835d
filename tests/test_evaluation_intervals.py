"""Bootstrap intervals against the normal approximation and by-hand cases."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dualcodec_jax.evaluation import intervals
from dualcodec_jax.evaluation.intervals import mean_interval, ratio_interval


def test_interval_of_a_mean_is_that_of_theory_for_many_clips() -> None:
    values = np.random.default_rng(3).normal(3.0, 0.5, 400)
    interval = mean_interval(values)
    half = 1.96 * values.std() / math.sqrt(values.size)
    assert interval.value == pytest.approx(values.mean())
    # 2000 draws give the ends to a few percent of the width.
    assert interval.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    samples = rng.normal(0.0, 1.0, (200, 40))
    covered = sum(x.low <= 0 <= x.high for x in map(mean_interval, samples))
    # Binomial(200, 0.95) has a standard deviation of 3; with 40 clips a little is missing.
    assert 178 <= covered <= 198


def test_a_lower_level_is_narrower() -> None:
    values = np.arange(50.0)
    wide, narrow = mean_interval(values), mean_interval(values, level=0.5)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_interval_of_a_ratio_weighs_clips_by_words() -> None:
    interval = ratio_interval([10, 0], [10, 90])
    assert interval.value == 0.1
    # Of the draws, a quarter has the bad clip twice, a quarter has it never.
    assert (interval.low, interval.high) == (0.0, 1.0)


def test_no_spread_gives_no_width() -> None:
    interval = ratio_interval([1, 2, 3], [10, 20, 30])
    assert interval.value == interval.low == interval.high == pytest.approx(0.1)


def test_clips_without_words_count_as_errors_only() -> None:
    interval = ratio_interval([1, 0, 0], [0, 10, 10])
    assert interval.value == 0.05
    assert math.isfinite(interval.low)
    assert math.isfinite(interval.high)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(0).exponential(size=30)
    assert mean_interval(values) == mean_interval(values)
    assert mean_interval(values, seed=1) != mean_interval(values, seed=2)


def test_memory_bound_changes_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).exponential(size=30)
    whole = mean_interval(values)
    monkeypatch.setattr(intervals, "_CHUNK", 100)
    assert mean_interval(values) == whole


@pytest.mark.parametrize(("errors", "words"), [([], []), ([3], [0]), ([1, 2], [0, 0])])
def test_without_words_there_is_no_value(errors: list[int], words: list[int]) -> None:
    interval = ratio_interval(errors, words)
    assert all(math.isnan(x) for x in (interval.value, interval.low, interval.high))


def test_one_clip_has_a_value_but_no_interval() -> None:
    interval = mean_interval([2.5])
    assert interval.value == 2.5
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
