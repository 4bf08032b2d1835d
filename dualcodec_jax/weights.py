"""Checkpoints for inference: a folder with ``config.json`` and ``model.safetensors``.

``config.json`` names the format and its version, the kind of model, its configuration and
where the weights came from. Tensors are named by their parameter path joined with dots; kernels
may be 8-bit integers (:mod:`dualcodec_jax.quantization`), which are float32 again once loaded.
A checkpoint is written beside its final place, read back, compared, and only then renamed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from dualcodec_jax.config import (
    DiscriminatorConfig,
    DualCodecConfig,
    W2vBertConfig,
    WhisperConfig,
    from_dict,
    to_dict,
)
from dualcodec_jax.convert.engine import Params, flatten, raise_problems, unflatten
from dualcodec_jax.errors import ConfigError, InputError, WeightsError
from dualcodec_jax.paths import replacing
from dualcodec_jax.quantization import dequantize, quantize

FORMAT = "dualcodec_jax"
FORMAT_VERSION = 3
CONFIG_FILE, TENSOR_FILE = "config.json", "model.safetensors"
_ALIGNMENT, _PADDING = 64, "padding"
_NUMPY_TYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}

Kind = Literal["codec", "discriminator", "w2v_bert", "whisper", "statistics"]
CONFIG_CLASSES: dict[str, type | None] = {
    "codec": DualCodecConfig,
    "discriminator": DiscriminatorConfig,
    "w2v_bert": W2vBertConfig,
    "whisper": WhisperConfig,
    "statistics": None,
}


@dataclasses.dataclass(frozen=True)
class Weights:
    """Parameters with what is needed to use them.

    Attributes:
        kind: what kind of model it is.
        model_id: its name, such as ``12hz_v1``.
        config: its configuration; None for statistics.
        params: nested dict of arrays.
        source: free-form notes on where the weights came from.
        verified: whether the parameters are known to be those that ``config`` asks for.
    """

    kind: Kind
    model_id: str
    config: Any
    params: Params
    source: dict[str, Any] = dataclasses.field(default_factory=dict)
    verified: bool = False


def is_checkpoint(folder: str | Path) -> bool:
    """Whether ``folder`` looks like a checkpoint of this format."""
    try:
        _read_meta(Path(folder) / CONFIG_FILE)
    except WeightsError:
        return False
    return (Path(folder) / TENSOR_FILE).is_file()


def save_weights(
    weights: Weights, folder: str | Path, *, overwrite: bool = False, quantized: bool = False
) -> Path:
    """Write a checkpoint folder; nothing is left behind if that fails.

    With ``quantized``, kernels are rounded to 8 bits, for a quarter of the size.

    Raises:
        InputError: if the folder exists and ``overwrite`` is not set or it holds anything but a
            checkpoint, or if it cannot be written.
        WeightsError: if what was written does not read back bit for bit.
    """
    folder = Path(folder)
    if overwrite:
        _check_disposable(folder)
    with replacing(folder, overwrite=overwrite, folder=True) as temporary:
        meta = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "kind": weights.kind,
            "model_id": weights.model_id,
            "config": None if weights.config is None else to_dict(weights.config),
            "source": weights.source,
        }
        text = json.dumps(meta, indent=2) + "\n"
        (temporary / CONFIG_FILE).write_text(text, encoding="utf-8")
        leaves = flatten(weights.params)
        if quantized:
            leaves = quantize(leaves)
        tensors = {".".join(path): value for path, value in leaves.items()}
        write_tensors(tensors, temporary / TENSOR_FILE)
    return folder


def load_weights(folder: str | Path, kind: Kind) -> Weights:
    """Read a checkpoint folder of the given kind.

    Raises:
        WeightsError: if it is missing, damaged, of another kind or of an unknown version.
    """
    weights = load_any(folder)
    if weights.kind != kind:
        raise WeightsError(f"{folder}: holds {weights.kind} weights, not {kind}")
    return weights


def load_any(folder: str | Path) -> Weights:
    """Read a checkpoint folder of any kind; errors as :func:`load_weights`."""
    path = Path(folder) / CONFIG_FILE
    meta = _read_meta(path)
    if meta.get("format_version") != FORMAT_VERSION:
        raise WeightsError(
            f"{path}: format version {meta.get('format_version')}, but this release reads "
            f"{FORMAT_VERSION}; convert the original weights again"
        )
    kind, model_id = meta.get("kind"), meta.get("model_id")
    if not isinstance(kind, str) or kind not in CONFIG_CLASSES:
        raise WeightsError(f"{path}: unknown kind of weights {kind!r}")
    if not isinstance(model_id, str):
        raise WeightsError(f"{path}: model_id must be a name; got {model_id!r}")
    config_class = CONFIG_CLASSES[kind]
    try:
        config = None if config_class is None else from_dict(config_class, meta["config"])
    except ConfigError as error:
        raise WeightsError(f"{path}: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:  # missing, or of the wrong types
        raise WeightsError(f"{path}: the configuration is damaged: {error}") from error
    leaves = {
        tuple(name.split(".")): value
        for name, value in map_tensors(Path(folder) / TENSOR_FILE).items()
    }
    for leaf in leaves:
        if any(leaf[:depth] in leaves for depth in range(1, len(leaf))):
            raise WeightsError(f"{folder}: {'.'.join(leaf)} lies below another tensor")
    try:
        params = unflatten(dequantize(leaves))
    except KeyError as error:
        raise WeightsError(f"{folder}: no 8-bit kernel and scale for {error}") from error
    return Weights(cast(Kind, kind), model_id, config, params, meta.get("source", {}))


def _read_meta(path: Path) -> dict[str, Any]:
    """The ``config.json`` of a checkpoint, of whatever version."""
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path.parent}: not a checkpoint folder: {error}") from error
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise WeightsError(f"{path}: not a checkpoint of dualcodec_jax")
    return meta


def _check_disposable(folder: Path) -> None:
    """Raise unless replacing ``folder`` deletes nothing but a checkpoint, whole or damaged."""
    if not os.path.isdir(folder):
        return
    others = sorted(set(os.listdir(folder)) - {CONFIG_FILE, TENSOR_FILE})
    if others:
        raise InputError(
            f"{folder}: holds {others[0]}, which is no part of a checkpoint and would be deleted; "
            "choose another folder"
        )


def check_tree(params: Params, shapes: Params, *, what: str) -> None:
    """Raise unless ``params`` has exactly the leaves of ``shapes``, in float32.

    Raises:
        WeightsError: listing what is missing, unexpected, misshapen or of another type.
    """
    have, want = flatten(params), flatten(shapes)
    problems = [f"missing parameter {'/'.join(p)}" for p in sorted(set(want) - set(have))]
    problems += [f"unexpected parameter {'/'.join(p)}" for p in sorted(set(have) - set(want))]
    for path in sorted(set(have) & set(want)):
        got, expected = have[path], want[path]
        if tuple(got.shape) != tuple(expected.shape) or got.dtype != np.float32:
            problems.append(
                f"{'/'.join(path)} is {got.dtype} {list(got.shape)}, not float32 "
                f"{list(expected.shape)}"
            )
    raise_problems(problems, what)


def read_tensors(path: Path, keys: list[str] | None = None) -> dict[str, np.ndarray]:
    """Arrays of a safetensors file, all or those named.

    Raises:
        WeightsError: if the file is missing or damaged, or has a type that numpy lacks.
    """
    with _opened(path) as file:
        return {key: file.get_tensor(key) for key in (file.keys() if keys is None else keys)}


def map_tensors(path: Path) -> dict[str, np.ndarray]:
    """As :func:`read_tensors`, but read-only views of the file: nothing is copied.

    The file may be replaced while they are in use, but not be changed in place.
    """
    with _opened(path):  # checks the header, and that the file is as long as it says
        data = np.memmap(path, np.uint8, mode="r")
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8:start].tobytes())
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in _NUMPY_TYPES:
            raise WeightsError(
                f"{path}: has tensors of the type {entry['dtype']}, which cannot be read; save "
                "them as float32"
            )
        first, last = entry["data_offsets"]
        view: np.ndarray = data[start + first : start + last].view(_NUMPY_TYPES[entry["dtype"]])
        tensors[name] = view.reshape(entry["shape"])
    return tensors


def tensor_names(path: Path) -> list[str]:
    """Names of the tensors in a safetensors file; raises :class:`WeightsError` if damaged."""
    with _opened(path) as file:
        return list(file.keys())


def write_tensors(tensors: dict[str, Any], path: Path) -> None:
    """Write a safetensors file and compare what is read back, bit for bit.

    Tensors begin at a multiple of 64 bytes, so that JAX on a CPU can use a mapped file as it lies.

    safetensors writes the memory of a transposed view without its strides, which is silently
    wrong, so every array is made contiguous first.

    Raises:
        OSError: if it cannot be written.
        WeightsError: if it does not read back as written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    arrays = {name: np.asarray(value, order="C") for name, value in tensors.items()}
    # safetensors makes its files readable by their owner alone; these are for anyone who may
    # read any other new file.
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file(arrays, path)
        if padding := _padding(path):
            save_file(arrays, path, {_PADDING: padding})
    except SafetensorError as error:
        raise OSError(str(error)) from error
    path.chmod(mode)
    written = read_tensors(path)
    for name, value in arrays.items():
        if written[name].dtype != value.dtype or written[name].tobytes() != value.tobytes():
            raise WeightsError(f"{path}: tensor {name} did not read back as written")


