"""Weights by name: find them, convert them once, keep the converted form in the cache."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from dualcodec_jax import hub
from dualcodec_jax.errors import InputError, WeightsError
from dualcodec_jax.weights import (
    FORMAT_VERSION,
    Kind,
    Weights,
    is_checkpoint,
    load_weights,
    save_weights,
)

logger = logging.getLogger(__name__)


def load(kind: Kind, location: str, names: Sequence[str], model_id: str | None = None) -> Weights:
    """Load weights of ``kind`` from a folder, file or repository.

    A file of the PyTorch original is converted and verified the first time; the result is
    kept under ``<cache>/weights`` and found again by the file's path, size and time.

    Args:
        kind: what to load.
        location: see :mod:`dualcodec_jax.hub`.
        names: what to look for below it, in order; the last is the released file.
        model_id: which model a generator must be.

    Raises:
        HubError: if there is nothing to load.
        WeightsError: if what is there does not fit.
    """
    root = hub.local_path(location)
    if not hub.is_remote(location) and is_checkpoint(root):
        return _checked(load_weights(root, kind), model_id, root)
    path = hub.find(location, names)
    if path.is_dir():
        weights = _checked(load_weights(path, kind), model_id, path)
        return dataclasses.replace(weights, verified=location == hub.BUNDLED)
    cached = _cache_folder(path, kind, model_id)
    if is_checkpoint(cached):
        try:
            return dataclasses.replace(load_weights(cached, kind), verified=True)
        except WeightsError:
            logger.warning("cached weights %s are damaged; converting again", cached)
    from dualcodec_jax.convert.files import read_file

    weights = read_file(path, kind=kind, model_id=model_id)
    try:
        save_weights(weights, cached, overwrite=True)
    except (InputError, WeightsError) as error:
        logger.warning("cannot keep converted weights in %s: %s", cached, error)
    return weights


def _checked(weights: Weights, model_id: str | None, path: Path) -> Weights:
    if model_id and weights.model_id != model_id:
        raise WeightsError(f"{path}: holds {weights.model_id}, not {model_id}")
    return weights


def _cache_folder(path: Path, kind: Kind, model_id: str | None) -> Path:
    status = path.stat()
    beside = path.parent / "config.json"
    sized = kind in ("w2v_bert", "whisper") and beside.is_file()
    extra = beside.read_bytes().hex() if sized else ""
    identity = [
        str(path.resolve()),
        status.st_size,
        status.st_mtime_ns,
        kind,
        model_id,
        FORMAT_VERSION,
        extra,
    ]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    return hub.cache_dir() / "weights" / f"{model_id or kind}-{key}"
