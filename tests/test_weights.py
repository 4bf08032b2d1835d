"""Checkpoint folders: exact, whole or absent, and refused with one clear error if damaged."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dualcodec_jax import weights as module
from dualcodec_jax.config import PRESETS, DiscriminatorConfig, W2vBertConfig, WhisperConfig
from dualcodec_jax.convert.engine import flatten
from dualcodec_jax.convert.files import codec_shapes
from dualcodec_jax.errors import InputError, WeightsError
from dualcodec_jax.nn.random import random_params
from dualcodec_jax.weights import (
    Weights,
    check_tree,
    is_checkpoint,
    load_any,
    load_weights,
    map_tensors,
    read_tensors,
    save_weights,
    write_tensors,
)

TINY = PRESETS["tiny"].codec
FILES = ["config.json", "model.safetensors"]


@pytest.fixture(scope="module")
def codec() -> Weights:
    params = random_params(codec_shapes(TINY), 0)
    return Weights("codec", "tiny", TINY, params, {"file": "a.safetensors", "bytes": 3})


@pytest.fixture
def statistics() -> Weights:
    """The smallest checkpoint there is."""
    params = {"mean": np.arange(6, dtype=np.float32), "var": np.ones(6, np.float32)}
    return Weights("statistics", "statistics", None, params)


@pytest.fixture
def saved(codec: Weights, tmp_path: Path) -> Path:
    return save_weights(codec, tmp_path / "checkpoint")


def as_bytes(params: Any) -> dict[tuple[str, ...], tuple[Any, ...]]:
    return {
        path: (leaf.shape, str(leaf.dtype), np.asarray(leaf).tobytes())
        for path, leaf in flatten(params).items()
    }


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the parsed ``config.json``; a result other than None replaces it."""
    path = folder / "config.json"
    meta = json.loads(path.read_text())
    result = change(meta)
    path.write_text(json.dumps(meta if result is None else result))


def refusal(folder: Path, kind: Any = "codec") -> str:
    """The message with which loading is refused; it names the folder and is one line."""
    with pytest.raises(WeightsError) as caught:
        load_weights(folder, kind)
    message = str(caught.value)
    assert type(caught.value) is WeightsError
    assert str(folder) in message
    assert "\n" not in message
    return message


# -- tensors ---------------------------------------------------------------------------------


