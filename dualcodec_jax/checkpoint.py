"""Training checkpoints: Orbax's files, with a checksum, a format version and a way back.

A run's folder holds one folder per saved step, written under another name and renamed when it
is complete, so that a killed process leaves the checkpoints before it as they are. Orbax does
not notice damaged array files; the checksums in ``checksums/`` do, and then the checkpoint
before is used.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from dualcodec_jax.convert.engine import raise_problems
from dualcodec_jax.errors import DualCodecError
from dualcodec_jax.paths import replacing

logger = logging.getLogger(__name__)

FORMAT, FORMAT_VERSION = "dualcodec_jax training checkpoint", 2
STATE, META = "state", "meta"
CHECKSUMS = "checksums"
_CHUNK = 2**24


class CheckpointError(DualCodecError, RuntimeError):
    """A run cannot be resumed from what its folder holds."""


@dataclasses.dataclass(frozen=True)
class Restored:
    """A checkpoint in memory.

    Attributes:
        step: at which it was saved.
        state: the pytree, placed as its target asked.
        data_states: position of the data iterator of each process.
        config: what the run was configured with.
    """

    step: int
    state: Any
    data_states: list[Any]
    config: dict[str, Any]


class Checkpoints:
    """Saves and restores a run's state; use as a context manager, which waits for the last save.

    Args:
        folder: of the run's checkpoints; made if it is not there.
        keep_last: newest checkpoints to keep.
        keep_every: checkpoints at multiples of so many steps are kept for ever.
        asynchronous: write in the background while training goes on.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        keep_last: int = 1,
        keep_every: int | None = None,
        asynchronous: bool = True,
    ) -> None:
        self.folder = Path(folder).absolute()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep_last,
            keep_period=keep_every,
            enable_async_checkpointing=asynchronous,
            cleanup_tmp_directories=True,
            step_format_fixed_length=8,
        )
        handlers = {STATE: ocp.StandardCheckpointHandler(), META: ocp.JsonCheckpointHandler()}
        self._manager = ocp.CheckpointManager(self.folder, options=options, item_handlers=handlers)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Wait until what was saved is on disk."""
        self._seal()
        self._manager.close()

    def steps(self) -> list[int]:
        """Saved steps, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, data_state: Any, config: Mapping[str, Any]) -> None:
        """Save, unless this step already is; every process must call it.

        Args:
            step: number of the checkpoint.
            state: pytree of arrays.
            data_state: position of this process's data iterator, of JSON types.
            config: what the run is configured with, of JSON types.
        """
        self._seal()
        if step in self.steps():
            return
        meta = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "step": step,
            "config": dict(config),
            "data_states": _of_all_processes(data_state),
        }
        items = ocp.args.Composite(
            **{STATE: ocp.args.StandardSave(state), META: ocp.args.JsonSave(meta)}
        )
        self._manager.save(step, args=items, force=True)

    def restore(self, target: Any, step: int | None = None) -> Restored | None:
        """The newest checkpoint that is whole, or the one at ``step``.

        Args:
            target: pytree of ``jax.ShapeDtypeStruct`` with shardings; any mesh will do.
            step: which; None: the newest. Damaged ones are then passed over, with a warning.

        Returns:
            None if nothing was ever saved.

        Raises:
            CheckpointError: if there are checkpoints but none can be read, or the newest whole
                one does not fit the target.
        """
        candidates = self.steps()[::-1] if step is None else [step]
        for candidate in candidates:
            problem = self.damage(candidate)
            if problem is None:
                return self._read(candidate, target)
            logger.warning(
                "checkpoint %d is damaged (%s); trying the one before", candidate, problem
            )
        if candidates:
            raise CheckpointError(
                f"{self.folder}: none of the checkpoints {candidates[::-1]} can be read; start "
                "again in another folder, or restore them from a backup"
            )
        return None

    def config(self, step: int | None = None) -> dict[str, Any] | None:
        """What the newest checkpoint, or the one at ``step``, was configured with."""
        for candidate in self.steps()[::-1] if step is None else [step]:
            if self.damage(candidate) is None:
                return self._meta(candidate)["config"]
        return None

    def reached_preemption(self, step: int) -> bool:
        """Whether the machine asked to stop, the same answer in all processes.

        Needs ``jax.distributed.initialize``; always False without.
        """
        return bool(self._manager.reached_preemption(step))

    def damage(self, step: int) -> str | None:
        """What is wrong with the files of a checkpoint; None if nothing is."""
        folder = self._step_folder(step)
        try:
            expected = json.loads(self._checksum_file(step).read_text(encoding="utf-8"))
        except FileNotFoundError:
            # The process ended between the checkpoint's last byte and its checksum.
            expected = None
        except (OSError, ValueError) as error:
            return f"checksums: {error}"
        try:
            if expected is not None:
                actual = _checksums(folder)
                for name in sorted(expected.keys() | actual.keys()):
                    if expected.get(name) != actual.get(name):
                        return f"{name} has changed"
            meta = self._meta(step)
        except (OSError, ValueError, KeyError, TypeError) as error:
            return str(error)
        if not isinstance(meta, dict) or meta.get("format") != FORMAT:
            return "not a training checkpoint of dualcodec_jax"
        return None

    def _read(self, step: int, target: Any) -> Restored:
        meta = self._meta(step)
        if meta["format_version"] != FORMAT_VERSION:
            raise CheckpointError(
                f"{self.folder}: checkpoint {step} has format version {meta['format_version']}, "
                f"but this release reads {FORMAT_VERSION}"
            )
        _check_fits(self._manager.item_metadata(step)[STATE], target, f"checkpoint {step}")
        items = ocp.args.Composite(**{STATE: ocp.args.StandardRestore(target)})
        state = self._manager.restore(step, args=items)[STATE]
        return Restored(step, state, meta["data_states"], meta["config"])

    def _meta(self, step: int) -> dict[str, Any]:
        text = (self._step_folder(step) / META / "metadata").read_text(encoding="utf-8")
        return json.loads(text)

    def _step_folder(self, step: int) -> Path:
        return self.folder / f"{step:08d}"

    def _checksum_file(self, step: int) -> Path:
        return self.folder / CHECKSUMS / f"{step:08d}.json"

    def _seal(self) -> None:
        """Write checksums of checkpoints that have become complete; drop those of deleted ones."""
        self._manager.wait_until_finished()
        if jax.process_index() != 0:
            return
        steps = self.steps()
        files = {self._checksum_file(step) for step in steps}
        for stale in set((self.folder / CHECKSUMS).glob("*.json")) - files:
            stale.unlink(missing_ok=True)
        for step in steps:
            file = self._checksum_file(step)
            if not file.exists():
                file.parent.mkdir(exist_ok=True)
                with replacing(file, overwrite=True) as temporary:
                    temporary.write_text(json.dumps(_checksums(self._step_folder(step))))


