"""Encoding of long recordings at constant memory: audio in, codes out, window by window.

The convolutions of both streams get the context that makes windows exact
(:mod:`dualcodec_jax.windows`). The semantic model attends over all it is given, so it works on
overlapping windows, of which each gives the frames nearest to its middle; its states, and so some
codes, differ a little from those of the whole (docs/long_audio.md). Whisper has windows of its own
in any case; there the codes are those of the whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dualcodec_jax.audio.resample import StreamResampler
from dualcodec_jax.config import Config, WhisperConfig
from dualcodec_jax.errors import AudioError, InputError
from dualcodec_jax.functional import check_duration, features_of_16k
from dualcodec_jax.lengths import (
    SEMANTIC_SAMPLE_RATE,
    code_length,
    pooled_frames,
    samples_to_cover,
)
from dualcodec_jax.nn.codec import make_codec
from dualcodec_jax.windows import Reach, convnext_reach, encoder_reach, frames_in, latent_reach

Params = dict[str, Any]

MIN_OVERLAP = 4
"""Code frames: the last frames of a window are incomplete, and half of the overlap is dropped."""


@dataclasses.dataclass(frozen=True)
class SemanticWindows:
    """Windows of the semantic model, in code frames.

    Attributes:
        size: frames of audio in one.
        overlap: frames that it shares with the next one, an even number.
    """

    size: int
    overlap: int

    @property
    def step(self) -> int:
        """Frames from one window to the next."""
        return self.size - self.overlap


def semantic_windows(
    config: Config, window_seconds: float | None = None, overlap_seconds: float | None = None
) -> SemanticWindows:
    """Windows of such durations, rounded to code frames.

    None: 30 s, of which a sixth overlaps; Whisper's own for a model that reads Whisper.

    Raises:
        InputError: if they overlap too little, or by half or more.
    """
    codec, semantic = config.codec, config.semantic
    if isinstance(semantic, WhisperConfig):
        if (window_seconds, overlap_seconds) != (None, None):
            raise InputError(f"{config.model_id} has windows of its own; leave their sizes out")
        factor = codec.semantic_downsample_factor
        if semantic.max_frames % factor or semantic.overlap_frames % (2 * factor):
            raise InputError(
                f"windows of {semantic.max_frames} frames that overlap by "
                f"{semantic.overlap_frames} cannot be cut at code frames; encode the whole"
            )
        return SemanticWindows(semantic.max_frames // factor, semantic.overlap_frames // factor)
    seconds = 30.0 if window_seconds is None else window_seconds
    size = frames_in(seconds, codec)
    shared = seconds / 6 if overlap_seconds is None else overlap_seconds
    overlap = frames_in(shared, codec) // 2 * 2
    if not MIN_OVERLAP <= overlap < size / 2:
        raise InputError(
            f"windows of {size} code frames cannot overlap by {overlap}: choose an overlap of at "
            f"least {(MIN_OVERLAP + 1) / codec.frame_rate:.2f} s and less than half of the window"
        )
    return SemanticWindows(size, overlap)


def encode_window(
    params: Params,
    config: Config,
    audio: Array,
    features: Array | None,
    num_samples: Array,
    num_frames: Array,
    n_quantizers: int,
) -> Array:
    """Codes int32 ``[B, n, W]`` of ``audio [B, W · hop]`` with its features ``[B, W, D]``."""
    codec = config.codec
    codes: Any = make_codec(codec, jnp.dtype(config.precision)).apply(
        {"params": params["codec"]},
        audio[..., None],
        features,
        n_quantizers,
        num_samples,
        num_frames,
        method="encode",
    )
    return codes


_encode_window = jax.jit(encode_window, static_argnames=("config", "n_quantizers"))
_features = jax.jit(features_of_16k, static_argnames=("config", "frames"))


class StreamEncoder:
    """Encodes one recording that arrives piece by piece.

    Attributes:
        windows: of the semantic model.
        chunk_frames: code frames encoded at a time.
    """

    def __init__(
        self,
        params: Params,
        config: Config,
        n_quantizers: int,
        *,
        chunk_frames: int = 256,
        window_seconds: float | None = None,
        overlap_seconds: float | None = None,
    ) -> None:
        """Prepare; nothing is compiled before the first window.

        Args:
            params: as for :func:`dualcodec_jax.encode`.
            config: of the model.
            n_quantizers: codes per frame, the semantic one included.
            chunk_frames: code frames encoded at a time, on top of their context.
            window_seconds: audio that the semantic model sees at once; None: 30 s.
            overlap_seconds: audio that two windows share; None: a sixth of one.

        Raises:
            InputError: if a number is out of range.
        """
        codec = config.codec
        if chunk_frames < 1 or not 1 <= n_quantizers <= codec.n_quantizers:
            raise InputError(
                f"chunk_frames must be at least 1 and n_quantizers 1…{codec.n_quantizers}; got "
                f"{chunk_frames} and {n_quantizers}"
            )
        self.chunk_frames, self.windows = chunk_frames, None
        self._params, self._config, self._count = params, config, n_quantizers
        self._reach = _reach(config)
        self._audio = _Buffer(np.zeros(0, np.float32))
        self._done = 0
        """Frames whose codes were given out."""
        self._semantic: SemanticStream | None = None
        if codec.is_dual:
            self.windows = semantic_windows(config, window_seconds, overlap_seconds)
            self._semantic = SemanticStream(params, config, self.windows)

    def push(self, samples: Any) -> Iterator[np.ndarray]:
        """Add audio; give out the codes that it completes.

        Args:
            samples: floats ``[N]`` at ``config.codec.sample_rate``.

        Returns:
            An iterator of int32 ``[1, n, chunk_frames]``; take all of it before the next call.

        Raises:
            AudioError: if samples are not finite.
        """
        part = np.asarray(samples, np.float32).reshape(-1)
        if not np.isfinite(part).all():
            raise AudioError("audio has samples that are NaN or infinite; remove them first")
        self._audio.append(part)
        if self._semantic is not None:
            self._semantic.push(part)
        while self._ready() - self._done >= self.chunk_frames:
            yield self._next(self._done + self.chunk_frames, self._known_frames())

    def finish(self, pad_end: bool = False) -> Iterator[np.ndarray]:
        """Give out the rest: the recording has ended.

        Args:
            pad_end: as in :meth:`dualcodec_jax.Inference.encode`.

        Raises:
            InputError: if the recording is too short for one code frame.
        """
        codec = self._config.codec
        if pad_end:
            missing = samples_to_cover(self._audio.end, codec) - self._audio.end
            yield from self.push(np.zeros(missing, np.float32))
        check_duration(self._audio.end, self._config)
        total = int(code_length(self._audio.end, codec))
        if self._semantic is not None:
            self._semantic.finish(total)
        while self._done < total:
            yield self._next(min(self._done + self.chunk_frames, total), total)

    def _known_frames(self) -> int:
        """Frames of the shorter stream, so far."""
        heard = self._audio.end // self._config.codec.hop_length
        return heard if self._semantic is None else min(heard, self._semantic.features.end)

    def _ready(self) -> int:
        """Frames whose context is there."""
        return self._known_frames() - self._reach.future

    def _next(self, last: int, known: int) -> np.ndarray:
        """Codes up to frame ``last``, of ``known`` frames of both streams."""
        hop = self._config.codec.hop_length
        start = max(self._done - self._reach.past, 0)
        width = self._reach.past + self.chunk_frames + self._reach.future
        audio = self._audio.window(start * hop, width * hop)
        features = None
        if self._semantic is not None:
            features = self._semantic.features.window(start, width)[None]
        samples = np.clip([self._audio.end - start * hop], 0, width * hop).astype(np.int32)
        frames = np.clip([known - start], 0, width).astype(np.int32)
        codes = np.asarray(
            _encode_window(
                self._params, self._config, audio[None], features, samples, frames, self._count
            )
        )[:, :, self._done - start : last - start]
        self._done = last
        keep = max(last - self._reach.past, 0)
        self._audio.drop(keep * hop)
        if self._semantic is not None:
            self._semantic.features.drop(keep)
        return codes


def encode_stream(
    params: Params,
    config: Config,
    audio: Iterable[Any],
    n_quantizers: int,
    *,
    pad_end: bool = False,
    **options: Any,
) -> Iterator[np.ndarray]:
    """Audio piece by piece → codes as they are ready; see :class:`StreamEncoder`."""
    encoder = StreamEncoder(params, config, n_quantizers, **options)
    for part in audio:
        yield from encoder.push(part)
    yield from encoder.finish(pad_end)


class SemanticStream:
    """Semantic features of audio that arrives piece by piece.

    Attributes:
        features: so far, a growing ``[T, semantic_dim]``, normalised, at the code frame rate.
    """

    def __init__(self, params: Params, config: Config, windows: SemanticWindows) -> None:
        """Prepare; ``params`` and ``config`` as for :class:`StreamEncoder`."""
        codec = config.codec
        self._params, self._config, self._windows = params, config, windows
        self._resampler = StreamResampler(codec.sample_rate, SEMANTIC_SAMPLE_RATE)
        self._audio = _Buffer(np.zeros(0, np.float32))
        self._frame = codec.hop_length * SEMANTIC_SAMPLE_RATE // codec.sample_rate
        """Samples of one code frame at 16 kHz."""
        self._index = 0
        """Of the next window."""
        self.features = _Buffer(np.zeros((0, codec.semantic_dim), np.float32))

    def push(self, samples: np.ndarray) -> None:
        """Add audio, float32 ``[N]`` at the codec's sample rate."""
        self._hear(self._resampler.push(samples))

    def _hear(self, samples: np.ndarray) -> None:
        self._audio.append(samples)
        # A window that reaches the end of what is known may be the last one.
        while self._audio.end > self._start + self._windows.size * self._frame:
            self._add(self._windows.step + self._windows.overlap // 2)
            self._index += 1
            self._audio.drop(self._start)

    def finish(self, total: int) -> None:
        """Features of all ``total`` frames are there afterwards."""
        self._hear(self._resampler.finish())
        self._add(total - self._index * self._windows.step)

    @property
    def _start(self) -> int:
        return self._index * self._windows.step * self._frame

    def _add(self, until: int) -> None:
        """The present window's frames up to ``until``, from where the last one's end."""
        size = self._windows.size * self._frame
        audio = self._audio.window(self._start, size)
        length = np.clip([self._audio.end - self._start], 0, size).astype(np.int32)
        codec = self._config.codec
        samples = self._windows.size * codec.hop_length
        features = np.asarray(
            _features(
                self._params, self._config, audio[None], length, int(pooled_frames(samples, codec))
            )
        )[0]
        first = self.features.end - self._index * self._windows.step
        self.features.append(features[first:until])


class _Buffer:
    """The end of a growing array whose beginning is dropped when it is no longer needed."""

    def __init__(self, empty: np.ndarray) -> None:
        self._parts, self._begin = empty, 0

    @property
    def end(self) -> int:
        """Length of all that was ever appended."""
        return self._begin + len(self._parts)

    def append(self, part: np.ndarray) -> None:
        if len(part):
            self._parts = np.concatenate([self._parts, part])

    def drop(self, begin: int) -> None:
        """Forget what lies before ``begin``."""
        if begin > self._begin:
            self._parts, self._begin = self._parts[begin - self._begin :].copy(), begin

    def window(self, start: int, size: int) -> np.ndarray:
        """``size`` entries from ``start`` on, zeros after the end."""
        part = self._parts[start - self._begin : start - self._begin + size]
        padding = [(0, size - len(part)), *[(0, 0)] * (part.ndim - 1)]
        return np.pad(part, padding)


def _reach(config: Config) -> Reach:
    """Frames of both streams that a frame's codes depend on."""
    audio = encoder_reach(config.codec)
    if not config.codec.is_dual:
        return audio
    semantic = convnext_reach(config.codec) + latent_reach(config.codec)
    return Reach(max(audio.past, semantic.past), max(audio.future, semantic.future))
