"""Audio files → codes → audio files, at any length and constant memory.

Short recordings are encoded whole, as the original does; longer ones window by window
(:mod:`dualcodec_jax.stream_encode`), while they are read. Decoding writes while it decodes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from dualcodec_jax.audio.load import AudioStream
from dualcodec_jax.audio.writer import audio_writer
from dualcodec_jax.config import WhisperConfig
from dualcodec_jax.container import CodeFile
from dualcodec_jax.errors import InputError
from dualcodec_jax.inference import LONG_CHUNK_FRAMES, WHOLE_FRAMES, Inference
from dualcodec_jax.lengths import WHOLE_SECONDS, decoded_samples

Progress = Callable[[float, float | None], None]
"""Called with the seconds of audio that are done so far, and with those of all, if known."""


def encode_file(
    inference: Inference,
    path: str | Path,
    n_quantizers: int | None = None,
    *,
    upstream_lengths: bool = False,
    whole_seconds: float = WHOLE_SECONDS,
    window_seconds: float | None = None,
    overlap_seconds: float | None = None,
    max_seconds: float | None = None,
    progress: Progress | None = None,
) -> tuple[CodeFile, tuple[str, ...]]:
    """Codes of an audio file of any length, and sentences on what changed the signal or codes.

    Args:
        inference: the model.
        path: any file that libsndfile reads; mixed to mono and resampled.
        n_quantizers: codes per frame, the semantic one included; None: all.
        upstream_lengths: drop the last one or two hops, as the original does. False: pad the end,
            so that decoding gives back the recording's length.
        whole_seconds: a longer recording is encoded in windows.
        window_seconds: audio that w2v-BERT sees at once then; None: 30 s.
        overlap_seconds: audio that two windows share; None: a sixth of one.
        max_seconds: longer files are refused; None: no limit.
        progress: is told how far a long recording is.

    Raises:
        AudioError: if the file cannot be used.
        InputError: if it is too short for one frame, or a number is out of range.
    """
    if not whole_seconds > 0:
        raise InputError(f"whole_seconds must be positive; got {whole_seconds}")
    config = inference.config.codec
    stream = AudioStream(path, config.sample_rate, max_seconds=max_seconds)
    blocks, head, size = iter(stream), [], 0
    for block in blocks:
        head.append(block)
        size += len(block)
        if size > whole_seconds * config.sample_rate:
            break
    else:
        samples = np.concatenate(head)
        codes = encode_samples(inference, samples, n_quantizers, upstream_lengths)
        return codes, stream.notes
    heard = 0

    def listen() -> Iterator[np.ndarray]:
        nonlocal heard
        for block in itertools.chain(_emptied(head), blocks):
            heard += len(block)
            yield block
            if progress is not None:
                progress(heard / config.sample_rate, stream.seconds)

    parts = inference.encode_stream(
        listen(),
        n_quantizers,
        pad_end=not upstream_lengths,
        window_seconds=window_seconds,
        overlap_seconds=overlap_seconds,
    )
    rows = np.concatenate(list(parts), axis=2)[0]
    notes = stream.notes
    if config.is_dual and not isinstance(inference.config.semantic, WhisperConfig):
        notes += (
            f"longer than {whole_seconds:g} s: the semantic model saw {window_seconds or 30:g} s "
            "at a time, so some codes differ from those of the whole",
        )
    return _code_file(inference, rows, heard, upstream_lengths), notes


def encode_samples(
    inference: Inference,
    samples: np.ndarray,
    n_quantizers: int | None = None,
    upstream_lengths: bool = False,
) -> CodeFile:
    """Codes of ``samples [N]``, encoded whole, with the length that decoding will give back."""
    semantic, acoustic = inference.encode(
        samples.reshape(1, 1, -1), n_quantizers, pad_end=not upstream_lengths
    )[:2]
    rows = semantic if acoustic is None else np.concatenate([semantic, acoustic], axis=1)
    return _code_file(inference, np.asarray(rows)[0], samples.size, upstream_lengths)


def decode_file(
    inference: Inference,
    codes: CodeFile,
    path: str | Path,
    n_quantizers: int | None = None,
    *,
    upstream_lengths: bool = False,
    progress: Progress | None = None,
) -> None:
    """Decode codes to an audio file, which appears when it is complete.

    Args:
        inference: the model that the codes name.
        codes: of any length.
        path: file to write or replace; ends in .wav, .flac or .ogg.
        n_quantizers: codes per frame to decode, at most; None: all.
        upstream_lengths: give the original's length. False: the recording's.
        progress: is told how far long codes are.

    Raises:
        InputError: if the sizes of ``codes`` are not those of the model.
        AudioError: if the file cannot be written.
    """
    done = 0
    with audio_writer(path, codes.sample_rate) as write:
        for part in decode_parts(inference, codes, n_quantizers, upstream_lengths):
            write(part)
            done += len(part)
            if progress is not None:
                progress(done / codes.sample_rate, codes.seconds)


def decode_parts(
    inference: Inference,
    codes: CodeFile,
    n_quantizers: int | None = None,
    upstream_lengths: bool = False,
) -> Iterator[np.ndarray]:
    """Audio of codes, float32 ``[N]`` at a time; see :func:`decode_file`."""
    config = inference.config.codec
    expected = (config.sample_rate, config.hop_length, config.codebook_sizes[: codes.n_quantizers])
    if (codes.sample_rate, codes.hop_length, codes.codebook_sizes) != expected:
        raise InputError(
            f"the file says {codes.model_id}, but its sample rate, hop or codebook sizes are not "
            "those of that model"
        )
    full = decoded_samples(codes.num_frames, config)
    length = full if upstream_lengths else codes.num_samples
    if length > full + 2 * config.hop_length:  # the original drops up to two hops
        raise InputError(
            f"the file promises {length} samples, but its {codes.num_frames} frames have {full}: "
            "it is damaged"
        )
    rows = codes.codes[None, :n_quantizers]
    if codes.num_frames <= WHOLE_FRAMES:
        acoustic = rows[:, 1:] if rows.shape[1] > 1 else None
        yield np.asarray(inference.decode(rows[:, :1], acoustic, num_samples=length))[0, 0]
        return
    parts = inference.decode_stream([rows], chunk_frames=LONG_CHUNK_FRAMES)
    yield from _fitted((part[0, 0] for part in parts), length)


def decode_codes(
    inference: Inference,
    codes: CodeFile,
    n_quantizers: int | None = None,
    upstream_lengths: bool = False,
) -> np.ndarray:
    """Audio ``[N]`` of codes; see :func:`decode_file`."""
    return np.concatenate(list(decode_parts(inference, codes, n_quantizers, upstream_lengths)))


def _code_file(
    inference: Inference, codes: np.ndarray, num_samples: int, upstream_lengths: bool
) -> CodeFile:
    config = inference.config.codec
    return CodeFile(
        codes=codes,
        model_id=inference.config.model_id,
        sample_rate=config.sample_rate,
        hop_length=config.hop_length,
        num_samples=decoded_samples(codes.shape[1], config) if upstream_lengths else num_samples,
        codebook_sizes=config.codebook_sizes[: codes.shape[0]],
    )


def _emptied(parts: list[np.ndarray]) -> Iterator[np.ndarray]:
    """The parts in order, each forgotten when it is given."""
    parts.reverse()
    while parts:
        yield parts.pop()


def _fitted(parts: Iterable[np.ndarray], length: int) -> Iterator[np.ndarray]:
    """The parts, cut or zero-padded to ``length`` samples in all."""
    for part in parts:
        yield part[:length]
        length -= len(part[:length])
        if length == 0:
            return
    yield np.zeros(length, np.float32)
