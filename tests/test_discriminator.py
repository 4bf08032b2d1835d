"""The discriminator without its PyTorch original: shapes, sizes, errors, gradients."""

from __future__ import annotations

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dualcodec_jax.config import DiscriminatorConfig
from dualcodec_jax.convert.discriminator import discriminator_rules
from dualcodec_jax.convert.engine import flatten
from dualcodec_jax.errors import InputError
from dualcodec_jax.nn import discriminator
from dualcodec_jax.nn.discriminator import Discriminator, DiscriminatorOutput, WNConv2d
from dualcodec_jax.nn.layers import fold_weight_norm

RELEASED = DiscriminatorConfig()
SMALL = DiscriminatorConfig(
    periods=(2, 5),
    period_channels=(4, 8),
    fft_sizes=(64,),
    bands=((0.0, 0.25), (0.25, 1.0)),
    spectral_channels=4,
)


def noise(num_samples: int, batch: int = 2) -> jax.Array:
    return 0.1 * jax.random.normal(jax.random.key(0), (batch, num_samples, 1))


@jax.jit
def apply_small(params: Any, audio: jax.Array) -> Any:
    return Discriminator(SMALL).apply({"params": params}, audio)


@pytest.fixture(scope="module")
def small_params() -> Any:
    return jax.jit(Discriminator(SMALL).init)(jax.random.key(1), noise(400))["params"]


def test_released_size() -> None:
    model = Discriminator(RELEASED)
    shapes = jax.eval_shape(model.init, jax.random.key(0), noise(4800))["params"]
    leaves = flatten(shapes)
    assert len(leaves) == 324
    assert sum(math.prod(leaf.shape) for leaf in leaves.values()) == 46_698_544
    rules = discriminator_rules(RELEASED)
    assert {rule.path for rule in rules} == set(leaves)
    assert len({rule.torch_key for rule in rules}) == len(rules) == 324


def expected_shapes(num_samples: int, batch: int) -> list[Any]:
    """Shapes of the released size, features then score, as DiscriminatorOutput states them."""
    shapes = []
    for period in RELEASED.periods:
        rows = num_samples // period + 1
        layers = zip((1, 2, 3, 4, 4), RELEASED.period_channels, strict=True)
        own = [(batch, math.ceil(rows / 3**k), period, channels) for k, channels in layers]
        shapes.append([*own, (*own[-1][:3], 1)])
    for window in RELEASED.fft_sizes:
        frames = math.ceil(num_samples / (window // 4))
        widths = [high - low for low, high in discriminator.band_bins(window, RELEASED.bands)]
        own = [(batch, frames, math.ceil(w / 2**k), 64) for w in widths for k in (0, 1, 2, 3, 3)]
        shapes.append([*own, (batch, frames, sum(shape[2] for shape in own[4::5]), 1)])
    return shapes


@pytest.mark.parametrize("num_samples", [4608, 4620, 5003])
def test_output_shapes(num_samples: int) -> None:
    model = Discriminator(RELEASED)
    outputs, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), noise(num_samples))
    assert len(outputs) == 8
    actual = [[leaf.shape for leaf in (*out.features, out.score)] for out in outputs]
    assert actual == expected_shapes(num_samples, 2)


def test_band_bins_of_the_released_windows() -> None:
    edges = {
        2048: [0, 102, 256, 512, 768, 1025],
        1024: [0, 51, 128, 256, 384, 513],
        512: [0, 25, 64, 128, 192, 257],
    }
    for window, bins in edges.items():
        expected = list(itertools.pairwise(bins))
        assert discriminator.band_bins(window, RELEASED.bands) == expected


def test_small_discriminator_under_jit(small_params: Any) -> None:
    outputs = apply_small(small_params, noise(400))
    assert all(isinstance(output, DiscriminatorOutput) for output in outputs)
    assert [len(output.features) for output in outputs] == [2, 2, 10]
    for leaf in jax.tree.leaves(outputs):
        assert leaf.dtype == jnp.float32
        assert np.all(np.isfinite(leaf))


