"""``tokenize`` and ``detokenize``: corpora of recordings to shards of codes, and back."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from dualcodec_jax.cli.codec import (
    CountOption,
    ModelOption,
    OverlapOption,
    WholeSecondsOption,
    WindowOption,
)
from dualcodec_jax.cli.common import (
    FAILED,
    PrecisionChoice,
    PrecisionOption,
    W2vOption,
    WeightsOption,
    chosen_model,
    console,
    load_inference,
    reports_errors,
    show_error,
    show_note,
)
from dualcodec_jax.cli.data.options import SplitOption
from dualcodec_jax.errors import DualCodecError, InputError
from dualcodec_jax.lengths import WHOLE_SECONDS

if TYPE_CHECKING:
    from dualcodec_jax.tokens.corpus import Corpus
    from dualcodec_jax.tokens.detokenize import Decoded
    from dualcodec_jax.tokens.run import Outcome
    from dualcodec_jax.tokens.settings import Status
    from dualcodec_jax.tokens.shards import Broken


class SourceChoice(enum.StrEnum):
    """Values of ``--kind``."""

    auto = "auto"
    folder = "folder"
    manifest = "manifest"
    tar = "tar"
    tfds = "tfds"


class FormatChoice(enum.StrEnum):
    """Values of ``--format``."""

    flac = "flac"
    wav = "wav"
    ogg = "ogg"


PartOption = Annotated[
    str | None,
    typer.Option(
        "--part",
        metavar="I/N",
        help="Do every N-th shard from number I (0…N−1) on: for N processes that know nothing of "
        "each other, such as those of a job array.",
        show_default=False,
    ),
]
DistributedOption = Annotated[
    bool | None,
    typer.Option(
        "--distributed/--no-distributed",
        help="Whether there are other processes. Default: look at the environment (SLURM, Open "
        "MPI, JAX_COORDINATOR_ADDRESS). A TPU pod needs --distributed.",
        show_default=False,
    ),
]


@reports_errors
def tokenize(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE…",
            help="Audio files, folders or globs; .jsonl, .csv or .tsv listings; tar shards; or one "
            "prepared data set.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for shards; an unfinished run resumes.")
    ] = Path("tokens"),
    kind: Annotated[
        SourceChoice, typer.Option("--kind", help="What SOURCE is; auto looks at what is there.")
    ] = SourceChoice.auto,
    split: SplitOption = "train",
    path_column: Annotated[
        str | None,
        typer.Option(help="Column of a listing with the path.", show_default=False),
    ] = None,
    id_column: Annotated[
        str | None,
        typer.Option(help="Column of a listing with the id.", show_default=False),
    ] = None,
    model: ModelOption = None,
    n_quantizers: CountOption = None,
    weights: WeightsOption = None,
    w2v: W2vOption = None,
    precision: PrecisionOption = PrecisionChoice.float32,
    shard_size: Annotated[int, typer.Option("--shard-size", help="Recordings per shard.")] = 1000,
    parquet: Annotated[
        bool, typer.Option("--parquet", help="Write every shard as Parquet too.")
    ] = False,
    batch_seconds: Annotated[
        float | None,
        typer.Option(
            help="Audio on each device at once, with padding. Default: 120, on a CPU 30.",
            show_default=False,
        ),
    ] = None,
    readers: Annotated[
        int | None,
        typer.Option(
            help="Threads that decode. Default: one for each core, at most 32.", show_default=False
        ),
    ] = None,
    whole_seconds: WholeSecondsOption = WHOLE_SECONDS,
    window_seconds: WindowOption = None,
    overlap_seconds: OverlapOption = None,
    max_broken: Annotated[
        int | None,
        typer.Option(
            help="Stop if more recordings are broken. Default: no limit.", show_default=False
        ),
    ] = None,
    max_broken_fraction: Annotated[
        float, typer.Option(help="The same as a fraction of all recordings; 1: no limit.")
    ] = 0.01,
    part: PartOption = None,
    distributed: DistributedOption = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Check what is in the output folder, and do nothing else."),
    ] = False,
) -> None:
    """Recordings → shards of codes (array_record). Start it again to resume."""
    if verify:
        if sources:
            raise InputError("--verify takes no SOURCE; name the folder with -o")
        _verify(output)
        return
    if not sources:
        raise InputError("no SOURCE given; name files, folders, listings, shards or a data set")
    from dualcodec_jax.tokens import run
    from dualcodec_jax.tokens.settings import Settings

    index, count = _part(part) or _process(distributed)
    settings = Settings(
        n_quantizers=n_quantizers,
        shard_size=shard_size,
        whole_seconds=whole_seconds,
        window_seconds=window_seconds,
        overlap_seconds=overlap_seconds,
        parquet=parquet,
        batch_seconds=batch_seconds,
        readers=readers,
        max_broken=max_broken,
        max_broken_fraction=max_broken_fraction,
    )
    corpus = _open_corpus(sources, kind, split, path_column, id_column)
    model_id = chosen_model(model, weights)
    inference = load_inference(model_id, weights, w2v, precision.value)
    with _progress("encoding") as show:

        def report(status: Status) -> None:
            show(status.done, status.items, status.audio_seconds, status.elapsed)

        outcome = run.tokenize(
            corpus,
            output,
            inference,
            inference.weights_digest(),
            settings,
            process_index=index,
            process_count=count,
            wait=part is None and count > 1,
            on_progress=report,
            on_broken=_show_broken,
            on_redo=lambda problem: show_note(f"{problem}; this shard is made again"),
        )
    _show_outcome(output, outcome)


@reports_errors
def detokenize(
    corpus: Annotated[Path, typer.Argument(metavar="FOLDER", help="What tokenize wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for audio files.")] = Path(
        "decoded"
    ),
    audio_format: Annotated[
        FormatChoice, typer.Option("--format", help="Of the audio files.")
    ] = FormatChoice.flac,
    n_quantizers: CountOption = None,
    weights: WeightsOption = None,
    precision: PrecisionOption = PrecisionChoice.float32,
    part: PartOption = None,
) -> None:
    """Shards of codes → audio files named by id. Files that are there are kept."""
    from time import perf_counter

    from dualcodec_jax.tokens import detokenize as decoding
    from dualcodec_jax.tokens.manifest import read_manifest

    manifest = read_manifest(corpus)
    index, count = _part(part) or (0, 1)
    inference = load_inference(
        manifest["model_id"], weights, None, precision.value, decode_only=True
    )
    start = perf_counter()
    with _progress("decoding") as show:

        def report(status: Decoded) -> None:
            show(status.done, status.records, status.audio_seconds, perf_counter() - start)

        status = decoding.detokenize(
            corpus,
            output,
            inference,
            audio_format=audio_format.value,
            n_quantizers=n_quantizers,
            process_index=index,
            process_count=count,
            on_progress=report,
            on_failure=lambda name, error: show_error(error, name),
        )
    written = status.done - status.kept - status.failed
    console.print(f"{output}: {written} files written, {status.kept} kept", highlight=False)
    if status.failed:
        console.print(f"{status.failed} of {status.records} records failed", style="red")
        raise typer.Exit(FAILED)


def _part(part: str | None) -> tuple[int, int] | None:
    """I and N of ``--part I/N``."""
    if part is None:
        return None
    match = re.fullmatch(r"(\d+)/(\d+)", part)
    if match is None or int(match[1]) >= int(match[2]):
        raise InputError(f"--part must be I/N with I in 0…N−1; got {part}")
    return int(match[1]), int(match[2])


def _process(distributed: bool | None) -> tuple[int, int]:
    """Which process this is, of how many that know each other."""
    import jax

    from dualcodec_jax.train.distributed import join_processes

    join_processes(distributed)
    return jax.process_index(), jax.process_count()


def _open_corpus(
    sources: list[str],
    kind: SourceChoice,
    split: str,
    path_column: str | None,
    id_column: str | None,
) -> Corpus:
    from dualcodec_jax.tokens.corpus import KINDS, open_corpus

    chosen = next((name for name in KINDS if name == kind.value), None)  # auto is none of them
    with console.status("listing recordings …") as waiting:

        def show(done: int, total: int) -> None:
            waiting.update(f"indexing shards: {done} of {total} …")

        return open_corpus(
            sources,
            chosen,
            split=split,
            path_column=path_column,
            id_column=id_column,
            progress=show,
        )


def _verify(folder: Path) -> None:
    from dualcodec_jax.cli.data.records import progress
    from dualcodec_jax.tokens.plan import read_plan
    from dualcodec_jax.tokens.verify import verify

    with progress(read_plan(folder).shards, "verifying") as advance:
        verdict = verify(folder, on_shard=lambda _: advance())
    for problem in verdict.problems:
        show_error(DualCodecError(problem))
    console.print(
        f"{folder}: {verdict.records} records, {verdict.hours:.3f} h, "
        f"{verdict.shards - verdict.missing} of {verdict.shards} shards, "
        + (f"{len(verdict.problems)} problems" if verdict.problems else "all well"),
        highlight=False,
    )
    if verdict.problems:
        raise typer.Exit(FAILED)


def _show_broken(broken: Broken) -> None:
    show_error(DualCodecError(f"{broken.id}: {broken.reason}"))


def _show_outcome(folder: Path, outcome: Outcome) -> None:
    status, manifest = outcome.status, outcome.manifest
    kept = f", {status.kept} from an earlier run" if status.kept else ""
    console.print(
        f"{folder}: {status.done - status.broken} recordings, {status.audio_seconds / 3600:.3f} h "
        f"encoded{kept}",
        highlight=False,
    )
    if outcome.missing:
        show_note(f"{outcome.missing} shards are left to other processes")
    if manifest is not None:
        console.print(
            f"{folder}: complete: {manifest['records']} records, {manifest['hours']:.3f} h, "
            f"{manifest['tokens']} tokens, {manifest['broken']} broken recordings",
            highlight=False,
        )
    if status.broken:
        raise typer.Exit(FAILED)


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int, float, float], None]]:
    """A bar over items; yields what takes (done, all, seconds of audio, seconds of time)."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[audio]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(elapsed_when_finished=False),
    )
    # A batch is done at once, so that the speed of the last seconds says little.
    bar = Progress(*columns, console=console, speed_estimate_period=600)
    task = bar.add_task(what, total=None, audio="")

    def show(done: int, total: int, audio: float, elapsed: float) -> None:
        bar.start()  # not before there is something to show
        text = f"{audio / 3600:.2f} h, {audio / max(elapsed, 1e-9):.0f} × real time"
        bar.update(task, completed=done, total=total, audio=text)

    try:
        yield show
    finally:
        bar.stop()
