"""The public class: what it accepts, what it refuses, and that batches equal single runs."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dualcodec_jax
from dualcodec_jax import config, functional, inference
from dualcodec_jax.errors import AudioError, ConfigError, DualCodecWarning, InputError
from dualcodec_jax.inference import Inference
from dualcodec_jax.lengths import (
    acoustic_frames,
    code_length,
    decoded_samples,
    min_samples,
    samples_to_cover,
)
from dualcodec_jax.model import DualCodecModel
from dualcodec_jax.nn.codec import DualCodec

TINY = config.PRESETS["tiny"].codec
HOP, ROWS = TINY.hop_length, TINY.n_quantizers
# Five hops, of which the last is not full; four code frames.
SAMPLES, FRAMES = 9000, 4
# Convolutions of other shapes add in another order; audio is below 1.
SAME_AUDIO = 1e-6


@pytest.fixture(scope="module")
def clip(speech: np.ndarray) -> np.ndarray:
    """``[1, 1, 9000]`` of speech."""
    return speech[None, None, 40_000 : 40_000 + SAMPLES]


@pytest.fixture(scope="module")
def codes(tiny_inference: Inference, clip: np.ndarray) -> np.ndarray:
    """Its codes ``[1, 4, 4]``."""
    return joined(tiny_inference.encode(clip, None))


@pytest.fixture(scope="module")
def audio(tiny_inference: Inference, codes: np.ndarray) -> np.ndarray:
    """What they decode to."""
    return np.asarray(tiny_inference.decode(codes[:, :1], codes[:, 1:]))


def joined(result: Any) -> np.ndarray:
    semantic, acoustic = result[:2]
    return np.concatenate([semantic, acoustic], axis=1)


class Tensor:
    """What :class:`Inference` knows of a PyTorch tensor on an accelerator."""

    def __init__(self, value: np.ndarray, place: str = "graph") -> None:
        self.value, self.place = value, place

    def detach(self) -> Tensor:
        assert self.place == "graph"
        return Tensor(self.value, "device")

    def cpu(self) -> Tensor:
        assert self.place == "device"
        return Tensor(self.value, "host")

    def numpy(self) -> np.ndarray:
        assert self.place == "host"
        return self.value

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("can't convert a tensor that requires grad to numpy")


# Encoding


def test_encode_shapes_and_types(tiny_inference: Inference, clip: np.ndarray) -> None:
    semantic, acoustic = tiny_inference.encode(clip, None)
    assert isinstance(semantic, jax.Array)
    assert semantic.shape == (1, 1, FRAMES)
    assert acoustic.shape == (1, ROWS - 1, FRAMES)
    assert semantic.dtype == acoustic.dtype == jnp.int32


def test_buckets_do_not_change_the_codes(
    tiny_inference: Inference, clip: np.ndarray, codes: np.ndarray
) -> None:
    """The pure function on exactly these samples, without any padding."""
    encode = jax.jit(functional.encode, static_argnames=("config", "n_quantizers"))
    plain = encode(tiny_inference.params, tiny_inference.config, clip, n_quantizers=ROWS)
    np.testing.assert_array_equal(plain.codes, codes)


def test_codes_depend_on_the_audio(
    tiny_inference: Inference, codes: np.ndarray, speech: np.ndarray
) -> None:
    other = joined(tiny_inference.encode(speech[None, None, 80_000 : 80_000 + SAMPLES], None))
    assert np.mean(other != codes) > 0.8


def test_eight_quantizers_are_the_default(
    tiny_inference: Inference, clip: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a model that has twelve, as upstream."""
    many = copy.copy(tiny_inference)
    codec = dataclasses.replace(TINY, n_codebooks=11)
    many.config = dataclasses.replace(tiny_inference.config, codec=codec)
    asked = []

    def encode(params: Any, config: Any, audio: Any, lengths: Any, count: int) -> Any:
        asked.append(count)
        return functional.Encoded(jnp.zeros((1, count, 5), jnp.int32), jnp.full(1, FRAMES))

    monkeypatch.setattr(inference, "_encode", encode)
    assert many.encode(clip)[1].shape == (1, 7, FRAMES)
    assert many.encode(clip, None)[1].shape == (1, 11, FRAMES)
    assert many.encode(clip, np.int64(3))[1].shape == (1, 2, FRAMES)
    assert asked == [8, 12, 3]


def test_more_quantizers_than_there_are_warn_and_give_all(
    tiny_inference: Inference, clip: np.ndarray, codes: np.ndarray
) -> None:
    with pytest.warns(DualCodecWarning, match="tiny has 4 quantizers; n_quantizers=8") as caught:
        result = tiny_inference.encode(clip)
    assert [warning.filename for warning in caught] == [__file__]
    np.testing.assert_array_equal(joined(result), codes)


