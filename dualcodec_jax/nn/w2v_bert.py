"""w2v-BERT 2.0: the self-supervised speech model behind the semantic stream.

A conformer with relative-key attention and causal depthwise convolutions, cut after the
layer that DualCodec reads. Source: ``transformers`` ``modeling_wav2vec2_bert.py``, in
evaluation mode.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from dualcodec_jax.config import W2vBertConfig
from dualcodec_jax.nn import ops
from dualcodec_jax.nn.layers import Dense, DepthwiseConv1d, LayerNorm

QUERY_BLOCK = 1024
"""Attention runs over at most this many queries at a time, which bounds its memory."""


class FeedForward(nn.Module):
    """Linear → swish → linear, ``[B, S, hidden] → [B, S, hidden]``."""

    config: W2vBertConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.intermediate_dense = Dense(self.config.intermediate_size, dtype=self.dtype)
        self.output_dense = Dense(self.config.hidden_size, dtype=self.dtype)

    def __call__(self, x: Array) -> Array:
        return self.output_dense(jax.nn.swish(self.intermediate_dense(x)))


class SelfAttention(nn.Module):
    """Multi-head attention whose scores add q · E[clip(r − l)], one table E for all heads.

    Masked keys are excluded; masked queries are computed like the others, as upstream does.
    Softmax is float32.
    """

    config: W2vBertConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        cfg = self.config
        self.linear_q = Dense(cfg.hidden_size, dtype=self.dtype)
        self.linear_k = Dense(cfg.hidden_size, dtype=self.dtype)
        self.linear_v = Dense(cfg.hidden_size, dtype=self.dtype)
        self.linear_out = Dense(cfg.hidden_size, dtype=self.dtype)
        head_dim = cfg.hidden_size // cfg.num_heads
        distances = cfg.left_max_position + 1 + cfg.right_max_position
        self.distance_embedding = self.param(
            "distance_embedding", nn.initializers.normal(1.0), (distances, head_dim)
        )

    def __call__(self, x: Array, mask: Array) -> Array:
        batch, length, _ = x.shape
        heads = (batch, length, self.config.num_heads, -1)
        query, key, value = (
            layer(x).reshape(heads).swapaxes(1, 2)
            for layer in (self.linear_q, self.linear_k, self.linear_v)
        )
        blocks = -(-length // QUERY_BLOCK)
        if blocks == 1:
            context = self._attend(query, key, value, mask, jnp.arange(length))
        else:
            padding = ((0, 0), (0, 0), (0, blocks * QUERY_BLOCK - length), (0, 0))
            split = jnp.pad(query, padding).reshape(*query.shape[:2], blocks, QUERY_BLOCK, -1)
            positions = jnp.arange(blocks * QUERY_BLOCK).reshape(blocks, QUERY_BLOCK)
            context = lax.map(
                lambda block: self._attend(block[0], key, value, mask, block[1]),
                (jnp.moveaxis(split, 2, 0), positions),
            )
            context = jnp.moveaxis(context, 0, 2).reshape(*query.shape[:2], -1, query.shape[-1])
        context = context[:, :, :length].swapaxes(1, 2).reshape(x.shape)
        return self.linear_out(context)

    def _attend(
        self, query: Array, key: Array, value: Array, mask: Array, positions: Array
    ) -> Array:
        cfg = self.config
        scale = query.shape[-1] ** -0.5
        scores = self._product("bhqd,bhkd->bhqk", query, key)
        by_distance = self._product("bhqd,ed->bhqe", query, self.distance_embedding)
        scores += ops.relative_position_scores(
            by_distance,
            positions,
            left=cfg.left_max_position,
            right=cfg.right_max_position,
            num_keys=key.shape[2],
        )
        lowest = jnp.finfo(scores.dtype).min
        weights = jax.nn.softmax(jnp.where(mask[:, None, None], scores * scale, lowest), axis=-1)
        return self._product("bhqk,bhkd->bhqd", weights, value)

    def _product(self, spec: str, a: Array, b: Array) -> Array:
        return jnp.einsum(
            spec,
            a.astype(self.dtype),
            b.astype(self.dtype),
            precision=ops.HIGHEST,
            preferred_element_type=jnp.promote_types(self.dtype, jnp.float32),
        )


class ConvModule(nn.Module):
    """Gated pointwise convolution → causal depthwise convolution → swish → pointwise."""

    config: W2vBertConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        cfg = self.config
        self.layer_norm = LayerNorm(cfg.layer_norm_eps)
        self.pointwise_conv1 = Dense(2 * cfg.hidden_size, use_bias=False, dtype=self.dtype)
        self.depthwise_conv = DepthwiseConv1d(
            cfg.conv_kernel_size, (cfg.conv_kernel_size - 1, 0), use_bias=False
        )
        self.depthwise_layer_norm = LayerNorm(cfg.layer_norm_eps)
        self.pointwise_conv2 = Dense(cfg.hidden_size, use_bias=False, dtype=self.dtype)

    def __call__(self, x: Array, mask: Array) -> Array:
        x = jnp.where(mask[..., None], self.layer_norm(x), 0)
        x = jax.nn.glu(self.pointwise_conv1(x), axis=-1)
        x = jax.nn.swish(self.depthwise_layer_norm(self.depthwise_conv(x)))
        return self.pointwise_conv2(x)


class ConformerLayer(nn.Module):
    """½ feed-forward → attention → convolution → ½ feed-forward → layer norm."""

    config: W2vBertConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        cfg = self.config
        self.ffn1_layer_norm = LayerNorm(cfg.layer_norm_eps)
        self.ffn1 = FeedForward(cfg, self.dtype)
        self.self_attn_layer_norm = LayerNorm(cfg.layer_norm_eps)
        self.self_attn = SelfAttention(cfg, self.dtype)
        self.conv_module = ConvModule(cfg, self.dtype)
        self.ffn2_layer_norm = LayerNorm(cfg.layer_norm_eps)
        self.ffn2 = FeedForward(cfg, self.dtype)
        self.final_layer_norm = LayerNorm(cfg.layer_norm_eps)

    def __call__(self, x: Array, mask: Array) -> Array:
        x = x + 0.5 * self.ffn1(self.ffn1_layer_norm(x))
        x = x + self.self_attn(self.self_attn_layer_norm(x), mask)
        x = x + self.conv_module(x, mask)
        x = x + 0.5 * self.ffn2(self.ffn2_layer_norm(x))
        return self.final_layer_norm(x)


class FeatureProjection(nn.Module):
    """Layer norm over the stacked filterbank, then a linear layer to ``hidden_size``."""

    config: W2vBertConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.layer_norm = LayerNorm(self.config.layer_norm_eps)
        self.projection = Dense(self.config.hidden_size, dtype=self.dtype)

    def __call__(self, x: Array) -> Array:
        return self.projection(self.layer_norm(x))


class W2vBert(nn.Module):
    """``features [B, S, input_dim]`` → hidden states ``[B, S, hidden_size]``, float32.

    ``mask [B, S]`` is True on valid frames. The output equals ``hidden_states[num_layers]`` of
    the original; rows of masked frames are computed too (DualCodec pools the masked last frame
    of an utterance with an odd number of filterbank frames).
    """

    config: W2vBertConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        cfg = self.config
        self.feature_projection = FeatureProjection(cfg, self.dtype)
        self.layer = [ConformerLayer(cfg, self.dtype) for _ in range(cfg.num_layers)]

    def __call__(self, features: Array, mask: Array) -> Array:
        x = jnp.where(mask[..., None], self.feature_projection(features), 0)
        for layer in self.layer:
            if self.is_initializing():
                x = layer(x, mask)
            else:
                x = _apply(
                    ConformerLayer(self.config, self.dtype, parent=None), layer.variables, x, mask
                )
        return x


@functools.partial(jax.jit, static_argnums=0)
def _apply(layer: ConformerLayer, variables: Any, x: Array, mask: Array) -> Any:
    """One layer: traced and lowered once for all, which XLA inlines again."""
    return layer.apply(variables, x, mask)
