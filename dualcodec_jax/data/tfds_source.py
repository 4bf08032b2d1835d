"""Data sets in array_record files, as TFDS writes them; read without TensorFlow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dualcodec_jax.data.errors import DataError
from dualcodec_jax.data.feature_info import FeatureInfo, read_feature_info
from dualcodec_jax.data.records import Record, record_from_metadata

INFO_FILE = "dataset_info.json"
_MAX_DEPTH = 3  # OUTPUT/name/config/version


class TfdsSource:
    """A split of a data set that ``dualcodec-jax data prepare`` or ``features`` wrote.

    Other TFDS data sets work if they are in array_record files and have a feature ``audio``
    of encoded bytes.

    Attributes:
        features: what the cached semantic features are; None if there are none.

    Args:
        location: the data set's folder, or one that holds just this data set.
        split: name of a split, or a slice such as ``train[:90%]``.

    Raises:
        DataError: no such data set or split, or one of another form.
    """

    def __init__(self, location: str | Path, split: str = "train") -> None:
        folder = find_dataset(location)
        self.features: FeatureInfo | None = read_feature_info(folder)
        self._data = _data_source(folder, split)
        if not len(self._data):
            raise DataError(f"{folder}: split {split} is empty")
        names = self._data.dataset_info.features
        if "audio" not in names or names["audio"].np_dtype != np.object_:
            raise DataError(
                f"{folder}: has no feature 'audio' of encoded bytes; write the data set with "
                "dualcodec-jax data prepare"
            )

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> Record:
        """Record ``index`` in the order in which they were written."""
        try:
            row: Mapping[str, Any] = self._data[index]
        except Exception as error:
            raise DataError(
                f"record {index} cannot be read ({error}); copy the files again"
            ) from error
        extra = json.loads(row["extra"]) if row.get("extra") else {}
        known = {name: row.get(name) for name in ("text", "language", "quality", "duration")}
        key = row.get("key", str(index))
        return record_from_metadata(
            key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key),
            bytes(row["audio"]),
            {**extra, **known},
            features=None if self.features is None else self.features.unpack(row["features"]),
        )


def find_dataset(location: str | Path) -> Path:
    """The folder with the files of a data set: ``location`` or the only one below it.

    Raises:
        DataError: there is none, or more than one.
    """
    root = Path(location).expanduser()
    for depth in range(_MAX_DEPTH + 1):
        found = sorted(root.glob("/".join(["*"] * depth + [INFO_FILE])))
        if len(found) > 1:
            names = ", ".join(str(path.parent.relative_to(root)) for path in found)
            raise DataError(f"{root}: holds {len(found)} data sets ({names}); name one of them")
        if found:
            return found[0].parent
    raise DataError(
        f"{root}: no data set ({INFO_FILE} is not there); write one with dualcodec-jax data prepare"
    )


def splits(location: str | Path) -> dict[str, int]:
    """Names of the splits of a data set and their numbers of records.

    Raises:
        DataError: as :func:`find_dataset`.
    """
    return {
        name: info.num_examples
        for name, info in _builder(find_dataset(location)).info.splits.items()
    }


def _builder(folder: Path) -> Any:
    tfds = import_tfds()
    try:
        return tfds.builder_from_directory(folder)
    except Exception as error:
        raise DataError(f"{folder}: not a readable TFDS data set ({error})") from error


def _data_source(folder: Path, split: str) -> Any:
    builder = _builder(folder)
    known = builder.info.splits
    name = split.partition("[")[0]
    if name not in known:
        raise DataError(f"{folder}: no split {name!r}; it has {', '.join(known) or 'none'}")
    if builder.info.file_format.value != "array_record":
        raise DataError(
            f"{folder}: is in {builder.info.file_format.value} files; only array_record files can "
            "be read without TensorFlow; write it with file_format='array_record'"
        )
    missing = [path for path in known[name].filepaths if not Path(path).is_file()]
    if missing:
        raise DataError(f"{missing[0]}: missing, with {len(missing) - 1} more; copy them again")
    try:
        return builder.as_data_source(split)
    except Exception as error:
        raise DataError(f"{folder}: split {split!r} cannot be opened ({error})") from error


def import_tfds() -> Any:
    """The module ``tensorflow_datasets``; raises :class:`DataError` if it is missing."""
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise DataError(
            f"data sets in array_record files need tensorflow-datasets ({error}); run pip install "
            "'dualcodec-jax[train]'"
        ) from error
    return tensorflow_datasets
