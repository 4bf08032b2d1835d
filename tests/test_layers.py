"""Layers and networks: textbook forms, weight norm, indifference to padding, precision."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dualcodec_jax import config
from dualcodec_jax.convert.engine import flatten
from dualcodec_jax.lengths import decoded_samples
from dualcodec_jax.model import DualCodecModel
from dualcodec_jax.nn import w2v_bert
from dualcodec_jax.nn.codec import DualCodec
from dualcodec_jax.nn.convnext import ConvNeXtBlock
from dualcodec_jax.nn.layers import (
    DepthwiseConv1d,
    WNConv1d,
    WNConvTranspose1d,
    fold_weight_norm,
)
from dualcodec_jax.nn.random import random_params
from dualcodec_jax.nn.w2v_bert import (
    ConformerLayer,
    ConvModule,
    FeatureProjection,
    SelfAttention,
    W2vBert,
)

TINY = config.PRESETS["tiny"]
FLOAT32 = 2e-6
W2V_BERT = config.W2vBertConfig(
    input_dim=6,
    hidden_size=8,
    num_layers=2,
    num_heads=2,
    intermediate_size=12,
    conv_kernel_size=5,
    left_max_position=3,
    right_max_position=2,
)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32)


def assert_close(actual: Any, expected: np.ndarray, limit: float = FLOAT32) -> None:
    """Within ``limit`` of the greatest expected magnitude."""
    assert actual.shape == expected.shape
    error = np.max(np.abs(np.asarray(actual, np.float64) - expected))
    assert error <= limit * np.max(np.abs(expected)), error


def randomized(module: Any, *args: Any) -> Any:
    """Parameters of ``module`` with every leaf random, so that none is 0 or 1."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), *args)["params"]
    leaves, tree = jax.tree.flatten(shapes)
    return jax.tree.unflatten(
        tree, [0.5 * normal(*leaf.shape, seed=index) for index, leaf in enumerate(leaves)]
    )


def apply(module: Any, params: Any, *args: Any) -> jax.Array:
    return jax.jit(module.apply)({"params": params}, *args)


def layer_norm(x: np.ndarray, p: Any, eps: float) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + eps)
    return centred / deviation * p["scale"] + p["bias"]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.fixture(scope="module")
def folded(tiny_model: DualCodecModel) -> Any:
    return jax.jit(fold_weight_norm)(tiny_model.params)


@pytest.fixture(scope="module")
def decoded(folded: Any) -> np.ndarray:
    return np.asarray(decode(folded))


def decode(params: Any, dtype: Any = jnp.float32) -> jax.Array:
    """Audio of random codes."""
    codes = np.random.default_rng(0).integers(0, 64, (1, 4, 5))
    run = jax.jit(DualCodec(TINY.codec, dtype).apply, static_argnames="method")
    return run({"params": params}, codes, method="decode")


@pytest.mark.parametrize(
    ("kernel_size", "stride", "dilation", "padding"),
    [(7, 1, 3, 9), (10, 5, 1, 3), (1, 1, 1, 0), (1, 2, 1, 0)],
)
def test_weight_normed_convolution(
    kernel_size: int, stride: int, dilation: int, padding: int
) -> None:
    module = WNConv1d(4, kernel_size, stride, dilation, padding)
    x = normal(2, 30, 3)
    params = randomized(module, x)
    v, g = params["weight_v"].astype(np.float64), params["weight_g"]
    assert v.shape == (kernel_size, 3, 4)
    assert g.shape == (1, 1, 4)
    kernel = v * g / np.sqrt(np.sum(v**2, axis=(0, 1), keepdims=True))
    padded = np.pad(x, ((0, 0), (padding, padding), (0, 0)))
    span = (kernel_size - 1) * dilation
    starts = range(0, padded.shape[1] - span, stride)
    windows = np.stack([padded[:, s : s + span + 1 : dilation] for s in starts], axis=1)
    expected = np.einsum("btki,kio->bto", windows, kernel) + params["bias"]
    assert_close(apply(module, params, x), expected)
    assert_close(apply(module, {"kernel": kernel, "bias": params["bias"]}, x), expected)


