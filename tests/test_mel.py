"""Mel filters against librosa; Whisper's log-mel spectrogram against a float64 reading of it."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dualcodec_jax.audio.log_mel import whisper_log_mel
from dualcodec_jax.audio.mel import mel_basis
from dualcodec_jax.audio.resample import resample

run = jax.jit(whisper_log_mel, static_argnames="num_mels")

# -- filters ---------------------------------------------------------------------------------


@pytest.mark.parametrize("sample_rate", [8000, 11025, 16000, 22050, 24000, 44100])
@pytest.mark.parametrize(
    ("window_length", "n_mels"),
    [
        (32, 5),
        (64, 10),
        (128, 20),
        (256, 40),
        (400, 80),
        (400, 128),
        (401, 80),
        (2048, 320),
        (512, 1),
    ],
)
def test_filters_are_librosas_bit_for_bit(
    sample_rate: int, window_length: int, n_mels: int
) -> None:
    librosa = pytest.importorskip("librosa")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Empty filters")
        expected = librosa.filters.mel(sr=sample_rate, n_fft=window_length, n_mels=n_mels)
    basis = mel_basis(sample_rate, window_length, n_mels)
    assert basis.dtype == expected.dtype == np.float32
    np.testing.assert_array_equal(basis, expected)


def test_filters_have_unit_area() -> None:
    """On bins so fine that every triangle is smooth; area in hertz."""
    basis = mel_basis(16000, 64_000, 80).astype(np.float64)
    np.testing.assert_allclose(basis.sum(axis=1) * 16000 / 64_000, 1, rtol=1e-3)


def test_filters_cannot_be_changed() -> None:
    """They are shared by a cache."""
    basis = mel_basis(16000, 400, 80)
    with pytest.raises(ValueError, match="read-only"):
        basis[0, 0] = 1
    assert mel_basis(16000, 400, 80) is basis


# -- spectrogram -----------------------------------------------------------------------------


def hertz(mels: float) -> float:
    return 1000 * 6.4 ** ((mels - 15) / 27) if mels > 15 else mels * 200 / 3


def filters(num_mels: int) -> np.ndarray:
    """Slaney's triangles, one Python loop a filter, ``[201, num_mels]``."""
    highest = 15 + 27 * np.log(8000 / 1000) / np.log(6.4)
    points = [hertz(mels) for mels in np.linspace(0, highest, num_mels + 2)]
    bins = np.arange(201) * 16000 / 400
    result = np.zeros((201, num_mels))
    for m in range(num_mels):
        left, centre, right = points[m : m + 3]
        up, down = (bins - left) / (centre - left), (right - bins) / (right - centre)
        result[:, m] = 2 / (right - left) * np.clip(np.minimum(up, down), 0, None)
    return result


