"""The filterbank against a float64 reading of SeamlessM4TFeatureExtractor (spec 6.2)."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from dualcodec_jax.audio.fbank import PADDING_VALUE, SemanticInput, log_mel, semantic_input
from dualcodec_jax.audio.resample import resample

# Log-mel energies lie in -16…+25; 5e-6 is a few float32 ulp of the larger ones.
LOG_MEL = 5e-6
run_log_mel = jax.jit(log_mel)
run = jax.jit(semantic_input)


def mel(hertz: Any) -> Any:
    return 1127 * np.log(1 + np.asarray(hertz, np.float64) / 700)


def filters() -> np.ndarray:
    """Triangles over the mel scale, one Python loop a filter, ``[257, 80]``."""
    points = np.linspace(mel(20), mel(8000), 82)
    bins = mel(np.arange(257) * 16000 / 512)
    result = np.zeros((257, 80))
    for m in range(80):
        left, centre, right = points[m : m + 3]
        up, down = (bins - left) / (centre - left), (right - bins) / (right - centre)
        result[:, m] = np.clip(np.minimum(up, down), 0, None)
    return result


def textbook_log_mel(x: np.ndarray, dtype: Any = np.float64) -> np.ndarray:
    """Log-mel energies of ``x [N]`` at 16 kHz, frame by frame, ``[F, 80]``.

    With ``dtype`` float32 all arithmetic before the power spectrum rounds to that.
    """
    n = np.arange(400)
    window = ((0.5 - 0.5 * np.cos(2 * np.pi * n / 399)) ** 0.85).astype(dtype)
    frames = []
    for start in range(0, len(x) - 399, 160):
        frame = x[start : start + 400].astype(dtype) * dtype(2**15)
        frame = frame - frame.mean(dtype=dtype)
        previous = np.concatenate([frame[:1], frame[:-1]])
        frame = (frame - dtype(0.97) * previous) * window
        padded = np.concatenate([frame, np.zeros(112, dtype)])
        if dtype == np.float32:
            spectrum = np.asarray(jax.numpy.fft.rfft(padded)).astype(np.complex128)
        else:
            spectrum = np.fft.rfft(padded)
        frames.append(np.abs(spectrum) ** 2 @ filters())
    return np.log(np.maximum(np.stack(frames), 1.192092955078125e-07))


def textbook_input(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Normalised stacked features and mask of one utterance."""
    features = textbook_log_mel(x)
    centred = features - features.mean(axis=0)
    features = centred / np.sqrt(features.var(axis=0, ddof=1) + 1e-7)
    mask = np.ones(len(features), bool)
    if len(features) % 2:
        features = np.pad(features, ((0, 1), (0, 0)), constant_values=1)
        mask = np.append(mask, False)
    return features.reshape(-1, 160), mask[1::2]


def tone_over_noise(noise: float) -> np.ndarray:
    """A loud tone over quiet noise: all but a few mel bins hold only the noise."""
    n = np.arange(4000)
    tone = 0.5 * np.sin(2 * np.pi * 437 / 16000 * n)
    return (tone + noise * np.random.default_rng(0).standard_normal(n.shape)).astype(np.float32)


def white(num_samples: int = 4000, scale: float = 0.1) -> np.ndarray:
    return (scale * np.random.default_rng(1).standard_normal(num_samples)).astype(np.float32)


@pytest.fixture(scope="module")
def speech_16k(speech: np.ndarray) -> np.ndarray:
    return np.asarray(resample(speech[:60_000], 24000, 16000))


def test_log_mel_of_speech(speech_16k: np.ndarray) -> None:
    x = speech_16k[:20_000]
    assert np.max(np.abs(run_log_mel(x[None])[0] - textbook_log_mel(x))) < LOG_MEL


@pytest.mark.parametrize(
    "x",
    [
        white(),
        white(scale=1e-4),
        np.clip(white(scale=3), -1, 1),
        tone_over_noise(2e-5),
        white() + np.float32(0.5),
    ],
    ids=["noise", "quiet noise", "clipped noise", "tone over quiet noise", "offset"],
)
def test_log_mel_of_synthetic_signals(x: np.ndarray) -> None:
    assert np.max(np.abs(run_log_mel(x[None])[0] - textbook_log_mel(x))) < LOG_MEL


def test_a_float32_transform_would_not_do() -> None:
    """The reason for the sliced matrix product: an FFT in float32 loses the quiet bins."""
    x = tone_over_noise(2e-5)
    error = np.abs(textbook_log_mel(x, np.float32) - textbook_log_mel(x))
    assert error.max() > 100 * LOG_MEL


def test_dynamic_range_is_that_of_32_bits() -> None:
    """Noise at -130 dB is 2^-21 of the peak, so that its own samples keep 11 bits."""
    x = tone_over_noise(3e-7)
    assert np.max(np.abs(run_log_mel(x[None])[0] - textbook_log_mel(x))) < 2e-4


