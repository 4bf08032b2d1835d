"""Resampling against torchaudio's formula, evaluated directly in float64."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dualcodec_jax.audio import resample as module
from dualcodec_jax.audio.resample import StreamResampler, resample
from dualcodec_jax.errors import AudioError

RATES = [(24000, 16000), (16000, 24000), (44100, 24000), (48000, 24000), (8000, 24000)]
PAIRS = pytest.mark.parametrize(("orig_rate", "new_rate"), RATES)
run = jax.jit(resample, static_argnums=(1, 2))


def direct(x: np.ndarray, orig_rate: int, new_rate: int) -> np.ndarray:
    """Hann-windowed sinc interpolation of ``x [N]``, one output sample at a time.

    Output sample m·new + j looks at input m·orig + i with
    h = base / orig · sinc(t) · cos²(πt / 12), t = base · (i / orig - j / new), |t| ≤ 6.
    """
    common = math.gcd(orig_rate, new_rate)
    orig, new = orig_rate // common, new_rate // common
    base = 0.99 * min(orig, new)
    width = math.ceil(6 * orig / base)
    i = np.arange(-width, width + orig)
    length = -(-len(x) * new // orig)
    padded = np.pad(x.astype(np.float64), (width, width + 2 * orig))
    y = np.empty(length)
    for n in range(length):
        m, j = divmod(n, new)
        t = np.clip((i / orig - j / new) * base, -6, 6)
        h = base / orig * np.sinc(t) * np.cos(np.pi * t / 12) ** 2
        y[n] = h @ padded[m * orig + i + width]
    return y


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


@PAIRS
def test_equals_the_direct_formula(orig_rate: int, new_rate: int) -> None:
    x = noise(1500)
    expected = direct(x, orig_rate, new_rate)
    y = run(x, orig_rate, new_rate)
    assert y.dtype == jnp.float32
    assert y.shape == expected.shape
    # torchaudio's functional form evaluates the filter in float32, and so does this one: the
    # positions of the taps, near 1, round by 6e-8, and are then multiplied by base.
    base = min(orig_rate, new_rate) // math.gcd(orig_rate, new_rate)
    assert np.max(np.abs(y - expected)) < 4e-7 + 6e-8 * base


def test_equals_the_direct_formula_on_speech(speech: np.ndarray) -> None:
    x = speech[20_000:30_000]
    y = run(x, 24000, 16000)
    assert np.max(np.abs(y - direct(x, 24000, 16000))) < 3e-7


@pytest.mark.parametrize("num_samples", [1, 2, 3, 4, 1000, 1001, 1002])
def test_length_is_rounded_up(num_samples: int) -> None:
    for orig_rate, new_rate in RATES:
        y = jax.eval_shape(
            functools.partial(resample, orig_rate=orig_rate, new_rate=new_rate),
            jax.ShapeDtypeStruct((num_samples,), np.float32),
        )
        assert y.shape == (math.ceil(num_samples * new_rate / orig_rate),)


def test_every_short_length() -> None:
    x = noise(9)
    for n in range(1, 10):
        np.testing.assert_allclose(
            resample(x[:n], 24000, 16000), direct(x[:n], 24000, 16000), atol=1e-6
        )


@PAIRS
def test_zero_padding_changes_no_sample_before_it(orig_rate: int, new_rate: int) -> None:
    x = noise(1000)
    alone = np.asarray(run(x, orig_rate, new_rate))
    padded = np.asarray(run(np.pad(x, (0, 500)), orig_rate, new_rate))
    # Sums of the same products, possibly in another order.
    np.testing.assert_allclose(padded[: len(alone)], alone, atol=1e-7)
    tail = math.ceil(12 * max(1, new_rate / orig_rate)) + 12
    assert not padded[len(alone) + tail :].any()


def test_any_number_of_leading_axes() -> None:
    x = noise(2, 3, 100)
    y = run(x, 24000, 16000)
    assert y.shape == (2, 3, 67)
    for index in np.ndindex(2, 3):
        np.testing.assert_allclose(y[index], direct(x[index], 24000, 16000), atol=1e-6)


def test_a_constant_stays_constant() -> None:
    y = np.asarray(run(np.ones(3000, np.float32), 24000, 16000))[100:-100]
    # Six zero crossings leave a ripple of some 1e-4.
    np.testing.assert_allclose(y, 1, atol=1e-3)


def test_equal_rates_return_the_input() -> None:
    x = noise(10)
    assert resample(x, 24000, 24000) is x


def test_float64_stays_float64() -> None:
    with jax.enable_x64(True):
        y = resample(noise(100).astype(np.float64), 24000, 16000)
        assert y.dtype == jnp.float64


def test_awkward_ratios_are_refused_before_they_cost_memory() -> None:
    with pytest.raises(AudioError, match=r"24000:44101.*ffmpeg"):
        resample(noise(10), 24000, 44101)


def test_common_rates_are_not_awkward() -> None:
    for rate in (8000, 11025, 12000, 16000, 22050, 32000, 44100, 48000, 88200, 96000, 192000):
        for target in (16000, 24000):
            common = math.gcd(rate, target)
            kernel, _ = module._kernel(rate // common, target // common)
            assert np.isfinite(kernel).all()


@pytest.mark.parametrize("rates", [(24000, 16000), (44100, 24000), (8000, 24000), (24000, 24000)])
@pytest.mark.parametrize("size", [1, 7, 2999, 30_001])
def test_pieces_of_any_size_give_the_samples_of_the_whole(
    rates: tuple[int, int], size: int
) -> None:
    rng = np.random.default_rng(size)
    samples = rng.standard_normal(size).astype(np.float32)
    stream = StreamResampler(*rates, block=2000)
    cuts = np.sort(rng.integers(0, size, 12))
    parts = [stream.push(part) for part in np.split(samples, cuts)]
    found = np.concatenate([*parts, stream.finish()])
    # Another shape may sum in another order: the last bit.
    np.testing.assert_allclose(found, np.asarray(resample(samples, *rates)), rtol=0, atol=5e-7)
