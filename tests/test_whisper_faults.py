"""Whisper weights and settings that are damaged or cannot be, and the shortest audio."""

from __future__ import annotations

import dataclasses
import json
import struct
import tracemalloc

import jax
import jax.numpy as jnp
import micro
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_ctranslate2 import CONFIG, encoder_variables, serialized, text, variable, write
from test_mel import FLAT, alone, textbook, white

from dualcodec_jax import functional, lengths
from dualcodec_jax.config import Config, WhisperConfig
from dualcodec_jax.convert.ctranslate2 import read_whisper_encoder
from dualcodec_jax.convert.engine import to_torch
from dualcodec_jax.convert.files import codec_shapes, export_torch, read_file, semantic_shapes
from dualcodec_jax.convert.whisper import whisper_rules
from dualcodec_jax.errors import ConfigError, WeightsError
from dualcodec_jax.loading import load
from dualcodec_jax.model import random_semantic
from dualcodec_jax.nn.random import random_params
from dualcodec_jax.quantization import dequantize, quantize
from dualcodec_jax.weights import Weights, load_weights, read_tensors, save_weights, write_tensors

# Files of CTranslate2 ---------------------------------------------------------------------------


def content_of_a_file() -> bytes:
    params = random_params(semantic_shapes(CONFIG), 0)
    tensors = to_torch(params, whisper_rules(CONFIG), what="the encoder")
    return serialized(encoder_variables(tensors))


CONTENT = content_of_a_file()
# Where the numbers and names are; the rest are values, any of which will do.
HEADERS = [
    at
    for start in (
        0,
        *(
            CONTENT.index(text(name)) - 2
            for name in encoder_variables(
                to_torch(random_params(semantic_shapes(CONFIG), 0), whisper_rules(CONFIG), what="")
            )
        ),
    )
    for at in range(start, start + 75)
    if at < len(CONTENT)
]
quiet = settings(
    deadline=None,
    max_examples=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def survives(path, read) -> None:
    """Either it is read or refused, in little memory."""
    tracemalloc.start()
    try:
        try:
            read(path)
        except WeightsError as error:
            assert type(error) is WeightsError
            assert str(path) in str(error) or "do not fit the encoder of Whisper" in str(error)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


@quiet
@given(size=st.integers(0, len(CONTENT)))
def test_any_truncation_is_refused_or_harmless(tmp_path, size):
    survives(write(tmp_path, CONTENT[:size]), read_whisper_encoder)


positions = st.one_of(st.sampled_from(HEADERS), st.integers(0, len(CONTENT) - 1))


@quiet
@given(changes=st.lists(st.tuples(positions, st.integers(0, 255)), min_size=1, max_size=4))
def test_any_changed_bytes_are_refused_or_harmless(tmp_path, changes):
    damaged = bytearray(CONTENT)
    for at, value in changes:
        damaged[at] = value
    survives(write(tmp_path, bytes(damaged)), read_whisper_encoder)


@settings(quiet, max_examples=100)
@given(changes=st.lists(st.tuples(positions, st.integers(0, 255)), min_size=1, max_size=4))
def test_conversion_of_any_changed_bytes(tmp_path, changes):
    damaged = bytearray(CONTENT)
    for at, value in changes:
        damaged[at] = value
    path = write(tmp_path, bytes(damaged))
    try:
        read_file(path)
    except WeightsError as error:
        assert type(error) is WeightsError


names = st.sampled_from(
    [
        "encoder/num_heads",
        "encoder/conv1/weight",
        "encoder/conv1/colour",
        "encoder/conv1",
        "encoder/",
        "encoder/layer_0",
        "encoder/layer_0/self_attention/linear_0/weight",
        "encoder/layer_0/self_attention/linear_0/bias",
        "encoder/layer_0/ffn/linear_7/bias",
        "encoder/layer_x/ffn/linear_0/bias",
    ]
)
axes = st.sampled_from([0, 1, 2, 3, 36, 2**16, 2**31, 2**32 - 1])


@quiet
@given(
    entries=st.lists(
        st.tuples(names, st.lists(axes, max_size=70), st.integers(0, 5), st.integers(0, 200)),
        min_size=1,
        max_size=4,
    )
)
def test_any_headers(tmp_path, entries):
    """Also products of axes that overflow, too many axes, and odd types."""
    content = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, len(entries))
    for name, shape, kind, size in entries:
        content += text(name) + struct.pack(f"<B{len(shape)}IBI", len(shape), *shape, kind, size)
        content += bytes(size)
    survives(write(tmp_path, content), read_whisper_encoder)


