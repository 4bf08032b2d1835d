"""Weights by name: every layout of folders, and the cache of converted files."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from dualcodec_jax.config import PRESETS, W2vBertConfig
from dualcodec_jax.convert import files
from dualcodec_jax.convert.engine import flatten
from dualcodec_jax.convert.files import STATISTICS_FILE, codec_shapes, semantic_shapes
from dualcodec_jax.errors import HubError, WeightsError
from dualcodec_jax.loading import load
from dualcodec_jax.nn.random import random_params
from dualcodec_jax.weights import Weights, is_checkpoint, save_weights

TINY = PRESETS["tiny"].codec
CODEC_NAMES = ("tiny", "tiny.safetensors")
STATISTICS_NAMES = ("statistics", "statistics.safetensors", "statistics.npz", STATISTICS_FILE)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of converted files, which is empty."""
    monkeypatch.setenv("DUALCODEC_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


@pytest.fixture(scope="module")
def codec() -> Weights:
    return Weights("codec", "tiny", TINY, random_params(codec_shapes(TINY), 0))


@pytest.fixture
def released(codec: Weights, tmp_path: Path) -> Path:
    """A folder with a file as the original releases it."""
    files.export_torch(codec, tmp_path / "released" / "tiny.safetensors")
    return tmp_path / "released"


def forbid_conversion(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: Any, **_options: Any) -> None:
        raise AssertionError("was converted")

    monkeypatch.setattr(files, "read_file", fail)


@pytest.fixture
def never_converts(monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_conversion(monkeypatch)


def load_codec(location: Path | str) -> Weights:
    return load("codec", str(location), CODEC_NAMES, "tiny")


def same(a: Weights, b: Weights) -> bool:
    """Whether two sets of weights are equal, but for their source."""
    leaves, others = flatten(a.params), flatten(b.params)
    if (a.kind, a.model_id, a.config) != (b.kind, b.model_id, b.config):
        return False
    return set(leaves) == set(others) and all(
        np.array_equal(leaves[path], others[path]) for path in leaves
    )


# -- layouts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "tiny.safetensors"])
def test_released_file_or_its_folder(released, codec, name):
    weights = load_codec(released / name)
    assert same(weights, codec)
    assert weights.source["file"] == "tiny.safetensors"


@pytest.mark.usefixtures("never_converts")
@pytest.mark.parametrize("name", ["", "tiny"])
def test_checkpoint_or_a_folder_of_checkpoints(tmp_path, codec, cache, name):
    save_weights(codec, tmp_path / "converted" / "tiny")
    assert same(load_codec(tmp_path / "converted" / name), codec)
    assert not cache.exists()


@pytest.mark.usefixtures("never_converts")
def test_checkpoint_is_preferred_to_the_released_file(released, codec, monkeypatch):
    save_weights(codec, released / "tiny")
    monkeypatch.setenv("HOME", str(released.parent))
    assert same(load_codec("~/released"), codec)


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_statistics(tmp_path, suffix):
    arrays = {"mean": np.arange(4, dtype=np.float32), "var": np.ones(4, np.float32)}
    path = tmp_path / f"statistics.{suffix}"
    if suffix == "npz":
        np.savez(path, **arrays)
    else:
        save_file(arrays, path)
    for location in (tmp_path, path):
        read = load("statistics", str(location), STATISTICS_NAMES)
        np.testing.assert_array_equal(read.params["mean"], arrays["mean"])


def test_nothing_there(tmp_path):
    with pytest.raises(HubError, match=r"has no tiny or tiny\.safetensors\. Download the rel"):
        load_codec(tmp_path)
    with pytest.raises(HubError, match="gone does not exist"):
        load_codec(tmp_path / "gone")
    with pytest.raises(HubError, match=f"has no statistics or .* or {STATISTICS_FILE}"):
        load("statistics", str(tmp_path), STATISTICS_NAMES)


def test_folder_that_is_no_checkpoint(tmp_path):
    (tmp_path / "tiny").mkdir()
    with pytest.raises(WeightsError, match="tiny: not a checkpoint folder"):
        load_codec(tmp_path)


def test_something_else_is_there(tmp_path, codec, released):
    folder = save_weights(Weights("codec", "12hz_v1", TINY, codec.params), tmp_path / "tiny")
    for location in (tmp_path, folder):
        with pytest.raises(WeightsError, match="tiny: holds 12hz_v1, not tiny"):
            load_codec(location)
    with pytest.raises(WeightsError, match="holds codec weights, not statistics"):
        load("statistics", str(folder), STATISTICS_NAMES)
    with pytest.raises(WeightsError, match="these are weights of tiny, not 12hz_v1"):
        load("codec", str(released), ("12hz_v1", "tiny.safetensors"), "12hz_v1")


# -- cache -----------------------------------------------------------------------------------


def test_what_this_package_converted_is_not_checked_again(
    released: Path, codec: Weights, cache: Path, tmp_path: Path
) -> None:
    """Shapes take a second to trace at the released sizes."""
    load_codec(released)
    assert load_codec(released).verified
    assert load("codec", "bundled", ("demo",), "demo").verified
    mine = save_weights(codec, tmp_path / "mine")
    assert not load_codec(mine).verified


def test_second_load_does_not_convert(released, codec, cache, monkeypatch):
    first = load_codec(released)
    (entry,) = cache.iterdir()
    assert is_checkpoint(entry)
    assert entry.name.startswith("tiny-")
    forbid_conversion(monkeypatch)
    for location in (released, released / "tiny.safetensors", f"{released}/../released"):
        second = load_codec(location)
        assert same(second, codec)
        assert second.source == first.source
    (released.parent / "link").symlink_to(released, target_is_directory=True)
    assert same(load_codec(released.parent / "link"), codec)


@pytest.mark.parametrize("change", ["content", "time", "place"])
def test_another_file_is_converted_again(released, codec, cache, monkeypatch, change):
    load_codec(released)
    path = released / "tiny.safetensors"
    match change:
        case "content":
            params = random_params(codec_shapes(TINY), 1)
            codec = Weights("codec", "tiny", TINY, params)
            files.export_torch(codec, path, overwrite=True)
        case "time":
            os.utime(path, ns=(0, 10**18))
        case "place":
            path = path.rename(released / "moved.safetensors")
    with monkeypatch.context() as patched:
        forbid_conversion(patched)
        with pytest.raises(AssertionError, match="was converted"):
            load_codec(path)
    assert same(load_codec(path), codec)
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("damage", ["tensors", "config", "fields", "gone", "empty"])
def test_damaged_entry_is_rebuilt(released, codec, cache, monkeypatch, caplog, damage):
    load_codec(released)
    (entry,) = cache.iterdir()
    match damage:
        case "tensors":
            path = entry / "model.safetensors"
            path.write_bytes(path.read_bytes()[:-1])
        case "config":
            (entry / "config.json").write_text("{")
        case "fields":
            meta = json.loads((entry / "config.json").read_text())
            meta["config"].pop("encoder_dim")
            (entry / "config.json").write_text(json.dumps(meta))
        case "gone":
            (entry / "model.safetensors").unlink()
        case "empty":
            (entry / "model.safetensors").unlink()
            (entry / "config.json").unlink()
    with caplog.at_level(logging.WARNING):
        assert same(load_codec(released), codec)
    warned = [record.getMessage() for record in caplog.records]
    if damage in ("tensors", "fields"):
        assert warned == [f"cached weights {entry} are damaged; converting again"]
    assert list(cache.iterdir()) == [entry]
    forbid_conversion(monkeypatch)
    assert same(load_codec(released), codec)


@pytest.mark.parametrize("obstacle", ["file", "full", "occupied"])
def test_cache_that_cannot_be_written_only_warns(
    released, codec, cache, monkeypatch, caplog, obstacle
):
    match obstacle:
        case "file":
            cache.parent.write_text("in the way")
        case "full":
            from safetensors import SafetensorError, numpy

            def fail(*_args: Any) -> None:
                raise SafetensorError("No space left on device")

            monkeypatch.setattr(numpy, "save_file", fail)
        case "occupied":
            load_codec(released)
            (entry,) = cache.iterdir()
            (entry / "config.json").write_text("something else")
            (entry / "notes").write_text("somebody's")
    with caplog.at_level(logging.WARNING):
        assert same(load_codec(released), codec)
    (record,) = caplog.records
    message = record.getMessage()
    assert message.startswith(f"cannot keep converted weights in {cache}")
    reason = {"file": "cannot be written", "full": "No space left", "occupied": "notes"}[obstacle]
    assert reason in message
    if obstacle == "full":
        assert list(cache.iterdir()) == []


def test_damaged_file_is_not_kept(released, cache):
    path = released / "tiny.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        load_codec(released)
    assert not cache.exists()


def test_w2v_bert_is_converted_again_for_another_configuration(tmp_path, cache):
    """``config.json`` beside the file decides the sizes, so it is part of the key."""
    config = W2vBertConfig(
        input_dim=10, hidden_size=16, num_heads=2, intermediate_size=12, conv_kernel_size=3
    )
    params = random_params(semantic_shapes(config), 0)
    path = tmp_path / "w2v" / "model.safetensors"
    files.export_torch(Weights("w2v_bert", "w2v-bert-2.0", config, params), path)
    sizes = {
        "feature_projection_input_dim": 10,
        "hidden_size": 16,
        "num_attention_heads": 2,
        "intermediate_size": 12,
        "conv_depthwise_kernel_size": 3,
    }
    for heads in (2, 4):
        text = json.dumps(sizes | {"num_attention_heads": heads})
        (path.parent / "config.json").write_text(text)
        if heads == 4:  # the distance embedding has another width
            with pytest.raises(WeightsError, match="distance_embedding"):
                load("w2v_bert", str(path.parent), ("w2v_bert", "model.safetensors"))
        else:
            read = load("w2v_bert", str(path.parent), ("w2v_bert", "model.safetensors"))
            assert read.config == config
    assert len(list(cache.iterdir())) == 1
