"""Whisper encoders in CTranslate2's files: files written here, read back, and damaged ones."""

from __future__ import annotations

import json
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dualcodec_jax.config import WhisperConfig
from dualcodec_jax.convert.ctranslate2 import read_whisper_encoder
from dualcodec_jax.convert.engine import flatten, to_torch
from dualcodec_jax.convert.files import convert_file, detect_kind, read_file, semantic_shapes
from dualcodec_jax.convert.whisper import whisper_rules
from dualcodec_jax.errors import WeightsError
from dualcodec_jax.nn.random import random_params
from dualcodec_jax.weights import load_weights

# What a file does not say has its default: 30 s windows that overlap by 4 s.
CONFIG = WhisperConfig(num_mels=5, hidden_size=12, num_layers=2, num_heads=3, intermediate_size=10)
TYPES = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}
Variables = dict[str, Any]
Tensors = dict[str, np.ndarray]


def text(value: str) -> bytes:
    data = value.encode() + b"\0"
    return struct.pack("<H", len(data)) + data


def variable(name: str, value: Any) -> bytes:
    value = np.asarray(value)
    shape = struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)
    return (
        text(name)
        + shape
        + struct.pack("<BI", TYPES[str(value.dtype)], value.nbytes)
        + (value.astype(value.dtype.newbyteorder("<")).tobytes())
    )


def serialized(variables: Variables, version: int = 6, spec: str = "WhisperSpec") -> bytes:
    """A file as CTranslate2's ``ModelSpec`` writes it, aliases last."""
    parts = [struct.pack("<I", version), text(spec), struct.pack("<II", 3, len(variables))]
    parts += [variable(name, value) for name, value in variables.items()]
    aliases = {"decoder/projection/weight": "decoder/embeddings/weight"}
    parts.append(struct.pack("<I", len(aliases)))
    parts += [text(alias) + text(name) for alias, name in aliases.items()]
    return b"".join(parts)


def encoder_variables(tensors: Tensors) -> Variables:
    """CTranslate2's names of a Whisper encoder, and a decoder that has to be passed over."""
    got = lambda name: tensors[f"encoder.{name}"]  # noqa: E731
    norm = lambda name: {"gamma": got(f"{name}.weight"), "beta": got(f"{name}.bias")}  # noqa: E731
    linear = lambda name: {"weight": got(f"{name}.weight"), "bias": got(f"{name}.bias")}  # noqa: E731
    modules = {
        "conv1": linear("conv1"),
        "conv2": linear("conv2"),
        "layer_norm": norm("layer_norm"),
    }
    for index in range(CONFIG.num_layers):
        theirs, ours = f"layer_{index}", f"layers.{index}"
        query, key, value = (f"{ours}.self_attn.{part}_proj" for part in "qkv")
        fused = {
            "weight": np.concatenate([got(f"{part}.weight") for part in (query, key, value)]),
            "bias": np.concatenate(
                [got(f"{query}.bias"), np.zeros(CONFIG.hidden_size), got(f"{value}.bias")]
            ).astype(np.float32),
        }
        modules |= {
            f"{theirs}/self_attention/layer_norm": norm(f"{ours}.self_attn_layer_norm"),
            f"{theirs}/self_attention/linear_0": fused,
            f"{theirs}/self_attention/linear_1": linear(f"{ours}.self_attn.out_proj"),
            f"{theirs}/ffn/layer_norm": norm(f"{ours}.final_layer_norm"),
            f"{theirs}/ffn/linear_0": linear(f"{ours}.fc1"),
            f"{theirs}/ffn/linear_1": linear(f"{ours}.fc2"),
        }
    variables: Variables = {
        f"encoder/{module}/{leaf}": value
        for module, leaves in modules.items()
        for leaf, value in leaves.items()
    }
    variables["encoder/position_encodings/encodings"] = np.ones((9, 12), np.float32)
    variables["encoder/num_heads"] = np.int16(CONFIG.num_heads)
    variables["decoder/embeddings/weight"] = np.ones((7, 12), np.int8)
    variables["decoder/layer_0/self_attention/linear_0/weight"] = np.ones((36, 12), np.float32)
    # Names are sorted in a file, so that "encoder/num_heads" lies in the middle.
    return dict(sorted(variables.items()))


@pytest.fixture(scope="module")
def params() -> Any:
    return random_params(semantic_shapes(CONFIG), 0)


@pytest.fixture(scope="module")
def tensors(params: Any) -> Tensors:
    return to_torch(params, whisper_rules(CONFIG), what="the encoder")


@pytest.fixture
def variables(tensors: Tensors) -> Variables:
    """Of a whole file; a fresh dict of shared arrays."""
    return encoder_variables(tensors)


def write(folder: Path, content: bytes) -> Path:
    path = folder / "model.bin"
    path.write_bytes(content)
    return path


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(WeightsError) as caught:
        call()
    assert type(caught.value) is WeightsError
    return str(caught.value)


def as_bytes(tree: Any) -> dict[Any, tuple[Any, ...]]:
    return {
        path: (leaf.shape, str(leaf.dtype), np.asarray(leaf).tobytes())
        for path, leaf in flatten(tree).items()
    }


