"""Endless, position-addressed sequences of clips and rejects.

A Grain pipeline of random-access stages is a function from position to element, so that the
position alone is its state: resuming is starting at another one, whatever number of workers
or clips decoded ahead there was.
"""

from __future__ import annotations

import os
import sys
import weakref
from typing import Any, Protocol

import numpy as np

from dualcodec_jax.data.config import DataConfig
from dualcodec_jax.data.errors import DataError, DataStateError
from dualcodec_jax.data.transforms import Clip, ClipMaker, Reject

_MAX_THREADS = 8


class Reader(Protocol):
    """Clips and rejects in order, with a state that JSON can hold."""

    share: int | None
    """Records that this process sees per epoch; None if unknown."""
    size: int | None
    """Records of the whole data set; None if unknown."""

    def __next__(self) -> Clip | Reject:
        """The next clip or reject; StopIteration at the end."""

    def get_state(self) -> dict[str, Any]:
        """Where the next element is."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Go there."""

    def close(self) -> None:
        """End worker processes and threads. Reading on starts new ones."""


class GrainReader:
    """Reads a random-access source through Grain.

    The order is: all records (shuffled anew in every epoch) → every ``process_count``-th →
    repeat → load and crop. So in every epoch the processes' shares are disjoint and together
    complete. If the number of records is not a multiple of the number of processes, some
    shares have one record more, and processes reach the next epoch at different times.

    Raises:
        DataError: a process would get nothing, or Grain is not installed.
    """

    def __init__(
        self,
        make: ClipMaker,
        config: DataConfig,
        *,
        process_index: int = 0,
        process_count: int = 1,
    ) -> None:
        if not 0 <= process_index < process_count:
            raise DataError(
                f"process_index must be 0…process_count−1; got {process_index} of {process_count}"
            )
        self.size: int | None = len(make.source)
        self.share: int | None = len(range(process_index, self.size, process_count))
        if self.share == 0:
            raise DataError(
                f"{self.size} records cannot be shared by {process_count} processes; use fewer "
                "processes or more data"
            )
        self._config = config
        self._position = 0
        self._iterator: Any = None
        map_dataset = grain().MapDataset
        elements = map_dataset.range(self.size)
        if config.shuffle:
            elements = elements.shuffle(seed=_shuffle_seed(config.seed))
        elements = elements.map_with_index(make)
        # Slices keep the epoch: element share + k is number k of this process's next epoch.
        elements = elements.slice(slice(process_index, None, process_count))
        self._elements = elements.repeat() if config.repeat else elements
        self._length = sys.maxsize if config.repeat else self.share

    def __next__(self) -> Clip | Reject:
        if self._position >= self._length:
            self.close()
            raise StopIteration
        if self._iterator is None:
            self._iterator = self._start()
            # Also when collected or at exit: Grain's own clean-up comes too late for that.
            self._finalizer = weakref.finalize(self, self._iterator.close)
        element: Clip | Reject = next(self._iterator)
        self._position += 1
        return element

    def get_state(self) -> dict[str, Any]:
        """The number of elements read."""
        return {"position": self._position}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go to the element that follows as many as ``state`` says."""
        position = state.get("position")
        if type(position) is not int or not 0 <= position <= self._length:
            raise DataStateError(
                f"saved position {position!r} is not in this data set; start afresh or restore the "
                "data configuration of the run"
            )
        self.close()
        self._position = position

    def close(self) -> None:
        """End worker processes and threads."""
        if self._iterator is not None:
            self._finalizer()
            self._iterator = None

    def _start(self) -> Any:
        """Grain's iterator from the current position on."""
        module, workers, prefetch = grain(), self._config.num_workers, self._config.prefetch
        rest = self._elements.slice(slice(self._position, None))
        threads = 1 if workers else min(_MAX_THREADS, os.cpu_count() or 1, prefetch)
        ahead = 1 if workers else prefetch
        dataset = rest.to_iter_dataset(
            module.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
        )
        if workers:
            _parse_flags()
            options = module.MultiprocessingOptions(
                num_workers=workers, per_worker_buffer_size=max(1, prefetch // workers)
            )
            dataset = dataset.mp_prefetch(options)
        return iter(dataset)


def grain() -> Any:
    """The module ``grain``; raises :class:`DataError` if it is missing."""
    try:
        import grain
    except ImportError as error:
        raise DataError(
            f"reading training data needs grain ({error}); run pip install 'dualcodec-jax[train]'"
        ) from error
    return grain


def _shuffle_seed(seed: int) -> int:
    """Far from that of the next seed: Grain adds the epoch, so 0 and 1 would share orders."""
    return int(np.random.SeedSequence(seed).generate_state(1)[0])


def _parse_flags() -> None:
    """Grain's workers read absl flags, which raise unless they count as parsed."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
