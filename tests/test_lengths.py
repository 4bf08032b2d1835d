"""Length formulas: measured examples of the original, and their properties."""

from __future__ import annotations

import dataclasses
import functools
import math
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualcodec_jax import config, lengths

HZ12, HZ25 = config.DUALCODEC_12HZ_V1, config.DUALCODEC_25HZ_V1
BOTH = pytest.mark.parametrize("cfg", [HZ12, HZ25], ids=["12hz", "25hz"])
configs = st.sampled_from([HZ12, HZ25])
# Ten minutes at 24 kHz.
samples = st.integers(0, 14_400_000)


@pytest.mark.parametrize(
    ("num_samples", "at_12hz", "at_25hz"),
    [
        (120000, 62, 124),
        (72137, 37, 75),
        (60000, 31, 62),
        (48001, 24, 49),
        (7200, 3, 7),
        (48130, 25, 50),
        (24000, 12, 24),
        (76800, 39, 79),
    ],
)
def test_code_lengths_that_upstream_gives(num_samples: int, at_12hz: int, at_25hz: int) -> None:
    assert lengths.code_length(num_samples, HZ12) == at_12hz
    assert lengths.code_length(num_samples, HZ25) == at_25hz


def test_shortest_utterances_that_upstream_takes() -> None:
    assert lengths.min_samples(HZ12) == 2039
    assert lengths.min_samples(HZ25) == 1079


@BOTH
def test_frames_lost_at_the_end(cfg: config.DualCodecConfig) -> None:
    """Every length up to 400 000 samples: the waveform has one or two frames more."""
    n = np.arange(lengths.min_samples(cfg), 400_000)
    lost = lengths.acoustic_frames(n, cfg) - lengths.code_length(n, cfg)
    assert set(np.unique(lost)) == {1, 2}


@given(samples, configs)
def test_frames_lost_at_the_end_of_long_audio(n: int, cfg: config.DualCodecConfig) -> None:
    codes = lengths.code_length(n, cfg)
    if n >= lengths.min_samples(cfg):
        assert lengths.acoustic_frames(n, cfg) - codes in (1, 2)
    else:
        assert codes == 0