def _padding(path: Path) -> str:
    """What the header lacks for its end, where tensors begin, to be a multiple of 64 bytes."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = len(file.read(length).rstrip(b" "))
    if (8 + length) % _ALIGNMENT == 0:
        return ""
    entry = len(json.dumps({"__metadata__": {_PADDING: ""}}, separators=(",", ":"))) - 1
    return "-" * (-(8 + header + entry) % _ALIGNMENT)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a readable safetensors file: {error}") from error
    except (TypeError, AttributeError) as error:  # from numpy's lack of a type
        raise WeightsError(
            f"{path}: has tensors of a type that cannot be read ({error}); save them as float32"
        ) from error


def weights_digest(codec: Any, semantic: Any = None, statistics: Any = None) -> str:
    """SHA-256 over the parameters of a model: names, shapes and bytes, in a fixed order.

    Args:
        codec: parameters of the generator as loaded, weight norm not folded, so that the digest
            does not depend on the machine.
        semantic: of the semantic model.
        statistics: of its features.
    """
    digest = hashlib.sha256()
    for part in (codec, semantic, statistics):
        leaves = {} if part is None else flatten(part)
        for path in sorted(leaves):
            array = np.asarray(leaves[path])
            digest.update(f"{'/'.join(path)} {array.dtype} {array.shape}\n".encode())
            digest.update(array.tobytes())
        digest.update(b"\n")
    return digest.hexdigest()
