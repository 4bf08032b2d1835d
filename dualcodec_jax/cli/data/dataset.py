"""``data prepare``, ``inspect`` and ``verify``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dualcodec_jax.cli.common import (
    OverwriteOption,
    console,
    reports_errors,
    show_error,
)
from dualcodec_jax.cli.data.options import (
    KindChoice,
    KindOption,
    LayoutChoice,
    MaxSecondsOption,
    MinSecondsOption,
    SampleOption,
    SourcesArgument,
    SplitOption,
)
from dualcodec_jax.cli.data.records import (
    finish,
    open_records,
    progress,
    record_config,
    sampled,
)
from dualcodec_jax.cli.data.survey import facts_of, plot_durations, show
from dualcodec_jax.data.errors import DataError
from dualcodec_jax.errors import AudioError

if TYPE_CHECKING:
    from dualcodec_jax.data.records import Record


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
    with progress(None, "writing") as advance:

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
    finish(failed, failed + written)


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

    records = open_records(sources, kind, split)
    survey = Survey()
    chosen = sampled(len(records), sample)
    with progress(len(chosen), "reading headers") as advance:
        for index in chosen:
            survey.add(fetch(records, index))
            advance()
    if plot is not None:
        plot_durations(survey, plot, overwrite)
    if as_json:
        typer.echo(json.dumps(facts_of(survey), indent=2))
    else:
        show(survey)
    for key, fault in survey.broken.items():
        show_error(DataError(f"{key}: {fault}"))
    finish(len(survey.broken), len(chosen))


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

    records = open_records(sources, kind, split)
    config = record_config(1, min_seconds, max_seconds, None, None, min_rate=0)
    damaged, filtered = 0, 0
    chosen = sampled(len(records), sample)
    with progress(len(chosen), "decoding") as advance:
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
    finish(damaged, len(chosen))