@pytest.mark.parametrize("letters", range(1, 20))
def test_mapped_tensors_begin_where_jax_can_use_them(letters: int, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    tensors = {
        "a" * letters: np.arange(64, dtype=np.float32).reshape(4, 16),
        "b": np.ones(16, np.float32),
        "c": np.arange(5, dtype=np.int8),
    }
    write_tensors(tensors, path)
    mapped = map_tensors(path)
    assert as_bytes(mapped) == as_bytes(tensors) == as_bytes(read_tensors(path))
    for name in ("a" * letters, "b"):
        assert mapped[name].ctypes.data % 64 == 0
        assert not mapped[name].flags.writeable
        array = jax.device_put(mapped[name])
        assert array.unsafe_buffer_pointer() == mapped[name].ctypes.data


# -- round trip ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["codec", "discriminator", "w2v_bert", "whisper", "statistics"])
def test_round_trip_is_exact(tmp_path, kind):
    config = {
        "codec": TINY,
        "discriminator": DiscriminatorConfig(bands=((0.0, 0.5), (0.5, 1.0))),
        "w2v_bert": W2vBertConfig(layer_norm_eps=1e-6),
        "whisper": WhisperConfig(max_frames=700, overlap_frames=0),
        "statistics": None,
    }[kind]
    odd = np.array([0.0, -0.0, 1e-45, np.inf, -np.nan, 3.4e38], np.float32)
    params = {
        "odd": odd,
        "nested": {
            "deeper": {"transposed": np.arange(24, dtype=np.float32).reshape(2, 3, 4).T},
            "strided": np.arange(20, dtype=np.float32)[::3],
            "jax": jnp.arange(5.0),
        },
        "empty": np.zeros((0, 4), np.float32),
        "scalar": np.float32(7),
    }
    written = Weights(kind, "näme", config, params, {"file": "ä", "n": [1, None]})
    folder = save_weights(written, tmp_path / "a")
    read = load_weights(folder, kind)
    assert (read.kind, read.model_id, read.config) == (kind, "näme", config)
    assert read.source == written.source
    assert as_bytes(read.params) == as_bytes(params)
    assert as_bytes(load_any(folder).params) == as_bytes(params)
    assert sorted(os.listdir(folder)) == FILES
    assert is_checkpoint(folder)


def test_others_may_read_what_they_may_read_of_other_files(saved):
    (saved.parent / "plain").touch()
    modes = {(saved / name).stat().st_mode for name in FILES}
    assert modes == {(saved.parent / "plain").stat().st_mode}


def test_missing_parent_folders_are_created(codec, tmp_path):
    folder = tmp_path / "a" / "b"
    assert save_weights(codec, str(folder)) == folder
    assert is_checkpoint(str(folder))


# -- replacing -------------------------------------------------------------------------------


def test_overwrite_only_when_asked(saved, codec, statistics):
    with pytest.raises(InputError, match=r"exists already.*overwrite=True.*--overwrite"):
        save_weights(statistics, saved)
    assert load_weights(saved, "codec").model_id == "tiny"
    save_weights(statistics, saved, overwrite=True)
    assert load_weights(saved, "statistics").params["mean"].size == 6
    assert os.listdir(saved.parent) == ["checkpoint"]


def test_folder_of_other_things_is_not_deleted(saved, statistics):
    (saved / "notes.txt").write_text("precious")
    with pytest.raises(InputError, match=r"notes\.txt, which is no part of a checkpoint"):
        save_weights(statistics, saved, overwrite=True)
    assert (saved / "notes.txt").read_text() == "precious"
    assert load_weights(saved, "codec").model_id == "tiny"


def test_damaged_checkpoint_can_be_overwritten(saved, statistics):
    (saved / "config.json").write_text("{")
    os.unlink(saved / "model.safetensors")
    save_weights(statistics, saved, overwrite=True)
    assert load_weights(saved, "statistics").kind == "statistics"


@pytest.mark.parametrize("step", ["write", "compare", "interrupt", "serialise"])
@pytest.mark.parametrize("existing", [True, False])
def test_failure_leaves_nothing_behind(tmp_path, monkeypatch, codec, statistics, step, existing):
    folder = tmp_path / "a"
    if existing:
        save_weights(codec, folder)

    def fail(*_args: Any) -> Any:
        if step == "interrupt":
            raise KeyboardInterrupt
        raise OSError(28, "No space left on device")

    expected: type[BaseException] = InputError
    match step:
        case "write" | "interrupt":
            monkeypatch.setattr(module, "write_tensors", fail)
            expected = InputError if step == "write" else KeyboardInterrupt
        case "compare":
            other = {name: value + 1 for name, value in statistics.params.items()}
            monkeypatch.setattr(module, "read_tensors", lambda path: other)
            expected = WeightsError
        case "serialise":
            from safetensors import SafetensorError, numpy

            def refuse(*_args: Any) -> Any:
                raise SafetensorError("Error while serializing: I/O error: disk full")

            monkeypatch.setattr(numpy, "save_file", refuse)
    with pytest.raises(expected, match=r"^$|No space left|did not read back|disk full"):
        save_weights(statistics, folder, overwrite=True)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == (["a"] if existing else [])
    if existing:
        assert as_bytes(load_weights(folder, "codec").params) == as_bytes(codec.params)


# -- damage ----------------------------------------------------------------------------------


def test_missing(tmp_path, saved):
    assert "not a checkpoint folder" in refusal(tmp_path / "gone")
    assert "not a checkpoint folder" in refusal(tmp_path)
    os.unlink(saved / "model.safetensors")
    assert "not a readable safetensors file: No such file" in refusal(saved)
    assert not is_checkpoint(saved)
    assert not is_checkpoint(tmp_path / "gone")


@pytest.mark.parametrize("text", ["", "{", '{"format": "dualcodec_jax"', "\xff\xfe", "[" * 10**5])
def test_config_is_not_json(saved, text):
    (saved / "config.json").write_bytes(text.encode("latin-1"))
    assert "not a checkpoint folder" in refusal(saved)
    assert not is_checkpoint(saved)


@pytest.mark.parametrize(
    "foreign", [{}, [], None, "dualcodec_jax", {"format": "other"}, {"model_type": "wav2vec2-bert"}]
)
def test_foreign_config(saved, foreign):
    (saved / "config.json").write_text(json.dumps(foreign))
    assert "not a checkpoint of dualcodec_jax" in refusal(saved)
    assert not is_checkpoint(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda meta: meta.update(format_version=1), "format version 1, but this release reads 3"),
        # Before models named the kind whose features they read, and before 8-bit kernels.
        (lambda meta: meta.update(format_version=2), "format version 2, but this release reads 3"),
        (
            lambda meta: meta["config"].update(semantic_model="hubert"),
            "semantic_model must be one of w2v_bert, whisper; got 'hubert'",
        ),
        (lambda meta: meta.pop("format_version"), "format version None"),
        (lambda meta: meta.update(kind="codek"), "unknown kind of weights 'codek'"),
        (lambda meta: meta.update(kind=["codec"]), "unknown kind of weights"),
        (lambda meta: meta.pop("kind"), "unknown kind of weights None"),
        (lambda meta: meta.pop("model_id"), "model_id must be a name; got None"),
        (lambda meta: meta.pop("config"), "configuration is damaged"),
        (lambda meta: meta.update(config=None), "configuration is damaged"),
        (lambda meta: meta.update(config=list(meta["config"])), "configuration is damaged"),
        (lambda meta: meta["config"].update(encoder_rates=7), "configuration is damaged"),
        (lambda meta: meta["config"].update(decoder_dim="64"), "configuration is damaged"),
        (lambda meta: meta["config"].update(decoder_dim=63), "decoder_dim 63 must be divisible"),
        (
            lambda meta: meta["config"].update(colour=1),
            r"unknown fields ['colour'], missing fields",
        ),
        (lambda meta: meta["config"].pop("is_causal"), r"missing fields ['is_causal']"),
    ],
)
def test_config_is_read_strictly(saved, change, message):
    edit(saved, lambda meta: (change(meta), None)[1])
    assert message in refusal(saved)


