"""Audio files out, through soundfile (libsndfile), at once or piece by piece."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dualcodec_jax.audio.headers import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, import_soundfile, reason
from dualcodec_jax.errors import AudioError, InputError
from dualcodec_jax.paths import replacing

_WRITABLE = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
}
_MAX_RATES = {"OGG": 200_000, "FLAC": 655_350}  # libsndfile crashes on higher ones
_MAX_WAV_SAMPLES = (2**32 - 1024) // 2  # of 16 bits: sizes in its header have 32
_BLOCK = 1 << 18  # samples handed to libsndfile at a time


def write_audio(path: str | Path, samples: Any, sample_rate: int) -> None:
    """Write mono audio: 16-bit WAV or FLAC, or Ogg Vorbis, by the suffix of ``path``.

    Values are clipped to [-1, 1]. Missing folders are created. The file appears under its
    name only when it is complete.

    Args:
        path: file to write or replace; ends in .wav, .flac or .ogg.
        samples: floating-point array ``[N]`` or ``[1, N]`` (NumPy, JAX, ...), N > 0.
        sample_rate: in Hz, 1000 to 768000 (FLAC 655350, Ogg Vorbis 200000).

    Raises:
        InputError: for another suffix, shape, dtype or sample rate, NaN or infinite values,
            or a path that cannot be written.
        AudioError: if the encoder refuses, for instance an odd sample rate above 65535 in FLAC,
            or a WAV file would pass 4 GiB.
    """
    with audio_writer(path, sample_rate) as write:
        write(samples)


@contextlib.contextmanager
def audio_writer(path: str | Path, sample_rate: int) -> Iterator[Callable[[Any], None]]:
    """Write mono audio piece by piece: yield the function that takes the pieces.

    The file appears under its name when the block ends, and not at all if it raises. Arguments and
    errors are those of :func:`write_audio`; at least one piece must be written.
    """
    target = Path(path)
    try:
        file_format, subtype = _WRITABLE[target.suffix.lower()]
    except KeyError:
        raise InputError(
            f"{target}: unknown suffix {target.suffix!r} for audio; use {', '.join(_WRITABLE)}"
        ) from None
    rate = _checked_rate(sample_rate, _MAX_RATES.get(file_format, MAX_SAMPLE_RATE))
    soundfile = import_soundfile()
    written = 0
    with replacing(target, overwrite=True) as temporary:
        try:
            with soundfile.SoundFile(
                temporary, "w", rate, 1, format=file_format, subtype=subtype
            ) as file:

                def write(samples: Any) -> None:
                    nonlocal written
                    data = _writable_samples(samples, subtype)
                    written += len(data)
                    if file_format == "WAV" and written > _MAX_WAV_SAMPLES:
                        hours = _MAX_WAV_SAMPLES / rate / 3600
                        raise AudioError(
                            f"{target}: a WAV file cannot hold more than {hours:.1f} hours at "
                            f"{rate} Hz; write .flac"
                        )
                    # In blocks: libsndfile's Vorbis encoder overflows the stack on long ones.
                    for start in range(0, len(data), _BLOCK):
                        file.write(data[start : start + _BLOCK])

                yield write
        except soundfile.SoundFileError as error:
            raise AudioError(
                f"{target}: cannot be written as {file_format} at {rate} Hz "
                f"({reason(error)}); try .wav, or make room"
            ) from error
        if not written:
            raise InputError(f"{target}: nothing was written")
        if not _is_complete(temporary, written):
            raise AudioError(f"{target}: could not be written to its end; make room")


def _is_complete(path: Path, written: int) -> bool:
    """Whether all samples can be read again: libsndfile does not tell if its last write failed."""
    soundfile = import_soundfile()
    try:
        with soundfile.SoundFile(path) as file:
            if len(file) != written:
                return False
            if file.format == "FLAC":  # the header has the length even without the last block
                file.seek(written - 1)
                return len(file.read(1)) == 1
    except soundfile.SoundFileError:
        return False
    return True


def _checked_rate(sample_rate: Any, highest: int) -> int:
    try:
        rate = operator.index(sample_rate)
    except TypeError:
        raise InputError(f"sample_rate must be an integer in Hz; got {sample_rate!r}") from None
    if not MIN_SAMPLE_RATE <= rate <= highest:
        raise InputError(
            f"sample_rate must be {MIN_SAMPLE_RATE} to {highest} Hz in this format; got {rate}"
        )
    return rate


def _writable_samples(samples: Any, subtype: str) -> NDArray[np.int16] | NDArray[np.float32]:
    """Check samples ``[N]`` or ``[1, N]``; return clipped int16 or float32 ``[N]``."""
    try:
        array = np.asarray(samples)
    except ValueError as error:
        raise InputError(f"samples must be an array [N] or [1, N]: {error}") from error
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        raise InputError(
            f"samples must be floating point in [-1, 1]; got {array.dtype} (divide int16 by 32768)"
        )
    if array.size == 0 or array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[0] != 1):
        raise InputError(
            f"samples must have shape [N] or [1, N] with N > 0 (mono); got {array.shape}"
        )
    flat: NDArray[Any] = array.reshape(-1).astype(
        np.float32 if array.dtype.itemsize <= 4 else np.float64
    )
    if bad := int(np.count_nonzero(~np.isfinite(flat))):
        raise InputError(f"samples: {bad} of {flat.size} values are NaN or infinite")
    clipped: NDArray[np.float64] = np.clip(flat, -1, 1)
    if subtype != "PCM_16":
        return clipped.astype(np.float32)
    # Not left to libsndfile, which scales by 32767 here but by 32768 when reading.
    steps: NDArray[np.float64] = np.minimum(np.rint(clipped * 32768), 32767)
    return steps.astype(np.int16)