def _checksums(folder: Path) -> dict[str, list[int]]:
    """Size and CRC-32 of every file below ``folder``."""
    result = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        crc = 0
        for chunk in _chunks(path):
            crc = zlib.crc32(chunk, crc)
        result[path.relative_to(folder).as_posix()] = [path.stat().st_size, crc]
    return result


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _of_all_processes(value: Any) -> list[Any]:
    """The JSON value of every process, in the order of their indices, in each of them."""
    if jax.process_count() == 1:
        return [value]
    own = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = np.asarray(multihost_utils.process_allgather(np.asarray(own.size))).reshape(-1)
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: own.size] = own
    rows = np.asarray(multihost_utils.process_allgather(padded))
    return [
        json.loads(row[:size].tobytes().decode()) for row, size in zip(rows, sizes, strict=True)
    ]


def _check_fits(saved: Any, target: Any, what: str) -> None:
    """Orbax would cast a leaf of another dtype without a word."""
    have, want = _described(saved), _described(target)
    problems = [f"missing {name}" for name in sorted(want.keys() - have.keys())]
    problems += [f"unexpected {name}" for name in sorted(have.keys() - want.keys())]
    for name in sorted(want.keys() & have.keys()):
        if have[name] != want[name]:
            problems.append(f"{name} is {have[name]}, expected {want[name]}")
    raise_problems(problems, what)


def _described(tree: Any) -> dict[str, str]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{leaf.dtype} {list(leaf.shape)}"
        for path, leaf in leaves
    }
