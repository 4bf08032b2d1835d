"""``data``: prepare, inspect and verify training data; statistics and cache of features."""

from __future__ import annotations

import enum
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from dualcodec_jax.cli.common import (
    FAILED,
    RANDOM,
    OverwriteOption,
    PrecisionChoice,
    PrecisionOption,
    W2vOption,
    WeightsOption,
    console,
    reports_errors,
    show_error,
    show_note,
)
from dualcodec_jax.data.config import DataConfig
from dualcodec_jax.data.errors import DataError
from dualcodec_jax.errors import AudioError, InputError

if TYPE_CHECKING:
    from dualcodec_jax.data.extract import SemanticExtractor
    from dualcodec_jax.data.inspection import Survey
    from dualcodec_jax.data.records import Record, Source
    from dualcodec_jax.data.transforms import Reject

app = typer.Typer(
    help="Training data: prepare, inspect, verify, statistics, feature cache.",
    no_args_is_help=True,
)

BARS = 12
BAR_WIDTH = 40


class KindChoice(enum.StrEnum):
    """Values of ``--kind``."""

    auto = "auto"
    folder = "folder"
    tar = "tar"
    tfds = "tfds"


class LayoutChoice(enum.StrEnum):
    """What ``prepare`` reads."""

    audio_folder = "audio_folder"
    librispeech = "librispeech"
    emilia = "emilia"


class DtypeChoice(enum.StrEnum):
    """Values of ``--dtype``."""

    float16 = "float16"
    float32 = "float32"


SourcesArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE…", help="Audio files or folders, tar shards, or one prepared data set."
    ),
]
KindOption = Annotated[
    KindChoice,
    typer.Option("--kind", help="What SOURCE is; auto looks at what is there."),
]
SplitOption = Annotated[str, typer.Option("--split", help="Split of a prepared data set.")]
SampleOption = Annotated[
    int, typer.Option("--sample", min=0, help="Take so many records at random; 0: all.")
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Take every N-th record from number I (0…N−1) on, for N processes at a time.",
        show_default=False,
    ),
]
MinSecondsOption = Annotated[
    float, typer.Option("--min-seconds", min=0, help="Leave out shorter clips.")
]
MaxSecondsOption = Annotated[
    float, typer.Option("--max-seconds", min=0, help="Leave out longer clips; 0 lifts the limit.")
]
MinQualityOption = Annotated[
    float | None,
    typer.Option("--min-quality", help="Leave out clips with a lower score.", show_default=False),
]
LanguageOption = Annotated[
    list[str] | None,
    typer.Option("--language", help="Keep this language; repeatable.", show_default=False),
]
ModelOption = Annotated[str, typer.Option("--model", help="12hz_v1 or 25hz_v1.")]


