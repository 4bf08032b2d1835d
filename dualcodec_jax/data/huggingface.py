"""Data sets streamed with the Hugging Face package ``datasets``: no random access, no workers.

A stream can be resumed where ``datasets`` can: the position is saved by its ``state_dict``.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from dualcodec_jax.data.config import DataConfig
from dualcodec_jax.data.errors import DataError, DataStateError
from dualcodec_jax.data.records import Record, record_from_metadata
from dualcodec_jax.data.transforms import Clip, Reject, make_clip

AUDIO_COLUMNS = ("audio", "mp3", "flac", "wav", "ogg", "opus")
"""Columns that may hold the encoded audio, the first present one counting."""


def open_stream(config: DataConfig, *, process_index: int = 0, process_count: int = 1) -> Stream:
    """Open a repository as a stream of clips, each process having its own part.

    Raises:
        DataError: ``datasets`` is not installed, or the data set cannot be opened.
    """
    datasets = _import_datasets()
    name = config.locations[0]
    try:
        data = datasets.load_dataset(name, config.subset, split=config.split, streaming=True)
        # The package would decode to arrays with torchcodec; the encoded bytes are wanted here.
        for column, feature in (data.features or {}).items():
            if isinstance(feature, datasets.Audio):
                data = data.cast_column(column, datasets.Audio(decode=False))
        if process_count > 1:
            data = datasets.distributed.split_dataset_by_node(data, process_index, process_count)
        if config.shuffle:
            # A buffer of 1 keeps the order within a shard and shuffles the shards only.
            data = data.shuffle(seed=config.seed, buffer_size=max(1, config.shuffle_buffer))
    except Exception as error:
        raise DataError(
            f"{name}: cannot be streamed ({error}); check the name, the split {config.split!r}, "
            "the network, and whether access needs `huggingface-cli login`"
        ) from error
    return Stream(data, config, process_index)


class Stream:
    """Clips and rejects of a ``datasets.IterableDataset``, in order; a ``Reader``.

    After a restore the sequence is the same, unless a shuffle buffer is in use, whose content
    ``datasets`` does not save.

    Args:
        data: has ``__iter__``, ``set_epoch``, ``state_dict`` and ``load_state_dict``.
        config: filters, crop, ``repeat``.
        process_index: for different crops on different processes.
    """

    def __init__(self, data: Any, config: DataConfig, process_index: int = 0) -> None:
        self.size: int | None = None
        self.share: int | None = None
        self._data = data
        self._config = config
        self._process = process_index
        self._epoch = 0
        self._position = 0
        self._rows: Iterator[Mapping[str, Any]] | None = None

    def __next__(self) -> Clip | Reject:
        while True:
            if self._rows is None:
                self._data.set_epoch(self._epoch)
                self._rows = iter(self._data)
            row = next(self._rows, None)
            if row is not None:
                break
            # How many there are is known now, which lets the pipeline notice an endless search.
            self.share = self._position
            if not self._config.repeat or not self.share:
                raise StopIteration
            self._epoch, self._position, self._rows = self._epoch + 1, 0, None
        seed = (self._config.seed, self._epoch, self._process, self._position)
        self._position += 1
        record = _record(row, f"{self._config.locations[0]}#{self._position - 1}")
        return make_clip(record, self._config, np.random.default_rng(seed))

    def get_state(self) -> dict[str, Any]:
        """Epoch, position in it, and the package's own state."""
        return {
            "epoch": self._epoch,
            "position": self._position,
            "share": self.share,
            "stream": self._data.state_dict(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go where :meth:`get_state` was called."""
        try:
            self._epoch, self._position = int(state["epoch"]), int(state["position"])
            self.share = state["share"]
            stream = state["stream"]
        except (KeyError, TypeError, ValueError) as error:
            raise DataStateError(
                f"the saved data state is not that of a stream ({error}); start the data afresh"
            ) from error
        self._data.set_epoch(self._epoch)
        self._data.load_state_dict(stream)
        self._rows = iter(self._data)

    def close(self) -> None:
        """Nothing runs in the background."""


def _record(row: Mapping[str, Any], name: str) -> Record:
    """A record of a row: ``audio`` and plain columns, or WebDataset's ``mp3`` and ``json``."""
    column = next((column for column in AUDIO_COLUMNS if row.get(column) is not None), None)
    if column is None:
        raise DataError(
            f"{name}: no audio column; looked for {', '.join(AUDIO_COLUMNS)} in {sorted(row)}"
        )
    value = row[column]
    data = value.get("bytes") if isinstance(value, Mapping) else value
    if not isinstance(data, bytes):
        raise DataError(
            f"{name}: column {column!r} has no encoded bytes but {type(value).__name__}; use a "
            "data set that stores audio files"
        )
    metadata = {key: value for key, value in row.items() if key != column}
    nested = metadata.pop("json", None)
    if isinstance(nested, Mapping):
        metadata.update(nested)
    key = row.get("__key__") or metadata.get("id") or name
    return record_from_metadata(str(key), data, metadata)


def _import_datasets() -> Any:
    try:
        importlib.import_module("datasets.distributed")
        return importlib.import_module("datasets")
    except ImportError as error:
        raise DataError(
            f"streaming from Hugging Face needs the package datasets ({error}); run pip install "
            "datasets, or download the data set and use kind=tar or kind=tfds"
        ) from error
