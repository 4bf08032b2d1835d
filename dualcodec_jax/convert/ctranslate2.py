"""Whisper encoders in CTranslate2's model files, the form in which Python packages carry them."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dualcodec_jax.errors import WeightsError

VERSION = 6
SPEC = "WhisperSpec"
_DTYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}
_MOST_AXES = 4
_LAYER = {
    "self_attention/layer_norm": "self_attn_layer_norm",
    "self_attention/linear_1": "self_attn.out_proj",
    "ffn/layer_norm": "final_layer_norm",
    "ffn/linear_0": "fc1",
    "ffn/linear_1": "fc2",
}
_LEAF = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}


def read_whisper_encoder(path: str | Path) -> tuple[dict[str, np.ndarray], int]:
    """The encoder's tensors, named as in ``transformers``, float32; and its number of heads.

    Raises:
        WeightsError: if the file is damaged, of another version, quantized, or no Whisper model.
    """
    tensors: dict[str, np.ndarray] = {}
    heads = 0
    for name, value in _read(Path(path)):
        if name == "encoder/num_heads" and value.shape == () and value.dtype.kind == "i":
            heads = int(value)
        elif name.startswith("encoder/") and "position_encodings" not in name:
            try:
                tensors |= _renamed(name, value, path)
            except KeyError as error:
                raise WeightsError(f"{path}: {name} is no part of a Whisper encoder") from error
    if heads < 1 or "encoder.conv1.weight" not in tensors:
        raise WeightsError(f"{path}: has no Whisper encoder")
    return tensors, heads


def _renamed(name: str, value: np.ndarray, path: str | Path) -> dict[str, np.ndarray]:
    if value.dtype.kind != "f":
        raise WeightsError(
            f"{path}: {name} is {value.dtype}; convert the model with CTranslate2 in float16 or "
            "float32"
        )
    value = value.astype(np.float32)
    module, _, leaf = name.removeprefix("encoder/").rpartition("/")
    if not module.startswith("layer_") or module == "layer_norm":
        return {f"encoder.{module}.{_LEAF[leaf]}": value}
    layer, _, module = module.partition("/")
    prefix = f"encoder.layers.{layer.removeprefix('layer_')}"
    if module != "self_attention/linear_0":
        return {f"{prefix}.{_LAYER[module]}.{_LEAF[leaf]}": value}
    if not value.ndim or len(value) % 3:
        raise WeightsError(f"{path}: {name} is not of a query, a key and a value")
    query, key, value = np.split(value, 3)
    parts = {"q_proj": query, "k_proj": key, "v_proj": value}
    if leaf == "bias" and parts.pop("k_proj").any():  # zero, since Whisper's keys have none
        raise WeightsError(f"{path}: {name} has biases of keys, which Whisper has not")
    return {f"{prefix}.self_attn.{part}.{leaf}": array for part, array in parts.items()}


def _read(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Names and arrays of all variables.

    Source: CTranslate2 ``models/model.cc``: version, name and revision of the specification, then
    each variable's name, rank, dimensions, type, size and bytes, little-endian.
    """
    data = _Reader(path)
    version = data.number("I")
    if version != VERSION:
        raise WeightsError(
            f"{path}: not a CTranslate2 model of version {VERSION} (found {version})"
        )
    spec = data.text()
    if spec != SPEC:
        raise WeightsError(f"{path}: a CTranslate2 model, but {spec or 'nameless'}, not {SPEC}")
    data.number("I")
    for _ in range(data.number("I")):
        name = data.text()
        shape = [data.number("I") for _ in range(data.number("B"))]
        code, size = data.number("B"), data.number("I")
        content = data.take(size)
        known = code in _DTYPES and 0 not in shape and len(shape) <= _MOST_AXES
        if not known or size != np.dtype(_DTYPES[code]).itemsize * math.prod(shape):
            raise WeightsError(f"{path}: {name}: type {code} and size {size} do not fit {shape}")
        yield name, np.frombuffer(content, _DTYPES[code]).reshape(shape)


class _Reader:
    """Bytes of a file, taken from the front."""

    def __init__(self, path: Path) -> None:
        try:
            self._data = memoryview(path.read_bytes())
        except OSError as error:
            raise WeightsError(f"{path}: cannot be read: {error}") from error
        self._path, self._at = path, 0

    def take(self, size: int) -> memoryview:
        if size > len(self._data) - self._at:
            raise WeightsError(
                f"{self._path}: ends too early; it is damaged or no CTranslate2 model"
            )
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, kind: str) -> int:
        return int(struct.unpack(f"<{kind}", self.take(struct.calcsize(kind)))[0])

    def text(self) -> str:
        return bytes(self.take(self.number("H"))).rstrip(b"\0").decode("utf-8", "replace")
