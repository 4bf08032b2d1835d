"""A corpus of codes in random access, for training jobs."""

from __future__ import annotations

import operator
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dualcodec_jax.errors import CodeFileError
from dualcodec_jax.tokens.manifest import read_manifest
from dualcodec_jax.tokens.records import TokenRecord, unpack_record
from dualcodec_jax.tokens.shards import RECORDS_SUFFIX, open_records, read_records

MAX_OPEN = 128
"""Shards that a source keeps open."""


class TokenSource:
    """Records of a finished corpus, as a random-access source that Grain can shuffle and batch.

    Picklable, for worker processes, and safe to use from several threads. Broken recordings have
    no record, so position and :attr:`TokenRecord.index` may differ.

    Attributes:
        manifest: what ``manifest.json`` says.

    Args:
        location: the folder.

    Raises:
        DataError: no finished corpus is there.
    """

    def __init__(self, location: str | Path) -> None:
        self._folder = Path(location)
        self.manifest = read_manifest(self._folder)
        self._names = [shard["name"] + RECORDS_SUFFIX for shard in self.manifest["shards"]]
        self._ends = np.cumsum([shard["records"] for shard in self.manifest["shards"]])
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[int, Any] = OrderedDict()

    def __len__(self) -> int:
        """Number of records."""
        return int(self._ends[-1])

    def __getitem__(self, position: int) -> TokenRecord:
        """The record at ``position`` in [0, len), in the order of the corpus.

        Raises:
            CodeFileError: its shard is missing or damaged.
        """
        position = operator.index(position)
        if not 0 <= position < len(self):
            raise IndexError(position)
        shard = int(np.searchsorted(self._ends, position, side="right"))
        row = position - (int(self._ends[shard - 1]) if shard else 0)
        path = self._folder / self._names[shard]
        try:
            (data,) = self._reader(shard).read([row])
        except (RuntimeError, IndexError, ValueError) as error:
            raise CodeFileError(f"{path}: record {row} is damaged ({error}); copy it") from error
        try:
            return unpack_record(data)
        except CodeFileError as error:
            raise CodeFileError(f"{path}: record {row}: {error}") from error

    def __iter__(self) -> Iterator[TokenRecord]:
        """All records in order, shard by shard: faster than one position after the other."""
        for name in self._names:
            for data in read_records(self._folder / name):
                yield unpack_record(data)

    def _reader(self, shard: int) -> Any:
        with self._lock:
            reader = self._open.pop(shard, None)
            if reader is None:
                reader = open_records(self._folder / self._names[shard])
            self._open[shard] = reader
            if len(self._open) > MAX_OPEN:
                # Forgotten, not closed: another thread may be reading.
                self._open.popitem(last=False)
        return reader

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in ("_folder", "manifest", "_names", "_ends")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()
