"""Reader of the semantic features' statistics, ``w2vbert2_mean_var_stats_emilia.pt``.

A ``.pt`` file is a zip archive with a pickle. Unpickling runs whatever the file asks for,
so this reader allows only the names and opcodes that a dictionary of plain tensors needs,
executes nothing else, and needs no torch.
"""

from __future__ import annotations

import collections
import io
import pickle
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from dualcodec_jax.errors import WeightsError

MAX_BYTES = 64 * 2**20
"""A statistics file is a few kilobytes; anything above this is refused unread."""
MAX_PICKLE_BYTES = 2**20
"""The same for its pickle, which takes less than one."""

_DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
}
# What pickles of dictionaries, tuples, strings, numbers and tensors are made of. BUILD, NEWOBJ
# and INST, which set the state of objects or make them, are not among it.
# fmt: off
_OPCODES = frozenset({
    "PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1",
    "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "EMPTY_TUPLE", "TUPLE",
    "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_DICT", "SETITEM", "SETITEMS", "BINPUT", "LONG_BINPUT",
    "MEMOIZE", "BINGET", "LONG_BINGET", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BINPERSID",
})
# fmt: on


def read_statistics(path: str | Path) -> dict[str, np.ndarray]:
    """``{"mean": …, "var": …}``, float32 ``[semantic_dim]`` each.

    Reads ``.pt`` (torch zip format), ``.safetensors`` and ``.npz``.

    Raises:
        WeightsError: if the file is damaged, holds anything but tensors, lacks an entry, or
            has values that are not finite or a variance that is not positive.
    """
    path = Path(path)
    try:
        values = _READERS.get(path.suffix, _read_pt)(path)
    except WeightsError:
        raise
    except Exception as error:  # zipfile, zlib, pickle and numpy have one for every damage
        raise WeightsError(f"{path}: not a readable statistics file: {error}") from error
    if not isinstance(values, dict) or not {"mean", "var"} <= set(values):
        raise WeightsError(f"{path}: expected a dictionary with the tensors 'mean' and 'var'")
    statistics = {name: _vector(values[name], name, path) for name in ("mean", "var")}
    if statistics["mean"].shape != statistics["var"].shape:
        raise WeightsError(f"{path}: 'mean' and 'var' differ in size")
    if not (statistics["var"] > 0).all():
        raise WeightsError(f"{path}: 'var' has values that are not positive")
    return statistics


def _vector(value: Any, name: str, path: Path) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        raise WeightsError(f"{path}: '{name}' is not a tensor of floats")
    with np.errstate(over="ignore"):  # what overflows is not finite
        vector = np.ascontiguousarray(value.reshape(-1), np.float32)
    if vector.size == 0 or not np.isfinite(vector).all():
        raise WeightsError(f"{path}: '{name}' is empty or has values that are not finite")
    return vector


def _read_pt(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        _check_size(path, sum(entry.file_size for entry in archive.infolist()))
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise WeightsError(f"{path}: not a file written by torch.save")
        prefix = pickles[0].removesuffix("data.pkl")
        order = f"{prefix}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise WeightsError(f"{path}: big-endian tensors are not supported")
        return _Unpickler(archive, prefix).load()


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    _check_size(path, path.stat().st_size)
    return load_file(path)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        _check_size(path, sum(entry.file_size for entry in archive.infolist()))
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _check_size(path: Path, size: int) -> None:
    if size > MAX_BYTES:
        raise WeightsError(f"{path}: larger than {MAX_BYTES} bytes; not a statistics file")


_READERS = {".pt": _read_pt, ".safetensors": _read_safetensors, ".npz": _read_npz}


class _Unpickler(pickle.Unpickler):
    """Allows tensors over storages and ordered dictionaries; refuses every other name."""

    def __init__(self, archive: zipfile.ZipFile, prefix: str) -> None:
        data = archive.read(f"{prefix}data.pkl")
        _check_opcodes(data)
        super().__init__(io.BytesIO(data))
        self._archive, self._prefix = archive, prefix
        self._storages: dict[str, bytes] = {}  # read once each, however often they are named

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(
            f"it asks for {module}.{name}, which a statistics file does not need; refused, "
            "because loading it could run code"
        )

    def persistent_load(self, pid: Any) -> np.ndarray:
        match pid:
            case ("storage", np.dtype() as dtype, str(key), _, int(count)):
                if key not in self._storages:
                    self._storages[key] = self._archive.read(f"{self._prefix}data/{key}")
                data = self._storages[key]
            case _:
                raise pickle.UnpicklingError("unknown storage reference")
        if len(data) != count * dtype.itemsize:
            raise pickle.UnpicklingError(f"storage {key} has {len(data)} bytes, not {count} values")
        return np.frombuffer(data, dtype)


def _check_opcodes(data: bytes) -> None:
    """Raise unless a pickle is well-formed and made of :data:`_OPCODES` only; runs nothing."""
    if len(data) > MAX_PICKLE_BYTES:
        raise pickle.UnpicklingError(f"its pickle is larger than {MAX_PICKLE_BYTES} bytes")
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name not in _OPCODES:
            raise pickle.UnpicklingError(
                f"its pickle has the opcode {opcode.name}, which a statistics file does not need; "
                "refused, because loading it could run code"
            )
        # The unpickler allocates a memo as large as the largest index.
        if opcode.name == "LONG_BINPUT" and int(argument or 0) > len(data):
            raise pickle.UnpicklingError(f"its pickle has the memo index {argument}")


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> np.ndarray:
    """``torch._utils._rebuild_tensor_v2`` for contiguous tensors, with every bound checked."""
    if not isinstance(storage, np.ndarray) or not isinstance(offset, int):
        raise pickle.UnpicklingError("malformed tensor")
    if not all(isinstance(size, int) and size >= 0 for size in (*shape, *stride, offset)):
        raise pickle.UnpicklingError("malformed tensor shape")
    expected: list[int] = []
    size = 1
    for extent in reversed(shape):
        expected.insert(0, size)
        size *= extent
    contiguous = all(
        s == e or extent <= 1 for s, e, extent in zip(stride, expected, shape, strict=True)
    )
    if not contiguous or offset + size > storage.size:
        raise pickle.UnpicklingError("a tensor is not contiguous or exceeds its storage")
    return storage[offset : offset + size].reshape(shape)
