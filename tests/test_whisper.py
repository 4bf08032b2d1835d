"""Whisper's encoder as a semantic model: alone, in batches, in windows, and under the codec."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import micro
import numpy as np
import pytest
from micro import QUICK
from scipy.special import erf

from dualcodec_jax import functional, lengths
from dualcodec_jax import inference as inference_module
from dualcodec_jax.audio.resample import resample
from dualcodec_jax.config import TINY_W2V_BERT, Config, WhisperConfig, semantic_model_of
from dualcodec_jax.convert.files import codec_shapes, semantic_shapes
from dualcodec_jax.errors import ConfigError
from dualcodec_jax.inference import Inference
from dualcodec_jax.model import DualCodecModel
from dualcodec_jax.nn.random import random_params
from dualcodec_jax.nn.whisper import WhisperEncoder
from dualcodec_jax.semantic import W2V_BERT, WHISPER, Hidden, hidden_states, semantic_model

SMALL = WhisperConfig(
    num_mels=20,
    hidden_size=32,
    num_layers=2,
    num_heads=4,
    intermediate_size=64,
    max_frames=40,
    overlap_frames=12,
)
FRAME = 320
"""Samples at 16 kHz of one frame at 50 Hz."""
SPAN, STEP = 40 * FRAME, 28 * FRAME
# Codes at 25 Hz: two frames of the semantic model each.
CODEC = dataclasses.replace(
    micro.CODEC,
    encoder_rates=(24, 40),
    decoder_rates=(40, 24),
    semantic_downsample_factor=2,
    semantic_model="whisper",
)
MODEL = Config(model_id="small", codec=CODEC, semantic=SMALL)
# States leave a layer norm, so that 1 is their deviation; some units in the last place of it.
ROUNDING = 2e-5


@pytest.fixture(scope="module")
def params() -> Any:
    """Away from the initial values: norms scale and shift, biases are not 0."""
    rng = np.random.default_rng(3)
    move = lambda x: x + rng.uniform(-0.2, 0.2, x.shape).astype(np.float32)  # noqa: E731
    return jax.tree.map(move, random_params(semantic_shapes(SMALL), 0))


@pytest.fixture(scope="module")
def speech_16k(speech: np.ndarray) -> np.ndarray:
    """Seven seconds at 16 kHz."""
    return np.asarray(resample(jnp.asarray(speech[None]), 24000, 16000))[0]


# -- the network -----------------------------------------------------------------------------


class Textbook:
    """The encoder in float64 numpy, one item at a time, after ``modeling_whisper.py``."""

    def __init__(self, params: Any) -> None:
        self.params = jax.tree.map(np.float64, params)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Log-mel ``[F, num_mels]`` → states ``[⌈F / 2⌉, hidden]``."""
        x = gelu(self.convolved("conv1", features, 1))
        x = gelu(self.convolved("conv2", x, 2))
        time, channel = np.arange(len(x))[:, None], np.arange(16)
        phases = time / 10000 ** (channel / 15)
        # The checkpoints' own, which were rounded to float16.
        x = x + np.float16(np.concatenate([np.sin(phases), np.cos(phases)], axis=1))
        for index in range(SMALL.num_layers):
            layer = self.params[f"layer_{index}"]
            x = x + attended(layer["self_attn"], normed(layer["self_attn_layer_norm"], x))
            inner = gelu(dense(layer["fc1"], normed(layer["final_layer_norm"], x)))
            x = x + dense(layer["fc2"], inner)
        return normed(self.params["layer_norm"], x)

    def convolved(self, name: str, x: np.ndarray, stride: int) -> np.ndarray:
        kernel, bias = self.params[name]["kernel"], self.params[name]["bias"]
        padded = np.pad(x, ((1, 1), (0, 0)))
        starts = range(0, len(x), stride)
        return np.stack([np.tensordot(padded[t : t + 3], kernel, 2) for t in starts]) + bias


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + erf(x / np.sqrt(2)))


def dense(layer: Any, x: np.ndarray) -> np.ndarray:
    return x @ layer["kernel"] + layer.get("bias", 0)


