"""Generators and the semantic model as users load and save them."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from dualcodec_jax.config import PRESETS, TINY_W2V_BERT, WhisperConfig
from dualcodec_jax.convert.engine import flatten
from dualcodec_jax.convert.files import GENERATOR_FILES, codec_shapes, export_torch
from dualcodec_jax.errors import ConfigError, HubError, InputError, WeightsError
from dualcodec_jax.model import (
    DualCodecModel,
    get_model,
    load_semantic,
    load_semantic_model,
    random_model,
    random_semantic,
)
from dualcodec_jax.nn.layers import fold_weight_norm
from dualcodec_jax.weights import Weights, save_weights


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUALCODEC_JAX_CACHE", str(tmp_path / "cache"))
    for variable in ("DUALCODEC_WEIGHTS", "DUALCODEC_W2V_BERT"):
        monkeypatch.setenv(variable, str(tmp_path / "nothing"))


@pytest.fixture(scope="module")
def tiny() -> DualCodecModel:
    return random_model("tiny")


def as_bytes(params: Any) -> dict[Any, bytes]:
    return {path: np.asarray(leaf).tobytes() for path, leaf in flatten(params).items()}


# -- generators ------------------------------------------------------------------------------


@pytest.mark.parametrize(("model_id", "count"), [("12hz_v1", 84_014_578), ("25hz_v1", 102_291_874)])
def test_parameters_of_the_released_models(model_id, count):
    config = PRESETS[model_id].codec
    shapes = codec_shapes(config)
    assert DualCodecModel(model_id, config, shapes).num_parameters == count
    assert count == sum(math.prod(leaf.shape) for leaf in flatten(shapes).values())


def test_random_model(tiny):
    assert (tiny.model_id, tiny.config) == ("tiny", PRESETS["tiny"].codec)
    assert tiny.source == {"random_seed": 0}
    assert as_bytes(random_model("tiny").params) == as_bytes(tiny.params)
    assert as_bytes(random_model("tiny", seed=1).params) != as_bytes(tiny.params)
    with pytest.raises(
        ConfigError, match="unknown model id 'big'; known: 12hz_v1, 25hz_v1, demo, tiny"
    ):
        random_model("big")


def test_save_and_get(tiny, tmp_path, monkeypatch):
    on_device = DualCodecModel("tiny", tiny.config, jax.device_put(tiny.params), {"a": 1})
    folder = on_device.save(tmp_path / "new" / "tiny")
    monkeypatch.setenv("DUALCODEC_WEIGHTS", str(tmp_path / "new"))
    for read in (get_model("tiny", folder), get_model("tiny", str(folder)), get_model("tiny")):
        assert (read.model_id, read.config, read.source) == ("tiny", tiny.config, {"a": 1})
        assert as_bytes(read.params) == as_bytes(tiny.params)
    with pytest.raises(InputError, match="exists already"):
        tiny.save(folder)
    assert tiny.save(folder, overwrite=True) == folder
    assert get_model("tiny", folder).source == {"random_seed": 0}


def test_export_and_get(tiny, tmp_path):
    path = tiny.export_torch(tmp_path / "tiny.safetensors")
    for location in (path, tmp_path):
        read = get_model("tiny", location)
        assert as_bytes(read.params) == as_bytes(tiny.params)
        assert read.source == {"file": "tiny.safetensors", "bytes": path.stat().st_size}
    with pytest.raises(InputError, match="exists already"):
        tiny.export_torch(path)
    assert tiny.export_torch(path, overwrite=True) == path


def test_folded_parameters_are_not_exported(tiny, tmp_path):
    params = tiny.params | {"semantic_vq": fold_weight_norm(tiny.params["semantic_vq"])}
    folded = DualCodecModel("tiny", tiny.config, params)
    with pytest.raises(WeightsError, match=r"missing parameter semantic_vq/.*/weight_g"):
        folded.export_torch(tmp_path / "a.safetensors")
    assert not (tmp_path / "a.safetensors").exists()


def test_get_model_refuses(tiny, tmp_path):
    with pytest.raises(ConfigError, match="unknown model id 'big'"):
        get_model("big", tmp_path)
    with pytest.raises(HubError, match=f"has no 12hz_v1 or {GENERATOR_FILES['12hz_v1']}"):
        get_model("12hz_v1", tmp_path)
    with pytest.raises(HubError, match="nothing does not exist"):
        get_model("tiny")
    tiny.save(tmp_path / "tiny")
    with pytest.raises(WeightsError, match="holds tiny, not 12hz_v1"):
        get_model("12hz_v1", tmp_path / "tiny")
    params = dict(tiny.params)
    params.pop("semantic_vq")
    DualCodecModel("tiny", tiny.config, params).save(tmp_path / "cut")
    with pytest.raises(WeightsError, match="missing parameter semantic_vq/quantizer_0/codebook"):
        get_model("tiny", tmp_path / "cut")


def test_get_model_refuses_another_configuration(tiny, tmp_path):
    """Weights that fit their own configuration, but not the model's."""
    config = dataclasses.replace(tiny.config, is_causal=False)
    DualCodecModel("tiny", config, tiny.params).save(tmp_path / "other")
    with pytest.raises(ConfigError, match="its configuration is not that of tiny"):
        get_model("tiny", tmp_path / "other")


