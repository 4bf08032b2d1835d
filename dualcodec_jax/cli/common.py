"""What the commands share: options, models by name, progress, errors."""

from __future__ import annotations

import enum
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from dualcodec_jax.errors import DualCodecError, HubError, InputError, WeightsError
from dualcodec_jax.hub import BUNDLED_MODEL, CODEC_VARIABLE

if TYPE_CHECKING:
    from dualcodec_jax.inference import Inference

console = Console(stderr=True, soft_wrap=True)

FAILED, USAGE = 1, 2
RELEASED = "12hz_v1"
RANDOM = "random"
"""Value of ``--weights`` that asks for random parameters of the model's shapes."""


class PrecisionChoice(enum.StrEnum):
    """Values of ``--precision``."""

    float32 = "float32"
    bfloat16 = "bfloat16"


WeightsOption = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="LOCATION",
        help="Folder, file or hf://owner/name with the codec's weights and statistics; 'random' "
        "for random ones. Default: $DUALCODEC_WEIGHTS, else the released repository.",
        show_default=False,
    ),
]
W2vOption = Annotated[
    str | None,
    typer.Option(
        "--w2v",
        metavar="LOCATION",
        help="Folder, file or hf://owner/name with w2v-BERT 2.0. Default: $DUALCODEC_W2V_BERT, "
        "else its repository.",
        show_default=False,
    ),
]
PrecisionOption = Annotated[
    PrecisionChoice,
    typer.Option(
        "--precision", help="float32 gives the original's codes; bfloat16 is faster on GPU and TPU."
    ),
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace existing output files.")
]

Function = TypeVar("Function", bound=Callable[..., Any])


def reports_errors(function: Function) -> Function:
    """Show a typed error as one line and exit with status 2; other exceptions pass through."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except DualCodecError as error:
            show_error(error)
            raise typer.Exit(USAGE) from None

    return wrapper  # type: ignore[return-value]


def show_error(error: Exception, name: str | Path | None = None) -> None:
    """Print one error, with the input it belongs to unless the message names it."""
    text = str(error)
    prefix = f"{name}: " if name is not None and str(name) not in text else ""
    console.print(f"error: {prefix}{text}", style="red", markup=False, highlight=False)


def show_note(text: str) -> None:
    """Print something the user should know that is not an error."""
    console.print(f"note: {text}", style="yellow", markup=False, highlight=False)


def chosen_model(
    model_id: str | None, weights: str | None, *, instead: str = f"--model {RELEASED}"
) -> str:
    """``--model``; without it the released model if its weights are configured, else the demo.

    ``instead`` is how the command is told to use the released one.
    """
    if model_id is not None:
        return model_id
    if weights or os.environ.get(CODEC_VARIABLE):
        return RELEASED
    show_note(
        f"no released weights are configured, so this is the small {BUNDLED_MODEL} model that "
        f"ships with the package, not the DualCodec release; {instead} downloads that"
    )
    return BUNDLED_MODEL


def load_inference(
    model_id: str,
    weights: str | None,
    w2v: str | None,
    precision: str,
    *,
    decode_only: bool = False,
) -> Inference:
    """Build :class:`Inference`, saying what is being loaded.

    Raises:
        ConfigError, HubError, WeightsError: see :func:`dualcodec_jax.get_model`.
    """
    from dualcodec_jax.compilation import enable_cache
    from dualcodec_jax.config import get_config
    from dualcodec_jax.inference import Inference
    from dualcodec_jax.model import get_model, random_model, random_semantic, statistics_place

    enable_cache()
    config = get_config(model_id)
    random = weights == RANDOM
    if random:
        show_note("random weights: codes and audio are meaningless, only shapes and speed are real")
    with console.status(f"loading {model_id} …"):
        model = random_model(model_id) if random else get_model(model_id, weights)
        semantic = None
        if random and not decode_only:
            semantic = (config.semantic, *random_semantic(config.semantic))
        return Inference(
            model,
            dualcodec_path=statistics_place(weights) if weights else None,
            w2v_path=w2v,
            precision=precision,  # type: ignore[arg-type]
            semantic=semantic,
            decode_only=decode_only,
        )


def plan_outputs(
    inputs: Sequence[tuple[Path, Path]], folder: Path, suffix: str, overwrite: bool
) -> list[tuple[Path, Path]]:
    """Pair every input with its output below ``folder``; refuse collisions before any work.

    Raises:
        InputError: if two inputs would write one file, or outputs exist without ``--overwrite``.
    """
    sources: dict[Path, Path] = {}
    plan = []
    for path, relative in inputs:
        target = folder / relative.with_suffix(suffix)
        if target in sources:
            raise InputError(f"{sources[target]} and {path} would both be written to {target}")
        if os.path.exists(target) and os.path.samefile(target, path):
            raise InputError(f"{target} is an input; choose another output folder with -o")
        sources[target] = path
        plan.append((path, target))
    existing = [target for target in sources if target.exists()]
    if existing and not overwrite:
        more = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
        raise InputError(f"{existing[0]}{more} exists; pass --overwrite to replace it")
    return plan


class Bars:
    """Progress bars: over all inputs, and within one that takes long. Use in a with statement."""

    LONG = 120.0
    """Seconds of audio from which on an input has a bar of its own."""

    def __init__(self, total: int, what: str) -> None:
        """``total`` inputs; one alone has no bar but its own."""
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[done]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=total < 2,
        )
        self._total = total
        self._all = self._bars.add_task(what, total=total, visible=total > 1, done=f"0/{total}")
        self._finished = 0

    def __enter__(self) -> Bars:
        """Show the bars."""
        self._bars.start()
        return self

    def __exit__(self, *_: Any) -> None:
        """Leave them as they are."""
        self._bars.stop()

    def advance(self) -> None:
        """One more input is done."""
        self._finished += 1
        done = f"{self._finished}/{self._total}"
        self._bars.update(self._all, completed=self._finished, done=done)

    def within(self, what: str) -> Callable[[float, float | None], None]:
        """A function that takes seconds of audio that are done, and all there are, if known."""
        task = self._bars.add_task(what, total=None, visible=False, done="")

        def show(done: float, seconds: float | None) -> None:
            long = max(done, seconds or 0) >= self.LONG and done != seconds
            total = None if seconds is None else max(done, seconds)
            shown = _hours(done) if total is None else f"{_hours(done)} of {_hours(total)}"
            self._bars.update(task, completed=done, total=total, visible=long, done=shown)

        return show


def _hours(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def process_each(
    plan: Sequence[tuple[Path, Path]], what: str, work: Callable[[Path, Path, Bars], None]
) -> None:
    """Run ``work(input, output, bars)`` on each pair; report failures, and exit with 1 if any.

    Weights that cannot be loaded end the run: no input could succeed.
    """
    failed = 0
    with Bars(len(plan), what) as bars:
        for path, target in plan:
            try:
                work(path, target, bars)
            except (HubError, WeightsError):
                raise
            except DualCodecError as error:
                show_error(error, path)
                failed += 1
            bars.advance()
    if failed:
        if len(plan) > 1:
            console.print(f"{failed} of {len(plan)} inputs failed", style="red")
        raise typer.Exit(FAILED)
