"""Decoding in windows beside decoding the whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import pytest

from dualcodec_jax import functional, inference
from dualcodec_jax.config import PRESETS, Config
from dualcodec_jax.convert.files import codec_shapes
from dualcodec_jax.errors import InputError
from dualcodec_jax.inference import Inference
from dualcodec_jax.nn.random import random_params
from dualcodec_jax.stream_decode import StreamDecoder, decode_stream, decode_window

TINY = PRESETS["tiny"]
HOP = TINY.codec.hop_length
FRAMES, CHUNK = 130, 20
LOOKAHEAD = 27

decode = jax.jit(functional.decode, static_argnames="config")


def random_codes(frames: int, config: Config = TINY, batch: int = 2) -> np.ndarray:
    rng = np.random.default_rng(frames)
    sizes = config.codec.codebook_sizes
    return np.stack([rng.integers(0, size, (batch, frames)) for size in sizes], axis=1)


@pytest.fixture(scope="module")
def params(tiny_inference: Inference) -> Any:
    return tiny_inference.params


@pytest.fixture(scope="module")
def codes() -> np.ndarray:
    return random_codes(FRAMES)


@pytest.fixture(scope="module")
def whole(params: Any, codes: np.ndarray) -> np.ndarray:
    return np.asarray(decode(params, TINY, codes).audio)


def split(codes: np.ndarray, sizes: Sequence[int]) -> list[np.ndarray]:
    return np.split(codes, np.cumsum(sizes)[:-1], axis=2)


def assert_close(actual: np.ndarray, expected: np.ndarray, limit: float = 2e-6) -> None:
    assert actual.shape == expected.shape
    assert actual.dtype == np.float32
    assert np.max(np.abs(actual - expected)) <= limit * np.max(np.abs(expected))


@pytest.mark.parametrize("pieces", [[130], [1] * 130, [70, 1, 0, 59], [19, 21, 90]])
def test_pieces_do_not_matter(
    params: Any, codes: np.ndarray, whole: np.ndarray, pieces: list[int]
) -> None:
    parts = list(decode_stream(params, TINY, split(codes, pieces), chunk_frames=CHUNK))
    assert [part.shape[2] for part in parts[:-1]] == [CHUNK * HOP] * (FRAMES // CHUNK)
    assert_close(np.concatenate(parts, axis=2), whole)


@pytest.mark.parametrize("chunk", [1, 64, 129, 200])
def test_chunks_do_not_matter(
    params: Any, codes: np.ndarray, whole: np.ndarray, chunk: int
) -> None:
    part = codes[:, :, :60] if chunk == 1 else codes
    expected = np.asarray(decode(params, TINY, part).audio)
    audio = np.concatenate(list(decode_stream(params, TINY, [part], chunk_frames=chunk)), axis=2)
    assert_close(audio, expected)


def test_audio_comes_as_soon_as_it_is_certain(params: Any, codes: np.ndarray) -> None:
    decoder = StreamDecoder(params, TINY, chunk_frames=CHUNK)
    assert decoder.lookahead == LOOKAHEAD
    assert decoder.latency == pytest.approx((CHUNK + LOOKAHEAD) / 12.5)
    first = CHUNK + LOOKAHEAD
    assert not list(decoder.push(codes[:, :, : first - 1]))
    assert len(list(decoder.push(codes[:, :, first - 1 : first]))) == 1
    assert not list(decoder.push(codes[:, :, first : first + CHUNK - 1]))
    assert len(list(decoder.push(codes[:, :, first + CHUNK - 1 : first + CHUNK]))) == 1
    assert len(list(decoder.finish())) == 2


def test_unequal_lengths(params: Any, codes: np.ndarray) -> None:
    lengths = np.array([FRAMES, 47], np.int32)
    expected = np.asarray(decode(params, TINY, codes, lengths).audio)
    decoder = StreamDecoder(params, TINY, chunk_frames=CHUNK)
    assert_close(np.concatenate(list(decoder.whole(codes, lengths)), axis=2), expected)


@pytest.mark.slow
def test_float64() -> None:
    """Windows change nothing but rounding, with ConvNeXt blocks that see both sides too."""
    for is_causal in (True, False):
        codec = dataclasses.replace(TINY.codec, is_causal=is_causal)
        config = dataclasses.replace(TINY, codec=codec)
        codes = random_codes(100, batch=1)
        with jax.enable_x64(True):
            tree = random_params(codec_shapes(codec), seed=1)
            params = {"codec": jax.tree.map(lambda x: np.asarray(x, np.float64), tree)}
            expected = np.asarray(decode(params, config, codes).audio)
            parts = list(decode_stream(params, config, [codes], chunk_frames=30))
        audio = np.concatenate(parts, axis=2)
        assert audio.dtype == np.float64
        assert np.max(np.abs(audio - expected)) < 1e-12 * np.max(np.abs(expected))


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["dac", "dac_distilled"])
def test_codecs_without_a_semantic_stream(encoding: Any) -> None:
    codec = dataclasses.replace(TINY.codec, encoding=encoding)
    config = dataclasses.replace(TINY, codec=codec)
    params = {"codec": random_params(codec_shapes(codec), seed=1)}
    codes = random_codes(90, config)
    audio = np.concatenate(list(decode_stream(params, config, [codes], chunk_frames=25)), axis=2)
    assert_close(audio, np.asarray(decode(params, config, codes).audio))


def test_semantic_codes_alone(params: Any, codes: np.ndarray) -> None:
    expected = np.asarray(decode(params, TINY, codes[:, :1]).audio)
    parts = list(decode_stream(params, TINY, [codes[:, :1]], chunk_frames=CHUNK))
    assert_close(np.concatenate(parts, axis=2), expected)


def test_less_lookahead_is_earlier_and_less_exact(
    params: Any, codes: np.ndarray, whole: np.ndarray
) -> None:
    errors = []
    for lookahead in (1, 8, 20, LOOKAHEAD):
        decoder = StreamDecoder(params, TINY, chunk_frames=CHUNK, lookahead=lookahead)
        parts = [audio for part in split(codes, [1] * FRAMES) for audio in decoder.push(part)]
        assert sum(part.shape[2] for part in parts) // HOP >= FRAMES - CHUNK - lookahead
        parts += decoder.finish()
        audio = np.concatenate(parts, axis=2)
        assert audio.shape == whole.shape
        errors.append(np.sqrt(np.mean((audio - whole) ** 2) / np.mean(whole**2)))
    assert errors[0] > errors[1] > errors[2] > 1e-5 > errors[3]
    assert errors[0] < 1


def test_one_compilation_for_every_length(params: Any) -> None:
    programs = jax.jit(decode_window, static_argnames="config")
    sizes = []
    for frames in (1, 25, 90):
        before = programs._cache_size()
        for _ in decode_stream(params, TINY, [random_codes(frames, batch=1)], chunk_frames=CHUNK):
            pass
        sizes.append(programs._cache_size() - before)
    assert sizes[0] <= 1
    assert sizes[1:] == [0, 0]


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.zeros((1, 4), int), "must be integers"),
        (np.zeros((1, 4, 2)), "must be integers"),
        (np.zeros((1, 5, 2), int), "1…4, frames"),
        (np.full((1, 2, 2), 256), "outside 0…255"),
        (np.full((1, 2, 2), -1), "outside 0…255"),
    ],
)
def test_bad_codes(params: Any, codes: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(StreamDecoder(params, TINY).push(codes))


def test_bad_use(params: Any, codes: np.ndarray) -> None:
    decoder = StreamDecoder(params, TINY)
    list(decoder.push(codes[:, :2, :3]))
    with pytest.raises(InputError, match=r"began as \[2, 2\]"):
        list(decoder.push(codes[:1, :2, :3]))
    list(decoder.finish())
    with pytest.raises(InputError, match="have ended"):
        list(decoder.push(codes))
    for options in ({"chunk_frames": 0}, {"lookahead": 0}, {"lookahead": LOOKAHEAD + 1}):
        with pytest.raises(InputError, match="chunk_frames must be"):
            StreamDecoder(params, TINY, **options)
    assert not list(decode_stream(params, TINY, []))


def test_inference_decodes_long_codes_in_windows(
    tiny_inference: Inference, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = random_codes(70)
    arguments = codes[:, :1], codes[:, 1:]
    expected = np.asarray(tiny_inference.decode(*arguments))
    lengths = np.array([70, 41])
    expected_batch, expected_lengths = tiny_inference.decode(*arguments, code_lengths=lengths)
    monkeypatch.setattr(inference, "WHOLE_FRAMES", 64)
    monkeypatch.setattr(inference, "LONG_CHUNK_FRAMES", 30)
    assert_close(np.asarray(tiny_inference.decode(*arguments)), expected)
    audio, found = tiny_inference.decode(*arguments, code_lengths=lengths)
    assert found.tolist() == expected_lengths.tolist()
    assert_close(np.asarray(audio), np.asarray(expected_batch))
    stream = tiny_inference.decode_stream(split(codes, [10] * 7))
    assert_close(np.concatenate(list(stream), axis=2), expected)