def test_items_of_a_batch_are_independent(small_params: Any) -> None:
    audio = noise(400)
    swapped = apply_small(small_params, audio[::-1])
    for a, b in zip(
        jax.tree.leaves(apply_small(small_params, audio)), jax.tree.leaves(swapped), strict=True
    ):
        assert np.max(np.abs(a[0] - a[1])) > 0
        np.testing.assert_allclose(a, b[::-1], atol=1e-5)


def test_level_and_offset_do_not_matter(small_params: Any) -> None:
    plain = apply_small(small_params, noise(400))
    moved = apply_small(small_params, 0.25 * noise(400) + 0.5)
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(moved), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_bfloat16_keeps_scores_float32(small_params: Any) -> None:
    model = Discriminator(SMALL, jnp.bfloat16)
    outputs = jax.jit(model.apply)({"params": small_params}, noise(400))
    for output, exact in zip(outputs, apply_small(small_params, noise(400)), strict=True):
        assert output.score.dtype == jnp.float32
        assert {feature.dtype for feature in output.features} == {jnp.dtype(jnp.bfloat16)}
        np.testing.assert_allclose(output.score, exact.score, atol=0.02)


def test_folded_weights_give_the_same_scores(small_params: Any) -> None:
    folded = fold_weight_norm(small_params)
    assert set(folded["period_0"]["conv_0"]) == {"kernel", "bias"}
    expected = apply_small(small_params, noise(400))
    for a, b in zip(apply_small(folded, noise(400)), expected, strict=True):
        np.testing.assert_allclose(a.score, b.score, atol=1e-6)


def test_gradient_on_silence_is_finite(small_params: Any) -> None:
    def loss(params: Any, audio: jax.Array) -> jax.Array:
        scores = [output.score for output in apply_small(params, audio)]
        return jnp.sum(jnp.stack([jnp.mean(jnp.square(1 - score)) for score in scores]))

    gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))(small_params, jnp.zeros((2, 400, 1)))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradients))


def test_normalize_gives_the_gradient_of_the_peak_to_one_sample() -> None:
    # 1 and −1 share the peak; torch differentiates through the first of them alone.
    audio = jnp.asarray([0.5, 1.0, -1.0, -0.5]).reshape(1, 4, 1)
    jacobian = jax.jacobian(discriminator.normalize)(audio).reshape(4, 4)
    levels, mean = np.ravel(audio), np.full(4, 0.25)
    through_peak = np.outer(levels, np.eye(4)[1] - mean)
    np.testing.assert_allclose(jacobian, 0.8 * (np.eye(4) - mean - through_peak), atol=1e-6)


def test_initial_gain_is_the_norm() -> None:
    params = WNConv2d(6, (3, 9)).init(jax.random.key(0), jnp.zeros((1, 4, 10, 2)))["params"]
    assert params["weight_v"].shape == (3, 9, 2, 6)
    norms = np.sqrt(np.sum(np.square(params["weight_v"]), axis=(0, 1, 2)))
    np.testing.assert_allclose(params["weight_g"][0, 0, 0], norms, rtol=1e-6)
    assert np.max(np.abs(params["weight_v"])) <= 1 / math.sqrt(2 * 27)


@pytest.mark.parametrize("num_samples", [1, 11, 769, 1025, 1152])
def test_short_audio_is_refused(num_samples: int) -> None:
    with pytest.raises(InputError, match=f"audio of {num_samples} samples.*at least 1280"):
        jax.eval_shape(Discriminator(RELEASED).init, jax.random.key(0), noise(num_samples))


def test_every_length_from_the_minimum_on_is_accepted() -> None:
    assert discriminator.min_samples(RELEASED) == 1280
    for num_samples in range(1280, 4000):
        discriminator.check_length(num_samples, RELEASED)


@pytest.mark.parametrize("period", [2, 11])
def test_a_period_alone_refuses_short_audio(period: int) -> None:
    model = discriminator.PeriodDiscriminator(period, (4,))
    with pytest.raises(InputError, match=f"audio of {period} samples"):
        model.init(jax.random.key(0), noise(period))
