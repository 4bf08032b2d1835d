"""What training data to read, and how."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from dualcodec_jax.data.errors import DataError

Kind = Literal["folder", "tar", "tfds", "huggingface"]
KINDS = ("folder", "tar", "tfds", "huggingface")
CROPS = ("random", "start")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """A data set, what of it to use, and how to cut it.

    Attributes:
        kind: ``folder`` (audio files), ``tar`` (shards of audio and JSON members, as Emilia's),
            ``tfds`` (array_record files that ``dualcodec-jax data prepare`` or ``features``
            wrote) or ``huggingface`` (streamed).
        locations: ``folder`` and ``tar``: files, folders or glob patterns; ``tfds``: one data
            set folder; ``huggingface``: one repository name.
        split: of a ``tfds`` or ``huggingface`` data set; ``train[:90%]`` works for ``tfds``.
        subset: configuration name of a ``huggingface`` data set.
        index_folder: where the indices of tar shards are kept; None: beside the shards.
        segment_length: samples per item, after resampling.
        sample_rate: of the result, in Hz.
        min_seconds: shorter clips are left out.
        max_seconds: longer clips are left out; None: no limit.
        min_sample_rate: files with a lower rate, in Hz, are left out.
        min_quality: clips with a lower quality score, or none, are left out.
        languages: clips in another language, or an unknown one, are left out; empty: all.
        crop: ``random``, or ``start`` for the first ``segment_length`` samples.
        crop_multiple: crops start at multiples of so many samples. With cached features it is
            the codec's hop, whatever is written here, unless it is a multiple of the hop.
        shuffle: whether every epoch has its own order.
        shuffle_buffer: records that a ``huggingface`` stream is shuffled within.
        seed: of order and crops, 0…2³²−1.
        repeat: whether to start over at the end.
        num_workers: processes that read and decode; 0: threads of this process.
        prefetch: clips decoded ahead, by all workers together.
        max_broken: damaged items, each counted once, after which the run stops; None: no limit.
        max_broken_fraction: the same as a fraction of the data set (of the records read so
            far, if its size is unknown); the smaller limit counts.
    """

    kind: Kind
    locations: tuple[str, ...]
    split: str = "train"
    subset: str | None = None
    index_folder: str | None = None
    segment_length: int
    sample_rate: int = 24000
    min_seconds: float = 0.0
    max_seconds: float | None = 45.0
    min_sample_rate: int = 16000
    min_quality: float | None = None
    languages: tuple[str, ...] = ()
    crop: Literal["random", "start"] = "random"
    crop_multiple: int = 1
    shuffle: bool = True
    shuffle_buffer: int = 0
    seed: int = 0
    repeat: bool = True
    num_workers: int = 0
    prefetch: int = 64
    max_broken: int | None = None
    max_broken_fraction: float | None = 0.01

    def __post_init__(self) -> None:
        for name in ("locations", "languages"):  # a single one, or a list out of a YAML file
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))
        problems = [text for is_wrong, text in self._checks() if is_wrong]
        if problems:
            raise DataError(f"data configuration: {'; '.join(problems)}")

    def _checks(self) -> list[tuple[bool, str]]:
        longest = float("inf") if self.max_seconds is None else self.max_seconds
        one = self.kind in ("tfds", "huggingface")
        return [
            (self.kind not in KINDS, f"kind must be one of {', '.join(KINDS)}; got {self.kind!r}"),
            (not self.locations, "locations is empty; name files, folders or a data set"),
            (
                one and len(self.locations) > 1,
                f"kind {self.kind} takes one location; got {len(self.locations)}",
            ),
            (self.segment_length < 1, "segment_length must be at least 1 sample"),
            (self.sample_rate < 1, "sample_rate must be positive"),
            (
                not 0 <= self.min_seconds <= longest or not longest > 0,
                f"min_seconds {self.min_seconds} and max_seconds {self.max_seconds} must be "
                "0 ≤ min_seconds ≤ max_seconds > 0",
            ),
            (self.crop not in CROPS, f"crop must be one of {', '.join(CROPS)}; got {self.crop!r}"),
            (self.crop_multiple < 1, "crop_multiple must be at least 1"),
            (not 0 <= self.seed < 2**32, "seed must be 0…2³²−1"),
            (
                self.num_workers < 0 or self.prefetch < 1 or self.shuffle_buffer < 0,
                "num_workers and shuffle_buffer must not be negative, prefetch at least 1",
            ),
            (
                self.max_broken is not None and self.max_broken < 0,
                "max_broken must be 0 or more, or None",
            ),
            (
                self.max_broken_fraction is not None and not 0 <= self.max_broken_fraction <= 1,
                "max_broken_fraction must be in [0, 1], or None",
            ),
        ]

    def for_evaluation(self, **changes: Any) -> DataConfig:
        """The same data once, in order, each clip from its start up to ``segment_length``.

        Args:
            **changes: fields to set besides, ``segment_length`` say.
        """
        fixed = {"crop": "start", "shuffle": False, "repeat": False}
        return dataclasses.replace(self, **{**fixed, **changes})
