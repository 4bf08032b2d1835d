"""Resampler, filterbank and w2v-BERT against torchaudio and transformers."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import torch
import upstream
from transformers.models.wav2vec2_bert import modeling_wav2vec2_bert as modeling
from upstream import SAMPLE_RATE

from dualcodec_jax.audio import fbank
from dualcodec_jax.audio.resample import resample
from dualcodec_jax.config import W2vBertConfig
from dualcodec_jax.convert import engine
from dualcodec_jax.convert.w2v_bert import used_keys, w2v_bert_rules
from dualcodec_jax.lengths import FBANK_HOP, FBANK_LENGTH, SEMANTIC_SAMPLE_RATE
from dualcodec_jax.nn import w2v_bert
from dualcodec_jax.nn.w2v_bert import W2vBert

RESAMPLER = 1e-6
FEATURES = 2e-5  # Absolute; the features have unit variance.
LOG_MEL = 5e-6  # Absolute; two units in the last place of values around 20.
BLOCKS = 1e-5
STACK = 1e-5
RATES = [
    (24000, 16000),
    (16000, 24000),
    (44100, 24000),
    (48000, 24000),
    (8000, 24000),
    (22050, 24000),
    (11025, 24000),
    (192000, 24000),
]


@pytest.mark.parametrize(("orig_rate", "new_rate"), RATES)
def test_resample(report: Any, orig_rate: int, new_rate: int) -> None:
    speech = upstream.speech()["librivox"]
    noise = 0.1 * np.random.default_rng(0).standard_normal(20011, np.float32)
    for audio in (speech[: 3 * orig_rate // 4 + 1], noise, noise[:1], speech[5000:5500]):
        batch = np.stack([audio, audio[::-1]])
        expected = oracle.resample(torch.from_numpy(batch), orig_rate, new_rate).numpy()
        report.error(
            "resample", resample(jnp.asarray(batch), orig_rate, new_rate), expected, RESAMPLER
        )


def at_16k(name: str, num_samples: int | None = None) -> np.ndarray:
    """Speech at 16 kHz, ``[N]``."""
    samples = torch.from_numpy(upstream.speech()[name])
    return oracle.resample(samples, SAMPLE_RATE, SEMANTIC_SAMPLE_RATE).numpy()[:num_samples]


def frames(count: int, extra: int = 0) -> int:
    """Samples at 16 kHz that give ``count`` filterbank frames."""
    return FBANK_LENGTH + FBANK_HOP * (count - 1) + extra


@pytest.mark.parametrize("name", list(upstream.speech()))
def test_filterbank_of_whole_clips(report: Any, name: str) -> None:
    check_filterbank(report, at_16k(name))


# Odd and even counts, at both ends of the range of samples that gives each.
@pytest.mark.parametrize("count", [2, 3, 7, 20, 101, 158])
@pytest.mark.parametrize("extra", [0, FBANK_HOP - 1])
def test_filterbank_frame_counts(report: Any, count: int, extra: int) -> None:
    audio = at_16k("librivox_0920")[4000:]
    check_filterbank(report, audio[: frames(count, extra)], count)


def test_filterbank_of_speech_with_digital_silence(report: Any) -> None:
    audio = at_16k("librivox_0890", 40000).copy()
    audio[9000:21000] = 0
    check_filterbank(report, audio)


@pytest.mark.parametrize("noise_level", [1e-2, 1e-4])
def test_log_mel_of_a_loud_tone_over_quiet_noise(report: Any, noise_level: float) -> None:
    """Most bins lie far below the loudest one, and yet keep float32 accuracy.

    Compared before normalisation: the level of a steady tone hardly varies, and division by its
    deviation would magnify the last bit of upstream's features (and of ours) by a thousand.
    """
    time = np.arange(30000) / SEMANTIC_SAMPLE_RATE
    quiet = noise_level * np.random.default_rng(0).standard_normal(time.size)
    audio = np.float32(0.9 * np.sin(2 * np.pi * 440 * time) + quiet)[None]
    expected = upstream.feature_extractor()._extract_fbank_features(audio)
    difference = np.abs(jax.jit(fbank.log_mel)(audio)[0] - expected)
    report.value("log mel (absolute)", float(difference.max()), LOG_MEL)


def check_filterbank(report: Any, audio: np.ndarray, count: int | None = None) -> None:
    expected = upstream.feature_extractor()(
        torch.from_numpy(audio)[None], sampling_rate=SEMANTIC_SAMPLE_RATE, return_tensors="np"
    )
    actual = jax.jit(fbank.semantic_input)(audio[None])
    assert actual.features.shape == expected["input_features"].shape
    assert np.array_equal(actual.mask, expected["attention_mask"].astype(bool))
    if count is not None:
        assert actual.features.shape[1] == -(-count // 2)
        assert bool(actual.mask[0, -1]) == (count % 2 == 0)
        if count % 2:
            assert np.all(expected["input_features"][0, -1, 80:] == fbank.PADDING_VALUE)
    difference = np.abs(np.asarray(actual.features) - expected["input_features"])
    report.value("filterbank (absolute)", float(difference.max()), FEATURES)


def test_filterbank_of_a_padded_batch(report: Any) -> None:
    """Garbage past the true lengths changes nothing."""
    lengths = [frames(101, 5), frames(158), frames(60, 100)]
    batch = np.random.default_rng(0).standard_normal((3, frames(158, 70)), np.float32)
    clips = [at_16k("librivox_0920", n) for n in lengths]
    for row, audio in zip(batch, clips, strict=True):
        row[: len(audio)] = audio
    actual = jax.jit(fbank.semantic_input)(batch, np.array(lengths))
    for item, audio in enumerate(clips):
        expected = upstream.feature_extractor()(
            torch.from_numpy(audio)[None], sampling_rate=SEMANTIC_SAMPLE_RATE, return_tensors="np"
        )
        size = expected["input_features"].shape[1]
        difference = np.abs(actual.features[item, :size] - expected["input_features"][0])
        report.value("filterbank, padded batch (absolute)", float(difference.max()), FEATURES)
        assert np.array_equal(actual.mask[item, :size], expected["attention_mask"][0] == 1)
        assert not actual.mask[item, size:].any()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).standard_normal(shape, np.float32)


@pytest.fixture(scope="module")
def one_layer() -> tuple[Any, Any, W2vBertConfig]:
    """A w2v-BERT of one layer at the released width: upstream's, and our parameters."""
    model = upstream.bare_w2v_bert(num_layers=1, intermediate_size=4096)
    upstream.randomize_w2v_bert(model, seed=3)
    config = W2vBertConfig(num_layers=1)
    return model, converted(model, config), config


