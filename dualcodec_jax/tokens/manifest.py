"""What a finished run has: totals, shards with checksums, and the list of broken recordings."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dualcodec_jax.data.errors import DataError
from dualcodec_jax.paths import replacing
from dualcodec_jax.tokens.plan import FORMAT, FORMAT_VERSION, Plan
from dualcodec_jax.tokens.shards import ShardInfo, find_fault, read_info

MANIFEST_FILE, BROKEN_FILE = "manifest.json", "broken.jsonl"
LEFTOVER_SECONDS = 60.0
"""Age from which on a temporary file is nobody's: another process may finish at the same time."""


def missing_shards(folder: Path, plan: Plan) -> list[int]:
    """Shards whose sidecar is not there."""
    present = {path.name for path in folder.glob("codes-*.json")}
    return [s for s in range(plan.shards) if f"{plan.shard_name(s)}.json" not in present]


def write_manifest(
    folder: Path, plan: Plan, check_broken: Callable[[int], None] | None = None
) -> dict[str, Any]:
    """Check a run whose shards are all there; write its manifest and list of broken recordings.

    The shards were read back when they were written; here they are counted and compared with
    each other. Writing twice, at the same time too, gives the same files. Temporary files of
    killed processes are removed.

    Args:
        folder: of the run.
        plan: of the run.
        check_broken: raises if so many broken recordings are too many.

    Returns:
        The manifest.

    Raises:
        DataError: something is wrong, saying what.
    """
    infos: list[ShardInfo] = []
    problems = []
    for shard in range(plan.shards):
        fault = find_fault(folder, plan, shard, checksums=False)
        info = read_info(folder, plan, shard)
        if fault is not None or info is None:
            problems.append(fault or f"{plan.shard_name(shard)} has no sidecar")
        else:
            infos.append(info)
    problems = problems or find_problems(plan, infos)
    if problems:
        raise DataError(f"{folder}: {'; '.join(problems[:5])}; tokenise again into a new folder")
    manifest = make_manifest(plan, infos)
    if check_broken is not None:
        check_broken(manifest["broken"])
    with replacing(folder / BROKEN_FILE, overwrite=True) as temporary:
        temporary.write_text(broken_lines(infos), encoding="utf-8")
    with replacing(folder / MANIFEST_FILE, overwrite=True) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    _remove_leftovers(folder)
    return manifest


def _remove_leftovers(folder: Path) -> None:
    """Temporary files of killed processes; not those that another one is just writing."""
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > LEFTOVER_SECONDS:
                path.unlink()


def find_problems(plan: Plan, infos: Sequence[ShardInfo]) -> list[str]:
    """What does not fit together in the sidecars of all shards."""
    problems = []
    for shard, info in enumerate(infos):
        items = len(plan.indices(shard))
        if info.records + len(info.broken) != items:
            problems.append(
                f"{plan.shard_name(shard)} has {info.records} records and {len(info.broken)} "
                f"broken recordings of {items} items"
            )
    hashes = np.concatenate([info.id_hashes() for info in infos])
    repeated = len(hashes) - len(np.unique(hashes))
    if repeated:
        problems.append(
            f"{repeated} records have the id of another one; give every recording its own id"
        )
    return problems


def make_manifest(plan: Plan, infos: Sequence[ShardInfo]) -> dict[str, Any]:
    """The manifest of a run: the same for the same records, whoever wrote them."""
    samples, frames = sum(info.samples for info in infos), sum(info.frames for info in infos)
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "version": plan.version,
        "model_id": plan.model_id,
        "weights": plan.weights,
        "precision": plan.precision,
        "sample_rate": plan.codec.sample_rate,
        "hop_length": plan.codec.hop_length,
        "frame_rate": plan.codec.frame_rate,
        "n_quantizers": plan.n_quantizers,
        "codebook_sizes": list(plan.codebook_sizes),
        "items": plan.items,
        "records": sum(info.records for info in infos),
        "broken": sum(len(info.broken) for info in infos),
        "hours": samples / plan.codec.sample_rate / 3600,
        "frames": frames,
        "tokens": frames * plan.n_quantizers,
        "shards": [
            {
                "name": plan.shard_name(shard),
                "records": info.records,
                "broken": len(info.broken),
                "samples": info.samples,
                "frames": info.frames,
                "files": info.files,
            }
            for shard, info in enumerate(infos)
        ],
    }


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished run.

    Raises:
        DataError: there is none, or it is damaged.
    """
    path = folder / MANIFEST_FILE
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise ValueError("another format")
        if manifest["format_version"] != FORMAT_VERSION:
            raise DataError(
                f"{path}: format version {manifest['format_version']}, but this release reads "
                f"{FORMAT_VERSION}; use the dualcodec_jax that wrote it"
            )
    except FileNotFoundError:
        raise DataError(
            f"{folder}: has no {MANIFEST_FILE}: not a corpus of codes, or not finished; run "
            "dualcodec-jax tokenize again with the same options"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: cannot be read ({error}); tokenise again") from error
    return dict(manifest)


def broken_lines(infos: Sequence[ShardInfo]) -> str:
    """The list of broken recordings, one JSON object a line."""
    broken = [item for info in infos for item in info.broken]
    return "".join(json.dumps(dataclasses.asdict(item)) + "\n" for item in broken)
