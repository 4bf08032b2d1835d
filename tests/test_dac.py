"""The DAC baselines: no semantic stream, one residual stack."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from dualcodec_jax import DualCodecModel, Inference, get_config
from dualcodec_jax.config import TINY, TINY_W2V_BERT, DualCodecConfig
from dualcodec_jax.convert.codec import codec_rules
from dualcodec_jax.convert.files import codec_shapes
from dualcodec_jax.errors import ConfigError, InputError
from dualcodec_jax.lengths import (
    acoustic_frames,
    code_length,
    decoded_samples,
    min_samples,
    samples_for_codes,
)
from dualcodec_jax.nn.random import random_params
from dualcodec_jax.weights import Weights, load_weights, save_weights

ENCODINGS = ("dac", "dac_distilled")


def config(encoding: str) -> DualCodecConfig:
    return dataclasses.replace(TINY, encoding=encoding)


@pytest.fixture(scope="module", params=ENCODINGS)
def codec(request: pytest.FixtureRequest) -> Inference:
    """Without a semantic model, which nothing here would read."""
    sizes = config(request.param)
    params = random_params(codec_shapes(sizes), 0)
    model = DualCodecModel("baseline", sizes, params)
    return Inference(model, semantic=(TINY_W2V_BERT, {}, {}))


def test_no_semantic_model_is_loaded() -> None:
    sizes = config("dac")
    model = DualCodecModel("baseline", sizes, random_params(codec_shapes(sizes), 0))
    loaded = Inference(model, dualcodec_path="nowhere", w2v_path="nowhere")
    assert set(loaded.params) == {"codec"}


def test_encode_and_decode(codec: Inference, speech: np.ndarray) -> None:
    sizes = codec.config.codec
    audio = speech[None, None, 30_000 : 30_000 + 10 * sizes.hop_length + 7]
    first, others = codec.encode(audio, None)
    frames = acoustic_frames(audio.shape[2], sizes)
    assert first.shape == (1, 1, frames)
    assert others.shape == (1, sizes.n_codebooks, frames)
    assert 0 <= int(first.min()) <= int(first.max()) < sizes.semantic_codebook_size
    assert codec.decode(first, others).shape == (1, 1, decoded_samples(frames, sizes))
    assert codec.decode(first).shape == (1, 1, decoded_samples(frames, sizes))


def test_fewer_codes_are_a_prefix(codec: Inference, speech: np.ndarray) -> None:
    audio = speech[None, None, 30_000:50_000]
    first, others = codec.encode(audio, None)
    alone, none = codec.encode(audio, 1)
    np.testing.assert_array_equal(alone, first)
    assert none is None
    np.testing.assert_array_equal(codec.encode(audio, 3)[1], others[:, :2])


@pytest.mark.slow
def test_a_batch_of_unequal_lengths(codec: Inference, speech: np.ndarray) -> None:
    """Each item gets the codes that it gets alone."""
    lengths = np.array([20_000, 9_000, 1])
    batch = np.stack([speech[30_000:50_000]] * 3)[:, None]
    first, others, frames = codec.encode(batch, None, lengths=lengths)
    for item, length in enumerate(lengths):
        alone = codec.encode(batch[item : item + 1, :, :length], None)
        count = int(frames[item])
        assert count == code_length(length, codec.config.codec)
        np.testing.assert_array_equal(first[item, :, :count], alone[0][0])
        np.testing.assert_array_equal(others[item, :, :count], alone[1][0])


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_frame_is_dropped(encoding: str) -> None:
    sizes = config(encoding)
    assert min_samples(sizes) == 1
    for frames in (1, 2, 50):
        shortest = samples_for_codes(frames, sizes)
        assert code_length(shortest, sizes) == frames
        assert code_length(shortest - 1, sizes) == frames - 1


def test_empty_audio_is_refused(codec: Inference) -> None:
    with pytest.raises(InputError, match="too short: 0 samples"):
        codec.encode(np.zeros((1, 1, 0), np.float32), None)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_sizes_and_names(encoding: str) -> None:
    """One stack of all codebooks; tensors are named as in upstream's ``DAC``."""
    sizes = config(encoding)
    shapes = codec_shapes(sizes)
    books = [shapes["dac"]["quantizer"][f"quantizer_{i}"]["codebook"].shape[0] for i in range(4)]
    assert books == [256, 64, 64, 64] == list(sizes.codebook_sizes)
    assert ("convnext_decoder" in shapes) == (encoding == "dac_distilled")
    assert "convnext_encoder" not in shapes
    names = {rule.torch_key for rule in codec_rules(sizes)}
    assert len(names) == len(jax.tree.leaves(shapes))
    assert {"encoder.block.0.bias", "quantizer.quantizers.3.codebook.weight"} <= names
    assert ("distill_projection.bias" in names) == (encoding == "dac_distilled")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_save_and_load(tmp_path: Path, encoding: str) -> None:
    sizes = config(encoding)
    params = random_params(codec_shapes(sizes), 0)
    save_weights(Weights("codec", "baseline", sizes, params), tmp_path / "weights")
    loaded = load_weights(tmp_path / "weights", "codec")
    assert loaded.config == sizes
    jax.tree.map(np.testing.assert_array_equal, loaded.params, params)


def test_an_unknown_encoding_is_refused() -> None:
    with pytest.raises(ConfigError, match="encoding must be one of dual, dac, dac_distilled"):
        dataclasses.replace(get_config("12hz_v1").codec, encoding="dacc")
