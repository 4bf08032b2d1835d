"""What the builders share: the schema, and writing a data set whole or not at all."""

from __future__ import annotations

import contextlib
import io
import json
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dualcodec_jax.data import tfds_source
from dualcodec_jax.data.errors import DataError
from dualcodec_jax.data.feature_info import INFO_FILE, FeatureInfo, feature_info_text
from dualcodec_jax.data.records import Record
from dualcodec_jax.errors import DualCodecError
from dualcodec_jax.paths import replacing

tfds = tfds_source.import_tfds()

SCHEMA_VERSION = "1.0.0"

_MAX_MESSAGE = 300
_FILES = frozenset({tfds_source.INFO_FILE, "features.json", INFO_FILE})

Splits = Mapping[str, Iterable[Record]]


class DualcodecRecords(tfds.core.GeneratorBasedBuilder):  # type: ignore[name-defined]
    """A TFDS builder that writes records: encoded audio with its metadata.

    Order is kept. Missing text and language become empty strings, missing numbers NaN,
    other metadata a JSON object in ``extra``.
    """

    VERSION = tfds.core.Version(SCHEMA_VERSION)
    DESCRIPTION = "Speech recordings."

    def __init__(self, splits: Splits, *, features: FeatureInfo | None = None, **options: Any):
        self._record_splits = splits
        self._feature_info = features
        super().__init__(**options)

    def _info(self) -> Any:
        text, scalar = tfds.features.Text, tfds.features.Scalar
        features = {
            "key": text(),
            # features.Audio would need TensorFlow; a byte string does not.
            "audio": tfds.features.Tensor(shape=(), dtype=np.str_),
            "text": text(),
            "language": text(),
            "quality": scalar(np.float32),
            "duration": scalar(np.float32),
            "extra": text(),
        }
        if self._feature_info is not None:
            features["features"] = tfds.features.Tensor(shape=(), dtype=np.str_)
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.DESCRIPTION,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager  # everything is on disk already
        return {name: self._examples(records) for name, records in self._record_splits.items()}

    def _generate_examples(self, **_: Any) -> Iterator[Any]:
        raise NotImplementedError  # abstract in TFDS; the splits have their generators

    def _examples(self, records: Iterable[Record]) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, record in enumerate(records):
            example = {
                "key": record.key,
                "audio": _audio_bytes(record),
                "text": record.text or "",
                "language": record.language or "",
                "quality": _or_nan(record.quality),
                "duration": _or_nan(record.duration),
                "extra": json.dumps(dict(record.extra), ensure_ascii=False, default=str),
            }
            if self._feature_info is not None:
                if record.features is None:
                    raise DataError(f"{record.key}: has no features to write")
                example["features"] = self._feature_info.pack(record.features)
            yield number, example


def write_dataset(
    builder: type[DualcodecRecords],
    splits: Splits,
    output: str | Path,
    *,
    features: FeatureInfo | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a data set to ``output/NAME/VERSION``, of which nothing appears until it is whole.

    Args:
        builder: gives it its name and description.
        splits: records of each split, read once.
        output: folder to create; with ``overwrite``, it may be an older data set, which goes.
        features: form of the features, if the records have them.
        overwrite: whether ``output`` may exist.

    Returns:
        The folder of the data set's files.

    Raises:
        InputError: the output exists, or cannot be written.
        DataError: a split is empty, or ``output`` holds a file that is not part of a data set.
    """
    target = Path(output).expanduser()
    if overwrite and target.is_dir():
        _check_replaceable(target)
    with replacing(target, overwrite=overwrite, folder=True) as temporary:
        # TFDS announces progress on the standard output, and shows bars of its own.
        tfds.disable_progress_bar()
        with contextlib.redirect_stdout(io.StringIO()):
            made = builder(
                splits, features=features, data_dir=str(temporary), file_format="array_record"
            )
            _prepare(made)
        shutil.rmtree(temporary / "downloads", ignore_errors=True)
        folder = Path(made.data_dir)
        if features is not None:
            (folder / INFO_FILE).write_text(feature_info_text(features), encoding="utf-8")
        place = folder.relative_to(temporary)
    return target / place


def _check_replaceable(folder: Path) -> None:
    """Raise unless a folder holds a data set as written here and nothing else, or nothing."""
    foreign = [
        path
        for path in folder.rglob("*")
        if not path.is_dir() and path.name not in _FILES and ".array_record-" not in path.name
    ]
    if foreign:
        raise DataError(
            f"{folder}: holds {foreign[0].relative_to(folder)}, which is not part of a data "
            "set; it is not replaced: choose another folder"
        )


def _prepare(builder: DualcodecRecords) -> None:
    try:
        builder.download_and_prepare()
    except (DualCodecError, OSError, KeyboardInterrupt):
        raise
    except AssertionError as error:
        raise DataError("there are no records to write; check the source and filters") from error
    except Exception as error:
        # TFDS wraps what its generators raise.
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, DualCodecError):
            cause = cause.__cause__ or cause.__context__
        # The message may quote a whole example.
        text = f"{type(error).__name__}: {str(error)[-_MAX_MESSAGE:]}"
        raise (cause or DataError(f"the data set cannot be written ({text})")) from error


def _audio_bytes(record: Record) -> bytes:
    try:
        return record.audio_bytes()
    except OSError as error:
        raise DataError(f"{record.key}: cannot be read ({error.strerror or error})") from error


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