# -- reading ---------------------------------------------------------------------------------


def test_float32_is_read_bit_for_bit(tmp_path, variables, tensors):
    read, heads = read_whisper_encoder(write(tmp_path, serialized(variables)))
    assert heads == CONFIG.num_heads
    assert as_bytes(read) == as_bytes(tensors)


def test_float16_is_widened(tmp_path, variables, tensors):
    halves = {
        name: np.float16(value) if value.dtype == np.float32 else value
        for name, value in variables.items()
    }
    path = write(tmp_path, serialized(halves))
    read, _ = read_whisper_encoder(str(path))
    expected = {name: np.float32(np.float16(value)) for name, value in tensors.items()}
    assert as_bytes(read) == as_bytes(expected)
    changed = [name for name in read if (read[name] != tensors[name]).any()]
    assert len(changed) > len(read) / 2  # float16 was there to be widened


def test_query_key_and_value_come_apart_in_this_order(tmp_path, variables):
    fused = np.repeat(np.float32([1, 2, 3]), 12)
    variables["encoder/layer_1/self_attention/linear_0/weight"] = np.outer(fused, np.ones(12))
    variables["encoder/layer_1/self_attention/linear_0/bias"] = fused * (fused != 2)
    variables = {name: np.float32(v) if v.dtype == float else v for name, v in variables.items()}
    read, _ = read_whisper_encoder(write(tmp_path, serialized(variables)))
    for value, part in enumerate(("q_proj", "k_proj", "v_proj"), start=1):
        weight = read[f"encoder.layers.1.self_attn.{part}.weight"]
        np.testing.assert_array_equal(weight, np.full((12, 12), value))
    np.testing.assert_array_equal(read["encoder.layers.1.self_attn.v_proj.bias"], np.full(12, 3))
    assert "encoder.layers.1.self_attn.k_proj.bias" not in read


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32])
def test_heads_in_any_integer(tmp_path, variables, kind):
    variables["encoder/num_heads"] = kind(4)
    assert read_whisper_encoder(write(tmp_path, serialized(variables)))[1] == 4


def test_what_follows_the_variables_is_not_read(tmp_path, variables, tensors):
    content = serialized(variables)
    aliases = 4 + len(text("decoder/projection/weight") + text("decoder/embeddings/weight"))
    for tail in (content[:-aliases], content + b"more"):
        read, _ = read_whisper_encoder(write(tmp_path, tail))
        assert as_bytes(read) == as_bytes(tensors)


# -- conversion ------------------------------------------------------------------------------


def test_conversion_of_a_file(tmp_path, variables, params):
    """Sizes come from the file alone: a ``config.json`` of CTranslate2 lies beside it."""
    path = write(tmp_path, serialized(variables))
    (tmp_path / "config.json").write_text(json.dumps({"d_model": 99, "suppress_ids": []}))
    assert detect_kind(path) == "whisper"
    written = convert_file(path, tmp_path / "out", model_id="whisper_small_test")
    read = load_weights(tmp_path / "out", "whisper")
    for weights in (written, read):
        assert (weights.kind, weights.model_id) == ("whisper", "whisper_small_test")
        assert weights.config == CONFIG
        assert as_bytes(weights.params) == as_bytes(params)
    assert read.source == {"file": "model.bin", "bytes": path.stat().st_size}
    assert read_file(path).model_id == "whisper"


def test_conversion_to_8_bits(tmp_path, variables, params):
    path = write(tmp_path, serialized(variables))
    whole = convert_file(path, tmp_path / "out", quantized=True)
    assert as_bytes(whole.params) == as_bytes(params)  # what is returned is what was read
    read = flatten(load_weights(tmp_path / "out", "whisper").params)
    for leaf, value in flatten(params).items():
        assert read[leaf].dtype == np.float32
        limit = np.abs(value).max() / 254 if leaf[-1] == "kernel" else 0
        assert np.abs(read[leaf] - value).max() <= limit * (1 + 1e-4), leaf


def test_a_missing_tensor_is_named(tmp_path, variables):
    del variables["encoder/layer_1/ffn/linear_0/weight"]
    message = refusal(lambda: read_file(write(tmp_path, serialized(variables))))
    assert "do not fit the encoder of Whisper" in message
    assert "missing tensor encoder.layers.1.fc1.weight" in message


def test_heads_that_do_not_divide_the_width(tmp_path, variables):
    variables["encoder/num_heads"] = np.int16(5)
    message = refusal(lambda: read_file(write(tmp_path, serialized(variables))))
    assert "hidden_size 12 must be divisible by num_heads 5" in message


# -- refusals --------------------------------------------------------------------------------


def test_a_missing_file(tmp_path):
    assert "cannot be read" in refusal(lambda: read_whisper_encoder(tmp_path / "gone.bin"))
    assert "cannot be read" in refusal(lambda: read_whisper_encoder(tmp_path))


@pytest.mark.parametrize("version", [0, 5, 7, 2**32 - 1])
def test_other_versions(tmp_path, variables, version):
    path = write(tmp_path, serialized(variables, version=version))
    message = refusal(lambda: read_whisper_encoder(path))
    assert message == f"{path}: not a CTranslate2 model of version 6 (found {version})"


