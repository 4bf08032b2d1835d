"""Batches of training clips, from an iterator that can be stopped and resumed exactly.

Example::

    config = DataConfig(kind="folder", locations=("speech",), segment_length=76800)
    with open_batches(config, batch_size=16) as batches:
        for batch in batches:
            audio, num_samples = batch["audio"], batch["num_samples"]
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dualcodec_jax.config import DualCodecConfig
from dualcodec_jax.data.config import DataConfig
from dualcodec_jax.data.errors import BrokenDataError, DataError, DataStateError
from dualcodec_jax.data.reader import GrainReader, Reader
from dualcodec_jax.data.records import Source
from dualcodec_jax.data.sources import open_source
from dualcodec_jax.data.transforms import Clip, ClipMaker, Reason, Reject

logger = logging.getLogger(__name__)

STATE_VERSION = 1
Batch = dict[str, NDArray[Any]]

_MIN_SEEN = 1000  # records, before a fraction of them means anything
_EXAMPLES = 5  # damaged items that messages name
# What a saved position means depends on these fields.
_IDENTITY = ("kind", "split", "subset", "shuffle", "shuffle_buffer", "seed", "repeat")


@dataclass(frozen=True)
class DataReport:
    """What became of the records drawn so far, by this process.

    Attributes:
        drawn: records read, repetitions included.
        used: those that became clips.
        rejected: those left out, by reason (:class:`Reason` values).
        broken: names of damaged records, each once, as far as this run has met them.
        epoch: full passes over this process's share; None if its size is unknown.
    """

    drawn: int
    used: int
    rejected: Mapping[str, int]
    broken: tuple[str, ...]
    epoch: int | None


class Batches(Iterator[Batch]):
    """Checkpointable iterator of batches; see :func:`open_batches`.

    Batches are dictionaries of numpy arrays: ``audio`` float32 ``[B, segment_length]``,
    ``num_samples`` int32 ``[B]`` and, if the source has them, ``features`` ``[B, T, D]``.

    If the data end (``repeat=False``), the last batch is filled up with rows of zeros whose
    ``num_samples`` is 0. With several processes all of them then give
    ``⌈⌈records / processes⌉ / B⌉`` batches, the last ones possibly empty, so that no process
    waits for another.

    Every clip of a batch that was returned is behind the state, and no other. After an
    exception in the middle of a batch the state is of no use: save it before.

    Args:
        reader: gives clips and rejects.
        config: limits.
        batch_size: clips per batch.
        process_index: which process this is; part of the state.
        process_count: how many there are; part of the state.
    """

    def __init__(
        self,
        reader: Reader,
        config: DataConfig,
        batch_size: int,
        *,
        process_index: int = 0,
        process_count: int = 1,
    ) -> None:
        if batch_size < 1:
            raise DataError(f"batch_size must be at least 1; got {batch_size}")
        self._reader = reader
        self._config = config
        self._batch_size = batch_size
        self._process = process_index, process_count
        self._used = 0
        self._batches = 0
        self._rejected: Counter[str] = Counter()
        self._broken: dict[str, str] = {}
        self._since_used: Counter[str] = Counter()
        self._like: Clip | None = None

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __next__(self) -> Batch:
        """The next batch.

        Raises:
            BrokenDataError: more records are damaged than the configuration allows, or a
                whole pass gave no clip at all.
        """
        clips: list[Clip] = []
        while len(clips) < self._batch_size:
            try:
                item = next(self._reader)
            except StopIteration:
                return self._last(clips)
            if isinstance(item, Reject):
                self._reject(item)
            else:
                clips.append(item)
                self._used += 1
                self._since_used.clear()
        self._batches += 1
        return self._stack(clips)

    def close(self) -> None:
        """End worker processes and threads."""
        self._reader.close()

    @property
    def report(self) -> DataReport:
        """Counts so far; they are part of the state."""
        drawn = self._used + self._rejected.total()
        share = self._reader.share
        return DataReport(
            drawn=drawn,
            used=self._used,
            rejected=dict(self._rejected),
            broken=tuple(self._broken),
            epoch=None if share is None else drawn // share,
        )

    def get_state(self) -> dict[str, Any]:
        """What :meth:`set_state` needs to go on after the last batch returned; plain JSON types."""
        return {
            "version": STATE_VERSION,
            "identity": self._identity(),
            "reader": self._reader.get_state(),
            "batches": self._batches,
            "used": self._used,
            "rejected": dict(self._rejected),
            "since_used": dict(self._since_used),
            "broken": dict(self._broken),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`get_state` was called.

        The data set, order, seed and number of processes must be the same. Batch size, number
        of workers, filters and crop may differ; filters and crop then count from here on.

        Raises:
            DataStateError: the state is another data set's, process's or version's.
        """
        if state.get("version") != STATE_VERSION:
            raise DataStateError(
                f"data state has version {state.get('version')!r}; this program reads version "
                f"{STATE_VERSION}; start the data afresh"
            )
        saved, own = state.get("identity") or {}, self._identity()
        different = [
            f"{name}: {saved.get(name)!r} saved, {value!r} now"
            for name, value in own.items()
            if saved.get(name) != value
        ]
        if different:
            raise DataStateError(
                f"the saved data state does not fit ({'; '.join(different)}); restore these "
                "settings, or start the data afresh"
            )
        try:
            batches, used = int(state["batches"]), int(state["used"])
            rejected, since_used = Counter(state["rejected"]), Counter(state["since_used"])
            broken = dict(state["broken"])
            self._reader.set_state(state["reader"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataStateError(f"the saved data state is damaged ({error!r})") from error
        self._batches, self._used = batches, used
        self._rejected, self._since_used, self._broken = rejected, since_used, broken

    def _identity(self) -> dict[str, Any]:
        fields = {name: getattr(self._config, name) for name in _IDENTITY}
        index, count = self._process
        return {**fields, "records": self._reader.size, "process": index, "processes": count}

    def _reject(self, item: Reject) -> None:
        self._rejected[item.reason] += 1
        self._since_used[item.reason] += 1
        if item.reason is Reason.DAMAGED and item.key not in self._broken:
            # Words for a few are enough, and keep the state small.
            self._broken[item.key] = item.detail if len(self._broken) < _EXAMPLES else ""
            logger.warning("left out %s: %s", item.key, item.detail)
            self._check_broken()
        # As many as there are without a clip: there will be none. (A process's share alone
        # may lack the few usable ones of an epoch.)
        total = self._reader.share if self._reader.size is None else self._reader.size
        if total is not None and self._since_used.total() >= total:
            raise BrokenDataError(
                f"no usable clip among {self._since_used.total()} records ({self._reasons()})"
                f"{self._named()}; the last one: {item.key}: {item.detail}. Check the data and the "
                "filters"
            )

    def _check_broken(self) -> None:
        config, size = self._config, self._reader.size
        limits = [] if config.max_broken is None else [config.max_broken]
        if config.max_broken_fraction is not None:
            total = max(_MIN_SEEN, self.report.drawn) if size is None else size
            limits.append(math.floor(config.max_broken_fraction * total))
        if limits and len(self._broken) > min(limits):
            raise BrokenDataError(
                f"{len(self._broken)} damaged records, more than the {min(limits)} allowed"
                f"{self._named()}; replace or remove them, or raise max_broken and "
                "max_broken_fraction"
            )

    def _reasons(self) -> str:
        return ", ".join(f"{count} {name}" for name, count in self._since_used.most_common())

    def _named(self) -> str:
        if not self._broken:
            return ""
        shown = [f"{key} ({detail})" for key, detail in list(self._broken.items())[:_EXAMPLES]]
        more = len(self._broken) - len(shown)
        return f": {'; '.join(shown)}" + (f"; and {more} more" if more else "")

    def _last(self, clips: list[Clip]) -> Batch:
        """The batch at the end of the data, filled up, or StopIteration."""
        processes = self._process[1]
        expected = 0
        if processes > 1 and self._reader.size is not None:
            expected = math.ceil(math.ceil(self._reader.size / processes) / self._batch_size)
        if not self._used:
            raise BrokenDataError(
                f"none of {self._rejected.total()} records gave a clip ({self._reasons()})"
                f"{self._named()}; check the data and the filters"
            )
        if not clips and self._batches >= expected:
            raise StopIteration
        self._batches += 1
        return self._stack(clips)

    def _stack(self, clips: list[Clip]) -> Batch:
        """Stack clips, and rows of zeros in place of missing ones."""
        like = clips[0] if clips else self._like
        if like is None:
            like = Clip(np.zeros(self._config.segment_length, np.float32), 0)
        self._like = like
        missing = self._batch_size - len(clips)
        blank = dataclasses.replace(
            like,
            audio=np.zeros_like(like.audio),
            num_samples=0,
            features=None if like.features is None else np.zeros_like(like.features),
        )
        rows = clips + [blank] * missing
        batch: Batch = {
            "audio": np.stack([row.audio for row in rows]),
            "num_samples": np.array([row.num_samples for row in rows], np.int32),
        }
        if like.features is not None:
            batch["features"] = np.stack([row.features for row in rows if row.features is not None])
        return batch


def open_batches(
    config: DataConfig,
    batch_size: int,
    *,
    process_index: int = 0,
    process_count: int = 1,
    codec: DualCodecConfig | None = None,
    source: Source | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Batches:
    """Open a data set as batches for one process of a training run.

    Args:
        config: what to read and how.
        batch_size: clips per batch, of this process.
        process_index: ``jax.process_index()``.
        process_count: ``jax.process_count()``.
        codec: the model; needed if the source has cached features, which are then checked
            against it and cut along with the audio.
        source: records to use instead of those that ``config.locations`` name.
        progress: called with (shards done, shards) while tar shards are indexed.

    Raises:
        DataError: the data set is missing or does not fit, or a package is not installed.
        AudioError, InputError: no audio files where ``config.locations`` point.
    """
    own = {"process_index": process_index, "process_count": process_count}
    if config.kind == "huggingface" and source is None:
        from dualcodec_jax.data.huggingface import open_stream

        return Batches(open_stream(config, **own), config, batch_size, **own)
    records = open_source(config, progress=progress) if source is None else source
    frames, hop = _feature_sizes(records, config, codec)
    make = ClipMaker(records, config, frames, hop)
    return Batches(GrainReader(make, config, **own), config, batch_size, **own)


def _feature_sizes(
    source: Source, config: DataConfig, codec: DualCodecConfig | None
) -> tuple[int | None, int]:
    """Frames of cached features per clip and samples per frame; (None, 1) without features."""
    info = getattr(source, "features", None)
    if info is None or codec is None:
        return None, 1
    info.check(codec, config.sample_rate)
    from dualcodec_jax.lengths import pooled_frames

    return int(pooled_frames(config.segment_length, codec)), codec.hop_length
