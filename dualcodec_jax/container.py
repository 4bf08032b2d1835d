"""The ``.dualcodec`` file: codes, bit-packed, behind a small header; see docs/container.md."""

from __future__ import annotations

import operator
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dualcodec_jax.config import code_bits
from dualcodec_jax.errors import CodeFileError, InputError
from dualcodec_jax.paths import replacing

MAGIC = b"\x89DC\n"
"""First bytes; not ASCII and with a line end, so that text-mode transfers show."""
FORMAT_VERSION = 1
"""Version of the layout that this module writes, and the only one that it reads."""
MAX_MODEL_ID_BYTES = 24

# Magic, version, rows, sample rate, hop length, samples, frames, semantic and acoustic
# codebook size, bytes of the model id. The model id and the CRC follow.
_FIXED = struct.Struct("<4sBBIIQIIIB")
_CRC = struct.Struct("<I")
_U32_MAX, _MAX_SAMPLES, _MAX_CODEBOOK = (1 << 32) - 1, (1 << 63) - 1, 1 << 31
_BITS_AT_ONCE = 1 << 20  # of the payload, unpacked to a byte each


@dataclass(frozen=True, eq=False)
class CodeFile:
    """Codes of one utterance and what is needed to decode them. Checked when made.

    Attributes:
        codes: int32 ``[n, T]``, 1 <= n <= 255, T > 0; row 0 semantic, the others acoustic.
            Any integer array is accepted, JAX arrays too; a read-only copy is kept.
        model_id: name of the model that made them, 1 to 24 bytes of UTF-8.
        sample_rate: of the audio, in Hz.
        hop_length: samples per code frame.
        num_samples: length of the original audio, which decoded audio is cut to.
        codebook_sizes: size of each row's codebook, n entries; acoustic ones are all equal.

    Raises:
        InputError: any of them is not as described, or a code is not in its codebook.
    """

    codes: NDArray[np.int32]
    model_id: str
    sample_rate: int
    hop_length: int
    num_samples: int
    codebook_sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        codes = _checked_shape(self.codes)
        sizes = _checked_sizes(self.codebook_sizes, len(codes))
        _check_range(codes, sizes, InputError)
        stored = codes.astype(np.int32)
        stored.setflags(write=False)
        checked: dict[str, Any] = {
            "model_id": _checked_model_id(self.model_id),
            "sample_rate": _checked_int("sample_rate", self.sample_rate, 1, _U32_MAX),
            "hop_length": _checked_int("hop_length", self.hop_length, 1, _U32_MAX),
            "num_samples": _checked_int("num_samples", self.num_samples, 0, _MAX_SAMPLES),
            "codebook_sizes": sizes,
            "codes": stored,
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CodeFile):
            return NotImplemented
        return _key(self) == _key(other) and np.array_equal(self.codes, other.codes)

    @property
    def n_quantizers(self) -> int:
        """Codes per frame, n."""
        return int(self.codes.shape[0])

    @property
    def num_frames(self) -> int:
        """Code frames, T."""
        return int(self.codes.shape[1])

    @property
    def frame_rate(self) -> float:
        """Code frames per second."""
        return self.sample_rate / self.hop_length

    @property
    def seconds(self) -> float:
        """Duration of the original audio."""
        return self.num_samples / self.sample_rate

    @property
    def bitrate(self) -> float:
        """Bits per second of the codes, without the header."""
        return self.frame_rate * _frame_bits(self.codebook_sizes)