@app.command()
@reports_errors
def prepare(
    layout: Annotated[LayoutChoice, typer.Argument(help="How SOURCE is laid out.")],
    source: Annotated[Path, typer.Argument(help="Folder (or archive) with the data.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    overwrite: OverwriteOption = False,
) -> None:
    """Write recordings as a data set of array_record files, which training reads fast.

    Audio is kept as it is encoded. Files with a damaged header are listed and left out
    (exit status 1).
    """
    from dualcodec_jax.data.builders import audio_folder, emilia, librispeech
    from dualcodec_jax.data.builders.base import write_dataset
    from dualcodec_jax.data.inspection import checked

    splits, builder = {
        LayoutChoice.audio_folder: (
            audio_folder.read_splits,
            audio_folder.DualcodecAudioFolder,
        ),
        LayoutChoice.librispeech: (librispeech.read_splits, librispeech.DualcodecLibrispeech),
        LayoutChoice.emilia: (emilia.read_splits, emilia.DualcodecEmilia),
    }[layout]
    with console.status(f"reading {source} …"):
        found = splits(source)
    failed = written = 0
    with _progress(None, "writing") as advance:

        def count(record: Record, error: AudioError | None) -> None:
            nonlocal failed, written
            advance()
            if error is None:
                written += 1
            else:
                failed += 1
                show_error(error, record.key)

        folder = write_dataset(
            builder,
            {name: checked(records, count) for name, records in found.items()},
            output,
            overwrite=overwrite,
        )
    console.print(f"{folder}: {written} clips in {', '.join(found)}", highlight=False)
    _finish(failed, failed + written)


@app.command()
@reports_errors
def inspect(
    sources: SourcesArgument,
    kind: KindOption = KindChoice.auto,
    split: SplitOption = "train",
    sample: SampleOption = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE.png", help="Draw the durations (needs matplotlib)."),
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Hours, clips, rates, languages and durations of a data set, from headers and metadata."""
    from dualcodec_jax.data.inspection import Survey
    from dualcodec_jax.data.transforms import fetch

    records = _open(sources, kind, split)
    survey = Survey()
    chosen = _sampled(len(records), sample)
    with _progress(len(chosen), "reading headers") as advance:
        for index in chosen:
            survey.add(fetch(records, index))
            advance()
    if plot is not None:
        _plot(survey, plot, overwrite)
    if as_json:
        typer.echo(json.dumps(_facts(survey), indent=2))
    else:
        _show(survey)
    for key, fault in survey.broken.items():
        show_error(DataError(f"{key}: {fault}"))
    _finish(len(survey.broken), len(chosen))


@app.command()
@reports_errors
def verify(
    sources: SourcesArgument,
    kind: KindOption = KindChoice.auto,
    split: SplitOption = "train",
    sample: SampleOption = 0,
    min_seconds: MinSecondsOption = 0.0,
    max_seconds: MaxSecondsOption = 0.0,
) -> None:
    """Decode a data set, or a sample of it, and list what is damaged (exit status 1)."""
    from dualcodec_jax.data.inspection import verify as verify_record
    from dualcodec_jax.data.transforms import Reason, fetch

    records = _open(sources, kind, split)
    config = _config(1, min_seconds, max_seconds, None, None, min_rate=0)
    damaged, filtered = 0, 0
    chosen = _sampled(len(records), sample)
    with _progress(len(chosen), "decoding") as advance:
        for index in chosen:
            reject = verify_record(fetch(records, index), config)
            if reject is not None and reject.reason is Reason.DAMAGED:
                damaged += 1
                show_error(DataError(f"{reject.key}: {reject.detail}"))
            filtered += reject is not None and reject.reason is not Reason.DAMAGED
            advance()
    console.print(
        f"{len(chosen)} of {len(records)} records decoded: {damaged} damaged, {filtered} outside "
        "the limits of duration",
        highlight=False,
    )
    _finish(damaged, len(chosen))


@app.command()
@reports_errors
def stats(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE…", help="As for inspect; with --merge, partial files."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write, .safetensors.")
    ] = Path("statistics.safetensors"),
    merge: Annotated[
        bool, typer.Option("--merge", help="Merge the files of several --shard runs.")
    ] = False,
    kind: KindOption = KindChoice.auto,
    split: SplitOption = "train",
    shard: ShardOption = None,
    sample: SampleOption = 0,
    model: ModelOption = "12hz_v1",
    weights: WeightsOption = None,
    w2v: W2vOption = None,
    precision: PrecisionOption = PrecisionChoice.float32,
    min_seconds: MinSecondsOption = 0.0,
    max_seconds: MaxSecondsOption = 45.0,
    min_quality: MinQualityOption = None,
    language: LanguageOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Mean and variance of w2v-BERT's hidden states over a data set, for normalisation."""
    from dualcodec_jax.data.statistics import (
        Statistics,
        load_statistics,
        merge_all,
        save_statistics,
    )

    if output.suffix != ".safetensors":
        raise InputError(f"{output}: the file must end in .safetensors")
    _check_free(output, overwrite)
    if merge:
        total = merge_all(load_statistics(path) for path in sources)
        save_statistics(output, total, overwrite=overwrite)
        console.print(f"{output}: {total.count} frames of {len(sources)} files", highlight=False)
        return
    records = _open(sources, kind, split)
    chosen = _share(_sampled(len(records), sample), shard)
    extractor = _extractor(model, weights, w2v, precision, with_statistics=False)
    rate = extractor.config.codec.sample_rate
    config = _config(rate, min_seconds, max_seconds, min_quality, language)
    total = Statistics.empty(extractor.config.semantic.hidden_size)
    outcome = _Outcome()
    with _progress(len(chosen), "features") as advance:
        for hidden in _hidden(records, chosen, extractor, config, outcome, advance):
            total = total.merge(Statistics.of(hidden))
    save_statistics(output, total, overwrite=overwrite)
    console.print(f"{output}: {total.count} frames of {outcome.used} clips", highlight=False)
    outcome.finish()


@app.command()
@reports_errors
def features(
    sources: SourcesArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    kind: KindOption = KindChoice.auto,
    split: SplitOption = "train",
    shard: ShardOption = None,
    sample: SampleOption = 0,
    model: ModelOption = "12hz_v1",
    weights: WeightsOption = None,
    w2v: W2vOption = None,
    precision: PrecisionOption = PrecisionChoice.float32,
    dtype: Annotated[
        DtypeChoice, typer.Option("--dtype", help="How features are kept.")
    ] = DtypeChoice.float16,
    min_seconds: MinSecondsOption = 0.0,
    max_seconds: MaxSecondsOption = 45.0,
    min_quality: MinQualityOption = None,
    language: LanguageOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write a copy of a data set with the semantic features of every clip, computed once."""
    from dualcodec_jax.data.features import cache_features

    _check_free(output, overwrite)
    records = _open(sources, kind, split)
    chosen = _share(_sampled(len(records), sample), shard)
    extractor = _extractor(model, weights, w2v, precision, with_statistics=True)
    rate = extractor.config.codec.sample_rate
    config = _config(rate, min_seconds, max_seconds, min_quality, language)
    outcome = _Outcome()
    with _progress(len(chosen), "features") as advance:

        def count(reject: Reject | None) -> None:
            outcome.add(reject)
            advance()

        folder = cache_features(
            records,
            extractor,
            config,
            output,
            dtype=dtype.value,
            indices=chosen,
            overwrite=overwrite,
            on_record=count,
        )
    console.print(f"{folder}: {outcome.used} clips with features", highlight=False)
    outcome.finish()


class _Outcome:
    """Counts clips and rejects, showing damaged ones at once and filtered ones at the end."""

    def __init__(self) -> None:
        self.used = self.damaged = 0
        self._filtered: dict[str, int] = {}

    def add(self, reject: Reject | None) -> None:
        from dualcodec_jax.data.transforms import Reason

        if reject is None:
            self.used += 1
        elif reject.reason is Reason.DAMAGED:
            self.damaged += 1
            show_error(DataError(f"{reject.key}: {reject.detail}"))
        else:
            self._filtered[reject.reason] = self._filtered.get(reject.reason, 0) + 1

    def finish(self) -> None:
        """Show what was filtered; exit with status 1 if anything was damaged."""
        for reason, count in self._filtered.items():
            show_note(f"{count} clips left out: {reason}")
        _finish(self.damaged, self.used + self.damaged + sum(self._filtered.values()))


def _hidden(
    records: Source,
    chosen: Sequence[int],
    extractor: SemanticExtractor,
    config: DataConfig,
    outcome: _Outcome,
    advance: Callable[[], None],
) -> Iterator[Any]:
    """Hidden states of every usable clip."""
    from dualcodec_jax.data.transforms import Reject, fetch, load_record

    for index in chosen:
        record = fetch(records, index)
        loaded = record if isinstance(record, Reject) else load_record(record, config, index)
        if isinstance(loaded, Reject):
            outcome.add(loaded)
        else:
            outcome.add(None)
            yield extractor.hidden(loaded.samples)
        advance()


def _open(sources: list[str], kind: KindChoice, split: str) -> Source:
    """Open what the user names; shards are indexed with a progress bar."""
    from dualcodec_jax.data.sources import open_source

    chosen = _guess(sources) if kind is KindChoice.auto else kind
    config = DataConfig(
        kind=chosen.value,  # type: ignore[arg-type]
        locations=tuple(sources),
        split=split,
        segment_length=1,
    )
    if chosen is not KindChoice.tar:
        return open_source(config)
    with console.status("indexing shards …") as status:

        def show(done: int, total: int) -> None:
            status.update(f"indexing shards: {done} of {total} …")

        return open_source(config, progress=show)


def _guess(sources: list[str]) -> KindChoice:
    """What the sources are: shards by their suffix, a prepared data set by its files."""
    from dualcodec_jax.data.tfds_source import find_dataset

    paths = [Path(source).expanduser() for source in sources]
    if all(p.suffix == ".tar" or (p.is_dir() and any(p.rglob("*.tar"))) for p in paths):
        return KindChoice.tar
    if len(paths) == 1 and paths[0].is_dir():
        try:
            find_dataset(paths[0])
        except DataError as error:
            if "name one of them" in str(error):
                raise
        else:
            return KindChoice.tfds
    return KindChoice.folder


def _config(
    sample_rate: int,
    min_seconds: float,
    max_seconds: float,
    min_quality: float | None,
    language: list[str] | None,
    *,
    min_rate: int = 16000,
) -> DataConfig:
    """Filters; source and segment are placeholders."""
    return DataConfig(
        kind="folder",
        locations=(".",),
        segment_length=sample_rate,
        sample_rate=sample_rate,
        min_seconds=min_seconds,
        max_seconds=max_seconds or None,
        min_sample_rate=min_rate,
        min_quality=min_quality,
        languages=tuple(language or ()),
    )


def _extractor(
    model: str,
    weights: str | None,
    w2v: str | None,
    precision: PrecisionChoice,
    *,
    with_statistics: bool,
) -> SemanticExtractor:
    """Load w2v-BERT, and the statistics of its output if they are needed."""
    import dataclasses

    from dualcodec_jax import hub
    from dualcodec_jax.compilation import enable_cache
    from dualcodec_jax.config import get_config
    from dualcodec_jax.convert.files import W2V_BERT_FILE
    from dualcodec_jax.data.extract import SemanticExtractor
    from dualcodec_jax.loading import load
    from dualcodec_jax.model import load_semantic, random_semantic

    enable_cache()
    config = get_config(model)
    statistics = None
    with console.status("loading w2v-BERT …"):
        if weights == RANDOM:
            show_note(
                "random weights: the features are meaningless, only shapes and speed are real"
            )
            semantic, statistics = random_semantic(config.semantic)
            sizes = config.semantic
        elif with_statistics:
            sizes, semantic, statistics = load_semantic(weights, w2v)
        else:
            loaded = load("w2v_bert", hub.w2v_bert_location(w2v), ("w2v_bert", W2V_BERT_FILE))
            sizes, semantic = loaded.config, loaded.params
    config = dataclasses.replace(config, semantic=sizes, precision=precision.value)
    if sizes.hidden_size != config.codec.semantic_dim:
        raise InputError(
            f"w2v-BERT has {sizes.hidden_size} dimensions, but {model} takes "
            f"{config.codec.semantic_dim}; give its own w2v-BERT"
        )
    return SemanticExtractor(config, semantic, statistics)


def _sampled(count: int, sample: int) -> Sequence[int]:
    """All indices, or ``sample`` of them, the same ones every time, in order."""
    if not sample or sample >= count:
        return range(count)
    return sorted(random.Random(0).sample(range(count), sample))


def _share(indices: Sequence[int], shard: str | None) -> Sequence[int]:
    """Every N-th index from the I-th on, for ``I/N``."""
    if shard is None:
        return indices
    match = re.fullmatch(r"(\d+)/(\d+)", shard)
    if match is None or int(match[1]) >= int(match[2]):
        raise InputError(f"--shard must be I/N with I in 0…N−1; got {shard}")
    share = indices[int(match[1]) :: int(match[2])]
    if not share:
        raise InputError(f"--shard {shard}: there are only {len(indices)} records; use a smaller N")
    return share


def _check_free(output: Path, overwrite: bool) -> None:
    """Complain before hours of work, not after."""
    if output.exists() and not overwrite:
        raise InputError(f"{output} exists; pass --overwrite to replace it")


def _finish(failed: int, total: int) -> None:
    if failed:
        console.print(f"{failed} of {total} records are damaged", style="red")
        raise typer.Exit(FAILED)


@contextmanager
def _progress(total: int | None, what: str) -> Iterator[Callable[[], None]]:
    """A progress bar, also over an unknown number; yields what advances it by one."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)


def _facts(survey: Survey) -> dict[str, Any]:
    """A survey as JSON types."""
    seconds = sorted(survey.seconds)
    return {
        "clips": survey.clips,
        "hours": survey.hours,
        "damaged": dict(survey.broken),
        "shortest": seconds[0] if seconds else None,
        "median": seconds[len(seconds) // 2] if seconds else None,
        "longest": seconds[-1] if seconds else None,
        "sample_rates": {str(rate): n for rate, n in survey.sample_rates.most_common()},
        "formats": dict(survey.formats.most_common()),
        "languages": dict(survey.languages.most_common()),
        "with_text": survey.with_text,
        "with_quality": survey.with_quality,
    }


def _show(survey: Survey) -> None:
    facts = _facts(survey)
    table = Table(show_header=False, box=None)
    table.add_row("clips", str(facts["clips"]))
    unknown = survey.clips - len(survey.seconds)
    note = f" (and {unknown} clips of unknown duration)" if unknown else ""
    table.add_row("duration", f"{survey.hours:.3f} h{note}")
    for name in ("sample_rates", "formats", "languages"):
        values = ", ".join(f"{key}: {count}" for key, count in facts[name].items())
        table.add_row(name.replace("_", " "), values)
    table.add_row("with transcript", str(facts["with_text"]))
    table.add_row("with quality score", str(facts["with_quality"]))
    if survey.seconds:
        table.add_row(
            "seconds", f"{facts['shortest']:.2f} … {facts['median']:.2f} … {facts['longest']:.2f}"
        )
        for label, count, share in _histogram(survey):
            table.add_row(label, f"{'█' * round(BAR_WIDTH * share)} {count}")
    Console().print(table)


def _histogram(survey: Survey) -> Iterator[tuple[str, int, float]]:
    """Range in seconds, clips in it, and their number relative to the largest."""
    import numpy as np

    counts, edges = np.histogram(survey.seconds, bins=BARS)
    for count, low, high in zip(counts.tolist(), edges[:-1], edges[1:], strict=True):
        yield f"{low:.2f}–{high:.2f} s", count, count / counts.max()


def _plot(survey: Survey, path: Path, overwrite: bool) -> None:
    """Draw the histogram of durations as a PNG file."""
    import importlib

    from dualcodec_jax.paths import replacing

    try:
        importlib.import_module("matplotlib").use("Agg")
        pyplot = importlib.import_module("matplotlib.pyplot")
    except ImportError as error:
        raise InputError("--plot needs matplotlib; run pip install matplotlib") from error
    with replacing(path, overwrite=overwrite) as temporary:
        figure, axes = pyplot.subplots(figsize=(7, 4))
        axes.hist(survey.seconds, bins=50)
        axes.set_xlabel("duration in seconds")
        axes.set_ylabel("clips")
        axes.set_title(f"{survey.clips} clips, {survey.hours:.2f} hours")
        figure.savefig(temporary, format="png", dpi=150)
        pyplot.close(figure)
