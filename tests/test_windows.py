"""How far networks see, compared with what changes when one frame of their input does."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dualcodec_jax.config import PRESETS, DualCodecConfig
from dualcodec_jax.convert.files import codec_shapes
from dualcodec_jax.nn.codec import make_codec
from dualcodec_jax.nn.random import random_params
from dualcodec_jax.windows import (
    Reach,
    convnext_reach,
    decoder_reach,
    encoder_reach,
    frames_in,
    latent_reach,
)

TINY = PRESETS["tiny"].codec
# Odd and even strides in another order, few layers, ConvNeXt blocks that see both sides.
OTHER = dataclasses.replace(
    TINY,
    encoder_rates=(3, 2, 5),
    decoder_rates=(5, 3, 2),
    semantic_dim=16,
    convnext_layers=1,
    is_causal=False,
)


@pytest.mark.parametrize(
    ("model", "decoder", "latent"), [("12hz_v1", 27, 24), ("25hz_v1", 10, 24), ("demo", 17, 12)]
)
def test_reach_of_models(model: str, decoder: int, latent: int) -> None:
    config = PRESETS[model].codec
    assert decoder_reach(config) == Reach(decoder, decoder)
    assert latent_reach(config) == convnext_reach(config) == Reach(latent, 0)


def test_reach_without_a_semantic_path() -> None:
    direct = dataclasses.replace(TINY, decode_semantic_for_codec=False, convnext_dim=64)
    for config in (direct, dataclasses.replace(TINY, encoding="dac")):
        assert latent_reach(config) == Reach(0, 0)


def apply(config: DualCodecConfig, method: str, *arguments: np.ndarray) -> np.ndarray:
    params = jax.tree.map(
        lambda x: np.asarray(x, np.float64), random_params(codec_shapes(config), seed=3)
    )
    module = make_codec(config, jnp.float64)

    def run(*arguments: Any) -> Any:
        return module.apply({"params": params}, *arguments, method=method)

    return np.asarray(jax.jit(run)(*arguments))


def changed(outputs: np.ndarray) -> tuple[int, int]:
    """First and last place along the last axis where the two items of a batch differ."""
    places = np.flatnonzero(outputs[0] != outputs[1])
    return int(places[0]), int(places[-1])


@pytest.mark.parametrize("config", [TINY, OTHER], ids=["tiny", "other"])
def test_decoder_reach_is_what_changes(config: DualCodecConfig) -> None:
    reach = decoder_reach(config)
    middle = reach.future + 1
    rng = np.random.default_rng(0)
    latent = rng.standard_normal((1, middle + reach.past + 2, config.latent_dim)).repeat(2, axis=0)
    latent[1, middle] += 1
    with jax.enable_x64(True):
        audio = apply(config, "synthesise", latent)[..., 0]
    first, last = changed(audio)
    assert first // config.hop_length == middle - reach.future
    assert last // config.hop_length == middle + reach.past


@pytest.mark.parametrize("config", [TINY, OTHER], ids=["tiny", "other"])
def test_encoder_reach_is_what_changes(config: DualCodecConfig) -> None:
    """From a frame's first and last sample on."""
    reach, hop = encoder_reach(config), config.hop_length
    middle = reach.future + 1
    audio = np.random.default_rng(0).standard_normal((2, (middle + reach.past + 2) * hop, 1))
    audio[1] = audio[0]
    firsts, lasts = [], []
    for sample in (middle * hop, (middle + 1) * hop - 1):
        other = audio.copy()
        other[1, sample] += 1
        with jax.enable_x64(True):
            latent = apply(config, "encode_acoustic", other)
        first, last = changed(latent.sum(-1))
        firsts.append(first)
        lasts.append(last)
    assert min(firsts) == middle - reach.future
    assert max(lasts) == middle + reach.past


def test_convnext_reach_of_blocks_that_see_both_sides() -> None:
    assert convnext_reach(OTHER) == latent_reach(OTHER) == Reach(3, 3)


def test_durations() -> None:
    config = PRESETS["12hz_v1"].codec
    assert frames_in(30, config) == 375
    assert frames_in(0.01, config) == 1