def test_all_quantizers_do_not_warn(tiny_inference: Inference, clip: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny_inference.encode(clip, ROWS)
        tiny_inference.encode(clip, None)


@pytest.mark.parametrize("n_quantizers", [0, -1, -8])
def test_fewer_than_one_quantizer_is_refused(
    tiny_inference: Inference, clip: np.ndarray, n_quantizers: int
) -> None:
    with pytest.raises(InputError, match=f"at least 1 .* got {n_quantizers}"):
        tiny_inference.encode(clip, n_quantizers)


@pytest.mark.parametrize("n_quantizers", [True, False, np.True_, 2.0, "2", [2]])
def test_quantizer_counts_are_integers(
    tiny_inference: Inference, clip: np.ndarray, n_quantizers: Any
) -> None:
    with pytest.raises(InputError, match="must be an integer"):
        tiny_inference.encode(clip, n_quantizers)


def test_one_quantizer_is_the_semantic_one_alone(
    tiny_inference: Inference, clip: np.ndarray, codes: np.ndarray
) -> None:
    semantic, acoustic = tiny_inference.encode(clip, 1)
    assert acoustic is None
    np.testing.assert_array_equal(semantic, codes[:, :1])


@pytest.mark.parametrize(
    "convert",
    [
        np.ndarray.tolist,
        lambda x: x.astype(np.float64),
        jnp.asarray,
        Tensor,
        lambda x: np.asfortranarray(x)[:, :, ::-1][:, :, ::-1],
    ],
    ids=["list", "float64", "jax", "tensor", "strided"],
)
def test_audio_of_any_kind(
    tiny_inference: Inference, clip: np.ndarray, codes: np.ndarray, convert: Any
) -> None:
    np.testing.assert_array_equal(joined(tiny_inference.encode(convert(clip), None)), codes)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
def test_audio_of_half_precision(tiny_inference: Inference, clip: np.ndarray, dtype: Any) -> None:
    narrow = jnp.asarray(clip, dtype)
    expected = joined(tiny_inference.encode(np.asarray(narrow.astype(jnp.float32)), None))
    np.testing.assert_array_equal(joined(tiny_inference.encode(narrow, None)), expected)


def test_the_input_is_not_written_to(tiny_inference: Inference, clip: np.ndarray) -> None:
    mine = clip.copy()
    tiny_inference.encode(mine, None, lengths=[8000])
    np.testing.assert_array_equal(mine, clip)


@pytest.mark.parametrize("gain", [0.0, 100.0])
def test_silent_and_clipped_audio(
    tiny_inference: Inference, clip: np.ndarray, codes: np.ndarray, gain: float
) -> None:
    extreme = joined(tiny_inference.encode(np.clip(gain * clip, -1, 1), None))
    assert extreme.shape == codes.shape
    for row, size in enumerate(TINY.codebook_sizes):
        assert 0 <= extreme[:, row].min() <= extreme[:, row].max() < size
    decoded = tiny_inference.decode(extreme[:, :1], extreme[:, 1:])
    assert np.isfinite(decoded).all()
    assert (extreme != codes).any()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((SAMPLES,), r"got \[9000\]. Use audio.reshape\(1, 1, -1\)"),
        ((1, SAMPLES), r"\[batch, 1, samples\]"),
        ((1, 1, 1, SAMPLES), r"\[batch, 1, samples\]"),
        ((1, 2, SAMPLES), "mix stereo to mono"),
        ((0, 1, SAMPLES), r"got \[0, 1, 9000\]"),
        ((1, 1, 2038), r"too short: 2038 samples \(0.085 s\).* at least 2039"),
        ((1, 1, 0), "at least 2039"),
    ],
)
def test_wrong_audio_shapes(
    tiny_inference: Inference, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        tiny_inference.encode(np.zeros(shape, np.float32), None)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint8, bool, np.complex64, object])
def test_wrong_audio_types(tiny_inference: Inference, dtype: Any) -> None:
    with pytest.raises(InputError, match=r"must be floating point in \[-1, 1\]"):
        tiny_inference.encode(np.zeros((1, 1, SAMPLES), dtype), None)


def test_ragged_lists_are_refused(tiny_inference: Inference) -> None:
    with pytest.raises(InputError, match="audio is not an array"):
        tiny_inference.encode([[[0.0, 1.0]], [[0.0]]], None)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_audio_that_is_not_finite(
    tiny_inference: Inference, clip: np.ndarray, value: float
) -> None:
    broken = clip.copy()
    broken[0, 0, -1] = value
    with pytest.raises(AudioError, match="NaN or infinite"):
        tiny_inference.encode(broken, None)


def test_audio_that_overflows_float32(tiny_inference: Inference, clip: np.ndarray) -> None:
    broken = clip.astype(np.float64)
    broken[0, 0, 5] = 1e39
    with pytest.raises(AudioError, match="NaN or infinite"):
        tiny_inference.encode(broken, None)


