"""Alignment undoes known shifts, and leaves alone what is not shifted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualcodec_jax.evaluation.alignment import align

RATE = 8000
MOST = 800


@pytest.fixture(scope="module")
def clip(speech: np.ndarray) -> np.ndarray:
    """Two seconds of speech, every third sample: what aliases is no matter here."""
    return speech[24000:72000:3]


def shifted(clip: np.ndarray, shift: int) -> np.ndarray:
    """The clip late by ``shift`` samples and as long."""
    result = np.zeros_like(clip)
    if shift >= 0:
        result[shift:] = clip[: clip.size - shift]
    else:
        result[:shift] = clip[-shift:]
    return result


@settings(deadline=None, max_examples=30)
@given(
    shift=st.integers(-MOST, MOST),
    noise=st.sampled_from([0.0, 0.3, 1.0]),
    gain=st.sampled_from([0.25, 1.0, 2.0]),
    seed=st.integers(0, 99),
)
def test_known_shifts_are_undone(
    clip: np.ndarray, shift: int, noise: float, gain: float, seed: int
) -> None:
    """Also at other levels, and under noise up to the power of the speech."""
    rng = np.random.default_rng(seed)
    hiss = noise * clip.std() * rng.standard_normal(clip.size).astype(np.float32)
    late = gain * (shifted(clip, shift) + hiss)
    original, output, found = align(clip, late, RATE)
    assert found == shift
    assert original.size == output.size == clip.size - abs(shift)
    clean = output - gain * (hiss[max(shift, 0) :][: output.size])
    np.testing.assert_allclose(clean, gain * original, atol=1e-6)


def test_equal_clips_stay_as_they_are(clip: np.ndarray) -> None:
    original, output, shift = align(clip, clip, RATE)
    assert shift == 0
    np.testing.assert_array_equal(original, clip)
    np.testing.assert_array_equal(output, clip)


def test_lengths_are_cut_to_what_is_shared(clip: np.ndarray) -> None:
    original, output, shift = align(clip, np.pad(clip, (100, 500)), RATE)
    assert shift == 100
    np.testing.assert_array_equal(original, clip)
    np.testing.assert_array_equal(output, clip)
    original, output, shift = align(clip, clip[50:-50], RATE)
    assert (shift, original.size) == (-50, clip.size - 100)
    np.testing.assert_array_equal(original, output)


def test_longer_shifts_than_allowed_are_not_looked_for(clip: np.ndarray) -> None:
    assert abs(align(clip, shifted(clip, 500), RATE, max_shift_seconds=0.05).shift) <= 400
    assert align(clip, shifted(clip, 500), RATE, max_shift_seconds=0.07).shift == 500


def test_what_does_not_resemble_the_original_is_not_shifted(clip: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    for output in (
        rng.standard_normal(clip.size).astype(np.float32),
        np.zeros_like(clip),
        np.full_like(clip, np.nan),
    ):
        aligned = align(clip, output, RATE)
        assert aligned.shift == 0
        assert aligned.original.size == aligned.output.size == clip.size


@pytest.mark.parametrize("length", [0, 1, 2])
def test_short_clips(clip: np.ndarray, length: int) -> None:
    original, output, shift = align(clip[:length], clip[:length], RATE)
    assert (original.size, output.size, shift) == (length, length, 0)
