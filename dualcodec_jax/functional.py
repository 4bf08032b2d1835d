"""The codec as two pure functions of (parameters, arrays).

They jit, vmap and shard like any JAX function; the configuration is static::

    encode = jax.jit(dualcodec_jax.encode, static_argnames=("config", "n_quantizers"))

Parameters are one nested dict with three entries:

* ``codec``: the generator, weight-normalised or folded;
* ``semantic``: w2v-BERT, or the other model that ``config.semantic`` describes;
* ``statistics``: ``mean`` and ``var`` ``[semantic_dim]`` of its features.

Nothing here looks at values: lengths and codes may be traced. Check them on the host first
(:class:`dualcodec_jax.Inference` does): JAX clamps an out-of-range code without a word.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import struct
from jax import Array

from dualcodec_jax.audio.resample import resample
from dualcodec_jax.config import Config
from dualcodec_jax.errors import InputError
from dualcodec_jax.lengths import (
    SEMANTIC_SAMPLE_RATE,
    code_length,
    decoded_samples,
    min_samples,
    pooled_frames,
    resampled_length,
)
from dualcodec_jax.nn.codec import make_codec
from dualcodec_jax.nn.ops import mask_time
from dualcodec_jax.semantic import hidden_states

Params = dict[str, Any]


@struct.dataclass
class Encoded:
    """Codes of a batch.

    Attributes:
        codes: int32 ``[B, n_quantizers, T]``; row 0 is semantic, zero past an item's length.
        lengths: int32 ``[B]``, code frames of each item.
    """

    codes: Array
    lengths: Array


@struct.dataclass
class Decoded:
    """Audio of a batch.

    Attributes:
        audio: float32 ``[B, 1, N]`` in (−1, 1), zero past an item's length.
        lengths: int32 ``[B]``, samples of each item.
    """

    audio: Array
    lengths: Array


def encode(
    params: Params,
    config: Config,
    audio: Array,
    lengths: Array | None = None,
    n_quantizers: int = 8,
) -> Encoded:
    """Audio → codes (upstream ``Inference.encode``).

    Args:
        params: see the module's docstring.
        config: static.
        audio: float32 ``[B, 1, N]`` at ``config.codec.sample_rate``.
        lengths: int ``[B]``, true lengths in samples, at most N. Each item then gets the codes
            that it gets alone, whatever its padding holds. None: every item is N long.
        n_quantizers: static, 1…``config.codec.n_quantizers``, counting the semantic code.

    Raises:
        InputError: on a wrong shape, an N too short for one frame, or a wrong ``n_quantizers``.
    """
    codec = config.codec
    if audio.ndim != 3 or audio.shape[1] != 1:
        raise InputError(f"audio must have shape [batch, 1, samples]; got {list(audio.shape)}")
    if not 1 <= n_quantizers <= codec.n_quantizers:
        raise InputError(f"n_quantizers must be 1…{codec.n_quantizers}; got {n_quantizers}")
    check_duration(audio.shape[2], config)
    if codec.is_dual:
        features, num_frames = semantic_features(params, config, audio[:, 0], lengths)
    else:
        features, num_frames = None, code_length(_num_samples(audio[:, 0], lengths), codec)
    codes: Any = make_codec(codec, _dtype(config)).apply(
        {"params": params["codec"]},
        audio.swapaxes(1, 2),
        features,
        n_quantizers,
        lengths,
        None if lengths is None else num_frames,
        method="encode",
    )
    codes = mask_time(codes.swapaxes(1, 2), num_frames).swapaxes(1, 2)
    return Encoded(codes=codes, lengths=num_frames)


def decode(params: Params, config: Config, codes: Array, lengths: Array | None = None) -> Decoded:
    """Codes → audio (upstream ``Inference.decode``).

    Args:
        params: see the module's docstring; only ``codec`` is read.
        config: static.
        codes: int ``[B, n, T]`` with any n from 1 to ``config.codec.n_quantizers``. Codes past
            an item's length are ignored. Values must lie inside their codebooks.
        lengths: int ``[B]``, true lengths in frames, at most T. None: every item is T long.

    Raises:
        InputError: on a wrong shape or too many rows.
    """
    codec = config.codec
    if codes.ndim != 3 or not 1 <= codes.shape[1] <= codec.n_quantizers or codes.shape[2] == 0:
        raise InputError(
            f"codes must have shape [batch, 1…{codec.n_quantizers}, frames]; got "
            f"{list(codes.shape)}"
        )
    module = make_codec(codec, _dtype(config))
    audio: Any = module.apply({"params": params["codec"]}, codes, lengths, method="decode")
    frames = jnp.full(codes.shape[:1], codes.shape[2], jnp.int32) if lengths is None else lengths
    samples = jnp.maximum(decoded_samples(frames, codec), 0).astype(jnp.int32)
    return Decoded(audio=audio.swapaxes(1, 2), lengths=samples)


def semantic_features(
    params: Params, config: Config, audio: Array, lengths: Array | None = None
) -> tuple[Array, Array]:
    """Normalised semantic features at the code frame rate, and frames of each item.

    Args:
        params: see the module's docstring; ``semantic`` and ``statistics`` are read.
        config: static.
        audio: float32 ``[B, N]`` at ``config.codec.sample_rate``.
        lengths: int ``[B]``, true lengths in samples.

    Returns:
        float32 ``[B, T, semantic_dim]`` and int32 ``[B]``.
    """
    codec = config.codec
    num_samples = _num_samples(audio, lengths)
    audio_16k = resample(mask_time(audio, lengths), codec.sample_rate, SEMANTIC_SAMPLE_RATE)
    lengths_16k = resampled_length(num_samples, codec.sample_rate, SEMANTIC_SAMPLE_RATE)
    frames = pooled_frames(audio.shape[1], codec)
    features = features_of_16k(params, config, audio_16k, lengths_16k, frames)
    return features, pooled_frames(num_samples, codec)


def features_of_16k(
    params: Params, config: Config, audio: Array, lengths: Array, frames: int
) -> Array:
    """The first ``frames`` of :func:`semantic_features`, from audio at 16 kHz.

    Args:
        params: see the module's docstring.
        config: static.
        audio: float32 ``[B, N]`` at 16 kHz.
        lengths: int ``[B]``, true lengths in samples.
        frames: static; at most as many as N samples have.

    Returns:
        float32 ``[B, frames, semantic_dim]``, normalised and pooled to the code frame rate.
    """
    hidden = hidden_states(
        params["semantic"], config.semantic, audio, lengths, _dtype(config)
    ).states
    statistics = params["statistics"]
    hidden = (hidden - statistics["mean"]) / jnp.sqrt(statistics["var"])
    factor = config.codec.semantic_downsample_factor
    pooled = hidden[:, : frames * factor].reshape(hidden.shape[0], frames, factor, -1)
    return jnp.mean(pooled, axis=2)


def check_duration(num_samples: int, config: Config) -> None:
    """Raise :class:`InputError` if so many samples are too short for one code frame."""
    shortest = min_samples(config.codec)
    if num_samples < shortest:
        rate = config.codec.sample_rate
        raise InputError(
            f"audio is too short: {num_samples} samples ({num_samples / rate:.3f} s), but "
            f"{config.model_id} needs at least {shortest} ({shortest / rate:.3f} s). Zero-pad it, "
            "or let pad_end=True do so"
        )


def _num_samples(audio: Array, lengths: Array | None) -> Array:
    """Int32 ``[B]``: true lengths of ``audio [B, N]``."""
    if lengths is None:
        return jnp.full(audio.shape[:1], audio.shape[1], jnp.int32)
    return lengths.astype(jnp.int32)


def _dtype(config: Config) -> Any:
    return jnp.dtype(config.precision)