# Lengths and batches


def test_lengths_bring_code_lengths(tiny_inference: Inference, speech: np.ndarray) -> None:
    batch = np.stack([speech[:33_000], speech[50_000:83_000], speech[90_000:123_000]])[:, None]
    lengths = [33_000, 2039, 9000]
    semantic, acoustic, frames = tiny_inference.encode(batch, None, lengths=lengths)
    assert isinstance(frames, jax.Array)
    assert frames.dtype == jnp.int32
    expected = [code_length(n, TINY) for n in lengths]
    assert frames.tolist() == expected
    assert semantic.shape == (3, 1, max(expected))
    assert acoustic.shape == (3, ROWS - 1, max(expected))
    for item, count in enumerate(expected):
        assert not np.any(semantic[item, :, count:])
        assert not np.any(acoustic[item, :, count:])
        assert np.any(acoustic[item, :, :count])


def test_the_longest_item_sets_the_number_of_frames(
    tiny_inference: Inference, speech: np.ndarray, clip: np.ndarray, codes: np.ndarray
) -> None:
    """Padding that no item uses costs nothing and changes nothing."""
    padded = np.pad(clip, ((0, 0), (0, 0), (0, 50_000)), constant_values=np.nan)
    semantic, acoustic, frames = tiny_inference.encode(padded, None, lengths=[SAMPLES])
    np.testing.assert_array_equal(joined((semantic, acoustic)), codes)
    assert frames.tolist() == [FRAMES]


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([SAMPLES, SAMPLES], "must be 1 integers"),
        (SAMPLES, "must be 1 integers"),
        ([[SAMPLES]], "must be 1 integers"),
        ([float(SAMPLES)], "must be 1 integers.* float64"),
        ([True], "must be 1 integers.* bool"),
        ([SAMPLES + 1], "must lie in 0…9000 samples"),
        ([-1], "must lie in 0…9000 samples"),
        ([2038], "too short: 2038 samples"),
        ([0], "too short: 0 samples"),
    ],
)
def test_wrong_lengths(
    tiny_inference: Inference, clip: np.ndarray, lengths: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        tiny_inference.encode(clip, None, lengths=lengths)


# Of |unit vector|² = 1; float32 noise of the latents that two batch shapes may differ by.
TIE = 1e-5
# Frames of acoustic codes that one semantic code reaches: two causal blocks of 7.
SEMANTIC_REACH = 12


def untied_differences(
    actual: np.ndarray, expected: np.ndarray, gaps: np.ndarray
) -> list[tuple[int, int]]:
    """(row, frame) of the codes ``[n, T]`` that differ without a tie to explain it.

    ``gaps [n, T]`` are the distances between the best and the second best code. A code may
    differ if its gap is below ``TIE``, or if an earlier code on which it depends does.
    """
    wrong = actual != expected
    unexplained = []
    for row, frame in np.argwhere(wrong):
        semantic = wrong[0, max(0, frame - SEMANTIC_REACH) : frame + 1]
        inherited = row > 0 and (semantic.any() or wrong[1:row, frame].any())
        if not inherited and gaps[row, frame] >= TIE:
            unexplained.append((int(row), int(frame)))
    return unexplained


def test_the_tie_rule_excuses_ties_and_what_they_cause() -> None:
    expected = np.zeros((4, 20), int)
    gaps = np.full((4, 20), 0.1)
    gaps[2, 5] = gaps[0, 3] = 1e-7
    for rows, frames, unexplained in [
        ([2], [5], []),
        ([2, 3], [5, 5], []),
        ([1, 2], [5, 5], [(1, 5)]),
        ([3], [5], [(3, 5)]),
        ([0, 1], [3, 15], []),
        ([0, 1], [3, 16], [(1, 16)]),
        ([0, 0], [3, 4], [(0, 4)]),
    ]:
        actual = expected.copy()
        actual[rows, frames] = 1
        assert untied_differences(actual, expected, gaps) == unexplained


@functools.partial(jax.jit, static_argnums=1)
def latents_of(params: Any, settings: config.Config, audio: jax.Array) -> jax.Array:
    """What the quantizers look up, ``[n, T, d]``, without buckets or lengths."""
    features, _ = functional.semantic_features(params, settings, audio[:, 0])
    output = DualCodec(settings.codec).apply(
        {"params": params["codec"]}, audio.swapaxes(1, 2), features
    )
    return jnp.concatenate([output.semantic.latents, output.acoustic.latents], axis=1)[0]


def search(runner: Inference, audio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes by a float64 search, and by how much the best beats the second best, ``[n, T]``."""
    latents = np.asarray(latents_of(runner.params, runner.config, audio), np.float64)
    codec = runner.params["codec"]
    stack = codec["dac"]["quantizer"]
    layers = [codec["semantic_vq"]["quantizer_0"], *(stack[name] for name in sorted(stack))]
    codes, gaps = [], []
    for z, layer in zip(latents, layers, strict=True):
        book = np.asarray(layer["codebook"], np.float64)
        book /= np.linalg.norm(book, axis=-1, keepdims=True)
        distances = -2 * z @ book.T / np.linalg.norm(z, axis=-1, keepdims=True)
        best, second = np.sort(distances, axis=-1)[:, :2].T
        codes.append(np.argmin(distances, axis=-1))
        gaps.append(second - best)
    return np.stack(codes), np.stack(gaps)


def test_codes_are_those_of_a_float64_search(
    tiny_inference: Inference, clip: np.ndarray, codes: np.ndarray
) -> None:
    expected, gaps = search(tiny_inference, clip)
    assert gaps.shape == (ROWS, FRAMES)
    assert gaps.min() > TIE
    np.testing.assert_array_equal(codes[0], expected)


def test_unequal_batches_equal_single_runs(tiny_inference: Inference, speech: np.ndarray) -> None:
    """Fifty batches of three, with garbage in the padding, from the shortest length on."""
    rng = np.random.default_rng(0)
    ranges = [(2039, 2 * HOP), (4 * HOP + 1, 5 * HOP), (16 * HOP + 1, 18 * HOP)]
    size = 18 * HOP
    for trial in range(50):
        chosen = [2, *rng.integers(0, 3, 2)]
        lengths = np.array([rng.integers(*ranges[kind], endpoint=True) for kind in chosen])
        rng.shuffle(lengths)
        starts = rng.integers(0, len(speech) - size, 3)
        items = [speech[s : s + n][None, None] for s, n in zip(starts, lengths, strict=True)]
        batch = (np.nan, 1e30, -1.0)[trial % 3] * np.ones((3, 1, size), np.float32)
        for row, item in zip(batch, items, strict=True):
            row[:, : item.shape[2]] = item[0]
        *together, frames = tiny_inference.encode(batch, None, lengths=lengths)
        together = joined(together)
        for index, item in enumerate(items):
            alone = joined(tiny_inference.encode(item, None))[0]
            own = together[index, :, : frames[index]]
            assert own.shape == alone.shape
            if not np.array_equal(own, alone):
                assert not untied_differences(own, alone, search(tiny_inference, item)[1])


# Padding the end


@pytest.mark.parametrize(("num_samples", "more"), [(SAMPLES, 1), (4 * HOP + 1, 2)])
def test_pad_end_covers_every_sample(
    tiny_inference: Inference, speech: np.ndarray, num_samples: int, more: int
) -> None:
    x = speech[None, None, 40_000 : 40_000 + num_samples]
    plain = tiny_inference.encode(x, None)[0].shape[2]
    semantic, acoustic = tiny_inference.encode(x, None, pad_end=True)
    assert semantic.shape[2] == acoustic.shape[2] == plain + more
    assert tiny_inference.decode(semantic, acoustic).shape[2] >= num_samples
    exact = tiny_inference.decode(semantic, acoustic, num_samples=num_samples)
    assert exact.shape == (1, 1, num_samples)
    assert np.any(exact[..., -4:])  # Decoded, not padded.


def test_pad_end_is_zero_padding(tiny_inference: Inference, clip: np.ndarray) -> None:
    padded = np.zeros((1, 1, samples_to_cover(SAMPLES, TINY)), np.float32)
    padded[:, :, :SAMPLES] = clip
    expected = joined(tiny_inference.encode(padded, None))
    np.testing.assert_array_equal(joined(tiny_inference.encode(clip, None, pad_end=True)), expected)


def test_pad_end_with_lengths(tiny_inference: Inference, clip: np.ndarray) -> None:
    alone = joined(tiny_inference.encode(clip[:, :, :8900], None, pad_end=True))
    dirty = clip.copy()
    dirty[:, :, 8900:] = np.nan
    *result, frames = tiny_inference.encode(dirty, None, lengths=[8900], pad_end=True)
    np.testing.assert_array_equal(joined(result), alone)
    assert frames.tolist() == [alone.shape[2]]


def test_pad_end_encodes_what_is_too_short(tiny_inference: Inference, clip: np.ndarray) -> None:
    semantic, acoustic = tiny_inference.encode(clip[:, :, :100], None, pad_end=True)
    assert semantic.shape == (1, 1, 1)
    assert acoustic.shape == (1, ROWS - 1, 1)


# Decoding


def test_decode_shape_type_and_range(audio: np.ndarray) -> None:
    assert audio.shape == (1, 1, decoded_samples(FRAMES, TINY)) == (1, 1, FRAMES * HOP - 4)
    assert audio.dtype == np.float32
    assert 0.001 < np.std(audio) < 1
    assert np.max(np.abs(audio)) < 1


def test_a_prefix_of_the_codes_decodes(
    tiny_inference: Inference, codes: np.ndarray, audio: np.ndarray
) -> None:
    decode = jax.jit(functional.decode, static_argnames="config")
    plain = decode(tiny_inference.params, tiny_inference.config, codes[:, :2]).audio
    sound = tiny_inference.decode(codes[:, :1], codes[:, 1:2])
    np.testing.assert_allclose(sound, plain, atol=SAME_AUDIO)
    assert np.max(np.abs(sound - audio)) > 1e-3


def test_semantic_codes_decode_alone(
    tiny_inference: Inference, codes: np.ndarray, audio: np.ndarray
) -> None:
    sound = tiny_inference.decode(codes[:, :1])
    np.testing.assert_array_equal(tiny_inference.decode(codes[:, :1], None), sound)
    assert sound.shape == audio.shape
    assert np.isfinite(sound).all()
    assert np.max(np.abs(sound - audio)) > 1e-3


def test_every_code_is_heard(
    tiny_inference: Inference, codes: np.ndarray, audio: np.ndarray
) -> None:
    for row in range(ROWS):
        other = codes.copy()
        other[0, row, 1] = (other[0, row, 1] + 7) % 64
        sound = tiny_inference.decode(other[:, :1], other[:, 1:])
        assert np.max(np.abs(sound - audio)) > 1e-4


@pytest.mark.parametrize(
    "convert",
    [
        np.ndarray.tolist,
        jnp.asarray,
        Tensor,
        lambda x: x.astype(np.int64),
        lambda x: x.astype(np.uint16),
    ],
    ids=["list", "jax", "tensor", "int64", "uint16"],
)
def test_codes_of_any_kind(
    tiny_inference: Inference, codes: np.ndarray, audio: np.ndarray, convert: Any
) -> None:
    sound = tiny_inference.decode(convert(codes[:, :1]), convert(codes[:, 1:]))
    np.testing.assert_array_equal(sound, audio)


def test_decode_from_codes_is_decode(
    tiny_inference: Inference, codes: np.ndarray, audio: np.ndarray
) -> None:
    sound = tiny_inference.decode_from_codes(codes[:, :1], codes[:, 1:])
    np.testing.assert_array_equal(sound, audio)


@pytest.mark.parametrize("num_samples", [0, 1, 5000, 7676, 7677, 12_000])
def test_num_samples_cuts_and_pads(
    tiny_inference: Inference, codes: np.ndarray, audio: np.ndarray, num_samples: int
) -> None:
    sound = tiny_inference.decode(codes[:, :1], codes[:, 1:], num_samples=num_samples)
    expected = np.zeros((1, 1, num_samples), np.float32)
    kept = min(num_samples, audio.shape[2])
    expected[:, :, :kept] = audio[:, :, :kept]
    np.testing.assert_array_equal(sound, expected)


@pytest.mark.parametrize(
    "num_samples", [-1, 2.0, True, [5, 5], [[5]], "5"], ids=["-1", "2.0", "True", "2", "2d", "str"]
)
def test_wrong_num_samples(tiny_inference: Inference, codes: np.ndarray, num_samples: Any) -> None:
    with pytest.raises(InputError, match="num_samples must be one integer or 1, none negative"):
        tiny_inference.decode(codes[:, :1], num_samples=num_samples)


@pytest.fixture(scope="module")
def batch_codes() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 64, (3, ROWS, 9), dtype=np.int32)


def test_unequal_batches_decode_like_single_runs(
    tiny_inference: Inference, batch_codes: np.ndarray
) -> None:
    """Codes past an item's length may be anything, even outside their codebooks."""
    rng = np.random.default_rng(1)
    alone = {
        (item, frames): np.asarray(
            tiny_inference.decode(
                batch_codes[item, None, :1, :frames], batch_codes[item, None, 1:, :frames]
            )
        )
        for item in range(3)
        for frames in (1, 4, 9)
    }
    for trial in range(12):
        frames = np.array([9, *rng.choice([1, 4, 9], 2)])
        rng.shuffle(frames)
        dirty = np.where(
            np.arange(9) < frames[:, None, None], batch_codes, (0, -1, 10**6)[trial % 3]
        )
        sound, lengths = tiny_inference.decode(dirty[:, :1], dirty[:, 1:], code_lengths=frames)
        assert sound.shape == (3, 1, decoded_samples(9, TINY))
        assert lengths.tolist() == [decoded_samples(int(n), TINY) for n in frames]
        for item, (count, length) in enumerate(zip(frames, lengths, strict=True)):
            own = alone[item, int(count)][0]
            np.testing.assert_allclose(sound[item, :, :length], own, atol=SAME_AUDIO)
            assert not np.any(sound[item, :, length:])


def test_num_samples_of_each_item(tiny_inference: Inference, batch_codes: np.ndarray) -> None:
    frames, wanted = [9, 4, 9], [17_000, 20_000, 0]
    plain, _ = tiny_inference.decode(batch_codes[:, :1], batch_codes[:, 1:], frames)
    sound, lengths = tiny_inference.decode(
        batch_codes[:, :1], batch_codes[:, 1:], frames, num_samples=wanted
    )
    assert sound.shape == (3, 1, 20_000)
    assert lengths.tolist() == wanted
    np.testing.assert_array_equal(sound[0, :, :17_000], plain[0, :, :17_000])
    assert not np.any(sound[0, :, 17_000:])
    own = decoded_samples(4, TINY)
    np.testing.assert_array_equal(sound[1, :, :own], plain[1, :, :own])
    assert not np.any(sound[1, :, own:])
    assert not np.any(sound[2])


@pytest.mark.parametrize(
    ("semantic", "acoustic", "message"),
    [
        ((4,), None, r"semantic_codes must have shape \[batch, 1, frames\]; got \[4\]"),
        ((1, 4), None, "semantic_codes must have shape"),
        ((1, 2, 4), None, "semantic_codes must have shape"),
        ((1, 1, 0), None, "semantic_codes must have shape"),
        ((0, 1, 4), None, "semantic_codes must have shape"),
        ((1, 1, 4), (1, 3, 5), r"acoustic_codes must have shape \[1, 1…3, 4\]"),
        ((1, 1, 4), (2, 3, 4), "acoustic_codes must have shape"),
        ((1, 1, 4), (1, 4, 4), "acoustic_codes must have shape"),
        ((1, 1, 4), (1, 0, 4), "Pass None to decode the semantic codes alone"),
        ((1, 1, 4), (3, 4), "acoustic_codes must have shape"),
    ],
)
def test_wrong_code_shapes(
    tiny_inference: Inference,
    semantic: tuple[int, ...],
    acoustic: tuple[int, ...] | None,
    message: str,
) -> None:
    parts = [None if shape is None else np.zeros(shape, int) for shape in (semantic, acoustic)]
    with pytest.raises(InputError, match=message):
        tiny_inference.decode(*parts)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, bool, object])
