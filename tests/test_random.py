"""The fast random parameters against the initial values of the modules themselves."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dualcodec_jax import config
from dualcodec_jax.convert.engine import Path, flatten
from dualcodec_jax.convert.files import codec_shapes, semantic_shapes
from dualcodec_jax.model import random_model, random_semantic
from dualcodec_jax.nn.codec import DualCodec
from dualcodec_jax.nn.random import random_params
from dualcodec_jax.nn.w2v_bert import W2vBert
from dualcodec_jax.nn.whisper import WhisperEncoder

# Every kind of layer once or twice, as compiling JAX's generators takes long.
CODEC = dataclasses.replace(
    config.TINY,
    encoder_dim=16,
    encoder_rates=(5, 2),
    decoder_rates=(2, 5),
    n_codebooks=2,
    convnext_layers=1,
)
SEMANTIC = dataclasses.replace(config.TINY_W2V_BERT, num_layers=1)
WHISPER = config.WhisperConfig(
    num_mels=20, hidden_size=64, num_layers=1, num_heads=4, intermediate_size=96
)
# Standard errors that two samples may lie apart; some 400 comparisons are made.
SIGMAS = 5


def initial(module: Any, *args: Any) -> dict[Path, np.ndarray]:
    key = jax.random.key(0, impl="unsafe_rbg")  # Compiles ten times as fast as threefry.
    return flatten(jax.tree.map(np.asarray, jax.jit(module.init)(key, *args)["params"]))


@pytest.fixture(scope="module", params=["codec", "semantic", "whisper"])
def both(request: pytest.FixtureRequest) -> tuple[dict[Path, Any], dict[Path, Any]]:
    """Leaves of the module's initial values and of the fast ones."""
    if request.param == "codec":
        audio = jnp.zeros((1, 2 * CODEC.hop_length, 1))
        features = jnp.zeros((1, 2, CODEC.semantic_dim))
        slow = initial(DualCodec(CODEC), audio, features)
        return slow, flatten(random_params(codec_shapes(CODEC), seed=1))
    if request.param == "whisper":
        slow = initial(WhisperEncoder(WHISPER), jnp.zeros((1, 4, 20)), jnp.array([4]))
        return slow, flatten(random_params(semantic_shapes(WHISPER), seed=1))
    slow = initial(W2vBert(SEMANTIC), jnp.zeros((1, 2, SEMANTIC.input_dim)), jnp.ones((1, 2), bool))
    return slow, flatten(random_params(semantic_shapes(SEMANTIC), seed=1))


def kinds(params: Any) -> set[Path]:
    """Paths with the numbers of repeated layers left out."""
    return {tuple(re.sub(r"_\d+$", "", name) for name in path) for path in flatten(params)}


def test_the_small_models_have_every_kind_of_parameter() -> None:
    released = config.PRESETS["12hz_v1"]
    assert kinds(codec_shapes(CODEC)) == kinds(codec_shapes(released.codec))
    assert kinds(semantic_shapes(SEMANTIC)) == kinds(semantic_shapes(released.semantic))
    assert kinds(semantic_shapes(WHISPER)) == kinds(semantic_shapes(config.WhisperConfig()))


def test_same_tree(both: Any) -> None:
    slow, fast = both
    assert {k: (v.shape, v.dtype) for k, v in slow.items()} == {
        k: (v.shape, v.dtype) for k, v in fast.items()
    }
    assert {v.dtype for v in fast.values()} == {np.dtype(np.float32)}


def test_constants_are_exact(both: Any) -> None:
    slow, fast = both
    constant = [path for path, value in slow.items() if value.size > 1 and np.ptp(value) == 0]
    assert {path[-1] for path in constant} >= {"scale", "bias"}
    for path in constant:
        np.testing.assert_array_equal(fast[path], slow[path], err_msg="/".join(path))
    for path in set(slow) - set(constant):
        assert fast[path].size == 1 or np.ptp(fast[path]) > 0, path


def test_mean_and_deviation(both: Any) -> None:
    """Within sampling error; the deviation's is at most that of a normal distribution."""
    slow, fast = both
    for path in slow:
        a, b = slow[path].ravel().astype(np.float64), fast[path].ravel().astype(np.float64)
        if path[-1] == "weight_g" or a.size < 8:
            continue
        spread = np.std(np.concatenate([a, b]))
        assert abs(a.mean() - b.mean()) <= SIGMAS * spread * np.sqrt(2 / a.size), path
        assert abs(a.std() - b.std()) <= SIGMAS * spread / np.sqrt(a.size), path


def test_same_range(both: Any) -> None:
    """Uniform values end at the same limit: fans are right even of leaves too small to average."""
    slow, fast = both
    for path in slow:
        if path[-1] in ("weight_v", "kernel", "bias") and slow[path].size > 200:
            limits = [np.max(np.abs(tree[path])) for tree in (slow, fast)]
            # The largest of n uniform values is 1/n below the limit on average.
            assert limits[0] == pytest.approx(limits[1], rel=12 / slow[path].size), path


def test_small_uniform_leaves_stay_inside_their_limit(both: Any) -> None:
    """A bias shares the fan of its kernel."""
    _, fast = both
    for path, value in fast.items():
        kernel = fast.get((*path[:-1], "weight_v"), fast.get((*path[:-1], "kernel")))
        if path[-1] == "bias" and kernel is not None:
            assert np.max(np.abs(value)) <= np.max(np.abs(kernel)) * (1 + 12 / kernel.size), path


def test_gains_are_the_norms_of_their_directions(both: Any) -> None:
    for leaves in both:
        for path, gain in leaves.items():
            if path[-1] != "weight_g":
                continue
            axes = tuple(axis for axis, size in enumerate(gain.shape) if size == 1)
            v = leaves[*path[:-1], "weight_v"].astype(np.float64)
            norm = np.sqrt(np.sum(v**2, axis=axes, keepdims=True))
            np.testing.assert_allclose(gain, norm, rtol=1e-6)


def leaves_of(tree: Any) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def test_models_are_reproducible_by_seed() -> None:
    first, same, other = (random_model("tiny", seed) for seed in (7, 7, 8))
    assert leaves_of(first.params) == leaves_of(same.params)
    assert leaves_of(first.params) != leaves_of(other.params)
    assert first.source == {"random_seed": 7}
    assert first.num_parameters == sum(leaf.size for leaf in jax.tree.leaves(first.params))


def test_semantic_models_are_reproducible_by_seed() -> None:
    for sizes in (SEMANTIC, WHISPER):
        first, same, other = (random_semantic(sizes, seed)[0] for seed in (7, 7, 8))
        assert leaves_of(first) == leaves_of(same)
        assert leaves_of(first) != leaves_of(other)


def test_random_statistics_change_nothing() -> None:
    _, statistics = random_semantic(SEMANTIC)
    np.testing.assert_array_equal(statistics["mean"], np.zeros(SEMANTIC.hidden_size))
    np.testing.assert_array_equal(statistics["var"], np.ones(SEMANTIC.hidden_size))
    assert statistics["mean"].dtype == statistics["var"].dtype == np.float32


def test_unknown_parameters_are_refused() -> None:
    shapes = {"layer": {"gamma": jax.ShapeDtypeStruct((3,), np.float32)}}
    with pytest.raises(ValueError, match="no rule for parameter layer/gamma"):
        random_params(shapes, seed=0)
