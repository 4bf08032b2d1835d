"""Reader of the semantic features' statistics, ``w2vbert2_mean_var_stats_emilia.pt``.

A ``.pt`` file is a zip archive with a pickle. Unpickling runs whatever the file asks for,
so this reader allows only what a dictionary of plain tensors needs, executes nothing else,
and needs no torch.
"""

from __future__ import annotations

import collections
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from dualcodec_jax.errors import WeightsError

MAX_BYTES = 64 * 2**20
"""A statistics file is a few kilobytes; anything above this is refused unread."""

_DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
}


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
    except (zipfile.BadZipFile, pickle.UnpicklingError, EOFError, KeyError, ValueError) as error:
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
    vector = np.ascontiguousarray(value.reshape(-1), np.float32)
    if vector.size == 0 or not np.isfinite(vector).all():
        raise WeightsError(f"{path}: '{name}' is empty or has values that are not finite")
    return vector


def _read_pt(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > MAX_BYTES:
            raise WeightsError(f"{path}: larger than {MAX_BYTES} bytes; not a statistics file")
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise WeightsError(f"{path}: not a file written by torch.save")
        prefix = pickles[0].removesuffix("data.pkl")
        order = f"{prefix}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise WeightsError(f"{path}: big-endian tensors are not supported")
        return _Unpickler(archive, prefix).load()


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


_READERS = {".pt": _read_pt, ".safetensors": _read_safetensors, ".npz": _read_npz}


class _Unpickler(pickle.Unpickler):
    """Allows tensors over storages and ordered dictionaries; refuses every other name."""

    def __init__(self, archive: zipfile.ZipFile, prefix: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{prefix}data.pkl")))
        self._archive, self._prefix = archive, prefix

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
                data = self._archive.read(f"{self._prefix}data/{key}")
            case _:
                raise pickle.UnpicklingError("unknown storage reference")
        if len(data) != count * dtype.itemsize:
            raise pickle.UnpicklingError(f"storage {key} has {len(data)} bytes, not {count} values")
        return np.frombuffer(data, dtype)


def _rebuild_tensor(
    storage: Any, offset: Any, shape: Any, stride: Any, *_: Any
) -> np.ndarray:
    """``torch._utils._rebuild_tensor_v2`` for contiguous tensors, with every bound checked."""
    if not isinstance(storage, np.ndarray) or not isinstance(offset, int):
        raise pickle.UnpicklingError("malformed tensor")
    if not all(isinstance(size, int) and size >= 0 for size in (*shape, *stride, offset)):
        raise pickle.UnpicklingError("malformed tensor shape")
    expected, size = [], 1
    for extent in reversed(shape):
        expected.insert(0, size)
        size *= extent
    contiguous = all(
        s == e or extent <= 1 for s, e, extent in zip(stride, expected, shape, strict=True)
    )
    if not contiguous or offset + size > storage.size:
        raise pickle.UnpicklingError("a tensor is not contiguous or exceeds its storage")
    return storage[offset : offset + size].reshape(shape)