@pytest.mark.parametrize("part", [0, 1])
def test_wrong_code_types(tiny_inference: Inference, dtype: Any, part: int) -> None:
    parts = [np.zeros((1, 1, 4), int), np.zeros((1, 3, 4), int)]
    parts[part] = parts[part].astype(dtype)
    with pytest.raises(InputError, match="codes must be integers"):
        tiny_inference.decode(*parts)


@pytest.mark.parametrize(
    ("row", "value", "message"),
    [
        (0, 256, r"semantic_codes has the code 256, outside 0…255.*not of tiny"),
        (0, -1, "semantic_codes has the code -1"),
        (1, 64, "acoustic_codes row 0 has the code 64, outside 0…63"),
        (3, 2**31, "acoustic_codes row 2 has the code 2147483648"),
    ],
)
def test_codes_outside_their_codebook(
    tiny_inference: Inference, row: int, value: int, message: str
) -> None:
    codes = np.zeros((1, ROWS, 4), np.int64)
    codes[0, row, 3] = value
    with pytest.raises(InputError, match=message):
        tiny_inference.decode(codes[:, :1], codes[:, 1:])


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([0], "code_lengths must be at least 1"),
        ([5], "code_lengths must lie in 0…4 frames"),
        ([-1], "code_lengths must lie in 0…4 frames"),
        ([4.0], "code_lengths must be 1 integers"),
        ([4, 4], "code_lengths must be 1 integers"),
    ],
)
def test_wrong_code_lengths(tiny_inference: Inference, lengths: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny_inference.decode(np.zeros((1, 1, 4), int), code_lengths=lengths)


# Construction and compilation


@pytest.mark.parametrize(
    ("options", "precision"),
    [
        ({}, "float32"),
        ({"precision": "bfloat16"}, "bfloat16"),
        ({"dtype": "bfloat16"}, "bfloat16"),
        ({"dtype": jnp.bfloat16}, "bfloat16"),
        ({"dtype": np.dtype(jnp.bfloat16)}, "bfloat16"),
        ({"dtype": jnp.float32}, "float32"),
        ({"dtype": np.float32, "precision": "bfloat16"}, "float32"),
    ],
)
def test_precision_and_its_alias(
    tiny_model: DualCodecModel, tiny_semantic: Any, options: Any, precision: str
) -> None:
    assert Inference(tiny_model, semantic=tiny_semantic, **options).config.precision == precision


@pytest.mark.parametrize(
    "options", [{"precision": "float16"}, {"dtype": "half"}, {"dtype": np.float64}]
)
def test_other_precisions_are_refused(
    tiny_model: DualCodecModel, tiny_semantic: Any, options: Any
) -> None:
    with pytest.raises(ConfigError, match="precision must be one of float32, bfloat16"):
        Inference(tiny_model, semantic=tiny_semantic, **options)


@pytest.mark.parametrize(
    "options", [{"device": "cuda"}, {"autocast": False}, {"device": "cpu", "autocast": True}]
)
def test_device_and_autocast_warn_once(
    tiny_model: DualCodecModel, tiny_semantic: Any, options: Any
) -> None:
    with pytest.warns(DualCodecWarning, match="device and autocast are ignored") as caught:
        Inference(tiny_model, semantic=tiny_semantic, **options)
    assert [warning.filename for warning in caught] == [__file__]


def test_upstream_positions_of_the_arguments() -> None:
    names = list(inspect.signature(Inference).parameters)
    assert names[:3] == ["dualcodec_model", "dualcodec_path", "w2v_path"]
    names = list(inspect.signature(Inference.encode).parameters)
    assert names[1:3] == ["audio", "n_quantizers"]
    names = list(inspect.signature(Inference.decode).parameters)
    assert names[1:3] == ["semantic_codes", "acoustic_codes"]


def test_the_weight_norm_is_folded(tiny_inference: Inference) -> None:
    paths = [jax.tree_util.keystr(p) for p, _ in jax.tree.leaves_with_path(tiny_inference.params)]
    assert any("kernel" in path for path in paths)
    assert not any("weight_" in path for path in paths)


@pytest.mark.slow
def test_bfloat16_changes_few_codes(
    tiny_model: DualCodecModel, tiny_semantic: Any, speech: np.ndarray, tiny_inference: Inference
) -> None:
    narrow = Inference(tiny_model, semantic=tiny_semantic, precision="bfloat16")
    size = 18 * HOP
    clips = [speech[None, None, start : start + size] for start in range(0, 4 * size, size)]
    different = np.concatenate(
        [joined(narrow.encode(x, None)) != joined(tiny_inference.encode(x, None)) for x in clips],
        axis=2,
    )
    # The latents are off by about 1 %, and codes of these small books lie far apart.
    assert different.mean() < 0.02


def test_one_bucket_compiles_once(
    tiny_inference: Inference, speech: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced = []

    def encode(*args: Any) -> functional.Encoded:
        traced.append("encode")
        return functional.encode(*args)

    def decode(*args: Any) -> functional.Decoded:
        traced.append("decode")
        return functional.decode(*args)

    monkeypatch.setattr(inference, "_encode", jax.jit(encode, static_argnums=(1, 4)))
    monkeypatch.setattr(inference, "_decode", jax.jit(decode, static_argnums=1))
    rng = np.random.default_rng(0)
    lengths = rng.choice(np.arange(16 * HOP + 1, 18 * HOP + 1), 20, replace=False)
    assert {acoustic_frames(int(n), TINY) for n in lengths} == {17, 18}
    frames = {tiny_inference.encode(speech[None, None, :n], 1)[0].shape[2] for n in lengths}
    assert frames == {15, 16, 17}
    for count in (17, 18, 17):
        audio = tiny_inference.decode(rng.integers(0, 64, (1, 1, count)))
        assert audio.shape[2] == count * HOP - 4
    assert traced == ["encode", "decode"]


def test_decoding_needs_no_semantic_model(
    tiny_model: DualCodecModel, codes: np.ndarray, audio: np.ndarray, clip: np.ndarray
) -> None:
    decoder = Inference(tiny_model, decode_only=True)
    assert set(decoder.params) == {"codec"}
    with pytest.raises(InputError, match="decode_only"):
        decoder.encode(clip, None)
    sound = decoder.decode(codes[:, :1], codes[:, 1:])
    np.testing.assert_allclose(sound, audio, atol=SAME_AUDIO)


# The package


def run_python(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(dualcodec_jax.__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_importing_the_package_is_quick_and_loads_nothing() -> None:
    code = """
import sys, time
start = time.perf_counter()
import dualcodec_jax
seconds = time.perf_counter() - start
assert seconds < 0.5, seconds
dir(dualcodec_jax), dualcodec_jax.__version__
heavy = {"jax", "flax", "numpy", "torch", "soundfile", "huggingface_hub"} & set(sys.modules)
assert not heavy, heavy
"""
    run_python(code)


def test_no_name_of_the_package_needs_torch() -> None:
    code = """
import sys
sys.modules["torch"] = None
import dualcodec_jax
for name in dualcodec_jax.__all__:
    getattr(dualcodec_jax, name)
from dualcodec_jax import *
assert callable(encode) and callable(get_model)
assert "torch" not in {name for name, module in sys.modules.items() if module is not None}
"""
    run_python(code)


def test_public_names_are_complete_and_documented() -> None:
    assert sorted(dir(dualcodec_jax)) == sorted(dualcodec_jax.__all__)
    assert len(set(dualcodec_jax.__all__)) == len(dualcodec_jax.__all__)
    for name in dualcodec_jax.__all__:
        if name not in ("__version__", "Config"):
            assert getattr(dualcodec_jax, name).__doc__, name


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Inferense'"):
        _ = dualcodec_jax.Inferense


@pytest.mark.filterwarnings("ignore:tiny has 4 quantizers")
def test_the_readme_runs(
    tiny_model: DualCodecModel,
    tiny_semantic: Any,
    speech: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its Python block, word for word, on speech and the tiny model."""
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    dualcodec_jax.write_audio(tmp_path / "speech.wav", speech[: 18 * HOP], 24000)
    names: dict[str, Any] = {}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dualcodec_jax, "get_model", lambda _: tiny_model)
    tiny = functools.partial(Inference, semantic=tiny_semantic)
    monkeypatch.setattr(dualcodec_jax, "Inference", tiny)
    exec(block, names)
    again = dualcodec_jax.read_audio(tmp_path / "out.wav")
    assert again.sample_rate == 24000
    np.testing.assert_allclose(again.samples, names["out"][0, 0], atol=1 / 32768)
    assert len(again.samples) == 17 * HOP - 4


@pytest.mark.slow
def test_nothing_compiles_after_a_warm_up(tiny_inference: Inference, speech: np.ndarray) -> None:
    done: list[tuple[int, int]] = []
    rate = TINY.sample_rate
    count = tiny_inference.warmup(
        1.1, min_seconds=0.9, batch_sizes=(2,), progress=lambda *a: done.append(a)
    )
    assert done[-1] == (count, count)
    sizes = inference._encode._cache_size(), inference._decode._cache_size()
    for seconds, pad_end in ((0.9, False), (0.9, True), (0.97, True), (1.1, False), (1.1, True)):
        samples = np.stack([speech[: round(seconds * rate)]] * 2)[:, None]
        codes = joined(tiny_inference.encode(samples, None, pad_end=pad_end))
        tiny_inference.decode(codes[:, :1], codes[:, 1:], num_samples=samples.shape[2])
    assert (inference._encode._cache_size(), inference._decode._cache_size()) == sizes


def test_cleared_programs_come_back(
    tiny_inference: Inference, clip: np.ndarray, codes: np.ndarray
) -> None:
    tiny_inference.decode(codes[:, :1], codes[:, 1:])
    inference.clear_programs()
    assert inference._encode._cache_size() == inference._decode._cache_size() == 0
    np.testing.assert_array_equal(joined(tiny_inference.encode(clip, None)), codes)


@pytest.mark.parametrize("model_id", ["12hz_v1", "25hz_v1", "demo"])
@pytest.mark.parametrize("seconds", [(0.01, 0.3), (0.5, 2.0)])
def test_a_warm_up_meets_every_shape(
    tiny_inference: Inference,
    model_id: str,
    seconds: tuple[float, float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the shortest and the longest clip, padded and not, at the released models' rates."""
    tried = copy.copy(tiny_inference)
    tried.config = config.PRESETS[model_id]
    codec, shapes = tried.config.codec, set()

    def encode(_: Any, __: Any, audio: Any, lengths: Any, count: int) -> functional.Encoded:
        shapes.add(audio.shape)
        frames = acoustic_frames(audio.shape[2], codec)
        return functional.Encoded(np.zeros((1, count, frames), int), code_length(lengths, codec))

    def decode(_: Any, __: Any, codes: Any, lengths: Any) -> functional.Decoded:
        shapes.add(codes.shape)
        samples = decoded_samples(codes.shape[2], codec)
        return functional.Decoded(np.zeros((1, 1, samples)), decoded_samples(lengths, codec))

    monkeypatch.setattr(inference, "_encode", encode)
    monkeypatch.setattr(inference, "_decode", decode)
    assert tried.warmup(seconds[1], min_seconds=seconds[0]) == len(shapes)
    warm = shapes.copy()
    for length in seconds:
        for pad_end in (False, True):
            size = max(round(length * codec.sample_rate), 0 if pad_end else min_samples(codec))
            codes = joined(tried.encode(np.zeros((1, 1, size), np.float32), None, pad_end=pad_end))
            tried.decode(codes[:, :1], codes[:, 1:])
    assert shapes == warm


def test_a_warm_up_for_impossible_durations(tiny_inference: Inference) -> None:
    with pytest.raises(InputError, match=r"min_seconds 2\.0 must be positive and at most"):
        tiny_inference.warmup(1.0, min_seconds=2.0)
