"""Configurations: strict, frozen, consistent."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from dualcodec_jax import config
from dualcodec_jax.config import (
    Config,
    DiscriminatorConfig,
    DualCodecConfig,
    W2vBertConfig,
    WhisperConfig,
    default_semantic,
    from_dict,
    semantic_model_of,
    to_dict,
)
from dualcodec_jax.errors import ConfigError

HZ12, HZ25 = config.DUALCODEC_12HZ_V1, config.DUALCODEC_25HZ_V1
ANY: list[Any] = [
    HZ12,
    HZ25,
    config.DEMO,
    config.TINY,
    config.TINY_W2V_BERT,
    WhisperConfig(),
    DiscriminatorConfig(),
]


@pytest.mark.parametrize("value", ANY)
def test_round_trip_through_json(value: Any) -> None:
    again = from_dict(type(value), json.loads(json.dumps(to_dict(value))))
    assert again == value
    assert hash(again) == hash(value)


@pytest.mark.parametrize("value", ANY)
def test_unknown_and_missing_fields_are_refused_together(value: Any) -> None:
    values = to_dict(value)
    lost = sorted(values)[0]
    del values[lost]
    values["colour"] = 1
    values["age"] = 2
    pattern = rf"unknown fields \['age', 'colour'\], missing fields \['{lost}'\]"
    with pytest.raises(ConfigError, match=pattern):
        from_dict(type(value), values)


def test_defaults_do_not_fill_missing_fields() -> None:
    with pytest.raises(ConfigError, match="missing fields"):
        from_dict(W2vBertConfig, {})


@pytest.mark.parametrize("value", [*ANY, *config.PRESETS.values()])
def test_configurations_are_frozen_and_hashable(value: Any) -> None:
    assert {value: 1}[dataclasses.replace(value)] == 1
    name = dataclasses.fields(value)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, name, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder_rates": (4, 5, 6, 8, 4)}, "same product"),
        ({"decoder_rates": (8, 6, 5, 4)}, "same product"),
        ({"decoder_dim": 1520}, r"divisible by 2\*\*5"),
        ({"semantic_dim": 768}, "semantic_dim 768 must equal latent_dim 1024"),
        ({"encoder_dim": 64}, "must equal latent_dim 2048"),
        ({"decode_semantic_for_codec": False}, "convnext_dim 768 must equal latent_dim 1024"),
    ],
)
def test_inconsistent_sizes_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(HZ12, **change)


def test_a_generator_without_semantic_decoder_is_consistent() -> None:
    dataclasses.replace(HZ12, decode_semantic_for_codec=False, convnext_dim=1024)


def test_attention_heads_must_divide_the_width() -> None:
    with pytest.raises(ConfigError, match="1000 must be divisible by num_heads 16"):
        W2vBertConfig(hidden_size=1000)


@pytest.mark.parametrize("precision", ["float16", "float64", "highest", "", None])
def test_unknown_precisions_are_refused(precision: Any) -> None:
    with pytest.raises(ConfigError, match="float32, bfloat16"):
        dataclasses.replace(config.PRESETS["tiny"], precision=precision)


def test_get_config_knows_the_released_models() -> None:
    assert config.get_config("12hz_v1").codec is HZ12
    assert config.get_config("25hz_v1").codec is HZ25
    assert config.get_config("12hz_v1").precision == "float32"


def test_an_unknown_model_id_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'50hz_v1'; known: 12hz_v1, 25hz_v1"):
        config.get_config("50hz_v1")


def test_errors_are_value_errors() -> None:
    with pytest.raises(ValueError, match="unknown model id"):
        config.get_config("12hz")


@pytest.mark.parametrize(
    ("cfg", "hop", "rate", "books", "latent"),
    [(HZ12, 1920, 12.5, 8, 1024), (HZ25, 960, 25.0, 12, 1024)],
    ids=["12hz", "25hz"],
)
def test_derived_sizes_of_the_released_models(
    cfg: DualCodecConfig, hop: int, rate: float, books: int, latent: int
) -> None:
    assert cfg.hop_length == hop
    assert cfg.frame_rate == rate
    assert cfg.n_quantizers == len(cfg.codebook_sizes) == books
    assert cfg.latent_dim == latent
    assert cfg.codebook_sizes[0] == 16384


def test_bit_rates_of_the_paper() -> None:
    assert HZ12.bitrate(6) == 925
    assert HZ25.bitrate(3) == 850
    assert HZ12.bitrate(1) == 175
    assert HZ12.bitrate() == HZ12.bitrate(8) == 12.5 * (14 + 7 * 12)


@pytest.mark.parametrize(
    ("size", "bits"), [(1, 1), (2, 1), (3, 2), (1024, 10), (1025, 11), (16384, 14)]
)
def test_code_bits(size: int, bits: int) -> None:
    assert config.code_bits(size) == bits


def test_tiny_has_the_structure_of_the_released_model() -> None:
    tiny: Config = config.PRESETS["tiny"]
    assert tiny.codec.encoder_rates == HZ12.encoder_rates
    assert tiny.codec.decoder_rates == HZ12.decoder_rates
    assert tiny.codec.semantic_downsample_factor == HZ12.semantic_downsample_factor


# -- kinds of semantic models ----------------------------------------------------------------


def test_released_models_read_w2v_bert() -> None:
    assert {HZ12.semantic_model, HZ25.semantic_model} == {"w2v_bert"}
    assert config.DEMO.semantic_model == "whisper"


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="one of w2v_bert, whisper; got 'hubert'"):
        dataclasses.replace(HZ12, semantic_model="hubert")


@pytest.mark.parametrize("kind", config.SEMANTIC_MODELS)
def test_kinds_and_their_sizes(kind: Any) -> None:
    assert semantic_model_of(default_semantic(kind)) == kind
    for preset in config.PRESETS.values():
        assert semantic_model_of(preset.semantic) == preset.codec.semantic_model


def test_another_semantic_model_than_the_codecs_is_refused() -> None:
    """Features of another kind have other numbers of frames, and mean something else."""
    released, demo = config.PRESETS["12hz_v1"], config.PRESETS["demo"]
    with pytest.raises(ConfigError, match="12hz_v1 reads features of w2v_bert, not of whisper"):
        dataclasses.replace(released, semantic=WhisperConfig())
    with pytest.raises(ConfigError, match="demo reads features of whisper, not of w2v_bert"):
        dataclasses.replace(demo, semantic=W2vBertConfig())
    # Without a semantic stream neither is read.
    plain = dataclasses.replace(HZ12, encoding="dac")
    Config(model_id="plain", codec=plain, semantic=WhisperConfig())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_heads": 7}, "hidden_size 384 must be divisible by num_heads 7"),
        ({"overlap_frames": 1500}, "overlap_frames 1500 must lie below max_frames 1500"),
        ({"max_frames": 200}, "overlap_frames 200 must lie below max_frames 200"),
        ({"overlap_frames": -1}, "overlap_frames -1 must lie below max_frames 1500"),
    ],
)
def test_inconsistent_sizes_of_whisper_are_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WhisperConfig(**change)


def test_derived_sizes_of_the_demo() -> None:
    demo = config.DEMO
    assert (demo.hop_length, demo.frame_rate, demo.latent_dim) == (960, 25.0, 384)
    assert demo.semantic_dim == WhisperConfig().hidden_size
    assert demo.n_quantizers == 5
    assert demo.bitrate() == 25 * (12 + 4 * 10)
