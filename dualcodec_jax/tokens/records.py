"""One recording's codes as a record: a small JSON header and a ``.dualcodec`` file, in one string
of bytes; see docs/corpora.md."""

from __future__ import annotations

import dataclasses
import json
import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dualcodec_jax.container import CodeFile, pack, unpack
from dualcodec_jax.errors import CodeFileError

MAX_HEADER_BYTES = 2**24
_LENGTH = struct.Struct("<I")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenRecord:
    """Codes of one recording and what is known about it.

    Attributes:
        index: place of the recording in the corpus, from 0.
        id: its name, unique in the corpus.
        file: codes, model, rates and length.
        weights: first 16 digits of the digest of the model's parameters.
        text: transcript, if any.
        language: as the data set writes it.
        speaker: as the data set writes it.
        quality: a score, larger is better.
        metadata: what else the data set says, JSON types.
    """

    index: int
    id: str
    file: CodeFile
    weights: str
    text: str | None = None
    language: str | None = None
    speaker: str | None = None
    quality: float | None = None
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def codes(self) -> NDArray[np.int32]:
        """int32 ``[n, T]``, read-only; row 0 is semantic."""
        return self.file.codes

    @property
    def num_samples(self) -> int:
        """Samples of the recording, at :attr:`sample_rate`."""
        return self.file.num_samples

    @property
    def sample_rate(self) -> int:
        """Rate at which the model works, in Hz."""
        return self.file.sample_rate

    @property
    def model_id(self) -> str:
        """Name of the model."""
        return self.file.model_id

    @property
    def seconds(self) -> float:
        """Duration of the recording."""
        return self.file.seconds


def pack_record(record: TokenRecord) -> bytes:
    """u32 little-endian length of the header, the header (UTF-8 JSON), the ``.dualcodec`` file."""
    values = {
        field.name: plain(getattr(record, field.name))
        for field in dataclasses.fields(record)
        if field.name != "file"
    }
    known = {name: value for name, value in values.items() if value not in (None, {})}
    # A file name that is not UTF-8 has surrogates.
    header = json.dumps(known, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    data = header.encode("utf-8", "surrogatepass")
    return _LENGTH.pack(len(data)) + data + pack(record.file)


def unpack_record(data: bytes) -> TokenRecord:
    """The inverse of :func:`pack_record`.

    Raises:
        CodeFileError: the data are damaged or foreign.
    """
    if len(data) < _LENGTH.size:
        raise CodeFileError(f"a record of {len(data)} bytes is too short; copy the file again")
    (length,) = _LENGTH.unpack_from(data)
    end = _LENGTH.size + length
    if length > MAX_HEADER_BYTES or end > len(data):
        raise CodeFileError("not a record of codes, or a damaged one; copy the file again")
    try:
        values = json.loads(data[_LENGTH.size : end].decode("utf-8", "surrogatepass"))
        record = TokenRecord(**values, file=unpack(data[end:]))
        if type(record.index) is not int or not isinstance(record.id, str):
            raise TypeError("index and id are not a number and a string")
    except (ValueError, TypeError, RecursionError) as error:
        raise CodeFileError(f"a record cannot be read ({error}); copy the file again") from error
    return record


def described(extra: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a data set as fields of a record: ``speaker`` and the rest."""
    metadata = plain(extra)
    speaker = metadata.pop("speaker", None)
    if speaker is not None and not isinstance(speaker, str):
        speaker = str(speaker)
    return {"speaker": speaker, "metadata": metadata}


def plain(value: Any) -> Any:
    """``value`` as JSON types: numpy's become Python's, bytes text, what is not finite None."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
