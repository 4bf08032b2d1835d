"""Semantic models behind one interface: audio at 16 kHz → states at 50 Hz.

The codec reads features of a frozen speech model: w2v-BERT 2.0 in the released models, or another
that its configuration names. What a model has to have is in :class:`SemanticModel`; the sizes in
``Config.semantic`` choose it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jax import Array, lax

from dualcodec_jax.audio.fbank import semantic_input
from dualcodec_jax.audio.log_mel import whisper_log_mel
from dualcodec_jax.config import SemanticConfig, W2vBertConfig, WhisperConfig
from dualcodec_jax.lengths import FBANK_HOP, FBANK_STACK, ceil_div, whisper_frames
from dualcodec_jax.nn.w2v_bert import W2vBert
from dualcodec_jax.nn.whisper import WhisperEncoder

Params = dict[str, Any]
Shapes = tuple[jax.ShapeDtypeStruct, ...]


@struct.dataclass
class Hidden:
    """States of a semantic model.

    Attributes:
        states: float32 ``[B, S, D]`` at 50 Hz.
        mask: bool ``[B, S]``, False past the end of an item, and on frames without signal of their
            own.
    """

    states: Array
    mask: Array


@dataclasses.dataclass(frozen=True)
class SemanticModel:
    """A kind of semantic model.

    Attributes:
        network: configuration, compute dtype → Linen module.
        example: configuration → shapes of arguments that initialise the module.
        hidden: module, its parameters, audio ``[B, N]`` at 16 kHz, lengths ``[B]`` in samples →
            states of ⌈F / 2⌉ frames, F as in :mod:`dualcodec_jax.lengths`. Each item gets what
            it gets alone.
    """

    network: Callable[[Any, Any], nn.Module]
    example: Callable[[Any], Shapes]
    hidden: Callable[[Any, Params, Array, Array], Hidden]


def hidden_states(
    params: Params, config: SemanticConfig, audio: Array, lengths: Array, dtype: Any = jnp.float32
) -> Hidden:
    """States of the model of ``config`` for ``audio [B, N]`` at 16 kHz.

    Args:
        params: of the model.
        config: static.
        audio: float32; what lies past ``lengths`` changes nothing.
        lengths: int ``[B]``, true lengths in samples.
        dtype: of matrix products and convolutions.
    """
    model = semantic_model(config)
    return model.hidden(model.network(config, dtype), params, audio, lengths)


def semantic_model(config: SemanticConfig) -> SemanticModel:
    """The kind of model that has such sizes."""
    return WHISPER if isinstance(config, WhisperConfig) else W2V_BERT


def _w2v_bert_example(config: W2vBertConfig) -> Shapes:
    features = jax.ShapeDtypeStruct((1, 2, config.input_dim), jnp.float32)
    return features, jax.ShapeDtypeStruct((1, 2), bool)


def _w2v_bert_hidden(network: W2vBert, params: Params, audio: Array, lengths: Array) -> Hidden:
    inputs = semantic_input(audio, lengths)
    states: Any = network.apply({"params": params}, inputs.features, inputs.mask)
    return Hidden(states, inputs.mask)


def _whisper_example(config: WhisperConfig) -> Shapes:
    features = jax.ShapeDtypeStruct((1, 4, config.num_mels), jnp.float32)
    return features, jax.ShapeDtypeStruct((1,), jnp.int32)


def _whisper_hidden(
    network: WhisperEncoder, params: Params, audio: Array, lengths: Array
) -> Hidden:
    """Whole if it fits into one window, else window by window.

    Windows start at fixed places, so that an item's states do not depend on its neighbours in a
    batch. Of two windows that overlap, each gives the half that is nearer to its middle.
    """
    config = network.config
    span = config.max_frames * FBANK_STACK * FBANK_HOP
    step_frames = config.max_frames - config.overlap_frames
    step = step_frames * FBANK_STACK * FBANK_HOP
    size = audio.shape[1]
    frames = jnp.arange(ceil_div(whisper_frames(size), FBANK_STACK))
    mask = frames < ceil_div(whisper_frames(lengths), FBANK_STACK)[:, None]
    if size <= span:
        return Hidden(_whisper_window(network, params, audio, lengths), mask)
    count = 1 + ceil_div(size - span, step)
    audio = jnp.pad(audio, ((0, 0), (0, (count - 1) * step + span - size)))

    def window(index: Array) -> Array:
        part = lax.dynamic_slice_in_dim(audio, index * step, span, axis=1)
        return _whisper_window(network, params, part, jnp.clip(lengths - index * step, 0, span))

    windows = lax.map(window, jnp.arange(count))
    last = ceil_div(jnp.maximum(lengths - span, 0), step)
    chosen = jnp.clip((frames - config.overlap_frames // 2) // step_frames, 0, last[:, None])
    inside = frames - chosen * step_frames
    return Hidden(windows[chosen, jnp.arange(audio.shape[0])[:, None], inside], mask)


def _whisper_window(network: WhisperEncoder, params: Params, audio: Array, lengths: Array) -> Array:
    features = whisper_log_mel(audio, lengths, network.config.num_mels)
    states: Any = network.apply({"params": params}, features, whisper_frames(lengths))
    return states


W2V_BERT = SemanticModel(W2vBert, _w2v_bert_example, _w2v_bert_hidden)
WHISPER = SemanticModel(WhisperEncoder, _whisper_example, _whisper_hidden)
