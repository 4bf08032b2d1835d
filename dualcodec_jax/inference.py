"""Audio to codes and back, for people who want it to just work.

:class:`Inference` has the words of the PyTorch original. It checks its input, pads lengths to
buckets so that a new length does not recompile, and runs the pure functions of
:mod:`dualcodec_jax.functional` under jit.
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dualcodec_jax import functional
from dualcodec_jax.config import Config, Precision, default_semantic
from dualcodec_jax.errors import DualCodecWarning, InputError
from dualcodec_jax.inputs import ArrayLike, as_array, as_audio, as_lengths
from dualcodec_jax.lengths import (
    acoustic_frames,
    bucket,
    code_length,
    decoded_samples,
    min_samples,
    samples_to_cover,
)
from dualcodec_jax.model import DualCodecModel, load_semantic
from dualcodec_jax.nn.layers import fold_weight_norm
from dualcodec_jax.stream_decode import StreamDecoder, check_codes, decode_stream
from dualcodec_jax.stream_encode import encode_stream
from dualcodec_jax.weights import weights_digest

WHOLE_FRAMES, LONG_CHUNK_FRAMES = 1024, 512
"""Longer utterances than the first are decoded in windows, so many frames at a time."""

_encode = jax.jit(functional.encode, static_argnames=("config", "n_quantizers"))
_decode = jax.jit(functional.decode, static_argnames=("config",))


def clear_programs() -> None:
    """Forget what was compiled for :class:`Inference`, to free memory.

    Each bucket of lengths, batch size and number of quantizers has programs of its own, of tens of
    megabytes on a CPU. The persistent cache of :mod:`dualcodec_jax.compilation` keeps its files.
    """
    for program in (_encode, _decode):
        program.clear_cache()  # type: ignore[attr-defined]  # missing in JAX's stub


class Inference:
    """Encoder and decoder of one model (upstream ``Inference``).

    Attributes:
        model: the generator, as it was given.
        config: static configuration for :func:`dualcodec_jax.encode` and ``decode``.
        params: their parameters, weight norm folded, on the default device.
    """

    def __init__(
        self,
        dualcodec_model: DualCodecModel,
        dualcodec_path: str | Path | None = None,
        w2v_path: str | Path | None = None,
        precision: Precision = "float32",
        *,
        dtype: Any = None,
        device: Any = None,
        autocast: Any = None,
        semantic: tuple[Any, Any, Any] | None = None,
        decode_only: bool = False,
    ) -> None:
        """Load the semantic model and put everything on the default device.

        Args:
            dualcodec_model: from :func:`dualcodec_jax.get_model`.
            dualcodec_path: where the statistics of the semantic features are: a folder or
                ``hf://owner/name``. None: ``$DUALCODEC_WEIGHTS``, else the released repository.
            w2v_path: where w2v-BERT 2.0 is. None: ``$DUALCODEC_W2V_BERT``, else its repository.
                Of a model that reads another semantic model, where that is; None for both: what
                ships with this package.
            precision: ``float32`` (the original's codes) or ``bfloat16`` (faster on GPU and TPU).
            dtype: alias of ``precision``; a dtype works too.
            device: ignored with a warning; JAX places arrays on its default device.
            autocast: ignored with a warning; see ``precision``.
            semantic: (configuration, parameters, statistics) already in memory, instead of paths.
            decode_only: do not load the semantic model, which only encoding needs.

        Raises:
            HubError, WeightsError, ConfigError: see :func:`dualcodec_jax.get_model`.
        """
        if device is not None or autocast is not None:
            warnings.warn(
                "device and autocast are ignored: JAX uses its default device "
                "(jax.default_device, JAX_PLATFORMS), and precision chooses the arithmetic",
                DualCodecWarning,
                stacklevel=2,
            )
        if dtype is not None:
            precision = cast(Precision, dtype if isinstance(dtype, str) else jnp.dtype(dtype).name)
        self.model = dualcodec_model
        self.config = Config(
            model_id=dualcodec_model.model_id,
            codec=dualcodec_model.config,
            semantic=default_semantic(dualcodec_model.config.semantic_model),
            precision=precision,
        )
        self.params: functional.Params = {
            "codec": jax.jit(fold_weight_norm)(dualcodec_model.params)
        }
        self._can_encode = not decode_only
        if self.config.codec.is_dual and not decode_only:
            config, parameters, statistics = semantic or load_semantic(
                dualcodec_path, w2v_path, self.config.codec.semantic_model
            )
            self.config = dataclasses.replace(self.config, semantic=config)
            self.params["semantic"] = jax.device_put(parameters)
            self.params["statistics"] = jax.device_put(statistics)

    @classmethod
    def from_pretrained(
        cls,
        location: str | Path,
        *,
        revision: str | None = None,
        w2v_path: str | Path | None = None,
        precision: Precision = "float32",
        decode_only: bool = False,
    ) -> Self:
        """Load what :meth:`save_pretrained` wrote, from a folder or from the Hugging Face hub.

        Args:
            location: a folder; ``owner/name`` or ``hf://owner/name[@revision]`` on the hub.
            revision: branch, tag or commit on the hub; None: ``main``.
            w2v_path: where the semantic model is. None: in the folder; if that leaves it out,
                ``$DUALCODEC_W2V_BERT`` (for w2v-BERT), else where the folder says.
            precision: as for the constructor.
            decode_only: do not load the semantic model, which only encoding needs.

        Raises:
            HubError: if something is not there.
            WeightsError: if it is damaged, does not fit together, or is not what was saved.
        """
        from dualcodec_jax.ecosystem.pretrained import load_pretrained

        model, semantic = load_pretrained(
            location, revision=revision, w2v_path=w2v_path, decode_only=decode_only
        )
        return cls(model, precision=precision, semantic=semantic, decode_only=decode_only)

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        semantic_location: str | None = None,
        quantized: bool = False,
        overwrite: bool = False,
    ) -> Path:
        """Write generator, semantic model, statistics and a model card to one folder.

        Args:
            folder: to write; it appears when it is complete.
            semantic_location: ``hf://owner/name[@revision]``, or ``bundled`` for what ships with
                this package: leave the semantic model out and say that it is there. None: write it
                too (w2v-BERT: 1.6 GB).
            quantized: round kernels to 8 bits, for a quarter of the size.
            overwrite: replace a folder that this method wrote.

        Raises:
            InputError: if the folder exists and ``overwrite`` is not set or it holds anything else,
                if it cannot be written, or after ``decode_only=True``.
            WeightsError: if what was written does not read back bit for bit.
        """
        from dualcodec_jax.ecosystem.pretrained import save_pretrained

        return save_pretrained(
            self,
            folder,
            semantic_location=semantic_location,
            quantized=quantized,
            overwrite=overwrite,
        )

    def weights_digest(self) -> str:
        """SHA-256 of the weights as they are stored (:func:`dualcodec_jax.weights.weights_digest`).

        Those in ``params`` have their weight norm folded, with the rounding of the machine.
        """
        return weights_digest(
            self.model.params, self.params.get("semantic"), self.params.get("statistics")
        )

    def encode(
        self,
        audio: ArrayLike,
        n_quantizers: int | None = 8,
        lengths: ArrayLike | None = None,
        pad_end: bool = False,
    ) -> tuple[Array, Array | None] | tuple[Array, Array | None, Array]:
        """Audio → (semantic codes, acoustic codes), upstream's ``encode`` and more.

        Args:
            audio: floats ``[B, 1, N]`` at 24 kHz, nominally in [−1, 1].
            n_quantizers: codes per frame, the semantic one included. None means all; above the
                model's number, all are used, with a warning.
            lengths: ints ``[B]``, true lengths in samples. Each item gets the codes that it gets
                alone, whatever its padding holds.
            pad_end: zero-pad the end so that the last one or two hops, which upstream drops, are
                encoded too, and decoding gives at least as many samples as went in.

        Returns:
            ``(semantic [B, 1, T], acoustic [B, n − 1, T])``, int32; acoustic is None for one
            quantizer. With ``lengths``, ``code_lengths [B]`` comes third, and codes past an
            item's length are 0.

        Raises:
            InputError: on wrong shapes, types, lengths or ``n_quantizers``.
            AudioError: if samples are not finite.
        """
        self._check_can_encode()
        codec = self.config.codec
        count = self._count(n_quantizers)
        samples, true = as_audio(audio, lengths)
        size = samples.shape[2]
        if pad_end:
            true = np.array([samples_to_cover(int(n), codec) for n in true], np.int32)
        for length in true:
            functional.check_duration(int(length), self.config)
        longest = int(true.max())
        padded = bucket(acoustic_frames(longest, codec)) * codec.hop_length
        batch = np.zeros((samples.shape[0], 1, padded), np.float32)
        batch[:, :, : min(size, padded)] = samples[:, :, :padded]
        result = _encode(self.params, self.config, batch, true, count)
        codes = result.codes[:, :, : code_length(longest, codec)]
        acoustic = codes[:, 1:] if count > 1 else None
        if lengths is None:
            return codes[:, :1], acoustic
        return codes[:, :1], acoustic, result.lengths

    def decode(
        self,
        semantic_codes: ArrayLike,
        acoustic_codes: ArrayLike | None = None,
        code_lengths: ArrayLike | None = None,
        num_samples: ArrayLike | None = None,
    ) -> Array | tuple[Array, Array]:
        """(semantic codes, acoustic codes) → audio, upstream's ``decode`` and more.

        Args:
            semantic_codes: ints ``[B, 1, T]``.
            acoustic_codes: ints ``[B, n − 1, T]``, any prefix of the model's layers, or None.
            code_lengths: ints ``[B]``, true lengths in frames; codes past them are ignored.
            num_samples: an int, or ints ``[B]``: cut or zero-pad the audio to so many samples.

        Returns:
            float32 ``[B, 1, N]``, with N = T · hop − 4 for the released models unless
            ``num_samples`` is given. With ``code_lengths``, ``audio_lengths [B]`` comes second,
            and samples past an item's length are 0.

        Raises:
            InputError: on wrong shapes or types, or codes outside their codebooks.
        """
        codes = self._stack(semantic_codes, acoustic_codes)
        batch, _, frames = codes.shape
        true = as_lengths(code_lengths, batch, frames, "code_lengths", "frames")
        if (true < 1).any():
            raise InputError("code_lengths must be at least 1")
        codes = np.where(np.arange(frames) < true[:, None, None], codes, 0)
        check_codes(codes, self.config)
        audio, lengths = self._decode(codes, true)
        if num_samples is not None:
            lengths = _num_samples(num_samples, batch)
        audio = _fit(audio, int(lengths.max()))
        if num_samples is not None:
            audio = jnp.where(jnp.arange(audio.shape[2]) < lengths[:, None, None], audio, 0)
        return audio if code_lengths is None else (audio, jnp.asarray(lengths))

    decode_from_codes = decode

    def encode_stream(
        self,
        audio: Iterable[ArrayLike],
        n_quantizers: int | None = 8,
        *,
        pad_end: bool = False,
        chunk_frames: int = 256,
        window_seconds: float | None = None,
        overlap_seconds: float | None = None,
    ) -> Iterator[np.ndarray]:
        """A recording of any length, piece by piece → its codes, at constant memory.

        The semantic model sees windows of 30 s, so that codes differ a little from those of
        :meth:`encode` on the whole (docs/long_audio.md); the demo model's are the same.

        Args:
            audio: floats ``[N]`` at 24 kHz, any N at a time.
            n_quantizers: as in :meth:`encode`.
            pad_end: as in :meth:`encode`.
            chunk_frames: code frames encoded at a time.
            window_seconds: audio that w2v-BERT sees at once; None: 30 s.
            overlap_seconds: audio that two windows share; None: a sixth of one.

        Returns:
            An iterator of int32 ``[1, n, T]``; row 0 is semantic.

        Raises:
            InputError: on numbers out of range, or audio too short for one frame.
            AudioError: if samples are not finite.
        """
        self._check_can_encode()
        return encode_stream(
            self.params,
            self.config,
            (as_array(part, "audio") for part in audio),
            self._count(n_quantizers),
            pad_end=pad_end,
            chunk_frames=chunk_frames,
            window_seconds=window_seconds,
            overlap_seconds=overlap_seconds,
        )

    def decode_stream(
        self,
        codes: Iterable[ArrayLike],
        *,
        chunk_frames: int = 12,
        lookahead: int | None = None,
    ) -> Iterator[np.ndarray]:
        """Codes as they are generated → audio as soon as it is certain.

        Joined, the audio is that of :meth:`decode` on all codes, but for rounding. The first
        comes when ``chunk_frames`` and the frames that they depend on have arrived: 27 more at
        12.5 Hz (2.2 s), 10 at 25 Hz (0.4 s).

        Args:
            codes: ints ``[B, n, T]``, any T at a time; row 0 is semantic.
            chunk_frames: frames decoded at a time; each chunk decodes its context again (27 + 27
                frames at 12.5 Hz, 10 + 10 at 25 Hz), so small ones cost more.
            lookahead: wait for fewer frames than that; approximate, see docs/long_audio.md.

        Returns:
            An iterator of float32 ``[B, 1, N]``.

        Raises:
            InputError: on wrong shapes or types, or codes outside their codebooks.
        """
        return decode_stream(
            self.params,
            self.config,
            (as_array(part, "codes") for part in codes),
            chunk_frames=chunk_frames,
            lookahead=lookahead,
        )

    def warmup(
        self,
        max_seconds: float,
        *,
        min_seconds: float = 0.5,
        batch_sizes: Iterable[int] = (1,),
        n_quantizers: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Compile for every padded length of clips of such durations, with ``pad_end`` or without.

        Lengths are padded to eight buckets an octave (less than 12.5 % of padding), so clips of
        half a second to a minute take 54 to 57 programs of each kind. With
        :func:`dualcodec_jax.compilation.enable_cache` the next process finds them on disk.

        Args:
            max_seconds: of the longest clip.
            min_seconds: of the shortest clip.
            batch_sizes: that will come; each compiles anew.
            n_quantizers: as in :meth:`encode`; None: all.
            progress: called with (programs compiled, programs).

        Returns:
            The number of programs.

        Raises:
            InputError: if ``min_seconds`` exceeds ``max_seconds`` or is not positive.
        """
        codec, count = self.config.codec, self._count(n_quantizers)
        if not 0 < min_seconds <= max_seconds:
            raise InputError(
                f"min_seconds {min_seconds} must be positive and at most max_seconds {max_seconds}"
            )
        shortest, longest = (
            round(seconds * codec.sample_rate) for seconds in (min_seconds, max_seconds)
        )
        samples = max(shortest, min_samples(codec)), samples_to_cover(longest, codec)
        shapes: list[tuple[Callable[[int, int], None], int]] = []
        if self._can_encode:
            shapes += [
                (functools.partial(self._warm_encode, count), frames)
                for frames in _buckets(*(acoustic_frames(size, codec) for size in samples))
            ]
        shapes += [
            (functools.partial(self._warm_decode, count), frames)
            for frames in _buckets(*(code_length(size, codec) for size in samples))
        ]
        programs = [(warm, batch, frames) for batch in batch_sizes for warm, frames in shapes]
        for index, (warm, batch, frames) in enumerate(programs):
            warm(batch, frames)
            if progress is not None:
                progress(index + 1, len(programs))
        return len(programs)

    def _warm_encode(self, count: int, batch: int, frames: int) -> None:
        audio = np.zeros((batch, 1, frames * self.config.codec.hop_length), np.float32)
        lengths = np.full(batch, audio.shape[2], np.int32)
        jax.block_until_ready(_encode(self.params, self.config, audio, lengths, count))

    def _warm_decode(self, count: int, batch: int, frames: int) -> None:
        codes = np.zeros((batch, count, frames), np.int32)
        jax.block_until_ready(self._decode(codes, np.full(batch, frames, np.int32))[0])

    def _decode(self, codes: np.ndarray, true: np.ndarray) -> tuple[Array, np.ndarray]:
        """Audio ``[B, 1, N]`` and samples of each item; long codes go window by window."""
        batch, rows, _ = codes.shape
        longest = int(true.max())
        if longest > WHOLE_FRAMES:
            decoder = StreamDecoder(self.params, self.config, chunk_frames=LONG_CHUNK_FRAMES)
            parts = list(decoder.whole(codes[:, :, :longest], true))
            return jnp.asarray(np.concatenate(parts, axis=2)), decoded_samples(
                true, self.config.codec
            )
        padded = np.zeros((batch, rows, bucket(longest)), np.int32)
        padded[:, :, :longest] = codes[:, :, :longest]
        result = _decode(self.params, self.config, padded, true)
        return result.audio, np.asarray(result.lengths)

    def _check_can_encode(self) -> None:
        if not self._can_encode:
            raise InputError("this Inference was made with decode_only=True; it cannot encode")

    def _count(self, n_quantizers: int | None) -> int:
        available = self.config.codec.n_quantizers
        if n_quantizers is None:
            return available
        if isinstance(n_quantizers, bool) or not isinstance(n_quantizers, int | np.integer):
            raise InputError(f"n_quantizers must be an integer; got {n_quantizers!r}")
        if n_quantizers < 1:
            raise InputError(
                f"n_quantizers must be at least 1 (the semantic code); got {n_quantizers}"
            )
        if n_quantizers > available:
            warnings.warn(
                f"{self.config.model_id} has {available} quantizers; n_quantizers="
                f"{n_quantizers} gives all of them",
                DualCodecWarning,
                stacklevel=3,
            )
        return min(int(n_quantizers), available)

    def _stack(self, semantic_codes: ArrayLike, acoustic_codes: ArrayLike | None) -> np.ndarray:
        semantic = as_array(semantic_codes, "semantic_codes")
        books = self.config.codec.n_codebooks
        parts = [semantic]
        if semantic.ndim != 3 or semantic.shape[1] != 1 or 0 in semantic.shape:
            raise InputError(
                f"semantic_codes must have shape [batch, 1, frames]; got {list(semantic.shape)}"
            )
        if acoustic_codes is not None:
            acoustic = as_array(acoustic_codes, "acoustic_codes")
            parts.append(acoustic)
            if (
                acoustic.ndim != 3
                or acoustic.shape[::2] != semantic.shape[::2]
                or not 1 <= acoustic.shape[1] <= books
            ):
                raise InputError(
                    f"acoustic_codes must have shape [{semantic.shape[0]}, 1…{books}, "
                    f"{semantic.shape[2]}] to fit semantic_codes and {self.config.model_id}; got "
                    f"{list(acoustic.shape)}. Pass None to decode the semantic codes alone"
                )
        for part in parts:
            if part.dtype.kind not in "iu":
                raise InputError(f"codes must be integers; got {part.dtype}")
        return np.concatenate(parts, axis=1)


def _num_samples(value: ArrayLike, batch: int) -> np.ndarray:
    lengths = as_array(value, "num_samples")
    if lengths.dtype.kind not in "iu" or lengths.shape not in ((), (batch,)) or lengths.min() < 0:
        raise InputError(f"num_samples must be one integer or {batch}, none negative")
    return np.broadcast_to(lengths, (batch,)).astype(np.int32)


def _buckets(shortest: int, longest: int) -> list[int]:
    return sorted({bucket(frames) for frames in range(shortest, longest + 1)})


def _fit(audio: Array, num_samples: int) -> Array:
    """Cut or zero-pad ``audio [B, 1, N]`` to ``num_samples``."""
    missing = max(0, num_samples - audio.shape[2])
    return jnp.pad(audio, ((0, 0), (0, 0), (0, missing)))[:, :, :num_samples]