def converted(model: Any, config: W2vBertConfig) -> Any:
    state = model.state_dict()
    tensors = {key: state[key].numpy() for key in used_keys(state, config)}
    shapes = jax.eval_shape(
        lambda: W2vBert(config).init(
            jax.random.key(0), jnp.zeros((1, 2, config.input_dim)), jnp.ones((1, 2), bool)
        )
    )["params"]
    return engine.to_jax(tensors, w2v_bert_rules(config), shapes, what="w2v-BERT")


MASK = np.arange(90)[None] < np.array([[90], [89], [40]])
"""Nothing masked; the last frame, as for an odd number of filterbank frames; padding."""


def additive(mask: np.ndarray) -> Any:
    """The mask as transformers passes it to its attention."""
    allowed = torch.from_numpy(mask)[:, None, None, :].expand(-1, 1, mask.shape[1], -1)
    return torch.where(allowed, 0.0, torch.finfo(torch.float32).min)


def test_feature_projection(report: Any, one_layer: Any) -> None:
    model, params, config = one_layer
    x = noise(3, 90, 160)
    with torch.no_grad():
        expected = model.feature_projection(torch.from_numpy(x))[0].numpy()
    block = w2v_bert.FeatureProjection(config)
    actual = jax.jit(block.apply)({"params": params["feature_projection"]}, x)
    report.error("w2v-BERT feature projection", actual, expected, BLOCKS)


@pytest.mark.parametrize("name", ["ffn1", "ffn2"])
def test_feed_forward(report: Any, one_layer: Any, name: str) -> None:
    model, params, config = one_layer
    x = noise(3, 90, 1024)
    with torch.no_grad():
        expected = getattr(model.encoder.layers[0], name)(torch.from_numpy(x)).numpy()
    actual = jax.jit(w2v_bert.FeedForward(config).apply)({"params": params["layer_0"][name]}, x)
    report.error("w2v-BERT feed-forward", actual, expected, BLOCKS)


