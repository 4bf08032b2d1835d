"""Quantizers: straight-through gradients, quantizer dropout, prefixes, decoding."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dualcodec_jax import config
from dualcodec_jax.model import DualCodecModel
from dualcodec_jax.nn.codec import DualCodec
from dualcodec_jax.nn.layers import fold_weight_norm
from dualcodec_jax.nn.quantize import QuantizerOutput, ResidualVectorQuantize, VectorQuantize

DIM, SIZE, WIDTH, BOOKS = 12, 32, 4, 3
BATCH, FRAMES = 4, 6
# float32 sums of some ten products of order one.
FLOAT32 = 1e-6

fold = jax.jit(fold_weight_norm)
vq = VectorQuantize(DIM, SIZE, WIDTH)
rvq = ResidualVectorQuantize(DIM, (SIZE,) * BOOKS, WIDTH)


@pytest.fixture(scope="module")
def z() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((BATCH, FRAMES, DIM)).astype(np.float32)


@pytest.fixture(scope="module")
def params(z: np.ndarray) -> Any:
    return jax.jit(rvq.init)(jax.random.key(0), z)["params"]


@functools.partial(jax.jit, static_argnums=2)
def run(
    params: Any, z: Any, n_quantizers: int | None = None, active: Any = None
) -> QuantizerOutput:
    return rvq.apply({"params": params}, z, n_quantizers, active)


@jax.jit
def decode(params: Any, codes: Any) -> jax.Array:
    return rvq.apply({"params": params}, codes, method="decode")


def plain_layer(p: Any, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(vectors, codes, projected input, loss of each item) of one quantizer, in float64."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), fold(p))
    latents = z @ p["in_proj"]["kernel"][0] + p["in_proj"]["bias"]
    rows = p["codebook"] / np.linalg.norm(p["codebook"], axis=-1, keepdims=True)
    unit = latents / np.linalg.norm(latents, axis=-1, keepdims=True)
    codes = np.argmax(unit @ rows.T, axis=-1)
    chosen = p["codebook"][codes]
    vectors = chosen @ p["out_proj"]["kernel"][0] + p["out_proj"]["bias"]
    return vectors, codes, latents, np.mean((latents - chosen) ** 2, axis=(1, 2))


def plain_stack(
    params: Any, z: np.ndarray, active: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """(sum, codes, loss) of the stack with quantizer dropout, one item and layer at a time."""
    total, codes, loss = np.zeros(z.shape), [], 0.0
    residual = z.astype(np.float64)
    for index in range(BOOKS):
        vectors, layer_codes, _, losses = plain_layer(params[f"quantizer_{index}"], residual)
        residual = residual - vectors
        codes.append(layer_codes)
        for item in range(len(z)):
            if index < active[item]:
                total[item] += vectors[item]
                loss += losses[item] / len(z)
    return total, np.stack(codes, axis=1), loss


def test_one_quantizer_is_its_plain_form(params: Any, z: np.ndarray) -> None:
    own = params["quantizer_0"]
    output = jax.jit(lambda p: vq.apply({"params": p}, z))(own)
    vectors, codes, latents, losses = plain_layer(own, z)
    np.testing.assert_array_equal(output.codes[:, 0], codes)
    np.testing.assert_allclose(output.quantized, vectors, atol=FLOAT32)
    np.testing.assert_allclose(output.latents[:, 0], latents, atol=FLOAT32)
    np.testing.assert_allclose(output.commitment_loss, losses, rtol=FLOAT32)
    np.testing.assert_allclose(output.codebook_loss, losses, rtol=FLOAT32)


def test_shapes_and_types(params: Any, z: np.ndarray) -> None:
    output = run(params, z)
    assert output.quantized.shape == (BATCH, FRAMES, DIM)
    assert output.codes.shape == (BATCH, BOOKS, FRAMES)
    assert output.codes.dtype == jnp.int32
    assert output.latents.shape == (BATCH, BOOKS, FRAMES, WIDTH)
    assert output.commitment_loss.shape == output.codebook_loss.shape == ()


@pytest.mark.parametrize("active", [[3, 3, 3, 3], [1, 2, 3, 4], [0, 0, 0, 1], [0, 0, 0, 0]])
def test_dropout_is_a_loop_over_items_and_layers(
    params: Any, z: np.ndarray, active: list[int]
) -> None:
    output = run(params, z, None, np.array(active))
    total, codes, loss = plain_stack(params, z, np.array(active))
    np.testing.assert_array_equal(output.codes, codes)
    np.testing.assert_allclose(output.quantized, total, atol=5 * FLOAT32)
    np.testing.assert_allclose(output.commitment_loss, loss, rtol=5 * FLOAT32)
    np.testing.assert_allclose(output.codebook_loss, loss, rtol=5 * FLOAT32)


def test_without_dropout_every_layer_counts(params: Any, z: np.ndarray) -> None:
    all_active = run(params, z, None, np.full(BATCH, BOOKS))
    for name in ("quantized", "codes", "latents", "commitment_loss", "codebook_loss"):
        np.testing.assert_allclose(
            getattr(run(params, z), name), getattr(all_active, name), rtol=FLOAT32
        )


def test_a_dropped_item_still_counts_in_the_mean(params: Any, z: np.ndarray) -> None:
    """One item of four is active: the loss is a quarter of what it costs alone."""
    one = run(params, z, None, np.array([0, BOOKS, 0, 0]))
    alone = run(params, z[1:2])
    np.testing.assert_allclose(one.commitment_loss * BATCH, alone.commitment_loss, rtol=5 * FLOAT32)


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_quantizers_give_the_first_rows(params: Any, z: np.ndarray, count: int) -> None:
    everything, some = run(params, z), run(params, z, count)
    np.testing.assert_array_equal(some.codes, everything.codes[:, :count])
    np.testing.assert_array_equal(some.latents, everything.latents[:, :count])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_decoding_codes_gives_the_quantized_sum(params: Any, z: np.ndarray, count: int) -> None:
    output = run(params, z, count)
    decoded = decode(params, output.codes)
    np.testing.assert_allclose(decoded, output.quantized, atol=5 * FLOAT32)


def test_the_gradient_passes_straight_through(params: Any, z: np.ndarray) -> None:
    """d(quantized)/dz is out_proj ∘ in_proj, as if nothing had been quantized."""
    own = params["quantizer_0"]
    upstream = np.random.default_rng(1).standard_normal(z.shape).astype(np.float32)

    @jax.jit
    def pull_back(upstream: jax.Array) -> jax.Array:
        return jax.vjp(lambda z: vq.apply({"params": own}, z).quantized, z)[1](upstream)[0]

    kernels = fold(own)
    inner, outer = (kernels[name]["kernel"][0] for name in ("in_proj", "out_proj"))
    np.testing.assert_allclose(pull_back(upstream), upstream @ (inner @ outer).T, atol=1e-5)


def test_the_straight_through_value_is_the_codebook_row() -> None:
    """With identity projections the output is the raw row and the gradient exactly 1."""
    module = VectorQuantize(WIDTH, SIZE, WIDTH)
    x = np.random.default_rng(0).standard_normal((1, 5, WIDTH)).astype(np.float32)
    eye = {"kernel": np.eye(WIDTH, dtype=np.float32)[None], "bias": np.zeros(WIDTH, np.float32)}
    book = np.random.default_rng(1).standard_normal((SIZE, WIDTH)).astype(np.float32)
    own = {"in_proj": eye, "out_proj": eye, "codebook": jnp.asarray(book)}

    def total(x: jax.Array) -> Any:
        output = module.apply({"params": own}, x)
        return jnp.sum(output.quantized), output

    gradient, output = jax.jit(jax.grad(total, has_aux=True))(x)
    np.testing.assert_allclose(output.quantized, book[output.codes[:, 0]], atol=FLOAT32)
    np.testing.assert_array_equal(gradient, np.ones_like(x))


def test_each_loss_trains_its_own_side(params: Any, z: np.ndarray) -> None:
    own = params["quantizer_0"]

    def loss(p: Any, name: str) -> jax.Array:
        return jnp.sum(getattr(vq.apply({"params": p}, z), name))

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    commitment = gradient(own, "commitment_loss")
    codebook = gradient(own, "codebook_loss")
    assert not np.any(commitment["codebook"])
    assert np.any(commitment["in_proj"]["weight_v"])
    assert np.any(codebook["codebook"])
    assert not np.any(codebook["in_proj"]["weight_v"])


def test_only_chosen_rows_get_a_gradient(params: Any, z: np.ndarray) -> None:
    own = params["quantizer_0"]

    def loss(p: Any) -> Any:
        output = vq.apply({"params": p}, z)
        return jnp.sum(output.codebook_loss), output.codes

    gradient, codes = jax.jit(jax.grad(loss, has_aux=True))(own)
    moved = np.flatnonzero(np.any(gradient["codebook"], axis=-1))
    np.testing.assert_array_equal(moved, np.unique(codes))
    assert len(moved) < SIZE


def test_residuals_are_not_detached(params: Any, z: np.ndarray) -> None:
    """As upstream: what a later layer leaves over trains the layers before it."""

    def last_commitment(p: Any) -> jax.Array:
        output = rvq.apply({"params": p}, z)
        latents, codes = output.latents[:, -1], output.codes[:, -1]
        rows = p[f"quantizer_{BOOKS - 1}"]["codebook"][codes]
        return jnp.mean(jnp.square(latents - jax.lax.stop_gradient(rows)))

    gradient = jax.jit(jax.grad(last_commitment))(params)
    for index in range(BOOKS - 1):
        assert np.any(gradient[f"quantizer_{index}"]["out_proj"]["weight_v"])


def test_dropped_layers_get_no_gradient(params: Any, z: np.ndarray) -> None:
    @jax.jit
    @jax.grad
    def gradient(p: Any, active: Any) -> jax.Array:
        output = rvq.apply({"params": p}, z, None, active)
        return jnp.sum(output.quantized**2) + output.commitment_loss + output.codebook_loss

    for active in (0, 1, 2, 3):
        by_layer = gradient(params, np.full(BATCH, active))
        for index in range(BOOKS):
            assert np.any(by_layer[f"quantizer_{index}"]["codebook"]) == (index < active)


def test_numpy_parameters_may_be_constants(params: Any, z: np.ndarray) -> None:
    """Loaded weights are numpy; a jitted function may close over them."""
    constants = jax.tree.map(np.asarray, params)
    output = jax.jit(lambda z: rvq.apply({"params": constants}, z, 1))(z)
    np.testing.assert_array_equal(output.codes, run(params, z, 1).codes)


def test_codes_do_not_depend_on_the_compute_dtype(tiny_model: DualCodecModel) -> None:
    """The same latents: both quantizers of a bfloat16 generator search in float32."""
    cfg = config.PRESETS["tiny"].codec
    rng = np.random.default_rng(0)
    semantic = rng.standard_normal((1, 50, cfg.convnext_dim)).astype(np.float32)
    acoustic = rng.standard_normal((1, 50, cfg.latent_dim)).astype(np.float32)

    def quantize(module: Any) -> Any:
        return module.semantic_vq(semantic), module.dac.quantizer(acoustic)

    outputs = []
    for dtype in (jnp.float32, jnp.bfloat16):
        apply = jax.jit(DualCodec(cfg, dtype).apply, static_argnames="method")
        outputs.append(apply({"params": tiny_model.params}, method=quantize))
    for wide, narrow in zip(*outputs, strict=True):
        assert len(np.unique(wide.codes)) > 20
        np.testing.assert_array_equal(wide.codes, narrow.codes)
        np.testing.assert_array_equal(wide.quantized, narrow.quantized)
        assert narrow.quantized.dtype == jnp.float32
