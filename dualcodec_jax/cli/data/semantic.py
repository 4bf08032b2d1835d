"""``data stats`` and ``data features``: what the semantic model makes of a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dualcodec_jax.cli.common import (
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
from dualcodec_jax.cli.data.options import (
    DtypeChoice,
    KindChoice,
    KindOption,
    LanguageOption,
    MaxSecondsOption,
    MinQualityOption,
    MinSecondsOption,
    ModelOption,
    SampleOption,
    ShardOption,
    SourcesArgument,
    SplitOption,
)
from dualcodec_jax.cli.data.records import (
    check_free,
    finish,
    open_records,
    progress,
    record_config,
    sampled,
    shared,
)
from dualcodec_jax.data.config import DataConfig
from dualcodec_jax.data.errors import DataError
from dualcodec_jax.errors import InputError

if TYPE_CHECKING:
    from dualcodec_jax.data.extract import SemanticExtractor
    from dualcodec_jax.data.records import Source
    from dualcodec_jax.data.transforms import Reject


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
    """Mean and variance of the semantic model's states over a data set, for normalisation."""
    from dualcodec_jax.data.statistics import (
        Statistics,
        load_statistics,
        merge_all,
        save_statistics,
    )

    if output.suffix != ".safetensors":
        raise InputError(f"{output}: the file must end in .safetensors")
    check_free(output, overwrite)
    if merge:
        total = merge_all(load_statistics(path) for path in sources)
        save_statistics(output, total, overwrite=overwrite)
        console.print(f"{output}: {total.count} frames of {len(sources)} files", highlight=False)
        return
    records = open_records(sources, kind, split)
    chosen = shared(sampled(len(records), sample), shard)
    extractor = _extractor(model, weights, w2v, precision, with_statistics=False)
    rate = extractor.config.codec.sample_rate
    config = record_config(rate, min_seconds, max_seconds, min_quality, language)
    total = Statistics.empty(extractor.config.semantic.hidden_size)
    outcome = _Outcome()
    with progress(len(chosen), "features") as advance:
        for hidden in _hidden(records, chosen, extractor, config, outcome, advance):
            total = total.merge(Statistics.of(hidden))
    save_statistics(output, total, overwrite=overwrite)
    console.print(f"{output}: {total.count} frames of {outcome.used} clips", highlight=False)
    outcome.finish()


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

    check_free(output, overwrite)
    records = open_records(sources, kind, split)
    chosen = shared(sampled(len(records), sample), shard)
    extractor = _extractor(model, weights, w2v, precision, with_statistics=True)
    rate = extractor.config.codec.sample_rate
    config = record_config(rate, min_seconds, max_seconds, min_quality, language)
    outcome = _Outcome()
    with progress(len(chosen), "features") as advance:

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
        finish(self.damaged, self.used + self.damaged + sum(self._filtered.values()))


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


def _extractor(
    model: str,
    weights: str | None,
    w2v: str | None,
    precision: PrecisionChoice,
    *,
    with_statistics: bool,
) -> SemanticExtractor:
    """Load the semantic model, and the statistics of its output if they are needed."""
    import dataclasses

    from dualcodec_jax.compilation import enable_cache
    from dualcodec_jax.config import get_config
    from dualcodec_jax.data.extract import SemanticExtractor
    from dualcodec_jax.model import load_semantic, load_semantic_model, random_semantic

    enable_cache()
    config = get_config(model)
    kind = config.codec.semantic_model
    statistics = None
    with console.status("loading the semantic model …"):
        if weights == RANDOM:
            show_note(
                "random weights: the features are meaningless, only shapes and speed are real"
            )
            semantic, statistics = random_semantic(config.semantic)
            sizes = config.semantic
        elif with_statistics:
            sizes, semantic, statistics = load_semantic(weights, w2v, kind)
        else:
            loaded = load_semantic_model(w2v, kind)
            sizes, semantic = loaded.config, loaded.params
    config = dataclasses.replace(config, semantic=sizes, precision=precision.value)
    if sizes.hidden_size != config.codec.semantic_dim:
        raise InputError(
            f"the semantic model has {sizes.hidden_size} dimensions, but {model} takes "
            f"{config.codec.semantic_dim}; give its own"
        )
    return SemanticExtractor(config, semantic, statistics)