@pytest.mark.parametrize(
    "name", ["encoder/conv1/colour", "encoder/layer_0/ffn/linear_7/bias", "encoder/layer_0/bias"]
)
def test_unknown_variables_of_the_encoder_are_named(tmp_path, name):
    content = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, 1)
    path = write(tmp_path, content + variable(name, np.float32([1, 2])))
    with pytest.raises(WeightsError, match=f"{name} is no part of a Whisper encoder"):
        read_whisper_encoder(path)


@pytest.mark.parametrize("heads", [np.int16(-1), np.int16(-3), np.int8([3]), np.float16(3)])
def test_heads_that_are_no_number_of_heads(tmp_path, heads):
    params = random_params(semantic_shapes(CONFIG), 0)
    tensors = to_torch(params, whisper_rules(CONFIG), what="the encoder")
    path = write(tmp_path, serialized(encoder_variables(tensors) | {"encoder/num_heads": heads}))
    with pytest.raises(WeightsError):
        read_file(path)


def test_a_missing_bias_of_the_feed_forward_is_named(tmp_path):
    """The width is taken from it."""
    params = random_params(semantic_shapes(CONFIG), 0)
    variables = encoder_variables(to_torch(params, whisper_rules(CONFIG), what="the encoder"))
    del variables["encoder/layer_0/ffn/linear_0/bias"]
    with pytest.raises(WeightsError, match=r"missing tensor encoder\.layers\.0\.fc1\.bias"):
        read_file(write(tmp_path, serialized(variables)))


@pytest.mark.parametrize("shape", [(180,), (12, 15), (1, 12, 5, 3)])
def test_a_first_convolution_of_other_axes(tmp_path, shape):
    params = random_params(semantic_shapes(CONFIG), 0)
    variables = encoder_variables(to_torch(params, whisper_rules(CONFIG), what="the encoder"))
    variables["encoder/conv1/weight"] = variables["encoder/conv1/weight"].reshape(shape)
    path = write(tmp_path, serialized(variables))
    with pytest.raises(WeightsError, match="conv1"):
        read_file(path)


def test_messages_about_a_bin_file_name_that_file(tmp_path):
    params = random_params(semantic_shapes(CONFIG), 0)
    tensors = to_torch(params, whisper_rules(CONFIG), what="the encoder")
    variables = encoder_variables(tensors) | {"encoder/num_heads": np.int16(5)}
    path = write(tmp_path, serialized(variables))
    with pytest.raises(WeightsError, match="must be divisible by num_heads 5") as caught:
        read_file(path)
    assert str(caught.value).startswith(f"{path}: ")


# Cached conversions -----------------------------------------------------------------------------


def test_whisper_is_converted_again_for_another_configuration(tmp_path, monkeypatch):
    """The number of heads is in ``config.json`` alone: no tensor's shape shows it."""
    monkeypatch.setenv("DUALCODEC_JAX_CACHE", str(tmp_path / "cache"))
    config = WhisperConfig(
        num_mels=6, hidden_size=16, num_layers=1, num_heads=2, intermediate_size=12
    )
    params = random_params(semantic_shapes(config), 0)
    path = tmp_path / "hf" / "model.safetensors"
    export_torch(Weights("whisper", "small", config, params), path)
    sizes = {"num_mel_bins": 6, "d_model": 16, "encoder_layers": 1, "encoder_ffn_dim": 12}
    for heads in (2, 4):
        text = json.dumps(sizes | {"encoder_attention_heads": heads})
        (path.parent / "config.json").write_text(text)
        read = load("whisper", str(path.parent), ("whisper", "model.safetensors"))
        assert read.config == dataclasses.replace(config, num_heads=heads)


