"""Recordings decoded and resampled in threads, ahead of the device, in order."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from dualcodec_jax.audio.load import AudioStream
from dualcodec_jax.data.records import Record
from dualcodec_jax.data.transforms import Reject, fault, fetch
from dualcodec_jax.errors import AudioError
from dualcodec_jax.tokens.corpus import Corpus
from dualcodec_jax.tokens.records import described
from dualcodec_jax.tokens.shards import Broken


def no_samples() -> NDArray[np.float32]:
    """Of a recording whose audio is not in memory."""
    return np.zeros(0, np.float32)


@dataclass(frozen=True)
class Recording:
    """A recording ready to be encoded.

    Attributes:
        index: its place in the corpus.
        id: its name.
        num_samples: N, at the model's rate; 0 if it is a long one.
        samples: float32 ``[N]``; empty if it is a long one, or no longer needed.
        fields: text, language, … of its record of codes.
        long: a recording that is encoded in windows while it is read; else None.
    """

    index: int
    id: str
    num_samples: int = 0
    samples: NDArray[np.float32] = field(default_factory=no_samples)
    fields: dict[str, Any] = field(default_factory=dict)
    long: Record | None = None


@dataclass(frozen=True)
class Reader:
    """Reads the recordings of a corpus.

    Attributes:
        corpus: what to read.
        sample_rate: of the result, in Hz.
        whole_seconds: longer recordings are left for later.
    """

    corpus: Corpus
    sample_rate: int
    whole_seconds: float

    def __call__(self, index: int) -> tuple[Recording | Broken, float]:
        """Recording ``index``, or why there is none, and the seconds that this took."""
        start = time.perf_counter()
        with on_host():
            result = self._read(index)
        return result, time.perf_counter() - start

    def _read(self, index: int) -> Recording | Broken:
        record = fetch(self.corpus.source, index)
        if isinstance(record, Reject):
            return Broken(index, record.key, record.detail)
        name = self.corpus.item_id(record)
        fields = {
            "text": record.text,
            "language": record.language,
            "quality": record.quality,
            **described(record.extra),
        }
        blocks, size = [], 0
        try:
            with record.audio_path() as path:
                try:
                    for block in AudioStream(path, self.sample_rate):
                        blocks.append(block)
                        size += len(block)
                        if size > self.whole_seconds * self.sample_rate:
                            return Recording(index, name, fields=fields, long=record)
                except AudioError as error:
                    return Broken(index, name, fault(error, path))
        except OSError as error:
            return Broken(index, name, f"cannot be read ({error.strerror or error})")
        return Recording(index, name, size, np.concatenate(blocks), fields)


def on_host() -> contextlib.AbstractContextManager[Any]:
    """Where this thread resamples: not on an accelerator, whose queue of batches is long."""
    if jax.default_backend() == "cpu":
        return contextlib.nullcontext()
    try:
        host = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS leaves it out
        return contextlib.nullcontext()
    return jax.default_device(host)


def read_ahead(
    read: Callable[[int], tuple[Recording | Broken, float]],
    indices: Iterable[int],
    threads: int,
) -> Generator[tuple[Recording | Broken, float], None, None]:
    """``read`` of each index, in order; a few are done ahead."""
    rest = iter(indices)
    waiting: deque[Future[tuple[Recording | Broken, float]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="read")
    try:
        for index in itertools.islice(rest, 4 * threads):
            waiting.append(pool.submit(read, index))
        while waiting:
            yield waiting.popleft().result()
            for index in itertools.islice(rest, 1):
                waiting.append(pool.submit(read, index))
    finally:
        pool.shutdown(cancel_futures=True)
