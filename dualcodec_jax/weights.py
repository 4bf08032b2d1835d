"""Checkpoints for inference: a folder with ``config.json`` and ``model.safetensors``.

``config.json`` names the format and its version, the kind of model, its configuration and
where the weights came from. Tensors are named by their parameter path joined with dots.
A checkpoint is written beside its final place, read back, compared, and only then renamed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dualcodec_jax.config import (
    DiscriminatorConfig,
    DualCodecConfig,
    W2vBertConfig,
    from_dict,
    to_dict,
)
from dualcodec_jax.convert.engine import Params, flatten, raise_problems, unflatten
from dualcodec_jax.errors import InputError, WeightsError

FORMAT = "dualcodec_jax"
FORMAT_VERSION = 1
CONFIG_FILE, TENSOR_FILE = "config.json", "model.safetensors"

Kind = Literal["codec", "discriminator", "w2v_bert", "statistics"]
CONFIG_CLASSES: dict[str, type | None] = {
    "codec": DualCodecConfig,
    "discriminator": DiscriminatorConfig,
    "w2v_bert": W2vBertConfig,
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
    """

    kind: Kind
    model_id: str
    config: Any
    params: Params
    source: dict[str, Any] = dataclasses.field(default_factory=dict)


def is_checkpoint(folder: str | Path) -> bool:
    """Whether ``folder`` looks like a checkpoint of this format."""
    path = Path(folder) / CONFIG_FILE
    if not path.is_file() or not (Path(folder) / TENSOR_FILE).is_file():
        return False
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("format") == FORMAT
    except (ValueError, AttributeError):
        return False


def save_weights(weights: Weights, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Write a checkpoint folder; nothing is left behind if that fails.

    Raises:
        InputError: if the folder exists and ``overwrite`` is not set.
        WeightsError: if what was written does not read back bit for bit.
    """
    folder = Path(folder)
    with new_path(folder, overwrite=overwrite) as temporary:
        temporary.mkdir()
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
        tensors = {".".join(path): value for path, value in flatten(weights.params).items()}
        write_tensors(tensors, temporary / TENSOR_FILE)
    return folder


def load_weights(folder: str | Path, kind: Kind) -> Weights:
    """Read a checkpoint folder of the given kind.

    Raises:
        WeightsError: if it is missing, damaged, of another kind or of an unknown version.
    """
    folder = Path(folder)
    path = folder / CONFIG_FILE
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{folder}: not a checkpoint folder: {error}") from error
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise WeightsError(f"{path}: not a checkpoint of dualcodec_jax")
    if meta.get("format_version") != FORMAT_VERSION:
        raise WeightsError(
            f"{path}: format version {meta.get('format_version')}, but this release reads "
            f"{FORMAT_VERSION}; convert the original weights again"
        )
    if meta.get("kind") != kind:
        raise WeightsError(f"{path}: holds {meta.get('kind')} weights, not {kind}")
    config_class = CONFIG_CLASSES[kind]
    return Weights(
        kind=kind,
        model_id=meta["model_id"],
        config=None if config_class is None else from_dict(config_class, meta["config"]),
        params=unflatten(
            {tuple(name.split(".")): v for name, v in read_tensors(folder / TENSOR_FILE).items()}
        ),
        source=meta.get("source", {}),
    )


def check_tree(params: Params, shapes: Params, *, what: str) -> None:
    """Raise :class:`WeightsError` unless ``params`` has exactly the leaves of ``shapes``, float32."""
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
        WeightsError: if the file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return {key: file.get_tensor(key) for key in (keys or file.keys())}
    except (SafetensorError, OSError, TypeError) as error:
        raise WeightsError(f"{path}: not a readable safetensors file: {error}") from error


def tensor_names(path: Path) -> list[str]:
    """Names of the tensors in a safetensors file; raises :class:`WeightsError` if damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return list(file.keys())
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a readable safetensors file: {error}") from error


def write_tensors(tensors: dict[str, Any], path: Path) -> None:
    """Write a safetensors file and compare what is read back, bit for bit.

    safetensors writes the memory of a transposed view without its strides, which is silently
    wrong, so every array is made contiguous first.
    """
    from safetensors.numpy import save_file

    arrays = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    save_file(arrays, path)
    written = read_tensors(path)
    for name, value in arrays.items():
        if written[name].dtype != value.dtype or written[name].tobytes() != value.tobytes():
            raise WeightsError(f"{path}: tensor {name} did not read back as written")


@contextmanager
def new_path(final: Path, *, overwrite: bool) -> Iterator[Path]:
    """A temporary sibling of ``final`` that takes its place only if the block succeeds.

    Raises:
        InputError: if ``final`` exists and ``overwrite`` is not set.
    """
    if final.exists() and not overwrite:
        raise InputError(f"{final} exists; pass overwrite=True (--overwrite) to replace it")
    final.parent.mkdir(parents=True, exist_ok=True)
    holder = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    try:
        temporary = holder / final.name
        yield temporary
        if final.is_dir():
            os.replace(final, holder / "replaced")
        os.replace(temporary, final)
    finally:
        shutil.rmtree(holder, ignore_errors=True)