# Short audio ------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_samples", [160, 161, 200])
def test_less_than_half_a_window_mirrors_zeros_too(num_samples):
    """As it does in a batch of longer ones."""
    x = white(num_samples)
    expected = textbook(np.pad(x, (0, 201 - num_samples)))[: num_samples // 160]
    np.testing.assert_allclose(alone(x), expected, rtol=0, atol=FLAT)


def test_the_shortest_utterance_at_50_hz():
    """``min_samples`` can be encoded, with any downsampling."""
    small = WhisperConfig(
        num_mels=20, hidden_size=32, num_layers=1, num_heads=4, intermediate_size=64
    )
    codec = dataclasses.replace(micro.CODEC, semantic_model="whisper")
    model = Config(model_id="small", codec=codec, semantic=small)
    semantic, statistics = random_semantic(small)
    params = {
        "codec": random_params(codec_shapes(codec), 0),
        "semantic": semantic,
        "statistics": statistics,
    }
    size = lengths.min_samples(codec)
    assert size == 239
    encoded = jax.eval_shape(
        lambda audio: functional.encode(params, model, audio, n_quantizers=2),
        jax.ShapeDtypeStruct((1, 1, size), jnp.float32),
    )
    assert encoded.codes.shape == (1, 2, 1)


# Eight bits -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scale",
    [
        np.ones(3),
        np.ones(1),
        np.ones((5, 2)),
        np.ones(()),
        np.ones(2, np.float64),
        np.ones(2, np.int8),
    ],
    ids=["wrong", "one", "kernel", "scalar", "float64", "int8"],
)
def test_a_scale_of_another_shape_or_type(tmp_path, scale):
    scale = scale if scale.dtype == np.int8 or scale.shape == (2,) else np.float32(scale)
    statistics = {"layer": {"kernel": np.ones((5, 2), np.float32)}}
    folder = save_weights(
        Weights("statistics", "statistics", None, statistics), tmp_path / "a", quantized=True
    )
    tensors = read_tensors(folder / "model.safetensors")
    tensors["scale_of.layer.kernel"] = scale
    write_tensors(tensors, folder / "model.safetensors")
    with pytest.raises(WeightsError, match="no 8-bit kernel and scale for") as caught:
        load_weights(folder, "statistics")
    assert type(caught.value) is WeightsError


@pytest.mark.parametrize("value", [2.6e-43, 1e-45, 1e-42, 1e-39])
def test_values_below_the_normal_numbers(value):
    """Weight decay takes unused channels there; their sign must not turn, nor anything overflow."""
    kernel = np.full((3, 1), value, np.float32)
    read = dequantize(quantize({("kernel",): kernel}))["kernel",]
    assert np.abs(read - kernel).max() <= value


# Sizes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_mels": 0}, "num_mels must be positive"),
        ({"num_layers": -1}, "num_layers must be positive"),
        ({"num_heads": -1}, "num_heads must be positive"),
        ({"num_heads": 0}, "num_heads must be positive"),
        ({"intermediate_size": 0}, "intermediate_size must be positive"),
        ({"hidden_size": 0, "num_heads": 1}, "hidden_size 0 must be even and at least 4"),
        ({"hidden_size": 2, "num_heads": 1}, "hidden_size 2 must be even and at least 4"),
        ({"hidden_size": 9, "num_heads": 3}, "hidden_size 9 must be even and at least 4"),
    ],
)
def test_sizes_of_whisper_that_cannot_be(change, message):
    with pytest.raises(ConfigError, match=message):
        WhisperConfig(**change)