def normed(layer: Any, x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    return centred / deviation * layer["scale"] + layer["bias"]


def attended(layer: Any, x: np.ndarray) -> np.ndarray:
    query, key, value = (
        dense(layer[name], x).reshape(len(x), 4, 8) for name in ("query", "key", "value")
    )
    heads = []
    for head in range(4):
        scores = query[:, head] @ key[:, head].T / np.sqrt(8)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        heads.append(weights / weights.sum(axis=1, keepdims=True) @ value[:, head])
    return dense(layer["out"], np.concatenate(heads, axis=1))


FEATURES = np.random.default_rng(1).standard_normal((5, 80, 20)).astype(np.float32)
COUNTS = np.array([80, 79, 31, 2, 1])


@pytest.fixture(scope="module")
def encode_features(params: Any) -> Any:
    """The encoder on ``[B, F, 20]`` and counts ``[B]``; zeros past these."""
    apply = jax.jit(WhisperEncoder(SMALL).apply, compiler_options=QUICK)

    def encode(features: np.ndarray, counts: np.ndarray) -> np.ndarray:
        valid = np.arange(features.shape[1])[:, None] < counts[:, None, None]
        return np.asarray(apply({"params": params}, np.where(valid, features, 0), counts))

    return encode


def test_the_encoder_against_its_definition(encode_features: Any, params: Any) -> None:
    """Each item of an unequal batch is what the definition gives for it alone."""
    states = encode_features(FEATURES, COUNTS)
    assert states.shape == (5, 40, 32)
    assert states.dtype == np.float32
    textbook = Textbook(params)
    for item, count in enumerate(COUNTS):
        expected = textbook(FEATURES[item, :count])
        own = states[item, : len(expected)]
        assert len(expected) == -(-count // 2)
        np.testing.assert_allclose(own, expected, rtol=0, atol=ROUNDING)
        # As of any layer norm: not constant, about 1.
        assert 0.5 < expected.std() < 2


def test_a_batch_of_features_is_as_its_items(encode_features: Any) -> None:
    states = encode_features(FEATURES, COUNTS)
    for item in (1, 2):
        count = COUNTS[item]
        alone = encode_features(FEATURES[item : item + 1, :count], np.array([count]))[0]
        np.testing.assert_allclose(states[item, : len(alone)], alone, rtol=0, atol=ROUNDING)


def test_positions_and_masks_matter(encode_features: Any) -> None:
    """The tests above could not fail if they did not."""
    states = encode_features(FEATURES[:1], COUNTS[:1])[0]
    turned = encode_features(FEATURES[:1, ::-1], COUNTS[:1])[0, ::-1]
    assert np.abs(states - turned).max() > 0.1
    fewer = encode_features(FEATURES[:1], np.array([60]))[0]
    assert np.abs(states[:20] - fewer[:20]).max() > 0.01


def test_bfloat16_is_close_and_float32_outside(params: Any, encode_features: Any) -> None:
    network = WhisperEncoder(SMALL, jnp.bfloat16)
    features = np.where(np.arange(80)[:, None] < COUNTS[:, None, None], FEATURES, 0)
    apply = jax.jit(network.apply, compiler_options=QUICK)
    states: Any = apply({"params": params}, features, COUNTS)
    assert states.dtype == jnp.float32
    error = np.abs(states[0] - encode_features(FEATURES, COUNTS)[0])
    # Eight bits of mantissa, in two layers.
    assert 1e-4 < error.max() < 0.1


def test_parameters_are_those_of_the_table() -> None:
    """tiny.en's encoder without its positions: 7 632 384 of 8 208 384 numbers."""
    count = sum(leaf.size for leaf in jax.tree.leaves(semantic_shapes(WhisperConfig())))
    assert count == 8_208_384 - 1500 * 384


# -- which model -----------------------------------------------------------------------------


def test_sizes_choose_the_model() -> None:
    assert semantic_model(SMALL) is WHISPER
    assert semantic_model(TINY_W2V_BERT) is W2V_BERT
    assert semantic_model_of(SMALL) == "whisper"
    assert semantic_model_of(TINY_W2V_BERT) == "w2v_bert"


# -- audio to states -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def states_of(params: Any) -> Any:
    """Audio ``[B, N]`` and lengths ``[B]`` → states and mask, in numpy."""
    run = jax.jit(functools.partial(hidden_states, config=SMALL), compiler_options=QUICK)

    def states(audio: np.ndarray, counts: Any) -> Hidden:
        return jax.tree.map(np.asarray, run(params, audio=audio, lengths=np.asarray(counts)))

    return states


def padded(items: list[np.ndarray], size: int, garbage: float = np.nan) -> np.ndarray:
    batch = np.full((len(items), size), garbage, np.float32)
    for row, item in zip(batch, items, strict=True):
        row[: len(item)] = item
    return batch


def at_16k(num_samples: Any) -> Any:
    """Frames of the semantic model for audio that needs no resampling."""
    return lengths.semantic_frames(num_samples, dataclasses.replace(CODEC, sample_rate=16000))


def test_frames_and_mask_within_a_window(states_of: Any) -> None:
    """Every length from none to three frames and a bit."""
    size = 1100
    counts = np.arange(size + 1)
    audio = np.random.default_rng(0).standard_normal((size + 1, size)).astype(np.float32)
    hidden = states_of(audio, counts)
    assert hidden.states.shape == (size + 1, at_16k(size), 32)
    np.testing.assert_array_equal(hidden.mask.sum(axis=1), at_16k(counts))
    np.testing.assert_array_equal(np.sort(hidden.mask, axis=1)[:, ::-1], hidden.mask)
    assert np.isfinite(hidden.states).all()


# Around every place where a window more is needed.
AROUND = [
    SPAN + windows * STEP + extra
    for windows in range(3)
    for extra in (-FRAME, -160, -1, 0, 1, 159, 160, 161, FRAME)
]


@pytest.mark.parametrize("size", [201, 319, 320, 480, *AROUND])
def test_frames_of_any_size(params: Any, size: int) -> None:
    hidden = jax.eval_shape(
        functools.partial(hidden_states, config=SMALL),
        params,
        audio=jax.ShapeDtypeStruct((2, size), np.float32),
        lengths=jax.ShapeDtypeStruct((2,), np.int32),
    )
    assert hidden.states.shape == (2, at_16k(size), 32)
    assert hidden.states.dtype == np.float32
    assert hidden.mask.shape == (2, at_16k(size))
    assert hidden.mask.dtype == bool


def test_states_are_the_encoders_of_the_spectrogram(
    states_of: Any, params: Any, speech_16k: np.ndarray
) -> None:
    from dualcodec_jax.audio.log_mel import whisper_log_mel

    x = speech_16k[:9000]
    features = np.asarray(whisper_log_mel(x[None], np.array([9000]), 20))[0]
    states = states_of(x[None], [9000]).states[0]
    np.testing.assert_allclose(states, Textbook(params)(features), rtol=0, atol=ROUNDING)


def test_a_padded_batch_within_a_window(states_of: Any, speech_16k: np.ndarray) -> None:
    items = [speech_16k[:9000], speech_16k[20_000:24_803], speech_16k[50_000:50_201]]
    together = states_of(padded(items, 9000), [len(item) for item in items])
    for item, states, mask in zip(items, together.states, together.mask, strict=True):
        alone = states_of(item[None], [len(item)])
        size = at_16k(len(item))
        assert alone.states.shape[1] == mask.sum() == size
        assert alone.mask.all()
        np.testing.assert_allclose(states[:size], alone.states[0], rtol=0, atol=ROUNDING)


# -- windows ---------------------------------------------------------------------------------


def stitched(states_of: Any, x: np.ndarray) -> np.ndarray:
    """Windows cut and encoded one by one; of two that overlap, each to the overlap's middle."""
    half, parts, start = SMALL.overlap_frames // 2, [], 0
    while True:
        part = x[start * FRAME : start * FRAME + SPAN]
        states = states_of(part[None], [len(part)]).states[0]
        last = start * FRAME + SPAN >= len(x)
        first = half if start else 0
        parts.append(states[first:] if last else states[first : STEP // FRAME + half])
        if last:
            return np.concatenate(parts)
        start += STEP // FRAME


LONG = SPAN + 2 * STEP + 1000
"""Samples of four windows, of which the last is hardly longer than the overlap."""


def test_long_input_is_the_windows_stitched_at_the_middles(
    states_of: Any, speech_16k: np.ndarray
) -> None:
    x = speech_16k[:LONG]
    hidden = states_of(x[None], [LONG])
    assert hidden.mask.all()
    expected = stitched(states_of, x)
    assert hidden.states.shape[1:] == expected.shape == (at_16k(LONG), 32)
    np.testing.assert_allclose(hidden.states[0], expected, rtol=0, atol=ROUNDING)
    # The windows differ where they overlap, so it matters whose states are taken.
    first = states_of(x[None, :SPAN], [SPAN]).states[0]
    second = states_of(x[None, STEP : STEP + SPAN], [SPAN]).states[0]
    shared = first[28:] - second[:12]
    assert np.abs(shared).max() > 100 * ROUNDING


def test_what_is_long_does_not_depend_on_the_padding(
    states_of: Any, speech_16k: np.ndarray
) -> None:
    x = speech_16k[:LONG]
    alone = states_of(x[None], [LONG]).states[0]
    for size in (LONG + 160, LONG + 2 * STEP):  # as many windows, and two more
        hidden = states_of(padded([x], size), [LONG])
        assert hidden.mask[0].sum() == len(alone)
        np.testing.assert_allclose(hidden.states[0, : len(alone)], alone, rtol=0, atol=ROUNDING)


def test_long_and_short_items_in_one_batch(states_of: Any, speech_16k: np.ndarray) -> None:
    """Of one window or less beside more, and lengths at which a window more begins."""
    counts = [LONG, SPAN + STEP, SPAN + 1, SPAN, 4803]
    items = [speech_16k[7 * item :][:count] for item, count in enumerate(counts)]
    together = states_of(padded(items, LONG), counts)
    for item, states, mask in zip(items, together.states, together.mask, strict=True):
        expected = stitched(states_of, item)
        assert mask.sum() == len(expected) == at_16k(len(item))
        np.testing.assert_allclose(states[: len(expected)], expected, rtol=0, atol=ROUNDING)
    assert np.isfinite(together.states).all()


@pytest.mark.parametrize("overlap", [0, 13])
def test_other_overlaps(params: Any, states_of: Any, speech_16k: np.ndarray, overlap: int) -> None:
    """None, and an odd number: each frame comes from one window, and none is left out."""
    config = dataclasses.replace(SMALL, overlap_frames=overlap)
    run = jax.jit(functools.partial(hidden_states, config=config), compiler_options=QUICK)
    step = 40 - overlap
    size = SPAN + step * FRAME + 161  # Without overlap, one frame of signal in the last window.
    x = speech_16k[:size]
    states = np.asarray(run(params, audio=x[None], lengths=np.array([size])).states)[0]
    windows = []
    for index in range(3):
        part = x[None, index * step * FRAME :][:, :SPAN]
        # Zeros past its end, as alone: the last window may be too short to be mirrored.
        whole = np.pad(part, ((0, 0), (0, SPAN - part.shape[1])))
        windows.append(states_of(whole, [part.shape[1]]).states[0])
    frames = np.arange(len(states))
    owner = np.clip((frames - overlap // 2) // step, 0, 2)
    expected = np.stack([windows[w][f - w * step] for f, w in zip(frames, owner, strict=True)])
    assert set(owner) == {0, 1, 2}
    np.testing.assert_allclose(states, expected, rtol=0, atol=ROUNDING)


# -- the whole codec -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def codec_params(params: Any, states_of: Any, speech_16k: np.ndarray) -> functional.Params:
    """Of everything, moved so that the codes depend on all of it.

    As initialised, the waveform's latent is a thousandth of the semantic one, and the biases in
    front of the codebooks outweigh the rest.
    """
    states = states_of(speech_16k[None, :LONG], [LONG]).states[0]
    codec = random_params(codec_shapes(CODEC), 0)
    codec["dac"]["encoder"]["conv_out"]["weight_g"] *= 300
    for quantizer in (*codec["dac"]["quantizer"].values(), *codec["semantic_vq"].values()):
        quantizer["in_proj"]["bias"] *= 0
    statistics = {"mean": states.mean(axis=0), "var": states.var(axis=0)}
    return {"codec": codec, "semantic": params, "statistics": statistics}


@pytest.fixture(scope="module")
def encode() -> Any:
    names = ("config", "n_quantizers")
    return jax.jit(functional.encode, static_argnames=names, compiler_options=QUICK)


# One longer than a window of 0.8 s, one shorter, and the shortest that there is.
COUNTS_24K = np.array([26_000, 13_001, lengths.min_samples(CODEC)])


@pytest.fixture(scope="module")
def together(
    codec_params: Any, encode: Any, speech: np.ndarray
) -> tuple[list[np.ndarray], functional.Encoded]:
    items = [speech[5000 * item :][:count] for item, count in enumerate(COUNTS_24K)]
    batch = padded(items, COUNTS_24K[0])[:, None]
    return items, encode(codec_params, MODEL, batch, COUNTS_24K, n_quantizers=4)


def test_each_item_of_a_batch_has_the_codes_that_it_has_alone(
    codec_params: Any, encode: Any, together: Any
) -> None:
    """But for the longest, which ``Inference`` encodes alone below."""
    items, encoded = together
    assert encoded.lengths.tolist() == [27, 13, 1]
    assert encoded.lengths.tolist() == [lengths.code_length(n, CODEC) for n in COUNTS_24K]
    for item in (1, 2):
        count = encoded.lengths[item]
        alone = encode(codec_params, MODEL, items[item][None, None], n_quantizers=4)
        assert alone.codes.shape == (1, 4, count)
        np.testing.assert_array_equal(encoded.codes[item, :, :count], alone.codes[0])
        assert (encoded.codes[item, :, count:] == 0).all()
    # Codes are diverse, or equality would say little.
    assert all(len(np.unique(row)) > 8 for row in np.asarray(encoded.codes[0]))


def test_semantic_codes_depend_on_the_semantic_model(
    codec_params: Any, encode: Any, together: Any
) -> None:
    items, encoded = together
    other = codec_params | {"semantic": random_params(semantic_shapes(SMALL), 8)}
    batch = padded(items, COUNTS_24K[0])[:, None]
    changed = encode(other, MODEL, batch, COUNTS_24K, n_quantizers=4).codes[0, 0]
    assert (changed != encoded.codes[0, 0]).mean() > 0.5


def test_decoding_of_unequal_items(codec_params: Any, together: Any) -> None:
    _, encoded = together
    decode = jax.jit(functional.decode, static_argnames="config", compiler_options=QUICK)
    decoded = decode(codec_params, MODEL, encoded.codes, encoded.lengths)
    expected = [lengths.decoded_samples(int(n), CODEC) for n in encoded.lengths]
    assert decoded.lengths.tolist() == expected
    for item, count in enumerate(expected):
        assert np.abs(decoded.audio[item, 0, :count]).max() > 0
        assert (decoded.audio[item, 0, count:] == 0).all()
    frames = int(encoded.lengths[1])
    alone = decode(codec_params, MODEL, encoded.codes[1:2, :, :frames]).audio[0, 0]
    np.testing.assert_allclose(decoded.audio[1, 0, : len(alone)], alone, rtol=0, atol=1e-5)


def test_inference_of_such_a_model(
    codec_params: Any,
    encode: Any,
    together: Any,
    speech: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The public class pads to buckets, and still gives the same codes; whole hops lose nothing."""
    monkeypatch.setattr(inference_module, "_encode", encode)  # the same, compiled in less time
    items, encoded = together
    model = DualCodecModel("small", CODEC, codec_params["codec"])
    semantic = (SMALL, codec_params["semantic"], codec_params["statistics"])
    inference = Inference(model, semantic=semantic)
    assert inference.config == MODEL
    codes = inference.encode(items[0][None, None], None)
    joined = np.concatenate([codes[0], codes[1]], axis=1)
    np.testing.assert_array_equal(joined[0], encoded.codes[0])
    whole = speech[None, None, : 28 * CODEC.hop_length]  # of the same bucket
    assert inference.encode(whole, None)[0].shape == (1, 1, 28)


def test_the_semantic_model_has_to_be_the_codecs(codec_params: Any) -> None:
    model = DualCodecModel("small", CODEC, codec_params["codec"])
    with pytest.raises(ConfigError, match="small reads features of whisper, not of w2v_bert"):
        Inference(model, semantic=(TINY_W2V_BERT, {}, {}))
