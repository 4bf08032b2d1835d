"""Every row of the paper's tables has a configuration, and a training step at reduced width."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("optax")

import jax
import jax.numpy as jnp
from micro import DISCRIMINATOR, QUICK, W2V_BERT

from dualcodec_jax import random_semantic
from dualcodec_jax.errors import ConfigError
from dualcodec_jax.lengths import code_length
from dualcodec_jax.train import step as train
from dualcodec_jax.train.config import ObjectiveConfig
from dualcodec_jax.train.options import compose
from dualcodec_jax.train.state import new_state

ROOT = Path(__file__).parents[1]
ROWS = sorted(path.stem for path in (ROOT / "configs" / "ablation").glob("[!_]*.yaml"))
DATA = ["data.locations=recordings"]
SAMPLES = 4 * 1920 + 300

# Rows, encoding, frame rate and codebook sizes, as the tables give them.
TABLE = {
    "b1": ("dac", 25.0, (1024, 1024, 1024)),
    "b2": ("dac_distilled", 25.0, (1024, 1024, 1024)),
    "c1": ("dac", 25.0, (16384, 1024, 1024)),
    "c2": ("dac_distilled", 25.0, (16384, 1024, 1024)),
    "d1": ("dual", 12.5, (16384, *[4096] * 7)),
    "f2": ("dac", 12.5, (1024, *[1024] * 5)),
    "g1": ("dual", 25.0, (1024, 1024, 1024)),
    "g2": ("dual", 25.0, (16384, 1024, 1024)),
    "g3": ("dual", 12.5, (1024, *[1024] * 5)),
    "g4": ("dual", 12.5, (16384, *[1024] * 5)),
    "g5": ("dual", 12.5, (16384, *[4096] * 5)),
}


def test_every_row_has_a_configuration() -> None:
    found = {}
    for row in ROWS:
        codec = compose(f"ablation/{row}", DATA).objective.model.codec
        found[row] = (codec.encoding, codec.frame_rate, codec.codebook_sizes)
    assert found == TABLE


def narrow(objective: ObjectiveConfig) -> ObjectiveConfig:
    """The same structure, rates and codebooks at a width that compiles in seconds."""
    codec = objective.model.codec
    latent = 2 * 2 ** len(codec.encoder_rates)
    codec = dataclasses.replace(
        codec, encoder_dim=2, decoder_dim=32, semantic_dim=latent, convnext_dim=16,
        convnext_layers=1, convnext_hidden_dim=32,
    )  # fmt: skip
    semantic = dataclasses.replace(W2V_BERT, hidden_size=latent)
    # Every layer counts: biases of one that is dropped stay at 0.
    codec = dataclasses.replace(codec, quantizer_dropout=0.0)
    model = dataclasses.replace(objective.model, codec=codec, semantic=semantic)
    return dataclasses.replace(objective, model=model, discriminator=DISCRIMINATOR)


@pytest.mark.slow
@pytest.mark.parametrize("row", ["b1", "c2", "d1", "f2"])  # every encoding, both frame rates
def test_a_step(row: str, speech: np.ndarray) -> None:
    config = narrow(compose(f"ablation/{row}", DATA).objective)
    codec = config.model.codec
    params, statistics = random_semantic(config.model.semantic)
    frozen: Any = {"semantic": params, "statistics": statistics} if config.needs_features else {}
    # Beyond the warm-up's rate of 0.
    state = dataclasses.replace(new_state(config), step=jnp.asarray(5000))
    audio = np.stack([speech[start:][:SAMPLES] for start in (30_000, 40_000)])
    function = jax.jit(functools.partial(train.train_step, config, bypass=False))
    lowered = function.lower(state, frozen, {"audio": audio})
    after, terms = lowered.compile(compiler_options=QUICK)(state, frozen, {"audio": audio})
    expected = {"mel", "adversarial", "feature_matching", "commitment", "codebook"}
    if codec.encoding != "dac":
        expected.add("reconstruction")
    if codec.is_dual:
        expected |= {"semantic_commitment", "semantic_codebook"}
    logged = {"total", "discriminator", "learning_rate", "discriminator_learning_rate"}
    assert set(terms) == expected | logged | {"generator_norm", "discriminator_norm"}
    assert all(np.isfinite(value) for value in terms.values())
    same = jax.tree.map(lambda a, b: bool((a == b).all()), state.generator, after.generator)
    assert not any(jax.tree.leaves(same)), "some parameter was not trained"
    used = np.asarray(after.code_frequency).sum(1)
    np.testing.assert_allclose(used, np.ones(codec.n_quantizers), rtol=1e-5)
    assert after.code_frequency.shape == (codec.n_quantizers, max(codec.codebook_sizes))
    assert code_length(SAMPLES, codec) >= 3


def test_contradicting_options() -> None:
    with pytest.raises(ConfigError, match="bypass_rate must be 0 with encoding dac"):
        compose("dualcodec_train", [*DATA, "model.model.encoding=dac"])
    with pytest.raises(ConfigError, match="semantic_vq=false contradicts"):
        compose("dualcodec_train", [*DATA, "trainer.cfg.semantic_vq=false"])
    with pytest.raises(ConfigError, match=r"use model\.model\.encoding=dac_distilled"):
        compose("dualcodec_train", [*DATA, "model.model.distill=true"])
    accepted = ["trainer.cfg.semantic_vq=false", "trainer.exp_name=x"]
    assert compose("ablation/b1", [*DATA, *accepted]).name == "x"