@pytest.mark.parametrize("stride", [2, 5])
def test_weight_normed_transposed_convolution_norms_input_channels(stride: int) -> None:
    module = WNConvTranspose1d(3, stride)
    x = normal(2, 6, 4)
    params = randomized(module, x)
    v, g = params["weight_v"].astype(np.float64), params["weight_g"]
    assert v.shape == (2, 4, stride, 3)
    assert g.shape == (1, 4, 1, 1)
    kernel = v * g / np.sqrt(np.sum(v**2, axis=(0, 2, 3), keepdims=True))
    # Sample t = s·m + phase hears inputs m (early taps) and m-1 (late taps).
    full = np.zeros((2, 7, stride, 3))
    full[:, 1:] += np.einsum("bti,ipo->btpo", x, kernel[0])
    full[:, :-1] += np.einsum("bti,ipo->btpo", x, kernel[1])
    padding = -(-stride // 2)
    expected = full.reshape(2, 7 * stride, 3)[:, padding:-padding] + params["bias"]
    assert_close(apply(module, params, x), expected)
    assert_close(apply(module, {"kernel": kernel, "bias": params["bias"]}, x), expected)


def test_folding_replaces_each_pair_and_nothing_else(
    tiny_model: DualCodecModel, folded: Any
) -> None:
    before, after = flatten(tiny_model.params), flatten(folded)
    layers = {path[:-1] for path in before if path[-1] == "weight_v"}
    assert len(layers) > 50
    normed = {(*layer, name) for layer in layers for name in ("weight_v", "weight_g")}
    assert set(after) == set(before) - normed | {(*layer, "kernel") for layer in layers}
    for path in set(after) & set(before):
        np.testing.assert_array_equal(after[path], before[path])
    for layer in layers:
        assert after[*layer, "kernel"].shape == before[*layer, "weight_v"].shape


def test_folding_twice_is_folding_once(folded: Any) -> None:
    twice = flatten(fold_weight_norm(folded))
    assert all(twice[path] is leaf for path, leaf in flatten(folded).items())


def test_the_folded_generator_is_the_same_function(
    tiny_model: DualCodecModel, decoded: np.ndarray
) -> None:
    # Two roundings of every weight apart, through 30 layers.
    assert_close(decode(tiny_model.params), decoded, 1e-5)


def test_decoder_float32_noise_is_small(folded: Any, decoded: np.ndarray) -> None:
    """Against itself in float64: what any comparison of whole decoders may ask for."""
    assert decoded.dtype == np.float32
    with jax.enable_x64(True):
        wide = decode(jax.tree.map(lambda x: np.asarray(x, np.float64), folded), jnp.float64)
        assert wide.dtype == jnp.float64
        assert_close(decoded, np.asarray(wide), 5e-5)


def test_bfloat16_decodes_to_nearly_the_same_audio(folded: Any, decoded: np.ndarray) -> None:
    narrow = decode(folded, jnp.bfloat16)
    error = np.sqrt(np.mean((narrow - decoded) ** 2) / np.mean(decoded**2))
    # 8 bits of mantissa through 30 layers; exactly 0 would mean that bfloat16 was not used.
    assert 1e-4 < error < 0.05


def test_decoder_length_and_range(folded: Any) -> None:
    for frames in (1, 5):
        codes = jnp.zeros((2, 1, frames), jnp.int32)
        audio = jax.eval_shape(
            lambda c: DualCodec(TINY.codec).apply({"params": folded}, c, method="decode"), codes
        )
        assert audio.shape == (2, decoded_samples(frames, TINY.codec), 1)
        assert audio.dtype == jnp.float32


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_what_reaches_a_quantizer_or_a_user_is_float32(folded: Any, dtype: Any) -> None:
    module = DualCodec(TINY.codec, dtype)

    def shape_of(method: str, *args: Any) -> Any:
        return jax.eval_shape(lambda: module.apply({"params": folded}, *args, method=method))

    audio, features = jnp.zeros((1, 3840, 1)), jnp.zeros((1, 1, TINY.codec.semantic_dim))
    assert shape_of("encode_acoustic", audio).dtype == jnp.float32
    latent, output = shape_of("encode_semantic", features)
    assert latent.dtype == output.latents.dtype == output.quantized.dtype == jnp.float32
    assert shape_of("encode", audio, features, 4).dtype == jnp.int32
    assert shape_of("decode", jnp.zeros((1, 4, 1), jnp.int32)).dtype == jnp.float32


def test_decoder_ignores_what_lies_past_a_length(folded: Any) -> None:
    decoder = DualCodec(TINY.codec)
    latent = normal(2, 6, TINY.codec.latent_dim)
    lengths = np.array([6, 3])
    run = jax.jit(
        lambda x, n: decoder.apply({"params": folded}, x, n, method=lambda m, *a: m.dac.decoder(*a))
    )
    clean = np.asarray(run(latent, lengths))
    for garbage in (1e3, np.nan):
        dirty = latent.copy()
        dirty[1, 3:] = garbage
        np.testing.assert_array_equal(run(dirty, lengths), clean)
    samples = decoded_samples(3, TINY.codec)
    alone = np.asarray(run(latent[1:, :3], None))
    assert_close(clean[1, :samples], alone[0], 1e-5)
    assert not clean[1, samples:].any()


def test_waveform_encoder_ignores_what_lies_past_a_length(
    tiny_model: DualCodecModel, speech: np.ndarray
) -> None:
    encoder = DualCodec(TINY.codec)
    hop = TINY.codec.hop_length
    run = jax.jit(
        lambda x, n: encoder.apply({"params": tiny_model.params}, x, n, method="encode_acoustic")
    )
    audio = np.array(speech[: 4 * hop])[None, :, None]
    true = 2 * hop + 700
    clean = audio.copy()
    clean[:, true:] = 0
    dirty = audio.copy()
    dirty[:, true:] = np.nan
    lengths = np.array([true])
    np.testing.assert_array_equal(run(dirty, lengths), run(clean, lengths))
    alone = run(audio[:, :true], None)
    assert alone.shape == (1, 3, TINY.codec.latent_dim)
    assert_close(run(dirty, lengths)[:, :3], np.asarray(alone), 1e-5)


def test_convnext_block_is_the_textbook_block() -> None:
    module = ConvNeXtBlock(8, 16, True)
    x = normal(2, 9, 8)
    p = randomized(module, x)
    padded = np.pad(x.astype(np.float64), ((0, 0), (6, 0), (0, 0)))
    y = sum(padded[:, k : k + 9] * p["dwconv"]["kernel"][k] for k in range(7))
    y = layer_norm(y + p["dwconv"]["bias"], p["norm"], 1e-6)
    y = y @ p["pwconv1"]["kernel"] + p["pwconv1"]["bias"]
    y = np.asarray(jax.nn.gelu(y.astype(np.float32), approximate=False), np.float64)
    expected = x + y @ p["pwconv2"]["kernel"] + p["pwconv2"]["bias"]
    assert_close(apply(module, p, x), expected)


def test_causal_convnext_never_looks_ahead() -> None:
    module = ConvNeXtBlock(8, 16, True)
    x = normal(1, 12, 8)
    p = randomized(module, x)
    later = x.copy()
    later[:, 7:] = 5
    before, after = (np.asarray(apply(module, p, value)) for value in (x, later))
    np.testing.assert_array_equal(before[:, :7], after[:, :7])
    assert (before[:, 7:] != after[:, 7:]).all()


def test_centred_convnext_needs_lengths_and_obeys_them() -> None:
    module = ConvNeXtBlock(8, 16, False)
    x = normal(1, 12, 8)
    p = randomized(module, x)
    dirty = x.copy()
    dirty[:, 7:] = np.nan
    alone = np.asarray(apply(module, p, x[:, :7]))
    padded = np.asarray(apply(module, p, dirty, np.array([7])))[:, :7]
    assert_close(padded, alone)
    assert not np.allclose(np.asarray(apply(module, p, x))[:, :7], alone)


@pytest.mark.parametrize("use_bias", [True, False])
def test_depthwise_layer_bias(use_bias: bool) -> None:
    module = DepthwiseConv1d(3, (2, 0), use_bias)
    x = normal(1, 5, 2)
    p = randomized(module, x)
    assert ("bias" in p) == use_bias
    padded = np.pad(x, ((0, 0), (2, 0), (0, 0)))
    expected = sum(padded[:, k : k + 5] * p["kernel"][k] for k in range(3)) + p.get("bias", 0)
    assert_close(apply(module, p, x), expected)


def textbook_attention(x: np.ndarray, mask: np.ndarray, p: Any) -> np.ndarray:
    """Relative-key attention one head and one query at a time, float64."""
    cfg, head = W2V_BERT, W2V_BERT.hidden_size // W2V_BERT.num_heads
    q, k, v = (x @ p[n]["kernel"] + p[n]["bias"] for n in ("linear_q", "linear_k", "linear_v"))
    context = np.zeros_like(q)
    for item, h in np.ndindex(x.shape[0], cfg.num_heads):
        own = slice(h * head, (h + 1) * head)
        for left in range(x.shape[1]):
            scores = np.full(x.shape[1], -np.inf)
            for right in np.flatnonzero(mask[item]):
                distance = np.clip(right - left, -cfg.left_max_position, cfg.right_max_position)
                embedding = p["distance_embedding"][distance + cfg.left_max_position]
                scores[right] = q[item, left, own] @ (k[item, right, own] + embedding)
            weights = np.exp((scores - scores.max()) / np.sqrt(head))
            context[item, left, own] = weights @ v[item, :, own] / weights.sum()
    return context @ p["linear_out"]["kernel"] + p["linear_out"]["bias"]


@pytest.mark.parametrize("query_block", [1024, 4])
def test_attention_is_the_textbook_sum(query_block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all queries at once, and in blocks of which the last is not full."""
    monkeypatch.setattr(w2v_bert, "QUERY_BLOCK", query_block)
    module = SelfAttention(W2V_BERT)
    x = normal(2, 10, 8)
    mask = np.arange(10) < np.array([[10], [7]])
    p = randomized(module, x, mask)
    assert_close(apply(module, p, x, mask), textbook_attention(x.astype(np.float64), mask, p))


def test_conv_module_is_the_textbook_module() -> None:
    module = ConvModule(W2V_BERT)
    x = normal(2, 9, 8)
    mask = np.arange(9) < np.array([[9], [6]])
    p = randomized(module, x, mask)
    y = layer_norm(x.astype(np.float64), p["layer_norm"], 1e-5) * mask[..., None]
    y = y @ p["pointwise_conv1"]["kernel"]
    y = y[..., :8] * sigmoid(y[..., 8:])
    padded = np.pad(y, ((0, 0), (4, 0), (0, 0)))
    y = sum(padded[:, k : k + 9] * p["depthwise_conv"]["kernel"][k] for k in range(5))
    y = layer_norm(y, p["depthwise_layer_norm"], 1e-5)
    expected = (y * sigmoid(y)) @ p["pointwise_conv2"]["kernel"]
    assert_close(apply(module, p, x, mask), expected)


def test_semantic_model_ignores_masked_frames_and_what_follows() -> None:
    module = W2vBert(W2V_BERT)
    x = normal(2, 12, 6)
    mask = np.arange(12) < np.array([[12], [8]])
    params = random_params(
        jax.eval_shape(module.init, jax.random.key(0), x, mask)["params"], seed=0
    )
    dirty = x.copy()
    dirty[1, 8:] = np.nan
    run = jax.jit(lambda x, mask: module.apply({"params": params}, x, mask))
    clean, padded = np.asarray(run(x, mask)), np.asarray(run(dirty, mask))
    np.testing.assert_array_equal(padded[0], clean[0])
    np.testing.assert_array_equal(padded[1, :8], clean[1, :8])
    assert np.isfinite(padded).all()
    assert_close(padded[1:, :8], np.asarray(run(x[1:, :8], mask[1:, :8])))
    # DualCodec pools the first masked frame, so it has to be computed, as upstream does.
    assert padded[1, 8].std() > 0.1


def test_layers_of_the_semantic_model_are_traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seventeen of them took two seconds of every process."""
    small = config.W2vBertConfig(
        input_dim=8, hidden_size=16, num_layers=5, num_heads=2, intermediate_size=24
    )
    model = W2vBert(small)
    x, mask = jnp.ones((1, 7, 8)), jnp.ones((1, 7), bool)
    variables = model.init(jax.random.key(0), x, mask)
    traced = []
    call = ConformerLayer.__call__
    monkeypatch.setattr(
        ConformerLayer, "__call__", lambda self, *a: traced.append(1) or call(self, *a)
    )
    one_by_one = jax.jit(lambda v, x, m: _layer_by_layer(small, v["params"], x, m))
    together = jax.jit(model.apply)(variables, x, mask)
    assert len(traced) == 1
    np.testing.assert_array_equal(together, one_by_one(variables, x, mask))


def _layer_by_layer(sizes: config.W2vBertConfig, params: Any, x: Any, mask: Any) -> Any:
    x = FeatureProjection(sizes).apply({"params": params["feature_projection"]}, x)
    for index in range(sizes.num_layers):
        x = ConformerLayer(sizes).apply({"params": params[f"layer_{index}"]}, x, mask)
    return x
