"""The generator as a Flax NNX module, and back."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from dualcodec_jax.model import DualCodecModel
from dualcodec_jax.nn.codec import DualCodec


def as_nnx(model: DualCodecModel) -> nnx.Module:
    """The generator as an NNX module with the model's parameters; nothing is initialised anew.

    Args:
        model: as of :func:`dualcodec_jax.get_model`.

    Returns:
        A module to call with audio ``[B, N, 1]`` and semantic features ``[B, T, semantic_dim]``, or
        with ``method="decode"`` and codes ``[B, n_quantizers, T]``; see
        :class:`dualcodec_jax.DualCodec`.
    """
    config = model.config

    def wrapped() -> nnx.Module:
        return nnx.bridge.ToNNX(DualCodec(config), rngs=nnx.Rngs(0))

    def initialised() -> nnx.Module:
        frames = 4
        audio = jnp.zeros((1, frames * config.hop_length, 1))
        features = jnp.zeros((1, frames, config.semantic_dim))
        return nnx.bridge.lazy_init(wrapped(), audio, features)

    parts = nnx.split(nnx.eval_shape(initialised), nnx.Param, ...)
    graph, params = parts[0], parts[1]
    nnx.replace_by_pure_dict(params, jax.device_put(model.params))
    _, generators = nnx.split(wrapped())  # of random numbers, which nothing draws
    return nnx.merge(graph, params, generators)


def as_model(module: nnx.Module, model: DualCodecModel) -> DualCodecModel:
    """A model with the parameters of :func:`as_nnx`'s module, to decode with, save or export.

    Args:
        module: the NNX module.
        model: the model that it was made of.
    """
    return dataclasses.replace(model, params=nnx.to_pure_dict(nnx.state(module, nnx.Param)))
