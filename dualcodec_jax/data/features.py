"""The feature cache: a copy of a data set with the semantic features of every utterance.

w2v-BERT is the larger part of a training step, and it is frozen: its output may be computed
once. Features of a whole utterance differ a little from those of a crop of it, because the model
attends to all it is given; see ``docs/data.md``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from dualcodec_jax.data.config import DataConfig
from dualcodec_jax.data.extract import SemanticExtractor
from dualcodec_jax.data.feature_info import FeatureInfo
from dualcodec_jax.data.records import Record, Source
from dualcodec_jax.data.transforms import Reason, Reject, fetch, load_record

OnRecord = Callable[[Reject | None], None]


def cache_features(
    source: Source,
    extractor: SemanticExtractor,
    config: DataConfig,
    output: str | Path,
    *,
    dtype: str = "float16",
    indices: Sequence[int] | None = None,
    overwrite: bool = False,
    on_record: OnRecord | None = None,
) -> Path:
    """Write a data set of kind ``tfds`` with the audio as given, and features beside it.

    Args:
        source: the records.
        extractor: computes the features; its configuration says for which model.
        config: filters; ``sample_rate`` must be the model's.
        output: folder to create.
        dtype: ``float16`` (error below 0.1 % of a value) or ``float32``.
        indices: records to take; None: all.
        overwrite: whether ``output`` may be an older data set, which goes.
        on_record: called after every record, with the reject if it is left out, else None.

    Returns:
        The folder of the data set's files.

    Raises:
        DataError: nothing is left to write, or the sample rates differ.
        InputError: the output exists, or cannot be written.
    """
    from dualcodec_jax.data.builders.base import write_dataset
    from dualcodec_jax.data.builders.featured import DualcodecFeatures

    info = FeatureInfo.of(extractor.config.model_id, extractor.config.codec, dtype)
    info.check(extractor.config.codec, config.sample_rate)
    chosen = range(len(source)) if indices is None else indices
    records = _with_features(source, chosen, extractor, config, on_record)
    return write_dataset(
        DualcodecFeatures, {"train": records}, output, features=info, overwrite=overwrite
    )


def _with_features(
    source: Source,
    indices: Sequence[int],
    extractor: SemanticExtractor,
    config: DataConfig,
    on_record: OnRecord | None,
) -> Iterator[Record]:
    for index in indices:
        made = _featured(fetch(source, index), index, extractor, config)
        if isinstance(made, Record):
            yield made
        if on_record is not None:
            on_record(made if isinstance(made, Reject) else None)


def _featured(
    record: Record | Reject, index: int, extractor: SemanticExtractor, config: DataConfig
) -> Record | Reject:
    """A record with its features, or why it is left out."""
    if isinstance(record, Reject):
        return record
    loaded = load_record(record, config, index)
    if isinstance(loaded, Reject):
        return loaded
    features = extractor.features(loaded.samples)
    if not len(features):
        return Reject(record.key, Reason.TOO_SHORT, "too short for one frame", index)
    return dataclasses.replace(record, features=features)