# -- semantic model --------------------------------------------------------------------------


def save_semantic(folder: Path, size: int = TINY_W2V_BERT.hidden_size) -> None:
    """Checkpoints of w2v-BERT and its statistics, the latter of some size."""
    params, _ = random_semantic(TINY_W2V_BERT)
    statistics = {"mean": np.zeros(size, np.float32), "var": np.ones(size, np.float32)}
    save_weights(Weights("w2v_bert", "w2v-bert-2.0", TINY_W2V_BERT, params), folder / "w2v_bert")
    save_weights(Weights("statistics", "statistics", None, statistics), folder / "statistics")


def test_random_semantic():
    params, statistics = random_semantic(TINY_W2V_BERT, seed=5)
    assert as_bytes(random_semantic(TINY_W2V_BERT, seed=5)[0]) == as_bytes(params)
    np.testing.assert_array_equal(statistics["mean"], np.zeros(64, np.float32))
    np.testing.assert_array_equal(statistics["var"], np.ones(64, np.float32))


def test_load_semantic(tmp_path, monkeypatch):
    save_semantic(tmp_path)
    config, params, statistics = load_semantic(tmp_path, tmp_path)
    assert config == TINY_W2V_BERT
    assert as_bytes(params) == as_bytes(random_semantic(TINY_W2V_BERT)[0])
    assert sorted(statistics) == ["mean", "var"]
    monkeypatch.setenv("DUALCODEC_WEIGHTS", str(tmp_path / "statistics"))
    monkeypatch.setenv("DUALCODEC_W2V_BERT", str(tmp_path / "w2v_bert"))
    assert as_bytes(load_semantic()[1]) == as_bytes(params)


def test_load_semantic_refuses(tmp_path):
    with pytest.raises(HubError, match=r"has no w2v_bert or model\.safetensors"):
        load_semantic(tmp_path, tmp_path)
    save_semantic(tmp_path, size=5)
    with pytest.raises(WeightsError, match=r"mean is float32 \[5\], not float32 \[64\]"):
        load_semantic(tmp_path, tmp_path)
    with pytest.raises(HubError, match="nothing does not exist"):
        load_semantic(None, tmp_path)
    with pytest.raises(WeightsError, match="holds statistics weights, not w2v_bert"):
        load_semantic(tmp_path, tmp_path / "statistics")


def test_w2v_bert_that_does_not_fit(tmp_path):
    save_semantic(tmp_path)
    params, _ = random_semantic(TINY_W2V_BERT)
    params["layer_1"]["ffn1"].pop("output_dense")
    damaged = Weights("w2v_bert", "w2v-bert-2.0", TINY_W2V_BERT, params)
    save_weights(damaged, tmp_path / "w2v_bert", overwrite=True)
    with pytest.raises(WeightsError, match="missing parameter layer_1/ffn1/output_dense/bias"):
        load_semantic(tmp_path, tmp_path)


# -- Whisper ---------------------------------------------------------------------------------

