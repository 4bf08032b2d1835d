"""How to tokenise, and how far it is."""

from __future__ import annotations

import dataclasses
import math

from dualcodec_jax.errors import InputError
from dualcodec_jax.lengths import WHOLE_SECONDS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How to tokenise. The fields up to ``parquet`` are part of the plan.

    Attributes:
        n_quantizers: codes per frame, the semantic one included; None: all.
        shard_size: items per shard.
        whole_seconds: longer recordings are encoded in windows, one by one.
        window_seconds: audio that w2v-BERT sees at once then; None: 30 s.
        overlap_seconds: audio that two windows share; None: a sixth of one.
        parquet: write every shard as Parquet too.
        batch_seconds: padded audio on each device at once; None: 30 s on a CPU, else 120 s.
        readers: threads that decode; None: one for each CPU core, at most 32.
        max_broken: broken recordings after which the run stops; None: no limit. Each of several
            processes counts its own, and those of all are counted at the end.
        max_broken_fraction: the same as a fraction of the corpus; the smaller limit counts.
    """

    n_quantizers: int | None = None
    shard_size: int = 1000
    whole_seconds: float = WHOLE_SECONDS
    window_seconds: float | None = None
    overlap_seconds: float | None = None
    parquet: bool = False
    batch_seconds: float | None = None
    readers: int | None = None
    max_broken: int | None = None
    max_broken_fraction: float | None = 0.01

    def __post_init__(self) -> None:
        if self.batch_seconds is not None and not self.batch_seconds > 0:
            raise InputError(f"batch_seconds must be positive; got {self.batch_seconds}")
        if self.readers is not None and self.readers < 1:
            raise InputError(f"readers must be at least 1; got {self.readers}")
        if self.max_broken is not None and self.max_broken < 0:
            raise InputError(f"max_broken must not be negative; got {self.max_broken}")
        fraction = self.max_broken_fraction
        if fraction is not None and not 0 <= fraction <= 1:
            raise InputError(f"max_broken_fraction must be in [0, 1]; got {fraction}")

    def broken_limit(self, items: int) -> int | None:
        """Broken recordings allowed in a corpus of so many."""
        limits = [] if self.max_broken is None else [self.max_broken]
        if self.max_broken_fraction is not None:
            limits.append(math.floor(self.max_broken_fraction * items))
        return min(limits, default=None)


@dataclasses.dataclass
class Status:
    """How far a process is, and where its time went. Seconds of wall time unless said otherwise.

    Attributes:
        items: of this process, without those that an earlier run did.
        kept: items of shards that an earlier run did.
        done: items encoded or found broken.
        broken: of them.
        audio_seconds: of the recordings that were encoded.
        elapsed: since the run began.
        read: spent by all reader threads together.
        waited_for_readers: by the thread that starts batches.
        waited_for_codes: by the thread that writes; the device was at work.
        waited_for_writer: by the thread that starts batches; device or writing were behind.
        long: encoding of long recordings.
        write: packing and writing.
    """

    items: int = 0
    kept: int = 0
    done: int = 0
    broken: int = 0
    audio_seconds: float = 0.0
    elapsed: float = 0.0
    read: float = 0.0
    waited_for_readers: float = 0.0
    waited_for_codes: float = 0.0
    waited_for_writer: float = 0.0
    long: float = 0.0
    write: float = 0.0