@pytest.mark.parametrize("num_samples", [4080, 4240])
def test_features_and_mask_of_even_and_odd_frame_counts(num_samples: int) -> None:
    x = white(num_samples)
    features, mask = textbook_input(x)
    frames = 1 + (num_samples - 400) // 160
    assert mask.all() == (frames % 2 == 0)
    result = run(x[None])
    assert result.features.dtype == np.float32
    assert result.mask.dtype == bool
    np.testing.assert_array_equal(result.mask[0], mask)
    # Differences of log energies by standard deviations of about 0.3 here.
    np.testing.assert_allclose(result.features[0], features, atol=3e-5)


def test_features_of_speech(speech_16k: np.ndarray) -> None:
    features, mask = textbook_input(speech_16k)
    result = run(speech_16k[None])
    np.testing.assert_array_equal(result.mask[0], mask)
    np.testing.assert_allclose(result.features[0], features, atol=1e-5)


def test_an_odd_frame_is_filled_with_the_padding_value() -> None:
    result = run(white(4240)[None])
    half = np.asarray(result.features[0, -1])
    assert (half[80:] == PADDING_VALUE).all()
    assert half[:80].std() > 0.1
    assert PADDING_VALUE == 1


LENGTHS = np.array([4080, 3000, 2703, 600, 4239], np.int32)


@pytest.fixture(scope="module")
def batch() -> np.ndarray:
    """Five items of ``LENGTHS`` samples, zero-padded."""
    x = np.random.default_rng(2).standard_normal((5, 4240)).astype(np.float32) * 0.1
    x[np.arange(4240) >= LENGTHS[:, None]] = 0
    return x


@pytest.mark.parametrize("garbage", [1e4, -1.0])
def test_garbage_past_the_length_changes_nothing(batch: np.ndarray, garbage: float) -> None:
    dirty = batch.copy()
    dirty[np.arange(4240) >= LENGTHS[:, None]] = garbage
    clean, other = run(batch, LENGTHS), run(dirty, LENGTHS)
    np.testing.assert_array_equal(other.features, clean.features)
    np.testing.assert_array_equal(other.mask, clean.mask)


def test_nan_past_the_length_changes_nothing(batch: np.ndarray) -> None:
    dirty = batch.copy()
    dirty[np.arange(4240) >= LENGTHS[:, None]] = np.nan
    np.testing.assert_array_equal(run(dirty, LENGTHS).features, run(batch, LENGTHS).features)


def test_each_item_of_a_batch_is_as_alone(batch: np.ndarray) -> None:
    together = run(batch, LENGTHS)
    for item, length in enumerate(LENGTHS):
        features, mask = textbook_input(batch[item, :length])
        own = len(mask)
        np.testing.assert_array_equal(together.mask[item, :own], mask)
        assert not together.mask[item, own:].any()
        # 600 samples are two frames, whose deviation may be as small as 0.01.
        limit = 1e-3 if length == 600 else 3e-5
        np.testing.assert_allclose(together.features[item, :own], features, atol=limit)
        assert (together.features[item, own:] == PADDING_VALUE).all()


def test_full_lengths_equal_no_lengths(batch: np.ndarray) -> None:
    plain, explicit = run(batch), run(batch, np.full(5, 4240, np.int32))
    # XLA turns the division by a constant count into a product.
    np.testing.assert_allclose(plain.features, explicit.features, atol=2e-6)
    np.testing.assert_array_equal(plain.mask, explicit.mask)


def test_jit_changes_nothing(batch: np.ndarray) -> None:
    """Up to the order of additions: compiled, they are fused."""
    eager: SemanticInput = semantic_input(batch, LENGTHS)
    jitted = run(batch, LENGTHS)
    np.testing.assert_array_equal(eager.mask, jitted.mask)
    np.testing.assert_allclose(eager.features[:3], jitted.features[:3], atol=2e-5)


@pytest.mark.parametrize("num_samples", [1, 160, 399])
def test_less_than_a_frame_gives_no_frames(num_samples: int) -> None:
    result = semantic_input(np.zeros((2, num_samples), np.float32))
    assert result.features.shape == (2, 0, 160)
    assert result.mask.shape == (2, 0)


def test_one_frame_is_finite() -> None:
    """Upstream divides by zero degrees of freedom here."""
    result = run(white(400)[None])
    assert result.features.shape == (1, 1, 160)
    assert not result.mask.any()
    assert np.isfinite(result.features).all()


def test_an_item_without_frames_is_finite_and_masked(batch: np.ndarray) -> None:
    result = run(batch, np.array([4240, 399, 0, 400, 4240], np.int32))
    assert np.isfinite(result.features).all()
    assert result.mask.sum(axis=1).tolist() == [12, 0, 0, 0, 12]


def test_silence_is_finite() -> None:
    log = run_log_mel(np.zeros((1, 4000), np.float32))
    np.testing.assert_allclose(log, np.log(1.192092955078125e-07), rtol=1e-6)
    features = run(np.zeros((1, 4000), np.float32)).features
    # Rounding of the mean over sqrt(1e-7): nothing like real features.
    assert np.max(np.abs(features[:, :-1])) < 0.01


def test_louder_audio_shifts_the_logarithm(speech_16k: np.ndarray) -> None:
    x = speech_16k[None, :4000]
    shift = np.asarray(run_log_mel(x * 4)) - np.asarray(run_log_mel(x))
    np.testing.assert_allclose(shift, np.log(16), atol=LOG_MEL)
