"""Where a run's values go: JSONL always, TensorBoard, Weights & Biases, a progress bar.

``metrics.jsonl`` has one JSON object a line, for one log point each: ``step`` (steps taken),
``time`` (seconds since 1970), and values under the names of
:mod:`dualcodec_jax.train.metrics`. JSON has no numbers for them, so values that are not finite
are the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``, which ``float()`` reads.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from dualcodec_jax.errors import ConfigError, InputError
from dualcodec_jax.paths import replacing

METRICS_FILE = "metrics.jsonl"
SUPERSEDED_FILE = "metrics.superseded.jsonl"
"""Records that a resumed run takes again, in case they are missed."""
TENSORBOARD_FOLDER = "tensorboard"
WANDB_FILE = "wandb_id.txt"

EVAL_FOLDER, ORIGINAL_FOLDER, EVAL_METRICS_FILE = "eval", "original", "metrics.json"
RVQ1 = "rvq1"
"""Suffix, in evaluations, of what is decoded from the semantic codes alone."""

SHOWN = ("loss/total", "loss/mel", "loss/discriminator")
"""Losses that the progress bar shows."""

Record = dict[str, float]


class RunLog:
    """The log of a run; a context manager. Only process 0 writes, the others do nothing.

    ::

        with RunLog(folder, start_step=step, total_steps=config.total_steps) as log:
            ...
            log.advance(step)
            log.write(step, values)

    On resume at step s, records beyond s are cut (and kept in ``metrics.superseded.jsonl``), so
    that the file goes on without duplicates; a last line that a kill left half-written goes.

    Args:
        folder: of the run; made if it is not there.
        start_step: steps already taken; 0 for a new run.
        total_steps: at which the run ends; None if it has no end.
        tensorboard: also write event files, with tensorboardX.
        wandb: name of a Weights & Biases project to write to, too.
        config: what the run is configured with, for Weights & Biases.
        name: of the run, for Weights & Biases and the progress bar. Default: the folder's.
        progress: show progress: a bar on a terminal, else a line now and then.
        line_seconds: shortest time between two such lines.
        console: for progress and messages. Default: standard error.
        primary: whether this process writes. Default: whether it is process 0.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        start_step: int = 0,
        total_steps: int | None = None,
        tensorboard: bool = True,
        wandb: str | None = None,
        config: Mapping[str, Any] | None = None,
        name: str | None = None,
        progress: bool = True,
        line_seconds: float = 10.0,
        console: Console | None = None,
        primary: bool | None = None,
    ) -> None:
        self.folder = Path(folder)
        self._start_step, self._total_steps = start_step, total_steps
        self._tensorboard, self._wandb, self._config = tensorboard, wandb, config
        self._name = name or self.folder.resolve().name
        self._console = console or Console(stderr=True, soft_wrap=True)
        self._with_progress, self._line_seconds = progress, line_seconds
        self._primary = primary
        self._file: IO[str] | None = None
        self._display: _Bar | _Lines | None = None
        self._sinks: list[Callable[[int, Record], None]] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> RunLog:
        if self._primary is None:
            self._primary = jax.process_index() == 0
        if self._primary:
            with contextlib.ExitStack() as stack:
                self._open(stack)
                self._stack = stack.pop_all()
        return self

    def __exit__(self, *details: Any) -> None:
        self.close()

    def close(self) -> None:
        """Close all files; nothing is written afterwards."""
        self._file, self._display, self._sinks = None, None, []
        self._stack.close()

    def advance(self, step: int) -> None:
        """Move the progress bar to ``step`` steps taken; writes nothing."""
        if self._display is not None:
            self._display.advance(step)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write the values of a log point, after ``step`` steps; they are Python numbers."""
        if self._file is None:
            return
        record = {name: float(value) for name, value in values.items()}
        line = {"step": int(step), "time": round(time.time(), 3)} | {
            name: _to_json(value) for name, value in record.items()
        }
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()
        for sink in self._sinks:
            sink(step, record)
        if self._display is not None:
            self._display.show(step, record)

    def say(self, message: str, *, warning: bool = False) -> None:
        """Show a message above the progress bar."""
        if self._primary:
            style = "yellow" if warning else None
            self._console.print(message, style=style, markup=False, highlight=False)

    def _open(self, stack: contextlib.ExitStack) -> None:
        path = self.folder / METRICS_FILE
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            cut_records(path, self._start_step)
            self._file = stack.enter_context(path.open("a", encoding="utf-8"))
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
        if self._tensorboard:
            self._sinks.append(_tensorboard(self.folder, self._start_step, stack))
        if self._wandb is not None:
            sink = _wandb(self._wandb, self.folder, self._name, self._config, stack)
            self._sinks.append(sink)
        if self._with_progress and self._console.is_terminal:
            bar = _Bar(self._console, self._name, self._start_step, self._total_steps)
            self._display = stack.enter_context(bar)
        elif self._with_progress:
            self._display = _Lines(self._console, self._total_steps, self._line_seconds)


# Records ------------------------------------------------------------------------------------


def read_records(path: str | Path) -> list[Record]:
    """Records of a ``metrics.jsonl``, in its order; a last line without an end is left out.

    Raises:
        InputError: the file cannot be read, or a line is damaged.
    """
    return [_parse(path, number, line) for number, line in enumerate(_lines(path), 1)]


def cut_records(path: str | Path, step: int) -> int:
    """Take records beyond ``step``, and a half-written last line, out of a ``metrics.jsonl``.

    The file is replaced in one step. What is cut is appended to ``metrics.superseded.jsonl``.

    Returns:
        Records that were cut.

    Raises:
        InputError: as :func:`read_records`.
    """
    path = Path(path)
    if not path.exists():
        return 0
    lines = _lines(path)
    later = [_parse(path, number, line)["step"] > step for number, line in enumerate(lines, 1)]
    kept = [line for line, cut in zip(lines, later, strict=True) if not cut]
    superseded = [line for line, cut in zip(lines, later, strict=True) if cut]
    if superseded:
        with path.with_name(SUPERSEDED_FILE).open("ab") as file:
            file.writelines(superseded)
    if sum(map(len, kept)) != path.stat().st_size:
        with replacing(path, overwrite=True) as temporary:
            temporary.write_bytes(b"".join(kept))
    return len(superseded)


def read_evaluations(run_folder: str | Path) -> dict[int, dict[str, float]]:
    """Values, by step, of the evaluations of a run, under the names of the log: ``eval/…``.

    Raises:
        InputError: a ``metrics.json`` is damaged.
    """
    evaluations: dict[int, dict[str, float]] = {}
    for path in sorted(Path(run_folder).glob(f"{EVAL_FOLDER}/step_*/{EVAL_METRICS_FILE}")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            values = {f"eval/{name}": float(x) for name, x in content["values"].items()}
            evaluations[int(content["step"])] = values
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise InputError(
                f"{path}: is damaged ({error!r}); delete the folder {path.parent}"
            ) from error
    return dict(sorted(evaluations.items()))


def _lines(path: str | Path) -> list[bytes]:
    """Complete lines, ends included."""
    try:
        lines = Path(path).read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    return lines[:-1] if lines and not lines[-1].endswith(b"\n") else lines


def _parse(path: str | Path, number: int, line: bytes) -> Record:
    try:
        record = {name: float(value) for name, value in json.loads(line).items()}
        step = record["step"]
    except (ValueError, TypeError, AttributeError, KeyError):
        step = math.nan
    if not math.isfinite(step):
        raise InputError(
            f"{path}: line {number} is damaged: {line[:60].decode(errors='replace')!r}; delete "
            "that line"
        )
    return record


def _to_json(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


# Other sinks --------------------------------------------------------------------------------


def _tensorboard(
    folder: Path, start_step: int, stack: contextlib.ExitStack
) -> Callable[[int, Record], None]:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            f"TensorBoard logs need the package tensorboardX, which cannot be imported ({error}); "
            "run pip install tensorboardX, or turn TensorBoard off"
        ) from error
    # TensorBoard hides what an interrupted session wrote from purge_step on.
    purge_step = start_step + 1 if start_step else None
    writer = SummaryWriter(str(folder / TENSORBOARD_FOLDER), purge_step=purge_step)
    stack.callback(writer.close)

    def write(step: int, record: Record) -> None:
        for name, value in record.items():
            writer.add_scalar(name, value, step)

    return write


def _wandb(
    project: str,
    folder: Path,
    name: str,
    config: Mapping[str, Any] | None,
    stack: contextlib.ExitStack,
) -> Callable[[int, Record], None]:
    try:
        wandb = importlib.import_module("wandb")
    except ImportError as error:
        raise ConfigError(
            f"logging to Weights & Biases needs the package wandb, which cannot be imported "
            f"({error}); run pip install wandb, or turn it off"
        ) from error
    # The same id continues the same curves on resume.
    id_file = folder / WANDB_FILE
    if not id_file.exists():
        id_file.write_text(uuid.uuid4().hex[:8] + "\n", encoding="utf-8")
    run = wandb.init(
        project=project,
        name=name,
        id=id_file.read_text(encoding="utf-8").strip(),
        resume="allow",
        dir=str(folder),
        config=dict(config or {}),
    )
    stack.callback(run.finish)
    # With an axis of its own: wandb's counter refuses to go back to a checkpoint's step.
    run.define_metric("step")
    run.define_metric("*", step_metric="step")
    return lambda step, record: run.log({"step": step, **record})


# Progress -----------------------------------------------------------------------------------


def summary(record: Record) -> str:
    """Losses, speed and time left, as far as the record has them, in a few words."""
    parts = [f"{name.removeprefix('loss/')} {record[name]:.3f}" for name in SHOWN if name in record]
    speed = {
        name.removeprefix("speed/"): value
        for name, value in record.items()
        if name.startswith("speed/")
    }
    if "steps_per_second" in speed:
        parts.append(f"{speed['steps_per_second']:.3g} steps/s")
    if "audio_seconds_per_second" in speed:
        parts.append(f"{speed['audio_seconds_per_second']:.3g} audio-s/s")
    if "eta_seconds" in speed:
        parts.append(f"ETA {duration(speed['eta_seconds'])}")
    return " · ".join(parts)


def duration(seconds: float) -> str:
    """Seconds as ``1d 02:03:04``, days only if there are some."""
    if not math.isfinite(seconds):
        return "unknown"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    clock = f"{hours:02}:{minutes:02}:{seconds:02}"
    return f"{days}d {clock}" if days else clock


class _Bar:
    """On a terminal: a bar that moves at every step."""

    def __init__(
        self, console: Console, name: str, start_step: int, total_steps: int | None
    ) -> None:
        columns: Sequence[Any] = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[summary]}", markup=False),
        )
        self._progress = Progress(*columns, console=console)
        self._task = self._progress.add_task(
            name, total=total_steps, completed=start_step, summary=""
        )

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance(self, step: int) -> None:
        self._progress.update(self._task, completed=step)

    def show(self, step: int, record: Record) -> None:
        self._progress.update(self._task, completed=step, **_summary_field(record))


def _summary_field(record: Record) -> dict[str, Any]:
    """Records of an evaluation have nothing to show; the bar keeps what it shows then."""
    text = summary(record)
    return {"summary": text} if text else {}


class _Lines:
    """Not on a terminal: a line now and then, in a log file say."""

    def __init__(self, console: Console, total_steps: int | None, seconds: float) -> None:
        self._console, self._seconds = console, seconds
        self._of_total = "" if total_steps is None else f"/{total_steps}"
        self._next = -math.inf

    def advance(self, step: int) -> None:
        """Steps pass in silence."""

    def show(self, step: int, record: Record) -> None:
        text = summary(record)
        if text and time.monotonic() >= self._next:
            self._next = time.monotonic() + self._seconds
            line = f"step {step}{self._of_total} · {text}"
            self._console.print(line, markup=False, highlight=False)