def textbook(x: np.ndarray, num_mels: int = 80) -> np.ndarray:
    """The spectrogram of ``x [N]``, frame by frame in float64, ``[N // 160, num_mels]``.

    The start is mirrored, zeros follow the end for as long as a frame sees the signal.
    """
    x = np.concatenate([x.astype(np.float64), np.zeros(1000)])
    x = np.concatenate([x[200:0:-1], x])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    starts = range(0, len(x) - 400, 160)
    power = [np.abs(np.fft.rfft(window * x[start : start + 400])) ** 2 for start in starts]
    log = np.log10(np.maximum(np.stack(power) @ filters(num_mels), 1e-10))
    log = (np.maximum(log, log.max() - 8) + 4) / 4
    return log[: (len(x) - 1200) // 160]


def white(num_samples: int, scale: float = 0.1) -> np.ndarray:
    return (scale * np.random.default_rng(1).standard_normal(num_samples)).astype(np.float32)


def tone(num_samples: int, noise: float) -> np.ndarray:
    """A loud tone over quiet noise."""
    n = np.arange(num_samples)
    return (0.5 * np.sin(2 * np.pi * 437 / 16000 * n) + white(num_samples, noise)).astype(
        np.float32
    )


def alone(x: np.ndarray, num_mels: int = 80) -> np.ndarray:
    return np.asarray(run(x[None], np.array([len(x)]), num_mels=num_mels))[0]


@pytest.fixture(scope="module")
def speech_16k(speech: np.ndarray) -> np.ndarray:
    return np.asarray(resample(jnp.asarray(speech[None, :60_000]), 24000, 16000))[0]


# Of values in -1.5…2. A float32 transform rounds to some 1e-7 of a frame's loudest amplitude; the
# quietest bins that are told apart lie at 1e-4 of that, and log10 of their power, divided by four,
# moves by a fifth of the relative error.
FLAT, TONAL = 5e-6, 1e-4


@pytest.mark.parametrize(
    ("x", "limit"),
    [
        (white(4000), FLAT),
        (white(4000, 1e-4), FLAT),
        (np.clip(white(4000, 3), -1, 1), FLAT),
        (tone(4000, 1e-3), TONAL),
        (tone(4000, 2e-5), TONAL),
    ],
    ids=["noise", "quiet noise", "clipped noise", "tone", "tone over quiet noise"],
)
def test_synthetic_signals(x: np.ndarray, limit: float) -> None:
    np.testing.assert_allclose(alone(x), textbook(x), rtol=0, atol=limit)


def test_speech(speech_16k: np.ndarray) -> None:
    assert alone(speech_16k).shape == (250, 80)
    difference = np.abs(alone(speech_16k) - textbook(speech_16k))
    assert difference.max() < TONAL
    assert np.quantile(difference, 0.99) < FLAT


@pytest.mark.parametrize("num_mels", [20, 128])
def test_other_numbers_of_bins(num_mels: int) -> None:
    x = white(1600)
    np.testing.assert_allclose(alone(x, num_mels), textbook(x, num_mels), rtol=0, atol=FLAT)


@pytest.mark.parametrize("num_samples", [201, 320, 401, 679])
def test_every_kind_of_length(num_samples: int) -> None:
    """Whole hops and those around them, down to the shortest that can be mirrored."""
    x = white(num_samples)
    result = alone(x)
    assert result.shape == (num_samples // 160, 80)
    np.testing.assert_allclose(result, textbook(x), rtol=0, atol=FLAT)


def test_the_range_is_that_of_all_frames_that_see_the_signal() -> None:
    """A loud end that no frame but the cut-off ones sees still decides what counts as silence."""
    quiet = white(1759, 1e-5)
    loud = quiet.copy()
    loud[1750:] = 0.9
    reference = textbook(loud)
    assert reference.shape == (10, 80)
    np.testing.assert_allclose(alone(loud), reference, rtol=0, atol=FLAT)
    # The signal is the same wherever the ten frames look, and all of it is below the range.
    assert np.ptp(reference) == 0
    assert np.ptp(textbook(quiet)) > 0.3


def test_silence_is_finite() -> None:
    """The floor of the power, and no range above it."""
    np.testing.assert_allclose(alone(np.zeros(1600, np.float32)), (-10 + 4) / 4, rtol=1e-6)


# Every remainder modulo the hop that matters, from nothing to all of it.
LENGTHS = np.array([0, 1, 159, 160, 161, 201, 320, 321, 479, 480, 640, 801, 1439, 1440, 1441, 1600])


@pytest.fixture(scope="module")
def batch() -> np.ndarray:
    """One item for each of ``LENGTHS``, with large numbers in the padding."""
    x = np.random.default_rng(2).standard_normal((len(LENGTHS), 1600)).astype(np.float32) * 0.1
    x[np.arange(1600) >= LENGTHS[:, None]] = 1e4
    return x


def test_each_item_of_a_batch_is_as_alone(batch: np.ndarray) -> None:
    together = np.asarray(run(batch, LENGTHS, num_mels=80))
    assert together.shape == (len(LENGTHS), 10, 80)
    assert together.dtype == np.float32
    for item, length in enumerate(LENGTHS):
        frames = length // 160
        # Shorter ones than half a window have zeros mirrored.
        own = np.pad(batch[item, :length], (0, max(0, 201 - length)))
        expected = textbook(own)[:frames]
        np.testing.assert_allclose(together[item, :frames], expected, rtol=0, atol=FLAT)
        assert (together[item, frames:] == 0).all()
        if length in (201, 1440):  # each another program to compile
            np.testing.assert_allclose(
                together[item, :frames], alone(batch[item, :length]), rtol=0, atol=FLAT
            )


@pytest.mark.parametrize("garbage", [0.0, -1e4, np.inf, np.nan])
def test_what_lies_past_the_end_changes_nothing(batch: np.ndarray, garbage: float) -> None:
    other = np.where(np.arange(1600) < LENGTHS[:, None], batch, np.float32(garbage))
    expected: Any = run(batch, LENGTHS, num_mels=80)
    np.testing.assert_array_equal(run(other, LENGTHS, num_mels=80), expected)