@pytest.mark.parametrize(
    ("spec", "found"), [("TransformerSpec", "TransformerSpec"), ("", "nameless")]
)
def test_other_models(tmp_path, variables, spec, found):
    path = write(tmp_path, serialized(variables, spec=spec))
    message = refusal(lambda: read_whisper_encoder(path))
    assert message == f"{path}: a CTranslate2 model, but {found}, not WhisperSpec"


@pytest.mark.parametrize(
    "content", [b"", b"\0", b"PK\3\4 a zip file, say", b"{}", bytes(64), b"\xff" * 64]
)
def test_foreign_files(tmp_path, content):
    path = write(tmp_path, content)
    assert str(path) in refusal(lambda: read_whisper_encoder(path))


@pytest.mark.parametrize("name", ["encoder/conv1/weight", "encoder/layer_0/ffn/linear_0/weight"])
@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32])
def test_quantized_models_say_what_to_do(tmp_path, variables, name, kind):
    variables[name] = variables[name].astype(kind)
    path = write(tmp_path, serialized(variables))
    message = refusal(lambda: read_whisper_encoder(path))
    assert message == (
        f"{path}: {name} is {np.dtype(kind)}; convert the model with CTranslate2 in float16 or "
        "float32"
    )


@pytest.mark.parametrize("value", [1e-7, -3.0, np.nan])
def test_biases_of_keys(tmp_path, variables, value):
    """Whisper's keys have none; a model that has would compute something else without them."""
    name = "encoder/layer_0/self_attention/linear_0/bias"
    bias = variables[name].copy()
    bias[12 + 5] = value
    path = write(tmp_path, serialized(variables | {name: bias}))
    message = refusal(lambda: read_whisper_encoder(path))
    assert message == f"{path}: {name} has biases of keys, which Whisper has not"


@pytest.mark.parametrize("lost", ["encoder/num_heads", "encoder/conv1/weight", "encoder/"])
def test_no_encoder(tmp_path, variables, lost):
    rest = {name: value for name, value in variables.items() if not name.startswith(lost)}
    path = write(tmp_path, serialized(rest))
    assert refusal(lambda: read_whisper_encoder(path)) == f"{path}: has no Whisper encoder"


def test_truncated_at_any_byte(tmp_path, variables, tensors):
    """Of a file without most of its content, so that every cut can be tried."""
    few = {name: variables[name] for name in list(variables) if "conv1" in name}
    few["encoder/num_heads"] = np.int16(3)
    content = serialized(few)
    whole = content.index(struct.pack("<I", 1) + text("decoder/projection/weight"))
    for size in range(whole):
        path = write(tmp_path, content[:size])
        assert "ends too early" in refusal(lambda path=path: read_whisper_encoder(path))
    read, _ = read_whisper_encoder(write(tmp_path, content[:whole]))
    assert as_bytes(read) == as_bytes({name: tensors[name] for name in read})


@pytest.mark.parametrize(
    "header",
    [
        struct.pack("<I", 2**32 - 1),  # variables, of which there are none
        struct.pack("<I", 1)
        + text("encoder/conv1/weight")
        + struct.pack("<BIBI", 1, 2**32 - 1, 0, 2**32 - 4),
        struct.pack("<I", 1) + text("encoder/conv1/weight") + b"\xff" * 2000,
        struct.pack("<I", 1) + struct.pack("<H", 65535),
    ],
    ids=["variables", "size", "rank", "name"],
)
def test_a_header_cannot_ask_for_memory(tmp_path, header):
    path = write(
        tmp_path, struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<I", 3) + header
    )
    tracemalloc.start()
    try:
        refusal(lambda: read_whisper_encoder(path))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("shape", "kind", "size"),
    [((4,), 0, 15), ((4,), 0, 17), ((4,), 4, 16), ((5,), 0, 16), ((4,), 5, 16), ((4,), 255, 4)],
)
def test_sizes_that_do_not_fit(tmp_path, shape, kind, size):
    entry = struct.pack("<BIBI", len(shape), *shape, kind, size) + bytes(size)
    start = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, 1)
    path = write(tmp_path, start + text("encoder/conv1/bias") + entry)
    message = refusal(lambda: read_whisper_encoder(path))
    assert message == (
        f"{path}: encoder/conv1/bias: type {kind} and size {size} do not fit {list(shape)}"
    )


def test_damaged_values_are_no_error_of_reading(tmp_path, variables):
    """There is no checksum: any bytes are numbers, as long as there are as many."""
    content = bytearray(serialized(variables))
    start = content.index(text("encoder/conv1/weight")) + len(text("encoder/conv1/weight")) + 18
    size = variables["encoder/conv1/weight"].nbytes
    rng = np.random.default_rng(0)
    for _ in range(20):
        content[start : start + size] = rng.bytes(size)
        read, _ = read_whisper_encoder(write(tmp_path, bytes(content)))
        assert read["encoder.conv1.weight"].tobytes() == content[start : start + size]
