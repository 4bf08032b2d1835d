"""Recordings of unequal lengths in batches of few shapes.

A *group* is what one device encodes at once: rows of one padded length. Which recordings are in a
group depends on their shard alone. A *stack* is what all devices encode at once: groups of one
shape, of any shards, one on each device. So the arithmetic of a recording is the same on one device
and on eight, in one process and in many, and after a restart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from dualcodec_jax.config import DualCodecConfig
from dualcodec_jax.lengths import acoustic_frames, ceil_div, samples_to_cover

SHORTEST_SECONDS = 2.0
"""Shorter recordings are padded to this, and run on its program."""


class Sized(Protocol):
    """What is batched."""

    @property
    def num_samples(self) -> int:
        """Length, in samples."""


T = TypeVar("T", bound=Sized)


@dataclass(frozen=True)
class Group(Generic[T]):
    """Recordings that one device encodes at once.

    Attributes:
        shard: that all of them belong to.
        frames: of the padded audio.
        rows: of the batch, dummy ones included.
        items: at most so many.
    """

    shard: int
    frames: int
    rows: int
    items: tuple[T, ...]


def padded_frames(num_samples: int, codec: DualCodecConfig) -> int:
    """Frames of audio that a recording is padded to: k · 2^e with k in 4…8, four an octave.

    More padding than :func:`dualcodec_jax.lengths.bucket` (below 20 %), and half the programs.
    """
    shortest = ceil_div(int(SHORTEST_SECONDS * codec.sample_rate), codec.hop_length)
    frames = max(acoustic_frames(samples_to_cover(num_samples, codec), codec), shortest, 4)
    unit = 1 << max((frames - 1).bit_length() - 3, 0)
    return int(ceil_div(frames, unit)) * unit


class Grouper(Generic[T]):
    """Forms the groups of one shard from its recordings in order."""

    def __init__(self, shard: int, codec: DualCodecConfig, batch_seconds: float) -> None:
        """Groups have at most ``batch_seconds`` of padded audio, or one recording."""
        self._shard, self._codec = shard, codec
        self._frames = batch_seconds * codec.frame_rate
        self._waiting: dict[int, list[T]] = {}

    def add(self, item: T) -> Iterator[Group[T]]:
        """Give the group that ``item`` completes, if it does."""
        frames = padded_frames(item.num_samples, self._codec)
        waiting = self._waiting.setdefault(frames, [])
        waiting.append(item)
        if len(waiting) == self._rows(frames):
            yield self._group(frames, self._waiting.pop(frames))

    def finish(self) -> Iterator[Group[T]]:
        """Give the rest, shorter recordings filling up the groups of longer ones."""
        rest = [(frames, item) for frames in self._waiting for item in self._waiting[frames]]
        rest.sort(key=lambda pair: -pair[0])  # stable: in order within one length
        self._waiting.clear()
        while rest:
            frames = rest[0][0]
            rows = self._rows(frames)
            yield self._group(frames, [item for _, item in rest[:rows]])
            rest = rest[rows:]

    def _rows(self, frames: int) -> int:
        return max(1, int(self._frames // frames))

    def _group(self, frames: int, items: list[T]) -> Group[T]:
        return Group(self._shard, frames, self._rows(frames), tuple(items))


class Stacker(Generic[T]):
    """Collects groups of one shape until there is one for each device."""

    def __init__(self, devices: int) -> None:
        self._devices = devices
        self._waiting: dict[int, list[Group[T]]] = {}

    def add(self, group: Group[T]) -> Iterator[list[Group[T]]]:
        """Give the stack that ``group`` completes, if it does."""
        waiting = self._waiting.setdefault(group.frames, [])
        waiting.append(group)
        if len(waiting) == self._devices:
            yield self._waiting.pop(group.frames)

    def flush(self, shard: int | None = None) -> Iterator[list[Group[T]]]:
        """Give the stacks that have groups of ``shard``, or all, though they are not full."""
        for frames, groups in list(self._waiting.items()):
            if shard is None or any(group.shard == shard for group in groups):
                yield self._waiting.pop(frames)
