"""The encoder of Whisper, as a frozen semantic model.

Two convolutions, the second of stride 2, sinusoidal positions, and pre-norm Transformer layers.
Source: ``transformers`` ``modeling_whisper.py`` ``WhisperEncoder``, in evaluation mode, made
length-aware: the original always reads 30 s and attends to the silence that fills them.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dualcodec_jax.config import WhisperConfig
from dualcodec_jax.lengths import FBANK_STACK, ceil_div
from dualcodec_jax.nn import conv, ops
from dualcodec_jax.nn.layers import Dense, LayerNorm, result_dtype, torch_uniform

LAYER_NORM_EPS = 1e-5


class Conv1d(nn.Module):
    """Convolution of three taps, ``[B, T, I] → [B, T', O]``: ``kernel [3, I, O]``, ``bias [O]``."""

    features: int
    stride: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        init = torch_uniform(3 * x.shape[-1])
        kernel = self.param("kernel", init, (3, x.shape[-1], self.features))
        bias = self.param("bias", init, (self.features,))
        x = x.astype(result_dtype(x, self.dtype))
        return conv.conv1d(x, kernel, stride=self.stride, padding=(1, 1)) + bias


class SelfAttention(nn.Module):
    """Multi-head attention over valid keys, ``[B, S, hidden]`` in and out; float32 softmax."""

    config: WhisperConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        size = self.config.hidden_size
        self.query = Dense(size, dtype=self.dtype)
        self.key = Dense(size, use_bias=False, dtype=self.dtype)
        self.value = Dense(size, dtype=self.dtype)
        self.out = Dense(size, dtype=self.dtype)

    def __call__(self, x: Array, mask: Array) -> Array:
        heads = (*x.shape[:2], self.config.num_heads, -1)
        query, key, value = (
            layer(x).reshape(heads) for layer in (self.query, self.key, self.value)
        )
        scores = self._product("bqhd,bkhd->bhqk", query * query.shape[-1] ** -0.5, key)
        lowest = jnp.finfo(scores.dtype).min
        weights = jax.nn.softmax(jnp.where(mask[:, None, None], scores, lowest), axis=-1)
        return self.out(self._product("bhqk,bkhd->bqhd", weights, value).reshape(x.shape))

    def _product(self, spec: str, a: Array, b: Array) -> Array:
        return jnp.einsum(
            spec,
            a.astype(self.dtype),
            b.astype(self.dtype),
            precision=ops.HIGHEST,
            preferred_element_type=jnp.promote_types(self.dtype, jnp.float32),
        )


class EncoderLayer(nn.Module):
    """Attention, then linear → GELU → linear, each after a layer norm and added to its input."""

    config: WhisperConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.self_attn_layer_norm = LayerNorm(LAYER_NORM_EPS)
        self.self_attn = SelfAttention(self.config, self.dtype)
        self.final_layer_norm = LayerNorm(LAYER_NORM_EPS)
        self.fc1 = Dense(self.config.intermediate_size, dtype=self.dtype)
        self.fc2 = Dense(self.config.hidden_size, dtype=self.dtype)

    def __call__(self, x: Array, mask: Array) -> Array:
        x = x + self.self_attn(self.self_attn_layer_norm(x), mask)
        return x + self.fc2(ops.gelu_exact(self.fc1(self.final_layer_norm(x))))


class WhisperEncoder(nn.Module):
    """Log-mel ``[B, F, num_mels]``, frames ``[B]`` → states ``[B, ⌈F / 2⌉, hidden]``, float32.

    F is at most twice ``max_frames``. Frames past an item's own number must be 0, and do not
    change the others; what is returned for them means nothing.
    """

    config: WhisperConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        cfg = self.config
        self.conv1 = Conv1d(cfg.hidden_size, dtype=self.dtype)
        self.conv2 = Conv1d(cfg.hidden_size, stride=FBANK_STACK, dtype=self.dtype)
        self.layer = [EncoderLayer(cfg, self.dtype) for _ in range(cfg.num_layers)]
        self.layer_norm = LayerNorm(LAYER_NORM_EPS)

    def __call__(self, features: Array, counts: Array) -> Array:
        x = ops.mask_time(ops.gelu_exact(self.conv1(features)), counts)
        x = ops.gelu_exact(self.conv2(x))
        x = x + self._positions(x.shape[1])
        mask = jnp.arange(x.shape[1])[None, :] < ceil_div(counts, FBANK_STACK)[:, None]
        for layer in self.layer:
            x = layer(x, mask)
        return self.layer_norm(x)

    def _positions(self, frames: Any) -> Array:
        table = _positions(self.config.max_frames, self.config.hidden_size)
        if not isinstance(frames, int):  # a symbol of jax.export
            return jnp.asarray(table)[:frames]
        # Cut before JAX sees it: every compiled program keeps copies of its constants.
        return jnp.asarray(table[:frames])


@functools.lru_cache(maxsize=4)
def _positions(length: int, channels: int) -> np.ndarray:
    """Sinusoids ``[length, channels]``: all sines, then all cosines.

    Rounded to float32, then to float16: so they are, to the last bit, in the files of tiny.en.
    """
    rates = np.exp(-np.log(10000) / (channels // 2 - 1) * np.arange(channels // 2))
    phases = np.arange(length)[:, None] * rates
    waves = np.concatenate([np.sin(phases), np.cos(phases)], axis=1)
    return waves.astype(np.float32).astype(np.float16).astype(np.float32)
