"""Encoding in windows beside encoding the whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

from dualcodec_jax import functional
from dualcodec_jax.config import PRESETS, Config, WhisperConfig
from dualcodec_jax.convert.files import codec_shapes
from dualcodec_jax.errors import AudioError, InputError
from dualcodec_jax.inference import Inference
from dualcodec_jax.lengths import code_length, samples_to_cover
from dualcodec_jax.model import random_semantic
from dualcodec_jax.nn.random import random_params
from dualcodec_jax.stream_encode import SemanticWindows, encode_stream, semantic_windows

TINY = PRESETS["tiny"]
HOP = TINY.codec.hop_length
ROWS = TINY.codec.n_quantizers
# Windows of 1.92 s that overlap by 0.64 s.
WHISPER = WhisperConfig(
    num_mels=16,
    hidden_size=64,
    num_layers=1,
    num_heads=2,
    intermediate_size=64,
    max_frames=96,
    overlap_frames=32,
)

encode = jax.jit(functional.encode, static_argnames=("config", "n_quantizers"))


def whole(params: Any, config: Config, samples: np.ndarray) -> np.ndarray:
    return np.asarray(encode(params, config, samples[None, None], None, ROWS).codes)


def stream(params: Any, config: Config, samples: np.ndarray, **options: Any) -> np.ndarray:
    """Codes of samples that arrive in pieces of many sizes."""

    def pieces() -> Iterator[np.ndarray]:
        cuts = np.random.default_rng(len(samples)).integers(0, len(samples), 9)
        yield from np.split(samples, np.sort(cuts))

    parts = list(encode_stream(params, config, pieces(), ROWS, **options))
    assert all(part.dtype == np.int32 for part in parts)
    return np.concatenate(parts, axis=2)


@pytest.fixture(scope="module")
def whisper() -> tuple[Any, Config]:
    """A tiny model on random Whisper features."""
    codec = dataclasses.replace(TINY.codec, semantic_model="whisper")
    config = Config(model_id="tiny-whisper", codec=codec, semantic=WHISPER)
    semantic, statistics = random_semantic(WHISPER)
    params = {
        "codec": random_params(codec_shapes(codec), seed=2),
        "semantic": semantic,
        "statistics": statistics,
    }
    return params, config


@pytest.mark.parametrize("seconds", [1.0, 1.92, 1.93, 3.2, 3.21, 6.5])
@pytest.mark.parametrize("chunk", [7, pytest.param(64, marks=pytest.mark.slow)])
def test_whisper_codes_are_those_of_the_whole(
    whisper: tuple[Any, Config], speech: np.ndarray, seconds: float, chunk: int
) -> None:
    params, config = whisper
    samples = speech[: round(seconds * 24000)]
    codes = stream(params, config, samples, chunk_frames=chunk)
    np.testing.assert_array_equal(codes, whole(params, config, samples))


@pytest.mark.parametrize("encoding", ["dac", "dac_distilled"])
def test_codes_without_a_semantic_stream_are_those_of_the_whole(
    speech: np.ndarray, encoding: Any
) -> None:
    codec = dataclasses.replace(TINY.codec, encoding=encoding)
    config = dataclasses.replace(TINY, codec=codec)
    params = {"codec": random_params(codec_shapes(codec), seed=2)}
    codes = stream(params, config, speech, chunk_frames=20)
    np.testing.assert_array_equal(codes, whole(params, config, speech))


@pytest.mark.slow
def test_one_window_of_w2v_bert_is_the_whole(tiny_inference: Inference, speech: np.ndarray) -> None:
    codes = stream(tiny_inference.params, TINY, speech, chunk_frames=16, window_seconds=8)
    np.testing.assert_array_equal(codes, whole(tiny_inference.params, TINY, speech))


@pytest.mark.slow
def test_windows_of_w2v_bert(tiny_inference: Inference, speech: np.ndarray) -> None:
    """Features are those of the windows, each giving what is nearest to its middle."""
    params, size, overlap = tiny_inference.params, 40, 10
    samples = np.concatenate([speech, speech[::-1]])
    pieces, start = [], 0
    total = int(code_length(len(samples), TINY.codec))
    count = 1 + -(-(len(samples) - size * HOP) // ((size - overlap) * HOP))
    for index in range(count):
        start = index * (size - overlap)
        part = samples[start * HOP : (start + size) * HOP]
        features, _ = functional.semantic_features(params, TINY, part[None])
        last = total - start if index == count - 1 else size - overlap // 2
        pieces.append(np.asarray(features)[0, overlap // 2 if index else 0 : last])
    features = np.concatenate(pieces)
    assert len(features) == total
    module = functional.make_codec(TINY.codec)
    expected = module.apply(
        {"params": params["codec"]},
        samples[None, :, None],
        features[None],
        ROWS,
        method="encode",
    )
    seconds = {"window_seconds": size / 12.5, "overlap_seconds": overlap / 12.5}
    codes = stream(params, TINY, samples, chunk_frames=16, **seconds)
    np.testing.assert_array_equal(codes, np.asarray(expected))


def test_the_end_is_padded_as_by_encode(tiny_inference: Inference, speech: np.ndarray) -> None:
    semantic, acoustic = tiny_inference.encode(speech[None, None], None, pad_end=True)  # type: ignore[misc]
    expected = np.concatenate([semantic, acoustic], axis=1)
    parts = tiny_inference.encode_stream([speech], None, pad_end=True, window_seconds=8)
    codes = np.concatenate(list(parts), axis=2)
    np.testing.assert_array_equal(codes, expected)
    assert codes.shape[2] == code_length(samples_to_cover(len(speech), TINY.codec), TINY.codec)


def test_windows() -> None:
    released = PRESETS["12hz_v1"]
    assert semantic_windows(released) == SemanticWindows(375, 62)
    assert semantic_windows(released, 10, 1) == SemanticWindows(125, 12)
    assert semantic_windows(PRESETS["demo"]) == SemanticWindows(750, 100)
    for seconds in ((10.0, 0.2), (10.0, 5.2), (0.1, None)):
        with pytest.raises(InputError, match="cannot overlap"):
            semantic_windows(released, *seconds)
    with pytest.raises(InputError, match="has windows of its own"):
        semantic_windows(PRESETS["demo"], 10)
    odd = dataclasses.replace(
        PRESETS["demo"], semantic=WhisperConfig(max_frames=1500, overlap_frames=201)
    )
    with pytest.raises(InputError, match="cannot be cut at code frames"):
        semantic_windows(odd)


def test_bad_input(tiny_inference: Inference, speech: np.ndarray) -> None:
    with pytest.raises(InputError, match="too short"):
        list(tiny_inference.encode_stream([speech[:500]], 1))
    with pytest.raises(AudioError, match="NaN"):
        list(tiny_inference.encode_stream([speech[:500], np.full(10, np.nan)], 1))
    with pytest.raises(InputError, match="chunk_frames must be"):
        list(tiny_inference.encode_stream([speech], 1, chunk_frames=0))
