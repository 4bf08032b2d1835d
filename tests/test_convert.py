"""Conversion tables and weight files of the PyTorch originals, both ways, without torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from dualcodec_jax.config import PRESETS, DiscriminatorConfig, W2vBertConfig, WhisperConfig
from dualcodec_jax.convert import engine
from dualcodec_jax.convert.codec import codec_rules
from dualcodec_jax.convert.engine import flatten, to_jax, to_torch
from dualcodec_jax.convert.files import (
    codec_shapes,
    convert_file,
    detect_kind,
    discriminator_shapes,
    export_torch,
    read_file,
    rules_of,
    semantic_shapes,
)
from dualcodec_jax.convert.w2v_bert import is_unused, w2v_bert_rules
from dualcodec_jax.convert.whisper import whisper_rules
from dualcodec_jax.errors import ConfigError, InputError, WeightsError
from dualcodec_jax.nn.conv import conv_transpose1d
from dualcodec_jax.nn.random import random_params
from dualcodec_jax.weights import Weights, load_weights

TINY = PRESETS["tiny"].codec
SMALL_DISCRIMINATOR = DiscriminatorConfig(
    periods=(2, 3),
    period_channels=(4, 6),
    fft_sizes=(64,),
    bands=((0.0, 0.5), (0.5, 1.0)),
    spectral_channels=4,
)
# The released number of layers, because only that is converted, at a hundredth of the width.
SMALL_W2V_BERT = W2vBertConfig(
    input_dim=10, hidden_size=16, num_heads=2, intermediate_size=12, conv_kernel_size=3
)
SMALL_W2V_BERT_JSON = {
    "feature_projection_input_dim": 10,
    "hidden_size": 16,
    "num_hidden_layers": 24,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "conv_depthwise_kernel_size": 3,
    "model_type": "wav2vec2-bert",
}
SMALL_WHISPER = WhisperConfig(
    num_mels=6, hidden_size=16, num_layers=2, num_heads=2, intermediate_size=12, max_frames=300
)
SMALL_WHISPER_JSON = {
    "num_mel_bins": 6,
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 12,
    "max_source_positions": 300,
    "model_type": "whisper",
}
SMALL = {
    "codec": TINY,
    "discriminator": SMALL_DISCRIMINATOR,
    "w2v_bert": SMALL_W2V_BERT,
    "whisper": SMALL_WHISPER,
}
SHAPES_OF: dict[str, Callable[[Any], Any]] = {
    "codec": codec_shapes,
    "discriminator": discriminator_shapes,
    "w2v_bert": semantic_shapes,
    "whisper": semantic_shapes,
}
Tensors = dict[str, np.ndarray]


def as_bytes(params: Any) -> dict[Any, tuple[Any, ...]]:
    return {
        path: (leaf.shape, str(leaf.dtype), np.asarray(leaf).tobytes())
        for path, leaf in flatten(params).items()
    }


@pytest.fixture(scope="module")
def codec() -> Weights:
    return Weights("codec", "tiny", TINY, random_params(codec_shapes(TINY), 0))


@pytest.fixture
def tensors(codec: Weights) -> Tensors:
    """The tiny generator under its PyTorch names; a fresh dict of shared arrays."""
    return to_torch(codec.params, codec_rules(TINY), what="the generator")


def convert(tensors: Tensors) -> Any:
    return to_jax(tensors, codec_rules(TINY), codec_shapes(TINY), what="the generator tiny")


def save(path: Path, tensors: Tensors) -> Path:
    save_file(tensors, path)
    return path


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(WeightsError) as caught:
        call()
    return str(caught.value)


# -- tables ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "config", "count"),
    [
        ("codec", PRESETS["12hz_v1"].codec, 420),
        ("codec", PRESETS["25hz_v1"].codec, 392),
        ("discriminator", DiscriminatorConfig(), 324),
        ("w2v_bert", W2vBertConfig(), 548),
        ("whisper", WhisperConfig(), 66),
    ],
    ids=["12hz_v1", "25hz_v1", "discriminator", "w2v_bert", "whisper"],
)
def test_tables_fill_the_trees(kind, config, count):
    table = rules_of(kind, config)
    assert len(table) == count
    assert len({rule.torch_key for rule in table}) == count
    assert len({rule.path for rule in table}) == count
    leaves = flatten(SHAPES_OF[kind](config))
    assert {rule.path for rule in table} == set(leaves)
    for rule in table:
        # Zeros without memory: the transforms only rearrange.
        leaf = np.broadcast_to(np.float32(0), leaves[rule.path].shape)
        there = rule.transform.to_torch(leaf)
        assert rule.transform.to_jax(there).shape == leaf.shape


@pytest.mark.parametrize("kind", ["codec", "discriminator", "w2v_bert", "whisper"])
def test_round_trip_is_exact(kind):
    config = SMALL[kind]
    shapes = SHAPES_OF[kind]
    rules = rules_of(kind, config)
    params = random_params(shapes(config), 3)
    there = to_torch(params, rules, what=kind)
    assert list(there) == [rule.torch_key for rule in rules]
    assert all(value.flags.c_contiguous for value in there.values())
    back = to_jax(there, rules, shapes(config), what=kind)
    assert as_bytes(back) == as_bytes(params)
    again = to_torch(back, rules, what=kind)
    assert as_bytes(again) == as_bytes(there)


def test_statistics_have_no_torch_form():
    assert "no PyTorch safetensors form" in refusal(lambda: rules_of("statistics", None))


# -- transforms ------------------------------------------------------------------------------

SIZE = st.integers(1, 4)
# PyTorch's shape of each transform's tensors, from four free sizes.
SHAPES: dict[str, Callable[[int, int, int, int], tuple[int, ...]]] = {
    "IDENTITY": lambda a, b, c, d: (a, b),
    "LINEAR": lambda a, b, c, d: (a, b),
    "CONV1D": lambda a, b, c, d: (a, b, c),
    "CONV2D": lambda a, b, c, d: (a, b, c, d),
    "CONV_TRANSPOSE1D": lambda a, b, c, d: (a, b, 2 * c),
    "GAIN_TRANSPOSE1D": lambda a, b, c, d: (a, 1, 1),
    "CHANNELS": lambda a, b, c, d: (1, a, 1),
    "DEPTHWISE": lambda a, b, c, d: (a, 1, b),
    "POINTWISE": lambda a, b, c, d: (a, b, 1),
}


def test_every_transform_is_listed():
    named = {name for name, value in vars(engine).items() if isinstance(value, engine.Transform)}
    assert named == set(SHAPES)


@settings(deadline=None)
@given(name=st.sampled_from(sorted(SHAPES)), a=SIZE, b=SIZE, c=SIZE, d=SIZE)
def test_transforms_are_inverses(name, a, b, c, d):
    transform: engine.Transform = getattr(engine, name)
    shape = SHAPES[name](a, b, c, d)
    source = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    there = transform.to_jax(source)
    assert sorted(there.ravel()) == sorted(source.ravel())
    back = transform.to_torch(there)
    np.testing.assert_array_equal(back, source)
    np.testing.assert_array_equal(transform.to_jax(back), there)


@settings(deadline=None, max_examples=20)
@given(stride=st.integers(1, 6), length=st.integers(1, 5), ins=SIZE, outs=SIZE, data=st.data())
def test_transposed_convolution_against_its_definition(stride, length, ins, outs, data):
    """y[o, t·s + k − p] += x[i, t] · w[i, o, k], as ``torch.nn.ConvTranspose1d`` defines it."""
    padding = data.draw(st.integers(0, stride // 2 + stride % 2))
    rng = np.random.default_rng(0)
    x = rng.integers(-4, 5, (ins, length)).astype(np.float32)
    weight = rng.integers(-4, 5, (ins, outs, 2 * stride)).astype(np.float32)
    full = np.zeros((outs, (length + 1) * stride), np.float32)
    for i in range(ins):
        for o in range(outs):
            for t in range(length):
                for k in range(2 * stride):
                    full[o, t * stride + k] += x[i, t] * weight[i, o, k]
    expected = full[:, padding : full.shape[1] - padding]
    kernel = engine.CONV_TRANSPOSE1D.to_jax(weight)
    result = conv_transpose1d(jnp.asarray(x.T[None]), jnp.asarray(kernel), padding=padding)
    np.testing.assert_array_equal(np.asarray(result)[0].T, expected)


# -- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["module.", "model.", "module.model."])
def test_common_prefix(codec, tensors, prefix):
    renamed = {prefix + name: value for name, value in tensors.items()}
    assert as_bytes(convert(renamed)) == as_bytes(codec.params)


def test_prefix_of_some_names_is_kept(tensors):
    first = next(iter(tensors))
    tensors[f"module.{first}"] = tensors.pop(first)
    message = refusal(lambda: convert(tensors))
    assert f"missing tensor {first}" in message
    assert f"unexpected tensor module.{first}" in message


def test_parametrizations(codec, tensors):
    """Names of ``torch.nn.utils.parametrizations.weight_norm``."""
    renamed = {
        name.replace("weight_g", "parametrizations.weight.original0").replace(
            "weight_v", "parametrizations.weight.original1"
        ): value
        for name, value in tensors.items()
    }
    assert not any("weight_g" in name for name in renamed)
    assert as_bytes(convert(renamed)) == as_bytes(codec.params)


def test_folded_weights_keep_the_function(codec, tensors):
    """A folded ``weight`` becomes v and g whose product is the weight again."""
    folded, products = {}, {}
    for name, value in tensors.items():
        base, _, last = name.rpartition(".")
        if last == "weight_v":
            gain = tensors[f"{base}.weight_g"] * 1.5
            axes = tuple(range(1, value.ndim))
            norm = np.sqrt(np.sum(np.square(value), axis=axes, keepdims=True))
            folded[f"{base}.weight"] = products[base] = value * (gain / norm)
        elif last != "weight_g":
            folded[name] = value
    params = to_torch(convert(folded), codec_rules(TINY), what="the generator")
    assert set(params) == set(tensors)
    for base, product in products.items():
        v, g = params[f"{base}.weight_v"], params[f"{base}.weight_g"]
        axes = tuple(range(1, v.ndim))
        norm = np.sqrt(np.sum(np.square(v), axis=axes, keepdims=True))
        np.testing.assert_allclose(v * (g / norm), product, rtol=1e-6)
    for name in set(folded) & set(tensors):
        np.testing.assert_array_equal(params[name], tensors[name])


# -- strictness ------------------------------------------------------------------------------


def test_all_problems_are_listed_together(tensors):
    half = "dac.encoder.block.0.bias"
    flat = "convnext_encoder.1.pwconv1.weight"
    missing = "semantic_vq.quantizers.0.codebook.weight"
    tensors[half] = tensors[half].astype(np.float16)
    tensors[flat] = tensors[flat].reshape(-1)
    tensors["extra.weight"] = tensors.pop(missing)
    rows, columns = codec_shapes(TINY)["convnext_encoder"]["block_0"]["pwconv1"]["kernel"].shape
    assert sorted(refusal(lambda: convert(tensors)).splitlines()) == sorted(
        [
            "these weights do not fit the generator tiny:",
            f"  missing tensor {missing}",
            "  unexpected tensor extra.weight",
            f"  {half} is float16, not float32",
            f"  {flat} has shape [{rows * columns}], which does not fit parameter "
            f"convnext_encoder/block_0/pwconv1/kernel [{rows}, {columns}]",
        ]
    )


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        # Only the first entries of axes that must be 1 would be read.
        ("dac.decoder.model.6.alpha", lambda a: (2, *a[1:])),
        ("dac.decoder.model.6.alpha", lambda a: (*a[:2], 3)),
        ("convnext_encoder.1.dwconv.weight", lambda a: (a[0], 2, a[2])),
        # The layout of JAX under the name of PyTorch.
        ("convnext_encoder.1.dwconv.weight", lambda a: (a[2], a[0])),
        ("dac.decoder.model.1.block.1.weight_v", lambda a: (2, a[0], a[2] // 2, a[1])),
    ],
)
def test_shapes_are_compared_before_the_layout_changes(tensors, key, shape):
    tensors[key] = np.zeros(shape(tensors[key].shape), np.float32)
    assert f"{key} has shape" in refusal(lambda: convert(tensors))


def test_parameter_without_a_rule(tensors):
    rules = codec_rules(TINY)[1:]
    tensors.pop(codec_rules(TINY)[0].torch_key)
    message = refusal(lambda: to_jax(tensors, rules, codec_shapes(TINY), what="x"))
    assert "no rule fills parameter dac/encoder/conv_in/weight_v" in message


def test_export_is_strict(codec):
    params = codec.params | {"colour": np.zeros(3, np.float32)}
    params.pop("semantic_vq")
    message = refusal(lambda: to_torch(params, codec_rules(TINY), what="PyTorch"))
    assert "missing parameter semantic_vq/quantizer_0/codebook" in message
    assert "unexpected parameter colour" in message


# -- generator files -------------------------------------------------------------------------


def test_convert_file(codec, tensors, tmp_path):
    source = save(tmp_path / "a.safetensors", tensors)
    weights = convert_file(source, tmp_path / "out")
    assert (weights.kind, weights.model_id, weights.config) == ("codec", "tiny", TINY)
    assert weights.source == {"file": "a.safetensors", "bytes": source.stat().st_size}
    read = load_weights(tmp_path / "out", "codec")
    assert read.source == weights.source
    assert as_bytes(read.params) == as_bytes(codec.params)
    with pytest.raises(InputError, match="exists already"):
        convert_file(source, tmp_path / "out")
    convert_file(source, tmp_path / "out", model_id="tiny", overwrite=True)


def test_export_torch_round_trip(codec, tensors, tmp_path):
    path = tmp_path / "new" / "a.safetensors"
    assert export_torch(codec, path) == path
    assert as_bytes(read_file(path).params) == as_bytes(codec.params)
    path.write_text("old")
    with pytest.raises(InputError, match="exists already"):
        export_torch(codec, path)
    assert path.read_text() == "old"
    export_torch(codec, path, overwrite=True)
    assert as_bytes(read_file(path, kind="codec", model_id="tiny").params) == as_bytes(codec.params)
    with pytest.raises(InputError, match="is a folder"):
        export_torch(codec, tmp_path, overwrite=True)


def test_file_of_the_other_model(tmp_path):
    """The file is recognised by its first convolution and the number of its codebooks."""
    tensors = {"dac.encoder.block.0.weight_v": np.zeros((64, 1, 7), np.float32)}
    for index in range(11):
        tensors[f"dac.quantizer.quantizers.{index}.codebook.weight"] = np.zeros(3, np.float32)
    path = save(tmp_path / "a.safetensors", tensors)
    message = refusal(lambda: read_file(path, model_id="12hz_v1"))
    assert message == (
        f"{path}: these are weights of 25hz_v1, not 12hz_v1; ask for 25hz_v1, or name the file of "
        "12hz_v1"
    )
    assert "do not fit the DualCodec generator 25hz_v1" in refusal(lambda: read_file(path))
    tensors.popitem()
    save(path, tensors)
    assert "fit none of 12hz_v1, 25hz_v1, demo, tiny" in refusal(lambda: read_file(path))
    assert "missing tensor" in refusal(lambda: read_file(path, model_id="12hz_v1"))
    with pytest.raises(ConfigError, match="unknown model id 'big'; known: 12hz_v1"):
        read_file(path, model_id="big")
    tensors["dac.encoder.block.0.weight_v"] = np.array(1, np.float32)
    save(path, tensors)
    assert "fit none of" in refusal(lambda: read_file(path))


def test_missing_and_damaged_files(tensors, tmp_path):
    assert "no such file" in refusal(lambda: read_file(tmp_path / "gone.safetensors"))
    assert "no such file" in refusal(lambda: convert_file(tmp_path, tmp_path / "out"))
    path = save(tmp_path / "a.safetensors", tensors)
    path.write_bytes(path.read_bytes()[:-1])
    for kind in (None, "codec", "discriminator", "w2v_bert"):
        message = refusal(lambda kind=kind: convert_file(path, tmp_path / "out", kind=kind))
        assert message.startswith(f"{path}: not a readable safetensors file")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "keys", "kind"),
    [
        ("a.safetensors", ["dac.encoder.block.0.bias", "semantic_vq.x"], "codec"),
        ("a.safetensors", ["module.dac.encoder.block.0.bias"], "codec"),
        ("a.safetensors", ["discriminators.0.convs.0.0.bias"], "discriminator"),
        ("a.safetensors", ["encoder.layers.0.ffn1.intermediate_dense.bias"], "w2v_bert"),
        ("a.safetensors", ["wav2vec2_bert.encoder.layers.0.x", "masked_spec_embed"], "w2v_bert"),
        ("a.safetensors", ["encoder.conv1.bias", "encoder.layers.0.fc1.bias"], "whisper"),
        ("a.safetensors", ["model.encoder.conv1.bias", "model.decoder.layers.0.x"], "whisper"),
        ("model.bin", [], "whisper"),
        ("model.safetensors", ["mean", "var"], "statistics"),
        ("a.pt", [], "statistics"),
        ("a.npz", [], "statistics"),
    ],
)
def test_detect_kind(tmp_path, name, keys, kind):
    path = save(tmp_path / name, dict.fromkeys(keys, np.zeros(2, np.float32)))
    assert detect_kind(path) == kind


def test_foreign_files(tmp_path):
    path = save(tmp_path / "a.safetensors", {"lm_head.weight": np.zeros(2, np.float32)})
    message = refusal(lambda: read_file(path))
    assert (
        "not a DualCodec generator or discriminator, w2v-BERT, Whisper or statistics file"
        in message
    )
    assert "lm_head.weight" in message
    assert "not a readable safetensors file" in refusal(lambda: detect_kind(Path(__file__)))


def test_discriminator_file_is_read_strictly(tmp_path):
    path = save(tmp_path / "a.safetensors", {"discriminators.9.bias": np.zeros(2, np.float32)})
    message = refusal(lambda: read_file(path))
    assert "do not fit the discriminator" in message
    assert "missing tensor discriminators.0.conv_post.bias" in message
    assert "… and 313 more" in message


def test_statistics_file(tmp_path):
    tensors = {"mean": np.arange(4, dtype=np.float32), "var": np.ones(4, np.float32)}
    path = save(tmp_path / "a.safetensors", tensors)
    assert convert_file(path, tmp_path / "out").kind == "statistics"
    assert as_bytes(load_weights(tmp_path / "out", "statistics").params) == as_bytes(tensors)


# -- w2v-BERT --------------------------------------------------------------------------------


@pytest.fixture
def w2v_bert(tmp_path: Path) -> tuple[Path, Any]:
    """A file as released, with layers and an embedding that are not read, and its parameters."""
    params = random_params(semantic_shapes(SMALL_W2V_BERT), 0)
    tensors = to_torch(params, w2v_bert_rules(SMALL_W2V_BERT), what="w2v-BERT")
    for name in [name for name in tensors if name.startswith("encoder.layers.16.")]:
        tensors[name.replace(".16.", ".17.")] = tensors[name].astype(np.float16)
    tensors["masked_spec_embed"] = np.zeros(16, np.float32)
    (tmp_path / "config.json").write_text(json.dumps(SMALL_W2V_BERT_JSON))
    return save(tmp_path / "model.safetensors", tensors), params


def test_w2v_bert_file(w2v_bert, tmp_path):
    path, params = w2v_bert
    weights = convert_file(path, tmp_path / "out")
    assert (weights.kind, weights.model_id) == ("w2v_bert", "w2v-bert-2.0")
    read = load_weights(tmp_path / "out", "w2v_bert")
    assert read.config == weights.config == SMALL_W2V_BERT
    assert as_bytes(read.params) == as_bytes(params)
    again = read_file(export_torch(read, tmp_path / "b.safetensors"))
    assert as_bytes(again.params) == as_bytes(params)


def test_w2v_bert_without_config_has_the_released_sizes(w2v_bert):
    path, _ = w2v_bert
    (path.parent / "config.json").unlink()
    message = refusal(lambda: read_file(path))
    assert "has shape [10], which does not fit parameter feature_projection/layer_norm" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "config.json: not valid JSON"),
        ("\xff", "config.json: not valid JSON"),
        ("[]", "config.json: not a configuration of w2v-BERT"),
        ('{"num_hidden_layers": 16}', "16 layers, but DualCodec reads the output of layer 17"),
        ('{"num_hidden_layers": "24"}', "num_hidden_layers must be positive; got '24'"),
        ('{"num_attention_heads": 0}', "num_attention_heads must be positive; got 0"),
        ('{"layer_norm_eps": null}', "layer_norm_eps must be positive; got None"),
        ('{"num_attention_heads": 3}', "must be divisible by num_heads 3"),
    ],
)
def test_w2v_bert_config(w2v_bert, text, message):
    path, _ = w2v_bert
    (path.parent / "config.json").write_bytes(text.encode("latin-1"))
    refused = refusal(lambda: read_file(path))
    assert message in refused
    assert str(path.parent / "config.json") in refused


def test_what_is_unused_of_w2v_bert():
    config = W2vBertConfig()
    for key in ("encoder.layers.17.x", "wav2vec2_bert.encoder.layers.23.x", "masked_spec_embed"):
        assert is_unused(key, config)
    for key in ("encoder.layers.16.x", "encoder.layers.1.layers.17.x", "adapter.layers.0.x"):
        assert not is_unused(key, config)


def test_w2v_bert_file_with_other_tensors(w2v_bert):
    path, params = w2v_bert
    tensors = to_torch(params, w2v_bert_rules(SMALL_W2V_BERT), what="w2v-BERT")
    save(path, tensors | {"adapter.layers.0.x": np.zeros(2, np.float32)})
    assert "unexpected tensor adapter.layers.0.x" in refusal(lambda: read_file(path))


# -- Whisper ---------------------------------------------------------------------------------


@pytest.fixture
def whisper() -> tuple[Any, Tensors]:
    """Parameters, and the tensors of a ``WhisperForConditionalGeneration`` that holds them."""
    params = random_params(semantic_shapes(SMALL_WHISPER), 0)
    encoder = to_torch(params, whisper_rules(SMALL_WHISPER), what="Whisper")
    tensors = {f"model.{name}": value for name, value in encoder.items()}
    tensors["model.encoder.embed_positions.weight"] = np.ones((300, 16), np.float32)
    for name in ("self_attn.q_proj", "encoder_attn.q_proj", "encoder_attn.k_proj", "fc1"):
        tensors[f"model.decoder.layers.0.{name}.weight"] = np.ones((16, 16), np.float16)
    tensors["model.decoder.embed_tokens.weight"] = np.ones((50, 16), np.float16)
    tensors["proj_out.weight"] = np.ones((50, 16), np.float16)
    return params, tensors


def save_whisper(folder: Path, tensors: Tensors, sizes: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(sizes))
    return save(folder / "model.safetensors", tensors)


def test_whisper_file(whisper, tmp_path):
    params, tensors = whisper
    path = save_whisper(tmp_path / "a", tensors, SMALL_WHISPER_JSON)
    weights = convert_file(path, tmp_path / "out", model_id="whisper_small_test")
    read = load_weights(tmp_path / "out", "whisper")
    for result in (weights, read):
        assert (result.kind, result.model_id) == ("whisper", "whisper_small_test")
        assert result.config == SMALL_WHISPER
        assert as_bytes(result.params) == as_bytes(params)
    assert read_file(path).model_id == "whisper"


@pytest.mark.parametrize("prefix", ["", "model."])
def test_whisper_export(whisper, tmp_path, prefix):
    """What is written has the names of ``WhisperModel``; it is read again, whatever the prefix."""
    params, tensors = whisper
    weights = Weights("whisper", "small", SMALL_WHISPER, params)
    (tmp_path / "config.json").write_text(json.dumps(SMALL_WHISPER_JSON))
    path = export_torch(weights, tmp_path / "model.safetensors")
    written = load_file(path)
    expected = {
        name.removeprefix("model."): value
        for name, value in tensors.items()
        if name.startswith("model.encoder.") and "embed_positions" not in name
    }
    assert as_bytes(written) == as_bytes(expected)
    save(path, {f"{prefix}{name}": value for name, value in written.items()})
    again = read_file(path)
    assert again.config == SMALL_WHISPER
    assert as_bytes(again.params) == as_bytes(params)


def test_whisper_without_config_has_the_sizes_of_tiny_en(whisper, tmp_path):
    _, tensors = whisper
    path = save_whisper(tmp_path, tensors, {})
    (tmp_path / "config.json").unlink()
    message = refusal(lambda: read_file(path))
    assert "do not fit the encoder of Whisper" in message
    assert "missing tensor encoder.layers.2.fc1.bias" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d_model": 0}, "d_model must be positive; got 0"),
        ({"encoder_layers": "2"}, "encoder_layers must be positive; got '2'"),
        ({"encoder_attention_heads": 3}, "hidden_size 16 must be divisible by num_heads 3"),
        ({"max_source_positions": 200}, "overlap_frames 200 must lie below max_frames 200"),
        ({"encoder_layers": 1}, "unexpected tensor encoder.layers.1.fc1.bias"),
        ({"encoder_layers": 3}, "missing tensor encoder.layers.2.fc1.bias"),
        ({"num_mel_bins": 80}, "encoder.conv1.weight has shape [16, 6, 3]"),
    ],
)
def test_whisper_config(whisper, tmp_path, change, message):
    _, tensors = whisper
    path = save_whisper(tmp_path, tensors, SMALL_WHISPER_JSON | change)
    assert message in refusal(lambda: read_file(path))


def test_whisper_file_is_read_strictly(whisper, tmp_path):
    """Half precision, a tensor too many and one too few, all named."""
    _, tensors = whisper
    name = "model.encoder.conv2.weight"
    tensors[name] = tensors[name].astype(np.float16)
    lost = tensors.pop("model.encoder.layers.0.self_attn.k_proj.weight")
    tensors["model.encoder.layers.0.self_attn.k_proj.bias"] = lost[0]
    path = save_whisper(tmp_path, tensors, SMALL_WHISPER_JSON)
    message = refusal(lambda: read_file(path))
    assert "encoder.conv2.weight is float16, not float32" in message
    assert "missing tensor encoder.layers.0.self_attn.k_proj.weight" in message
    assert "unexpected tensor encoder.layers.0.self_attn.k_proj.bias" in message
