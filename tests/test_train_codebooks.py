"""Codebooks that move by more than their gradient."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest

pytest.importorskip("optax")

import jax
import jax.numpy as jnp
from micro import CODEC, OBJECTIVE, QUICK

from dualcodec_jax.errors import ConfigError
from dualcodec_jax.train.codebooks import Assignment, update_codebooks
from dualcodec_jax.train.config import CodebookConfig, LossConfig
from dualcodec_jax.train.state import new_state
from dualcodec_jax.train.step import train_step

SEMANTIC = ("semantic_vq", "quantizer_0")
FRAMES, DIM = 30, 8


def codebook(params: Any, *path: str) -> np.ndarray:
    for name in (*path, "codebook"):
        params = params[name]
    return np.asarray(params)


@pytest.fixture(scope="module")
def params() -> Any:
    return new_state(OBJECTIVE).generator


@pytest.fixture(scope="module")
def assignment() -> Assignment:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 20, (2, 4, FRAMES)).astype(np.int32)  # few of the rows
    latents = rng.standard_normal((2, 4, FRAMES, DIM)).astype(np.float32)
    return Assignment(jnp.asarray(codes), jnp.asarray(latents))


def frequencies(value: float) -> jax.Array:
    return jnp.full((CODEC.n_quantizers, max(CODEC.codebook_sizes)), value, jnp.float32)


def test_rows_move_towards_the_mean_of_their_latents(params: Any, assignment: Assignment) -> None:
    config = CodebookConfig(rate=0.1)
    key = jax.random.key(0)
    after, _ = update_codebooks(config, CODEC, params, assignment, frequencies(1.0), key)
    for row, path in enumerate(
        [SEMANTIC, *(("dac", "quantizer", f"quantizer_{i}") for i in range(3))]
    ):
        expected = codebook(params, *path).astype(np.float64)
        codes = np.asarray(assignment.codes)[:, row].ravel()
        latents = np.asarray(assignment.latents, np.float64)[:, row].reshape(-1, DIM)
        for code in np.unique(codes):
            own = latents[codes == code]
            share = 1 - 0.9 ** len(own)
            expected[code] += share * (own.mean(axis=0) - expected[code])
        np.testing.assert_allclose(codebook(after, *path), expected, atol=1e-6)


def test_unused_rows_restart_at_latents(params: Any, assignment: Assignment) -> None:
    config = CodebookConfig(restart=0.5)
    size = CODEC.codebook_size
    frequency = frequencies(1.0).at[2, 7].set(0.4 / size).at[2, 8].set(0.6 / size)
    key = jax.random.key(0)
    after, used = update_codebooks(config, CODEC, params, assignment, frequency, key)
    path = ("dac", "quantizer", "quantizer_1")
    moved = (codebook(after, *path) != codebook(params, *path)).any(axis=1)
    assert moved.nonzero()[0].tolist() == [7]
    latents = np.asarray(assignment.latents)[:, 2].reshape(-1, DIM)
    assert (latents == codebook(after, *path)[7]).all(axis=1).any()
    assert float(used[2, 7]) == pytest.approx(1 / size)
    assert np.array_equal(codebook(after, *SEMANTIC), codebook(params, *SEMANTIC))


def test_a_bypass_moves_the_semantic_codebook_alone(params: Any, assignment: Assignment) -> None:
    first = Assignment(assignment.codes[:, :1], assignment.latents[:, :1])
    config = CodebookConfig(rate=0.1, restart=0.5)
    key = jax.random.key(0)
    after, _ = update_codebooks(config, CODEC, params, first, frequencies(0.0), key)
    assert not np.array_equal(codebook(after, *SEMANTIC), codebook(params, *SEMANTIC))
    assert after["dac"] is params["dac"]


def test_a_dac_without_semantic_stream(assignment: Assignment) -> None:
    codec = dataclasses.replace(CODEC, encoding="dac")
    stack = {f"quantizer_{i}": {"codebook": jnp.zeros((64, DIM))} for i in range(4)}
    tree = {"dac": {"quantizer": stack}}
    config = CodebookConfig(rate=0.1)
    after, _ = update_codebooks(
        config, codec, tree, assignment, frequencies(1.0), jax.random.key(0)
    )
    for i in range(4):
        assert codebook(after, "dac", "quantizer", f"quantizer_{i}").any()


@pytest.mark.slow
def test_training_uses_more_of_the_codebooks(speech: np.ndarray) -> None:
    """Without discriminators too, which then stay as they are."""
    losses = LossConfig(adversarial=0.0, feature_matching=0.0, codebook=0.0, semantic_codebook=0.0)
    objective = dataclasses.replace(
        OBJECTIVE, losses=losses, codebooks=CodebookConfig(rate=0.1, restart=0.1)
    )
    rows = np.stack([speech[20_000 + 7000 * k :][:4800] for k in range(4)])
    features = np.random.default_rng(0).standard_normal((4, 9, CODEC.semantic_dim))
    batch = {"audio": jnp.asarray(rows), "features": jnp.asarray(features, jnp.float32)}
    state = before = new_state(objective)
    step = (
        jax.jit(functools.partial(train_step, objective, bypass=False))
        .lower(state, {}, batch)
        .compile(compiler_options=QUICK)
    )
    usage = []
    for _ in range(20):
        state, terms = step(state, {}, batch)
        usage.append(int((np.asarray(state.code_frequency)[1, :64] > 0.1 / 64).sum()))
    assert int(state.bad_steps) == 0
    assert "discriminator" not in terms
    assert usage[-1] > 32
    assert jax.tree.all(jax.tree.map(np.array_equal, before.discriminator, state.discriminator))


@pytest.mark.parametrize("values", [{"rate": 1.0}, {"restart": -0.1}])
def test_bad_settings(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        CodebookConfig(**values)
