"""Means of loss terms, speed, use of codebooks."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("optax")

from dualcodec_jax.errors import InputError
from dualcodec_jax.train.metrics import (
    CollapseWatch,
    Means,
    SpeedMeter,
    attainable_perplexity,
    codebook_use,
    codebook_values,
    count_codes,
    log_name,
)


class Clock:
    """A clock that only moves when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_names_are_grouped() -> None:
    assert log_name("mel") == "loss/mel"
    assert log_name("generator_norm") == "norm/generator"
    assert log_name("discriminator_learning_rate") == "rate/discriminator"
    assert log_name("run/bad_steps") == "run/bad_steps"


def test_means_are_over_the_steps_since_the_last_call() -> None:
    means = Means()
    for value in (1.0, 3.0):
        means.add({"mel": jnp.float32(value), "learning_rate": jnp.float32(value)})
    assert means.take() == {"loss/mel": 2.0, "rate/generator": 2.0}
    means.add({"mel": 5.0})
    assert means.take() == {"loss/mel": 5.0}
    assert means.take() == {}


def test_means_leave_out_what_bypass_steps_do_not_have() -> None:
    means = Means()
    means.add({"mel": 1.0, "commitment": 4.0, "codebook": 2.0})
    means.add({"mel": 2.0, "commitment": 0.0, "codebook": 0.0, "semantic_mel": 6.0}, bypass=True)
    assert means.take() == {
        "loss/mel": 1.5,
        "loss/commitment": 4.0,
        "loss/codebook": 2.0,
        "loss/semantic_mel": 6.0,
    }


def test_means_are_over_finite_values_and_count_the_other_steps() -> None:
    means = Means()
    means.add({"mel": jnp.float32(jnp.nan), "total": jnp.float32(jnp.inf)})
    means.add({"mel": jnp.float32(2.0), "total": jnp.float32(jnp.nan)})
    values = means.take()
    assert values["loss/mel"] == 2.0
    assert math.isnan(values["loss/total"])
    assert values["loss/not_finite"] == 2


def test_speed_keeps_compiling_apart_and_reports_waiting() -> None:
    clock = Clock()
    meter = SpeedMeter(8.0, 100, clock=clock)
    with meter.paused():
        clock.now += 30
    for _ in range(10):
        with meter.waiting():
            clock.now += 0.5
        clock.now += 1.5
        meter.count()
    assert meter.measure(20) == {
        "speed/compile_seconds": 30,
        "speed/steps_per_second": 0.5,
        "speed/audio_seconds_per_second": 4.0,
        "speed/data_share": 0.25,
        "speed/eta_seconds": 160,
    }
    clock.now += 4
    meter.count()
    values = meter.measure(21)
    assert values["speed/steps_per_second"] == 0.25
    assert "speed/compile_seconds" not in values


def test_speed_without_steps_or_end() -> None:
    clock = Clock()
    meter = SpeedMeter(1.0, clock=clock)
    with meter.paused("evaluation"):
        clock.now += 2
    assert meter.measure(0) == {"speed/evaluation_seconds": 2}
    clock.now += 1
    meter.count()
    assert "speed/eta_seconds" not in meter.measure(1)


@pytest.mark.parametrize(
    ("row", "usage", "perplexity"),
    [
        ([1, 1, 1, 1], 1.0, 4.0),
        ([1, 0, 0, 0], 0.25, 1.0),
        ([0.5, 0.5, 0, 0], 0.5, 2.0),
        # A share of 1 % is less than a tenth of the uniform 25 %.
        ([0.98, 0.01, 0.01, 0], 0.25, math.exp(-0.98 * math.log(0.98) - 0.02 * math.log(0.01))),
    ],
)
def test_usage_and_perplexity(row: list[float], usage: float, perplexity: float) -> None:
    (use,) = codebook_use(np.float32([row]), [4])
    assert use.usage == usage
    assert use.perplexity == pytest.approx(perplexity, rel=1e-6)


def test_rows_beyond_a_codebook_and_unused_quantizers_do_not_count() -> None:
    frequency = np.zeros((3, 8), np.float32)
    frequency[0], frequency[2, :4] = 1 / 8, 1 / 4
    uses = codebook_use(frequency, [8, 4, 4])
    assert codebook_values(uses) == pytest.approx(
        {"usage/0": 1, "usage/2": 1, "perplexity/0": 8, "perplexity/2": 4}
    )


def test_a_frequency_of_another_model_is_refused() -> None:
    with pytest.raises(InputError, match=r"\[2, 8\]"):
        codebook_use(np.ones((3, 8)), [8, 4])


def test_count_codes_stops_at_the_lengths() -> None:
    codes = np.array([[[1, 1, 2], [0, 0, 0]], [[2, 3, 3], [3, 0, 0]]])
    counts = count_codes(codes, [2, 1], 4)
    assert counts.tolist() == [[0, 2, 1, 0], [2, 0, 0, 1]]


def test_attainable_perplexity_is_what_uniform_codes_show() -> None:
    """The bound against a simulation of the moving average of the training step."""
    size, codes_per_step = 4096, 20
    rng, frequency = np.random.default_rng(0), np.zeros(size)
    for _ in range(1000):
        share = np.bincount(rng.integers(size, size=codes_per_step), minlength=size)
        frequency = 0.99 * frequency + 0.01 * share / codes_per_step
    (use,) = codebook_use(frequency[None], [size])
    bound = attainable_perplexity(size, codes_per_step)
    assert 0.3 * bound < use.perplexity < bound
    assert attainable_perplexity(64, codes_per_step) == 64


def test_a_collapse_is_told_once_and_again_after_a_recovery() -> None:
    dead, alive = np.zeros((2, 64)), np.full((2, 64), 1 / 64)
    dead[:, 0] = 1
    watch = CollapseWatch([64, 64], codes_per_step=1000, after_step=100)
    assert watch.check(99, codebook_use(dead, [64, 64])) == []
    semantic, acoustic = watch.check(100, codebook_use(dead, [64, 64]))
    assert "semantic codebook" in semantic
    assert "statistics" in semantic
    assert "acoustic codebook 1" in acoustic
    assert "perplexity 1.0 of 64" in acoustic
    assert watch.check(200, codebook_use(dead, [64, 64])) == []
    assert watch.check(300, codebook_use(alive, [64, 64])) == []
    assert len(watch.check(400, codebook_use(dead, [64, 64]))) == 2


def test_small_batches_do_not_look_like_a_collapse() -> None:
    """One code a step cannot show 5 % of 16384 codes."""
    codes = np.zeros((1, 16384))
    codes[0, :150] = 1 / 150
    assert CollapseWatch([16384], 1, 0).check(1, codebook_use(codes, [16384])) == []
    assert CollapseWatch([16384], 1000, 0).check(1, codebook_use(codes, [16384])) != []
