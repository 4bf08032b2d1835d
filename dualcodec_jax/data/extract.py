"""Semantic features of whole utterances, for statistics and for the cache."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from dualcodec_jax.audio.resample import resample
from dualcodec_jax.config import Config
from dualcodec_jax.data.errors import DataError
from dualcodec_jax.functional import semantic_features
from dualcodec_jax.lengths import SEMANTIC_SAMPLE_RATE, bucket, min_samples, resampled_length
from dualcodec_jax.nn.ops import mask_time
from dualcodec_jax.semantic import hidden_states


class SemanticExtractor:
    """A semantic model on utterances one by one, padded to few different lengths.

    Args:
        config: model to extract for.
        semantic: parameters of the semantic model.
        statistics: ``mean`` and ``var`` for :meth:`features`; None if only :meth:`hidden` is used.
    """

    def __init__(self, config: Config, semantic: Any, statistics: Any | None = None) -> None:
        self.config = config
        self._semantic = jax.device_put(semantic)
        self._statistics = None if statistics is None else jax.device_put(statistics)

    def hidden(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Hidden states at 50 Hz before normalisation, ``[S, D]``, of ``samples [N]``.

        A last frame that is half padding is left out. Empty if the utterance is too short.
        """
        if samples.size < min_samples(self.config.codec):
            return np.zeros((0, self.config.semantic.hidden_size), np.float32)
        hidden, mask = _hidden(self._semantic, self.config, *_padded(samples))
        return np.asarray(hidden)[0][np.asarray(mask)[0]]

    def features(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Normalised features at the code frame rate, ``[T, D]``, of ``samples [N]``.

        What :func:`dualcodec_jax.functional.semantic_features` gives for the utterance alone;
        empty if it is too short for one frame.

        Raises:
            DataError: there are no statistics.
        """
        if self._statistics is None:
            raise DataError("features need the statistics of the semantic model's output")
        if samples.size < min_samples(self.config.codec):
            return np.zeros((0, self.config.codec.semantic_dim), np.float32)
        params = {"semantic": self._semantic, "statistics": self._statistics}
        features, frames = _features(params, self.config, *_padded(samples))
        return np.asarray(features)[0, : int(frames[0])]


def _padded(samples: NDArray[np.float32]) -> tuple[Array, Array]:
    """``samples [N]`` as a batch of one, zero-padded to a bucket, and its length ``[1]``."""
    audio = np.zeros((1, bucket(samples.size)), np.float32)
    audio[0, : samples.size] = samples
    return jnp.asarray(audio), jnp.array([samples.size], jnp.int32)


def _hidden_states(
    semantic: Any, config: Config, audio: Array, lengths: Array
) -> tuple[Array, Array]:
    """Hidden states ``[B, S, D]`` and the mask ``[B, S]`` of frames that hold signal."""
    rate = config.codec.sample_rate
    audio_16k = resample(mask_time(audio, lengths), rate, SEMANTIC_SAMPLE_RATE)
    lengths_16k = resampled_length(lengths, rate, SEMANTIC_SAMPLE_RATE)
    dtype = jnp.dtype(config.precision)
    hidden = hidden_states(semantic, config.semantic, audio_16k, lengths_16k, dtype)
    return hidden.states, hidden.mask


_hidden = jax.jit(_hidden_states, static_argnames=("config",))
_features = jax.jit(semantic_features, static_argnames=("config",))