def write_codes(path: str | Path, code_file: CodeFile, *, overwrite: bool = False) -> int:
    """Write a ``.dualcodec`` file, which appears only when complete; folders are created.

    Returns:
        Number of bytes written.

    Raises:
        InputError: the file exists and ``overwrite`` is not set, or cannot be written.
    """
    data = pack(code_file)
    with replacing(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(data)
    return len(data)


def read_codes(path: str | Path) -> CodeFile:
    """Read a ``.dualcodec`` file.

    Raises:
        CodeFileError: the file is missing, not a code file, damaged, or of another version.
    """
    try:
        with open(path, "rb") as stream:
            head = stream.read(len(MAGIC))
            _check_magic(head)  # before reading what may be gigabytes of something else
            return unpack(head + stream.read())
    except FileNotFoundError:
        raise CodeFileError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise CodeFileError(f"{path}: cannot be read ({error.strerror or error})") from error
    except CodeFileError as error:
        raise CodeFileError(f"{path}: {error}") from None
    except ValueError as error:  # a null character
        raise CodeFileError(f"{str(path)!r}: not a path ({error})") from None


def pack(code_file: CodeFile) -> bytes:
    """Serialise codes to the content of a ``.dualcodec`` file."""
    model_id = code_file.model_id.encode()
    sizes = code_file.codebook_sizes
    header = _FIXED.pack(
        MAGIC,
        FORMAT_VERSION,
        code_file.n_quantizers,
        code_file.sample_rate,
        code_file.hop_length,
        code_file.num_samples,
        code_file.num_frames,
        sizes[0],
        sizes[1] if len(sizes) > 1 else 0,
        len(model_id),
    )
    header += model_id
    payload = _pack_bits(code_file.codes, sizes)
    return header + _CRC.pack(zlib.crc32(payload, zlib.crc32(header))) + payload


def unpack(data: bytes) -> CodeFile:
    """Parse the content of a ``.dualcodec`` file.

    Nothing is allocated on the word of a length field before it agrees with ``len(data)``.

    Raises:
        CodeFileError: the data are empty, foreign, of another version, or damaged.
    """
    _check_magic(data)
    if len(data) > len(MAGIC) and data[len(MAGIC)] != FORMAT_VERSION:
        raise CodeFileError(_wrong_version(data[len(MAGIC)]))
    if len(data) < _FIXED.size:
        raise CodeFileError(_truncated(len(data), "the header alone is longer"))
    _, _, rows, rate, hop, num_samples, frames, semantic, acoustic, id_length = _FIXED.unpack_from(
        data
    )
    header_end = _FIXED.size + id_length
    start = header_end + _CRC.size
    sizes = (semantic,) + (acoustic,) * (rows - 1)
    expected = start + -(-frames * _frame_bits(sizes) // 8)
    if len(data) < expected:
        raise CodeFileError(_truncated(len(data), f"the header announces {expected}"))
    if len(data) > expected:
        raise CodeFileError(
            f"damaged: {len(data) - expected} bytes follow the end of the codes at byte "
            f"{expected}; copy the file again"
        )
    (crc,) = _CRC.unpack_from(data, header_end)
    if crc != zlib.crc32(memoryview(data)[start:], zlib.crc32(memoryview(data)[:header_end])):
        raise CodeFileError("damaged: the CRC-32 checksum does not match; copy the file again")
    if rows == 0 or frames == 0 or (rows == 1 and acoustic != 0):
        raise CodeFileError(
            f"invalid: {rows} rows of {frames} frames, acoustic codebook size {acoustic}; the "
            "program that wrote it is faulty"
        )
    try:
        _checked_sizes(sizes, rows)
        model_id = _checked_model_id(data[_FIXED.size : header_end].decode())
        codes = _unpack_bits(data, start, frames, sizes)
        _check_range(codes, sizes, CodeFileError)
        return CodeFile(codes, model_id, rate, hop, num_samples, sizes)
    except (InputError, UnicodeDecodeError) as error:
        raise CodeFileError(f"invalid: {error}; the program that wrote it is faulty") from error


def _key(code_file: CodeFile) -> tuple[Any, ...]:
    return (
        code_file.model_id,
        code_file.sample_rate,
        code_file.hop_length,
        code_file.num_samples,
        code_file.codebook_sizes,
    )


def _frame_bits(sizes: Sequence[int]) -> int:
    return sum(code_bits(size) for size in sizes)


def _check_magic(data: bytes) -> None:
    if not data:
        raise CodeFileError("empty (0 bytes); encode the audio again")
    if data[: len(MAGIC)] == MAGIC:
        return
    if MAGIC.startswith(data):
        raise CodeFileError(_truncated(len(data), "the header alone is longer"))
    raise CodeFileError(
        "not a .dualcodec file, or one that was damaged by a transfer in text mode; check that it "
        "came from dualcodec_jax and copy it again in binary mode"
    )


def _wrong_version(version: int) -> str:
    if version < FORMAT_VERSION:
        return f"damaged: there is no format version {version}; copy the file again"
    return (
        f"written by a newer version of dualcodec_jax (file format {version}, this one reads "
        f"{FORMAT_VERSION}); upgrade dualcodec_jax"
    )


def _truncated(length: int, expectation: str) -> str:
    return f"truncated: {length} bytes, but {expectation}; copy the file again"


def _checked_int(name: str, value: Any, low: int, high: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise InputError(f"{name} must be an integer; got {value!r}") from None
    if not low <= number <= high:
        raise InputError(f"{name} must be {low} to {high}; got {number}")
    return number


def _checked_model_id(model_id: Any) -> str:
    if not isinstance(model_id, str) or not model_id.isprintable() or not model_id:
        raise InputError(f"model_id must be a printable, non-empty string; got {model_id!r}")
    if (length := len(model_id.encode())) > MAX_MODEL_ID_BYTES:
        raise InputError(
            f"model_id must be at most {MAX_MODEL_ID_BYTES} bytes of UTF-8; {model_id!r} has "
            f"{length}"
        )
    return model_id


def _checked_shape(codes: Any) -> NDArray[Any]:
    try:
        array = np.asarray(codes)
    except ValueError as error:
        raise InputError(f"codes must be an integer array [n, T]: {error}") from error
    if array.ndim != 2:
        raise InputError(
            f"codes must have shape [n, T], one utterance; got {array.shape} (take one item of a "
            "batch)"
        )
    if array.dtype.kind not in "iu":
        raise InputError(f"codes must be integers; got {array.dtype}")
    if not 1 <= array.shape[0] <= 255:
        raise InputError(f"codes must have 1 to 255 rows; got {array.shape[0]}")
    if not 1 <= array.shape[1] <= _U32_MAX:
        raise InputError(f"codes must have at least one frame; got shape {array.shape}")
    return array


def _checked_sizes(sizes: Any, rows: int) -> tuple[int, ...]:
    try:
        values = tuple(sizes)
    except TypeError:
        raise InputError(f"codebook_sizes must be a tuple of integers; got {sizes!r}") from None
    if len(values) != rows:
        raise InputError(
            f"codebook_sizes must have one entry for each of the {rows} rows of codes; got "
            f"{len(values)}"
        )
    checked = tuple(
        _checked_int(f"codebook_sizes[{row}]", value, 2, _MAX_CODEBOOK)
        for row, value in enumerate(values)
    )
    if len(set(checked[1:])) > 1:
        raise InputError(f"acoustic codebook sizes must all be equal; got {checked[1:]}")
    return checked


def _check_range(codes: NDArray[Any], sizes: Sequence[int], error: type[Exception]) -> None:
    for row, size in enumerate(sizes):
        for value in (int(codes[row].min()), int(codes[row].max())):
            if not 0 <= value < size:
                raise error(
                    f"codes: row {row} has the value {value}, outside its codebook of size {size} "
                    f"(0 to {size - 1})"
                )


def _frames_at_once(frame_bits: int) -> int:
    """Frames to convert together: a multiple of 8, so that each batch fills whole bytes."""
    return 8 * max(1, _BITS_AT_ONCE // (8 * frame_bits))


def _pack_bits(codes: NDArray[np.int32], sizes: Sequence[int]) -> bytes:
    """Pack codes ``[n, T]`` frame by frame, most significant bit first."""
    step = _frames_at_once(_frame_bits(sizes))
    parts = []
    for start in range(0, codes.shape[1], step):
        batch = codes[:, start : start + step]
        bits = [
            (row[:, None] >> np.arange(code_bits(size) - 1, -1, -1, dtype=np.int32)) & 1
            for row, size in zip(batch, sizes, strict=True)
        ]
        parts.append(np.packbits(np.concatenate(bits, axis=1).astype(np.uint8)).tobytes())
    return b"".join(parts)


def _unpack_bits(data: bytes, start: int, frames: int, sizes: Sequence[int]) -> NDArray[np.int32]:
    """Inverse of :func:`_pack_bits` on the payload ``data[start:]``, whose length is checked."""
    payload = np.frombuffer(data, np.uint8, offset=start)
    frame_bits = _frame_bits(sizes)
    used = frames * frame_bits % 8
    if used and payload[-1] & (0xFF >> used):
        raise CodeFileError("damaged: the padding bits after the last code are not zero")
    codes = np.empty((len(sizes), frames), np.int32)
    step = _frames_at_once(frame_bits)
    for first in range(0, frames, step):
        count = min(step, frames - first)
        batch = payload[first * frame_bits // 8 :][: -(-count * frame_bits // 8)]
        bits = np.unpackbits(batch, count=count * frame_bits).reshape(count, frame_bits)
        column = 0
        for row, size in enumerate(sizes):
            width = code_bits(size)
            weights = 1 << np.arange(width - 1, -1, -1, dtype=np.int32)
            codes[row, first : first + count] = bits[:, column : column + width] @ weights
            column += width
    return codes
