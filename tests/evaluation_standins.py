"""Codecs, metrics and a recogniser that are simple enough to know what comes out."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dualcodec_jax.audio.writer import write_audio
from dualcodec_jax.evaluation.codecs import CodecAbsent, CodecFailure, CodecInfo, Coded
from dualcodec_jax.evaluation.datasets import Item
from dualcodec_jax.evaluation.metrics.base import MetricAbsent, MetricFailure, MetricInfo
from dualcodec_jax.evaluation.recognisers import RecogniserInfo

RATE = 24000


class StandInCodec:
    """Multiplies by a gain; its codes are the levels of stretches of 100 ms.

    Args:
        name: of the codec.
        gain: of the output.
        version: of the codec.
        fails: lengths in samples of clips that cannot be encoded.
        absent: whether it finds out only when encoding that it cannot run.
        kills: number of clips after which a run ends as if killed.
    """

    def __init__(
        self,
        name: str = "standin:1@2",
        *,
        gain: float = 0.5,
        version: str = "1",
        sample_rate: int = RATE,
        fails: Sequence[int] = (),
        absent: bool = False,
        kills: int | None = None,
    ) -> None:
        self.info = CodecInfo(
            name=name,
            sample_rate=sample_rate,
            version=version,
            parameters=2_500_000,
            encode_parameters=3_000_000,
            decode_parameters=1_000_000,
            tokens_per_second=20.0,
            n_quantizers=2,
            codebook_sizes=(16, 4),
        )
        self.gain, self.fails, self.absent, self.kills = gain, fails, absent, kills
        self.calls: Counter[str] = Counter()
        self.encoded: set[int] = set()

    def encode(self, samples: np.ndarray) -> Coded:
        if self.absent:
            raise CodecAbsent("no such program; install it")
        if samples.size in self.fails:
            raise CodecFailure("too loud")
        if self.kills is not None and len(self.encoded | {samples.size}) > self.kills:
            raise KeyboardInterrupt
        self.encoded.add(samples.size)
        self.calls["encode"] += 1
        frames = max(1, samples.size // (self.info.sample_rate // 10))
        levels = np.array([np.abs(part).max() for part in np.array_split(samples, frames)])
        first = np.minimum(levels * 16, 15).astype(np.int32)
        return Coded(samples, frames * 6, np.stack([first, np.zeros_like(first)]))

    def decode(self, coded: Coded, num_samples: int) -> np.ndarray:
        self.calls["decode"] += 1
        return (coded.payload[:num_samples] * self.gain).astype(np.float32)


class StandInMetric:
    """The output's largest sample by the original's, or that of the output alone.

    Args:
        name: of the metric.
        version: of the metric.
        intrusive: whether it compares.
        fails: whether every clip fails.
        absent: whether it finds out only when measuring that it cannot run.
        nothing: whether no clip has a value.
    """

    def __init__(
        self,
        name: str = "gain",
        *,
        version: str = "1",
        intrusive: bool = True,
        fails: bool = False,
        absent: bool = False,
        nothing: bool = False,
    ) -> None:
        self.info = MetricInfo(
            name=name,
            title=name.capitalize(),
            unit="",
            higher_is_better=True,
            range=(0.0, 10.0),
            intrusive=intrusive,
            packages=(),
            source="tests",
            version=version,
        )
        self.fails, self.absent, self.nothing = fails, absent, nothing
        self.calls = 0

    def measure(self, original: np.ndarray, output: np.ndarray, sample_rate: int) -> float | None:
        assert sample_rate == RATE
        if self.absent:
            raise MetricAbsent("no weights")
        if self.fails:
            raise MetricFailure("cannot do this")
        self.calls += 1
        if self.nothing:
            return None
        whole = float(np.abs(output).max())
        return whole / float(np.abs(original).max()) if self.info.intrusive else whole


@dataclasses.dataclass
class StandInRecogniser:
    """Hears four words where it is loud, three where it is not."""

    language: str = "en"
    version: str = "1"
    calls: int = 0

    @property
    def info(self) -> RecogniserInfo:
        return RecogniserInfo(name="ears", version=self.version, language=self.language)

    def transcribe(self, samples: np.ndarray, sample_rate: int) -> str:
        self.calls += 1
        return "one two three four" if np.abs(samples).max() > 0.3 else "one two three"


@dataclasses.dataclass(frozen=True)
class Errors:
    errors: int
    words: int


def count_errors(reference: str, hypothesis: str, language: str | None = None) -> Errors:
    """The difference in the number of words: no packages needed."""
    words = len(reference.split())
    return Errors(abs(words - len(hypothesis.split())), words)


def make_items(folder: Path, peaks: Sequence[float] = (0.2, 0.4, 0.6, 0.8)) -> list[Item]:
    """Tones of 1.0, 1.1 … seconds with these peaks; every other one has a transcript."""
    items = []
    for index, peak in enumerate(peaks):
        time = np.arange(round((1 + index / 10) * RATE)) / RATE
        samples = (peak * np.sin(2 * np.pi * 300 * time)).astype(np.float32)
        path = folder / f"clip{index}.wav"
        write_audio(path, samples, RATE)
        text = None if index % 2 else "one two three four"
        items.append(Item(f"clip{index}", path, text, "en"))
    return items