SMALL_WHISPER = WhisperConfig(
    num_mels=6, hidden_size=16, num_layers=1, num_heads=2, intermediate_size=12, max_frames=300
)


def save_whisper(folder: Path, size: int = SMALL_WHISPER.hidden_size) -> Weights:
    """Checkpoints of a small Whisper and its statistics, the latter of some size."""
    params, _ = random_semantic(SMALL_WHISPER)
    weights = Weights("whisper", "small", SMALL_WHISPER, params)
    statistics = {"mean": np.zeros(size, np.float32), "var": np.ones(size, np.float32)}
    save_weights(weights, folder / "whisper")
    save_weights(Weights("statistics", "statistics", None, statistics), folder / "statistics")
    return weights


@pytest.mark.parametrize("location", [None, "bundled"])
def test_whisper_ships_with_the_package(location):
    """Whatever the variables say, which name weights of the released models."""
    config, params, statistics = load_semantic(location, location, "whisper")
    assert config == WhisperConfig()
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 8_208_384 - 1500 * 384
    for leaf in jax.tree.leaves((params, statistics)):
        assert leaf.dtype == np.float32
        assert np.isfinite(leaf).all()
    assert statistics["mean"].shape == statistics["var"].shape == (384,)
    # As trained, not as initialised, and statistics of something that was measured.
    assert np.std(params["layer_norm"]["scale"]) > 0.1
    assert np.std(statistics["mean"]) > 0.1
    assert (statistics["var"] > 0).all()


def test_load_another_whisper(tmp_path):
    weights = save_whisper(tmp_path)
    for where in (tmp_path, tmp_path / "whisper"):
        config, params, statistics = load_semantic(tmp_path, where, "whisper")
        assert config == SMALL_WHISPER
        assert as_bytes(params) == as_bytes(weights.params)
        assert statistics["mean"].shape == (16,)


def test_load_whisper_of_transformers(tmp_path):
    """A file is converted and kept, as w2v-BERT is."""
    weights = save_whisper(tmp_path / "checkpoints")
    export_torch(weights, tmp_path / "hf" / "model.safetensors")
    sizes = {
        "num_mel_bins": 6,
        "d_model": 16,
        "encoder_layers": 1,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 12,
        "max_source_positions": 300,
    }
    (tmp_path / "hf" / "config.json").write_text(json.dumps(sizes))
    for _ in range(2):
        read = load_semantic_model(tmp_path / "hf", "whisper")
        assert read.config == SMALL_WHISPER
        assert as_bytes(read.params) == as_bytes(weights.params)
    assert len(list((tmp_path / "cache" / "weights").iterdir())) == 1


def test_load_whisper_refuses(tmp_path):
    with pytest.raises(HubError, match=r"has no whisper or model\.bin or model\.safetensors"):
        load_semantic(tmp_path, tmp_path, "whisper")
    save_whisper(tmp_path, size=5)
    with pytest.raises(WeightsError, match=r"mean is float32 \[5\], not float32 \[16\]"):
        load_semantic(tmp_path, tmp_path, "whisper")
    with pytest.raises(WeightsError, match="holds statistics weights, not whisper"):
        load_semantic(tmp_path, tmp_path / "statistics", "whisper")
    with pytest.raises(WeightsError, match="holds whisper weights, not w2v_bert"):
        load_semantic(tmp_path, tmp_path / "whisper")
    # The statistics that ship are of another width.
    with pytest.raises(WeightsError, match=r"mean is float32 \[384\], not float32 \[16\]"):
        load_semantic(None, tmp_path, "whisper")


def test_whisper_that_does_not_fit(tmp_path):
    weights = save_whisper(tmp_path)
    weights.params["layer_0"]["self_attn"]["key"]["bias"] = np.zeros(16, np.float32)
    weights.params["layer_0"].pop("fc1")
    save_weights(weights, tmp_path / "whisper", overwrite=True)
    with pytest.raises(WeightsError, match="the semantic model whisper") as caught:
        load_semantic_model(tmp_path, "whisper")
    assert "missing parameter layer_0/fc1/kernel" in str(caught.value)
    assert "unexpected parameter layer_0/self_attn/key/bias" in str(caught.value)