@given(samples)
def test_code_length_is_the_chain_of_its_stages(n: int) -> None:
    num_16k = -(-2 * n // 3)
    frames = max(0, 1 + (num_16k - 400) // 160)
    stacked = -(-frames // 2)
    assert lengths.resampled_length(n, 24000, 16000) == num_16k
    assert lengths.fbank_frames(num_16k) == frames
    assert lengths.semantic_frames(n, HZ12) == stacked
    assert lengths.code_length(n, HZ12) == stacked // 4
    assert lengths.code_length(n, HZ25) == stacked // 2


@pytest.mark.parametrize(("n", "frames"), [(-5, 0), (0, 0), (399, 0), (400, 1), (559, 1), (560, 2)])
def test_filterbank_frames(n: int, frames: int) -> None:
    assert lengths.fbank_frames(n) == frames


@given(st.integers(1, 10**6), st.sampled_from([(24000, 16000), (44100, 24000), (8000, 24000)]))
def test_resampled_length_is_rounded_up(n: int, rates: tuple[int, int]) -> None:
    orig, new = rates
    length = lengths.resampled_length(n, orig, new)
    assert (length - 1) * orig < n * new <= length * orig


@pytest.mark.parametrize("frames", [1, 2, 12, 7500])
def test_released_models_decode_four_samples_less(frames: int) -> None:
    assert lengths.decoded_samples(frames, HZ12) == frames * 1920 - 4
    assert lengths.decoded_samples(frames, HZ25) == frames * 960 - 4


@pytest.mark.parametrize("stride", [2, 4, 5, 6, 8])
def test_upsampled_length_is_that_of_a_transposed_convolution(stride: int) -> None:
    padding, taps = -(-stride // 2), 2 * stride
    for length in (1, 2, 9):
        expected = (length - 1) * stride - 2 * padding + taps
        assert lengths.upsampled_length(length, stride) == expected


@given(st.integers(1, 20_000), configs)
def test_samples_for_codes_is_minimal(frames: int, cfg: config.DualCodecConfig) -> None:
    n = lengths.samples_for_codes(frames, cfg)
    assert lengths.code_length(n, cfg) == frames
    assert lengths.code_length(n - 1, cfg) == frames - 1


@given(samples, configs)
def test_samples_to_cover_is_the_least_padding_that_covers(
    n: int, cfg: config.DualCodecConfig
) -> None:
    padded = lengths.samples_to_cover(n, cfg)
    frames = lengths.code_length(padded, cfg)
    assert padded >= max(n, lengths.min_samples(cfg))
    assert lengths.decoded_samples(frames, cfg) >= n
    if padded > n:
        fewer = lengths.code_length(padded - 1, cfg)
        assert fewer == 0 or lengths.decoded_samples(fewer, cfg) < n
    # One hop, plus the two that upstream drops.
    assert padded - n <= max(lengths.min_samples(cfg), 3 * cfg.hop_length)


def test_buckets_up_to_hours() -> None:
    length = np.arange(1, 300_000)
    bucket = np.array([lengths.bucket(int(n)) for n in length])
    assert (bucket >= length).all()
    assert ((bucket - length) / bucket < 0.125).all()
    assert (np.diff(bucket) >= 0).all()
    assert bucket[:16].tolist() == list(range(1, 17))
    used = np.unique(bucket)
    assert all(lengths.bucket(int(n)) == n for n in used)
    odd_part = used // (used & -used)
    assert (odd_part < 16).all()  # k · 2^e with k below 16
    assert np.sum(used <= lengths.bucket(7500)) < 90  # shapes to compile for ten minutes


def test_bucket_of_nothing_is_nothing() -> None:
    assert lengths.bucket(0) == 0


@given(st.integers(1, 10**9))
def test_bucket_properties_of_any_length(length: int) -> None:
    bucket = lengths.bucket(length)
    assert length <= bucket < length / 0.875
    assert lengths.bucket(bucket) == bucket
    assert lengths.bucket(length + 1) >= bucket


FORMULAS: list[Any] = [
    lambda n, cfg: lengths.resampled_length(n, 24000, 16000),
    lambda n, cfg: lengths.fbank_frames(n),
    lengths.semantic_frames,
    lengths.code_length,
    lengths.acoustic_frames,
    lengths.decoded_samples,
]


@BOTH
def test_integers_arrays_and_traced_arrays_agree(cfg: config.DualCodecConfig) -> None:
    n = np.array([0, 1, 399, 400, 1079, 2038, 2039, 24000, 48001, 14_400_000], np.int32)
    # Above 2^31 / 1920 code frames a sample count leaves int32.
    short = n[:-1]
    for formula in FORMULAS:
        values = short if formula is lengths.decoded_samples else n
        expected = [formula(int(value), cfg) for value in values]
        assert formula(values, cfg).tolist() == expected
        traced = jax.jit(lambda x, formula=formula: formula(x, cfg))(jnp.asarray(values))
        assert traced.dtype == jnp.int32
        assert traced.tolist() == expected


# -- Whisper ---------------------------------------------------------------------------------


def whisper(sample_rate: int, factor: int, rates: tuple[int, ...]) -> config.DualCodecConfig:
    """A model that reads Whisper's features; ``rates`` multiply to ``factor`` frames of 20 ms."""
    assert math.prod(rates) * 50 == sample_rate * factor
    return dataclasses.replace(
        config.DEMO,
        sample_rate=sample_rate,
        encoder_dim=2,
        decoder_dim=64,
        semantic_dim=2 * 2 ** len(rates),
        encoder_rates=rates,
        decoder_rates=rates,
        semantic_downsample_factor=factor,
    )


WHISPER = {
    "demo": config.DEMO,
    "50hz": whisper(24000, 1, (4, 5, 6, 4)),
    "12hz": whisper(24000, 4, HZ12.decoder_rates),
    "10hz": whisper(24000, 5, (5, 5, 6, 16)),
    "16khz": whisper(16000, 2, (4, 5, 4, 8)),
    "48khz": whisper(48000, 2, (4, 5, 6, 16)),
}
WHISPERS = pytest.mark.parametrize("cfg", WHISPER.values(), ids=WHISPER.keys())
BRUTE = 8000


@functools.cache
def brute_force(cfg: config.DualCodecConfig) -> np.ndarray:
    """Code frames of every length up to ``BRUTE`` samples, one thing after the other."""
    frames = []
    for n in range(BRUTE):
        num_16k = math.ceil(Fraction(n * 16000, cfg.sample_rate))
        spectral = len(range(160, num_16k + 1, 160))  # ends of whole hops
        semantic = len(range(0, spectral, 2))  # where the strided convolution stands
        frames.append(
            len(range(cfg.semantic_downsample_factor, semantic + 1, cfg.semantic_downsample_factor))
        )
        assert lengths.whisper_frames(num_16k) == spectral
        assert lengths.semantic_frames(n, cfg) == semantic
    return np.array(frames)


@WHISPERS
def test_whisper_frames_by_counting(cfg: config.DualCodecConfig) -> None:
    expected = brute_force(cfg)
    for formula in (lengths.pooled_frames, lengths.code_length):
        np.testing.assert_array_equal(formula(np.arange(BRUTE), cfg), expected)


@WHISPERS
def test_whisper_loses_at_most_a_part_of_a_hop(cfg: config.DualCodecConfig) -> None:
    """T ≤ A ≤ T + 1; of whole hops nothing is lost."""
    n = np.arange(400_000)
    codes, waveform = lengths.code_length(n, cfg), lengths.acoustic_frames(n, cfg)
    assert set(np.unique(waveform - codes)) == {0, 1}
    whole = n % cfg.hop_length == 0
    np.testing.assert_array_equal(codes[whole], waveform[whole])
    np.testing.assert_array_equal(codes[whole], n[whole] // cfg.hop_length)
    # What lacks up to 10 ms of a whole hop has its frame.
    missing, late = -n % cfg.hop_length, cfg.sample_rate // 100
    assert (codes == waveform)[missing <= late].all()
    assert (codes < waveform)[missing > late + 2].all()


@given(samples, st.sampled_from(list(WHISPER.values())))
def test_whisper_lengths_of_long_audio(n: int, cfg: config.DualCodecConfig) -> None:
    assert lengths.acoustic_frames(n, cfg) - lengths.code_length(n, cfg) in (0, 1)
    whole = n // cfg.hop_length * cfg.hop_length
    assert lengths.code_length(whole, cfg) == lengths.acoustic_frames(whole, cfg)


@WHISPERS
def test_whisper_samples_for_codes_by_searching(cfg: config.DualCodecConfig) -> None:
    frames = brute_force(cfg)
    assert lengths.min_samples(cfg) == np.argmax(frames >= 1)
    for count in range(1, frames.max() + 1):
        assert lengths.samples_for_codes(count, cfg) == np.argmax(frames >= count)


@WHISPERS
def test_whisper_samples_to_cover(cfg: config.DualCodecConfig) -> None:
    """The least padding after which as many samples are decoded as went in."""
    frames = brute_force(cfg)
    decoded = np.where(frames > 0, lengths.decoded_samples(frames, cfg), 0)
    for n in range(1, BRUTE - 2 * cfg.hop_length):
        enough = np.flatnonzero((np.arange(BRUTE) >= n) & (decoded >= n))
        assert lengths.samples_to_cover(n, cfg) == enough[0]


def test_whisper_demo_decodes_whole_hops_but_four_samples() -> None:
    """As of the released models, the odd strides cost four samples."""
    assert lengths.decoded_samples(25, config.DEMO) == 24000 - 4
    assert lengths.samples_to_cover(24000 - 4, config.DEMO) == 24000 - 4
    assert lengths.code_length(24000 - 4, config.DEMO) == 25


@WHISPERS
def test_whisper_integers_arrays_and_traced_arrays_agree(cfg: config.DualCodecConfig) -> None:
    n = np.array([0, 1, 159, 160, 239, 240, 241, 24000, 48001, 14_400_000], np.int32)
    for formula in (lengths.semantic_frames, lengths.pooled_frames, lengths.code_length):
        expected = [formula(int(value), cfg) for value in n]
        assert formula(n, cfg).tolist() == expected
        traced = jax.jit(lambda x, formula=formula: formula(x, cfg))(jnp.asarray(n))
        assert traced.dtype == jnp.int32
        assert traced.tolist() == expected