def test_attention(report: Any, one_layer: Any) -> None:
    """All rows are compared: masked queries are computed like the others."""
    model, params, config = one_layer
    x = noise(3, 90, 1024)
    with torch.no_grad():
        expected = model.encoder.layers[0].self_attn(
            torch.from_numpy(x), attention_mask=additive(MASK)
        )[0]
    block = w2v_bert.SelfAttention(config)
    actual = jax.jit(block.apply)({"params": params["layer_0"]["self_attn"]}, x, MASK)
    report.error("w2v-BERT attention", actual, expected, BLOCKS)


def test_attention_in_blocks_of_queries(report: Any) -> None:
    """Longer than one block of queries: 2 × 1024 + 7 frames, 41 s."""
    length = 2 * w2v_bert.QUERY_BLOCK + 7
    ours = W2vBertConfig(num_layers=1, hidden_size=128, num_heads=2, intermediate_size=128)
    theirs = modeling.Wav2Vec2BertConfig(
        num_hidden_layers=1, hidden_size=128, num_attention_heads=2, intermediate_size=128
    )
    model = modeling.Wav2Vec2BertModel(theirs).eval()
    upstream.randomize_w2v_bert(model, seed=4)
    params = converted(model, ours)["layer_0"]["self_attn"]
    x, mask = noise(1, length, 128), np.arange(length)[None] < length - 1
    with torch.no_grad():
        attention = model.encoder.layers[0].self_attn
        expected = attention(torch.from_numpy(x), attention_mask=additive(mask))[0].numpy()
    actual = jax.jit(w2v_bert.SelfAttention(ours).apply)({"params": params}, x, mask)
    report.error("w2v-BERT attention, 2055 frames", actual, expected, BLOCKS)


def test_convolution_module(report: Any, one_layer: Any) -> None:
    model, params, config = one_layer
    x = noise(3, 90, 1024)
    with torch.no_grad():
        expected = model.encoder.layers[0].conv_module(
            torch.from_numpy(x), attention_mask=torch.from_numpy(MASK)
        )
    block = w2v_bert.ConvModule(config)
    actual = jax.jit(block.apply)({"params": params["layer_0"]["conv_module"]}, x, MASK)
    report.error("w2v-BERT convolution module", actual, expected, BLOCKS)


def test_conformer_layer(report: Any, one_layer: Any) -> None:
    model, params, config = one_layer
    x = noise(3, 90, 1024)
    with torch.no_grad():
        expected = model.encoder.layers[0](
            torch.from_numpy(x),
            attention_mask=additive(MASK),
            conv_attention_mask=torch.from_numpy(MASK),
        )
    block = w2v_bert.ConformerLayer(config)
    actual = jax.jit(block.apply)({"params": params["layer_0"]}, x, MASK)
    report.error("w2v-BERT conformer layer", actual, expected, BLOCKS)


def test_stack_of_17_layers_with_masks(report: Any) -> None:
    """Full width, narrow feed-forward; 18 layers upstream, of which the last is not read."""
    model = upstream.bare_w2v_bert(num_layers=18, intermediate_size=256)
    upstream.randomize_w2v_bert(model, seed=5)
    config = dataclasses.replace(W2vBertConfig(), intermediate_size=256)
    params = converted(model, config)
    x = noise(3, 90, 160)
    with torch.no_grad():
        states = model(
            input_features=torch.from_numpy(x),
            attention_mask=torch.from_numpy(MASK).long(),
            output_hidden_states=True,
        ).hidden_states
    assert len(states) == 19
    actual = np.asarray(jax.jit(W2vBert(config).apply)({"params": params}, x, MASK))
    for item, length in enumerate(MASK.sum(axis=1)):
        # Rows of masked frames in the middle of padding are nobody's; the first one is read.
        size = min(length + 1, MASK.shape[1])
        what = "w2v-BERT, 17 layers"
        report.error(what, actual[item, :size], states[17][item, :size].numpy(), STACK)