def test_all_unknown_and_missing_fields_are_named(saved):
    def change(meta: dict[str, Any]) -> None:
        for name in ("encoder_dim", "codebook_dim"):
            meta["config"][f"{name}_2"] = meta["config"].pop(name)

    edit(saved, change)
    message = refusal(saved)
    assert "unknown fields ['codebook_dim_2', 'encoder_dim_2']" in message
    assert "missing fields ['codebook_dim', 'encoder_dim']" in message


def test_wrong_kind(saved):
    assert "holds codec weights, not statistics" in refusal(saved, "statistics")
    assert load_any(saved).kind == "codec"


def test_truncated(saved):
    path = saved / "model.safetensors"
    data = path.read_bytes()
    for size in [0, 1, 7, 8, 9, 100, 1000, len(data) // 2, len(data) - 1]:
        path.write_bytes(data[:size])
        assert "not a readable safetensors file" in refusal(saved)


def test_bits_of_the_header(tmp_path, statistics):
    """A flipped bit is refused, leaves other names or shapes, or changes nothing at all."""
    folder = save_weights(statistics, tmp_path / "a")
    path = folder / "model.safetensors"
    data = path.read_bytes()
    expected, refused = as_bytes(statistics.params), 0
    header = 8 + int.from_bytes(data[:8], "little")
    for bit in range(8 * header):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            params = load_weights(folder, "statistics").params
            check_tree(params, statistics.params, what="the statistics")
        except WeightsError:
            refused += 1
        else:
            assert as_bytes(params) == expected
    assert refused > 7 * header


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F4", "BF16", "F16", "I64", "BOOL"])
def test_other_types(tmp_path, statistics, dtype):
    folder = save_weights(statistics, tmp_path / "a")
    bits = {"F4": 4, "I64": 64, "BF16": 16, "F16": 16}.get(dtype, 8)
    entry = {"dtype": dtype, "shape": [6], "data_offsets": [0, 6 * bits // 8]}
    header = json.dumps({"mean": entry}).encode()
    content = len(header).to_bytes(8, "little") + header + bytes(6 * bits // 8)
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match="float32"):
        check_tree(load_weights(folder, "statistics").params, statistics.params, what="statistics")


def test_tensor_below_a_tensor(tmp_path, statistics):
    params = statistics.params | {"mean.more": statistics.params["var"]}
    folder = save_weights(Weights("statistics", "statistics", None, params), tmp_path / "a")
    assert "mean.more lies below another tensor" in refusal(folder, "statistics")


# -- checking --------------------------------------------------------------------------------


def test_check_tree_accepts_what_fits(codec):
    check_tree(codec.params, codec_shapes(TINY), what="the generator")
    check_tree(jax.tree.map(jnp.asarray, codec.params), codec.params, what="the generator")


def test_check_tree_lists_all_problems():
    shapes = {
        "a": np.zeros((2, 3), np.float32),
        "b": {"c": np.zeros(4, np.float32), "d": np.zeros(5, np.float32)},
        "e": np.zeros(1, np.float32),
    }
    params = {
        "a": np.zeros((3, 2), np.float32),
        "b": {"c": np.zeros(4, np.float64), "x": np.zeros(5, np.float32)},
        "y": np.zeros(1, np.float32),
    }
    with pytest.raises(WeightsError) as caught:
        check_tree(params, shapes, what="the model")
    assert str(caught.value).splitlines() == [
        "these weights do not fit the model:",
        "  missing parameter b/d",
        "  missing parameter e",
        "  unexpected parameter b/x",
        "  unexpected parameter y",
        "  a is float32 [3, 2], not float32 [2, 3]",
        "  b/c is float64 [4], not float32 [4]",
    ]


def test_long_lists_of_problems_are_cut(codec):
    with pytest.raises(WeightsError) as caught:
        check_tree({}, codec.params, what="the model")
    lines = str(caught.value).splitlines()
    assert len(lines) == 14
    assert lines[-1] == f"  … and {len(flatten(codec.params)) - 12} more"
