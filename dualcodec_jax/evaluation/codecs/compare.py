"""Whether two codecs give the same codes for the same clips."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dualcodec_jax.audio.reader import DEFAULT_MAX_SECONDS
from dualcodec_jax.errors import InputError
from dualcodec_jax.evaluation.codecs.base import Codec

Codes = NDArray[np.int32]


class _HasPath(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def path(self) -> Path: ...


@dataclasses.dataclass(frozen=True)
class CodesEqual:
    """How many codes agree.

    Attributes:
        equal: codes that agree, by quantizer.
        total: codes compared, by quantizer.
        clips: share of equal codes of each clip, 0…1, by id.
    """

    equal: tuple[int, ...]
    total: tuple[int, ...]
    clips: dict[str, float]

    @property
    def share(self) -> float:
        """Of all codes, 0…1."""
        return sum(self.equal) / sum(self.total)

    @property
    def by_quantizer(self) -> tuple[float, ...]:
        """The share for each quantizer."""
        return tuple(e / t for e, t in zip(self.equal, self.total, strict=True))


def count_equal(pairs: Iterable[tuple[str, Codes, Codes]]) -> CodesEqual:
    """Compare (id, codes ``[n, T]``, codes ``[n, T]``).

    Frames that only one side has count as different.

    Raises:
        InputError: no pairs, or different numbers of quantizers.
    """
    equal: NDArray[np.int64] | None = None
    total = 0
    clips: dict[str, float] = {}
    for name, first, second in pairs:
        if equal is None:
            equal = np.zeros(len(first), np.int64)
        if not len(first) == len(second) == equal.size:
            raise InputError(
                f"{name}: {len(first)} and {len(second)} quantizers; compare codecs with the same "
                "number of them"
            )
        frames = max(first.shape[1], second.shape[1])
        shared = min(first.shape[1], second.shape[1])
        same = np.sum(first[:, :shared] == second[:, :shared], axis=1)
        equal += same
        total += frames
        clips[name] = float(same.sum() / max(1, frames * equal.size))
    if equal is None or total == 0:
        raise InputError("no codes to compare")
    return CodesEqual(tuple(int(e) for e in equal), (total,) * equal.size, clips)


def compare_codes(
    first: Codec,
    second: Codec,
    items: Iterable[_HasPath],
    *,
    max_seconds: float | None = DEFAULT_MAX_SECONDS,
) -> CodesEqual:
    """Encode the recordings with both codecs and compare.

    Longer recordings than ``max_seconds`` are refused; None lifts the limit.

    Raises:
        InputError: the codecs have other sample rates or numbers of quantizers, or no codes.
        AudioError: a recording cannot be read.
    """
    from dualcodec_jax.audio.load import load_audio

    rate = first.info.sample_rate
    if second.info.sample_rate != rate:
        raise InputError(f"{first.info.name} and {second.info.name} have different sample rates")

    def pairs() -> Iterable[tuple[str, Codes, Codes]]:
        for item in items:
            samples = load_audio(item.path, rate, max_seconds=max_seconds).samples
            codes = [codec.encode(samples).codes for codec in (first, second)]
            if codes[0] is None or codes[1] is None:
                raise InputError(f"{first.info.name} and {second.info.name}: not both have codes")
            yield item.id, codes[0], codes[1]

    return count_equal(pairs())
