"""A corpus of recordings → a folder of codes, resumably and by any number of processes.

Processes share the shards, not the work on one. Which records a shard has depends on the plan
alone, and a shard is there or not: a run that was killed at any moment goes on with the shards that
are missing.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dualcodec_jax.data.errors import DataError
from dualcodec_jax.errors import InputError
from dualcodec_jax.inference import Inference
from dualcodec_jax.stream_encode import semantic_windows
from dualcodec_jax.tokens.corpus import Corpus
from dualcodec_jax.tokens.manifest import MANIFEST_FILE, missing_shards, write_manifest
from dualcodec_jax.tokens.parquet import import_pyarrow
from dualcodec_jax.tokens.pipeline import Pipeline
from dualcodec_jax.tokens.plan import Plan, start_plan
from dualcodec_jax.tokens.settings import Settings, Status
from dualcodec_jax.tokens.shards import (
    Broken,
    find_fault,
    import_array_record,
    info_path,
    read_info,
)

_POLL_SECONDS = 1.0
_MANIFEST_SECONDS = 240.0  # below the five minutes that jax.distributed waits for the last process


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a process did.

    Attributes:
        status: at its end.
        manifest: of the finished run; None while other processes have shards to do.
        missing: shards that are not there yet.
    """

    status: Status
    manifest: dict[str, Any] | None
    missing: int = 0


def make_plan(corpus: Corpus, inference: Inference, weights: str, settings: Settings) -> Plan:
    """The plan of a run.

    Args:
        corpus: what to tokenise.
        inference: the model.
        weights: digest of its parameters; see :func:`~dualcodec_jax.weights.weights_digest`.
        settings: how.

    Raises:
        InputError: a setting is out of range.
    """
    config = inference.config
    count = config.codec.n_quantizers if settings.n_quantizers is None else settings.n_quantizers
    if not 1 <= count <= config.codec.n_quantizers:
        raise InputError(
            f"n_quantizers must be 1…{config.codec.n_quantizers} for {config.model_id}; got {count}"
        )
    if config.codec.is_dual:
        semantic_windows(config, settings.window_seconds, settings.overlap_seconds)
    return Plan(
        kind=corpus.kind,
        locations=corpus.locations,
        split=corpus.split,
        items=len(corpus.source),
        digest=corpus.digest,
        shard_size=settings.shard_size,
        model_id=config.model_id,
        weights=weights,
        codec=config.codec,
        n_quantizers=count,
        precision=config.precision,
        whole_seconds=settings.whole_seconds,
        window_seconds=settings.window_seconds,
        overlap_seconds=settings.overlap_seconds,
        parquet=settings.parquet,
    )


def tokenize(
    corpus: Corpus,
    output: str | Path,
    inference: Inference,
    weights: str,
    settings: Settings | None = None,
    *,
    process_index: int = 0,
    process_count: int = 1,
    wait: bool = False,
    on_progress: Callable[[Status], None] | None = None,
    on_broken: Callable[[Broken], None] | None = None,
    on_redo: Callable[[str], None] | None = None,
) -> Outcome:
    """Write the codes of a corpus to a folder, or go on where a run was stopped.

    Args:
        corpus: what to tokenise.
        output: a new folder, or one of an unfinished or finished run with the same plan.
        inference: the model.
        weights: digest of its parameters; see :func:`~dualcodec_jax.weights.weights_digest`.
        settings: how; None: the defaults.
        process_index: which of several processes this is; it does every ``process_count``-th shard.
        process_count: how many there are.
        wait: wait at the end until all processes are done.
        on_progress: told after every item how far it is, in another thread.
        on_broken: told of every broken recording.
        on_redo: told of every finished shard that was damaged since, and is made again.

    Raises:
        InputError: a setting is out of range, or ``output`` holds something else.
        BrokenDataError: more recordings are broken than allowed.
        DataError: a package is missing, two records have one id, the disk is faulty, or the first
            of several processes does not finish the run.
    """
    settings = settings or Settings()
    if not 0 <= process_index < process_count:
        raise InputError(f"process {process_index} of {process_count} does not exist")
    plan = make_plan(corpus, inference, weights, settings)
    import_array_record()  # errors before work starts
    if plan.parquet:
        import_pyarrow()
    folder = Path(output)
    start_plan(folder, plan)
    own = range(process_index, plan.shards, process_count)
    todo, broken, kept = [], 0, 0
    for shard in own:
        there = read_info(folder, plan, shard)
        known = info_path(folder, plan, shard).exists()
        problem = find_fault(folder, plan, shard) if known else None
        if there is None or problem is not None:
            todo.append(shard)
            if problem is not None and on_redo is not None:
                on_redo(problem)
        else:
            broken += len(there.broken)
            kept += len(plan.indices(shard))
    if todo:
        (folder / MANIFEST_FILE).unlink(missing_ok=True)
    for shard in todo:  # other processes wait for a shard that has no sidecar
        info_path(folder, plan, shard).unlink(missing_ok=True)
    pipeline = Pipeline(folder, plan, corpus, inference, settings, broken, on_progress, on_broken)
    pipeline.status.kept = kept
    pipeline.shards(todo)
    missing = missing_shards(folder, plan)
    while missing and wait:
        time.sleep(_POLL_SECONDS)
        missing = missing_shards(folder, plan)
    if missing:
        return Outcome(pipeline.status, None, len(missing))
    if wait and process_index:
        # The first process checks and writes; the others stay, because it may coordinate them.
        end = time.monotonic() + _MANIFEST_SECONDS
        while not (folder / MANIFEST_FILE).exists() and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
        if not (folder / MANIFEST_FILE).exists():
            raise DataError(
                f"{folder}: all shards are done, but the first process has written no manifest; "
                "start again, which checks them and writes it"
            )
        return Outcome(pipeline.status, None)
    manifest = write_manifest(folder, plan, pipeline.check_broken)
    return Outcome(pipeline.status, manifest)
