"""Decoding of any length at constant memory, exactly: codes in, audio out, window by window.

The decoder's convolutions see a fixed number of frames (:mod:`dualcodec_jax.windows`). Every window
has them as context, so the audio is that of the whole utterance but for rounding. All windows have
one shape: one compilation serves every length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from dualcodec_jax.config import Config
from dualcodec_jax.errors import InputError
from dualcodec_jax.lengths import decoded_samples
from dualcodec_jax.nn.codec import make_codec
from dualcodec_jax.windows import decoder_reach, latent_reach

Params = dict[str, Any]


def decode_window(
    params: Params, config: Config, codes: Array, lengths: Array, skip: Array
) -> Array:
    """Audio of a window of codes whose first frames are context of the semantic path only.

    Args:
        params: as for :func:`dualcodec_jax.decode`.
        config: static.
        codes: int ``[B, n, S + W]``, S = ``latent_reach(config.codec).past``.
        lengths: int ``[B]``: frames of ``codes`` that exist; the rest is ignored.
        skip: int scalar in 0…S: the decoder reads the W frames from there on.

    Returns:
        float32 ``[B, decoded_samples(W)]`` from frame ``skip`` on, zero past an item's end.
    """
    codec = config.codec
    module = make_codec(codec, jnp.dtype(config.precision))
    variables = {"params": params["codec"]}
    latent: Any = module.apply(variables, codes, lengths, method="dequantize")
    width = codes.shape[2] - latent_reach(codec).past
    latent = lax.dynamic_slice_in_dim(latent, skip, width, axis=1)
    frames = jnp.clip(lengths - skip, 0, width)
    audio: Any = module.apply(variables, latent, frames, method="synthesise")
    return audio[..., 0]


_decode_window = jax.jit(decode_window, static_argnames=("config",))


class StreamDecoder:
    """Decodes codes that arrive piece by piece.

    A frame's audio is given out as soon as the frames after it that it depends on have arrived, or
    the codes end. All arrays are numpy on the host; windows are decoded on the default device.

    Attributes:
        chunk_frames: frames decoded at a time.
        lookahead: frames that have to follow before a frame is decoded.
        latency: seconds of codes that have to be there before the first audio comes.
    """

    def __init__(
        self,
        params: Params,
        config: Config,
        *,
        chunk_frames: int = 256,
        lookahead: int | None = None,
    ) -> None:
        """Prepare; nothing is compiled before the first window.

        Args:
            params: as for :func:`dualcodec_jax.decode`.
            config: of the model.
            chunk_frames: frames decoded at a time; the context around them is decoded again for
                each chunk, so small ones cost more.
            lookahead: frames to wait for, at least 1. None: as many as make the audio exact. Fewer
                give an approximation, earlier: the decoder sees zeros in their place.

        Raises:
            InputError: if a number is out of range.
        """
        codec = config.codec
        self._params, self._config = params, config
        self._latent, self._decoder = latent_reach(codec), decoder_reach(codec)
        exact = self._latent.future + self._decoder.future
        if chunk_frames < 1 or not (lookahead is None or 1 <= lookahead <= exact):
            raise InputError(
                f"chunk_frames must be at least 1 and lookahead in 1…{exact}; got {chunk_frames} "
                f"and {lookahead}"
            )
        self.chunk_frames = chunk_frames
        self.lookahead = exact if lookahead is None else lookahead
        self.latency = (chunk_frames + self.lookahead) / codec.frame_rate
        self._width = self._decoder.past + chunk_frames + self.lookahead
        self._codes = np.zeros((0, 0, 0), np.int32)
        self._base = 0
        """Frame number of the first code that is kept."""
        self._done = 0
        """Frames whose audio was given out."""
        self._ended = False

    def push(self, codes: Any) -> Iterator[np.ndarray]:
        """Add codes; give out the audio that they complete.

        Args:
            codes: ints ``[B, n, T]`` with the batch and the rows of the first call, any T.

        Returns:
            An iterator of float32 ``[B, 1, chunk_frames · hop]``; take all of it before the next
            call.

        Raises:
            InputError: on another shape or type, codes outside their codebooks, or after the end.
        """
        self._append(np.asarray(codes))
        while self._arrived - self._done >= self.chunk_frames + self.lookahead:
            yield self._next(self._done + self.chunk_frames, None)

    def finish(self) -> Iterator[np.ndarray]:
        """Give out the rest: the codes have ended. Take all of it."""
        self._ended = True
        yield from self._rest(np.full(len(self._codes), self._arrived))

    def whole(self, codes: np.ndarray, lengths: np.ndarray) -> Iterator[np.ndarray]:
        """All audio of ``codes [B, n, T]``, of which the items have ``lengths [B]`` frames.

        For a new decoder; zero past an item's end.
        """
        self._append(codes)
        self._ended = True
        yield from self._rest(lengths)

    def _rest(self, lengths: np.ndarray) -> Iterator[np.ndarray]:
        while self._done < self._arrived:
            yield self._next(min(self._done + self.chunk_frames, self._arrived), lengths)

    @property
    def _arrived(self) -> int:
        return self._base + self._codes.shape[2]

    def _append(self, codes: np.ndarray) -> None:
        rows = self._config.codec.n_quantizers
        if self._ended:
            raise InputError("the codes have ended: make a new StreamDecoder")
        if codes.ndim != 3 or codes.dtype.kind not in "iu" or not 1 <= codes.shape[1] <= rows:
            raise InputError(
                f"codes must be integers [batch, 1…{rows}, frames]; got {codes.dtype} "
                f"{list(codes.shape)}"
            )
        check_codes(codes, self._config)
        if not self._codes.size:
            self._codes = codes[:, :, :0].astype(np.int32)
        if codes.shape[:2] != self._codes.shape[:2]:
            raise InputError(
                f"the codes began as {list(self._codes.shape[:2])} (batch, quantizers); got "
                f"{list(codes.shape[:2])}"
            )
        self._codes = np.concatenate([self._codes, codes.astype(np.int32)], axis=2)

    def _next(self, last: int, lengths: np.ndarray | None) -> np.ndarray:
        """Decode up to frame ``last``; ``lengths`` are those of the items if the codes ended."""
        begin = max(self._done - self._decoder.past, 0)
        start = max(begin - self._latent.past, 0)
        size = self._latent.past + self._width
        part = self._codes[:, :, start - self._base : start - self._base + size]
        window = np.zeros((*part.shape[:2], size), np.int32)
        window[:, :, : part.shape[2]] = part
        # Without lookahead, what has not arrived yet is taken for the end.
        true = np.full(len(part), self._arrived) if lengths is None else lengths
        here = np.clip(true - start, 0, size).astype(np.int32)
        audio = np.asarray(
            _decode_window(self._params, self._config, window, here, np.int32(begin - start))
        )
        codec, hop = self._config.codec, self._config.codec.hop_length
        ended = lengths is not None and last == self._arrived
        end = decoded_samples(last, codec) if ended else last * hop
        kept = audio[:, (self._done - begin) * hop : end - begin * hop]
        self._done = last
        keep_from = max(last - self._decoder.past - self._latent.past, 0)
        self._codes, self._base = self._codes[:, :, keep_from - self._base :], keep_from
        return kept[:, None]


def decode_stream(
    params: Params,
    config: Config,
    codes: Iterable[Any],
    *,
    chunk_frames: int = 256,
    lookahead: int | None = None,
) -> Iterator[np.ndarray]:
    """Codes as they come → audio as it is ready; see :class:`StreamDecoder`."""
    decoder = StreamDecoder(params, config, chunk_frames=chunk_frames, lookahead=lookahead)
    for part in codes:
        yield from decoder.push(part)
    yield from decoder.finish()


def check_codes(codes: np.ndarray, config: Config) -> None:
    """Raise :class:`InputError` if ``codes [B, n, T]`` lie outside their codebooks."""
    for row, size in enumerate(config.codec.codebook_sizes[: codes.shape[1]]):
        outside = codes[:, row][(codes[:, row] < 0) | (codes[:, row] >= size)]
        if outside.size:
            name = "semantic_codes" if row == 0 else f"acoustic_codes row {row - 1}"
            raise InputError(
                f"{name} has the code {int(outside[0])}, outside 0…{size - 1}; these codes are "
                f"damaged or not of {config.model_id}"
            )
