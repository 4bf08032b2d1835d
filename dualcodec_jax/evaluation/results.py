"""What an evaluation has found, as plain data that goes into ``results.json`` and back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dualcodec_jax.errors import InputError
from dualcodec_jax.evaluation.recognisers import counts_characters

FORMAT = 1
"""Version of ``results.json``."""
RESULTS_FILE = "results.json"
ORIGINAL = "original"
"""Name and folder of the recordings themselves as a system."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipResult:
    """One recording through one system.

    Attributes:
        id: of the recording.
        language: of the recording, as its data set writes it.
        seconds: length of the recording.
        bits: of its code, without container.
        encode_seconds: computing time of encoding.
        decode_seconds: of decoding.
        hardware: that took these times; None: not known.
        shift: samples by which the output was late, at the rate of comparison; None if no metric
            needed to know.
        values: by metric; None where the metric is not defined for the clip.
        transcript: what the recogniser heard in the output.
        errors: word (or character) errors of the transcript.
        words: of the reference.
        reference: where the reference comes from, ``text`` or ``original``.
        counted_in: language by whose rules errors were counted: the recogniser's where that of the
            recording is not known.
        problems: what failed, by ``codec``, metric or ``wer``, with the reason.
    """

    id: str
    language: str | None = None
    seconds: float | None = None
    bits: int | None = None
    encode_seconds: float | None = None
    decode_seconds: float | None = None
    hardware: str | None = None
    shift: int | None = None
    values: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    transcript: str | None = None
    errors: int | None = None
    words: int | None = None
    reference: str | None = None
    counted_in: str | None = None
    problems: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def counts_characters(self) -> bool:
        """Whether errors and words are characters: they give a CER, not a WER."""
        return counts_characters(self.counted_in or self.language)


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantizerUse:
    """How much of one codebook was used.

    Attributes:
        size: codes of the codebook.
        frames: codes counted.
        used: different ones among them.
        entropy: of their distribution, in bits.
    """

    size: int
    frames: int
    used: int
    entropy: float

    @property
    def usage(self) -> float:
        """Share of the codebook that was used, 0…1."""
        return self.used / self.size


@dataclasses.dataclass(frozen=True, kw_only=True)
class SystemResult:
    """All recordings through one system.

    Attributes:
        name: in tables.
        spec: as asked for.
        folder: below ``clips``, ``audio`` and ``codes``.
        info: fields of :class:`~.codecs.CodecInfo`.
        clips: in the order of the recordings.
        codebooks: one for each quantizer; empty for a codec without codes.
    """

    name: str
    spec: str
    folder: str
    info: Mapping[str, Any]
    clips: Sequence[ClipResult]
    codebooks: Sequence[QuantizerUse] = ()

    @property
    def is_original(self) -> bool:
        """Whether these are the recordings themselves."""
        return self.name == ORIGINAL


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodesCompared:
    """How many codes of two systems agree on the same recordings.

    Attributes:
        first: name of a system.
        second: of another.
        clips: recordings compared.
        equal: codes that agree, by quantizer.
        total: codes compared, by quantizer.
    """

    first: str
    second: str
    clips: int
    equal: Sequence[int]
    total: Sequence[int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results:
    """An evaluation.

    Attributes:
        systems: in the order asked for, the original first.
        metrics: fields of :class:`~.metrics.base.MetricInfo` of each metric, by name, in order.
        recognisers: fields of :class:`~.recognisers.RecogniserInfo` of each.
        absent: what could not run at all, with the reason.
        compared: pairs of systems whose codes should be equal.
        environment: versions, hardware, the command.
        title: of the evaluation; empty for none.
    """

    systems: Sequence[SystemResult]
    metrics: Mapping[str, Mapping[str, Any]]
    recognisers: Sequence[Mapping[str, str]] = ()
    absent: Mapping[str, str] = dataclasses.field(default_factory=dict)
    compared: Sequence[CodesCompared] = ()
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    title: str = ""

    @property
    def problems(self) -> list[tuple[str, str, str, str]]:
        """(system, clip, what failed, reason) of every failure."""
        return [
            (system.name, clip.id, what, reason)
            for system in self.systems
            for clip in system.clips
            for what, reason in clip.problems.items()
        ]

    @property
    def without_value(self) -> list[tuple[str, str, int]]:
        """(system, metric, number of clips) where a metric is not defined: silence, mostly."""
        found = []
        for system in self.systems:
            for name in self.metrics:
                count = sum(
                    name in clip.values and clip.values[name] is None for clip in system.clips
                )
                found += [(system.name, name, count)] if count else []
        return found

    def system(self, name: str) -> SystemResult:
        """The system of that name.

        Raises:
            InputError: there is none.
        """
        for system in self.systems:
            if system.name == name:
                return system
        raise InputError(f"no system {name!r}; there are {[s.name for s in self.systems]}")

    def to_json(self) -> dict[str, Any]:
        """Plain data, for :func:`from_json`."""
        return {"format": FORMAT, **dataclasses.asdict(self)}


def from_json(data: Mapping[str, Any]) -> Results:
    """The results that :meth:`Results.to_json` wrote.

    Raises:
        InputError: it is of another version, or damaged.
    """
    if data.get("format") != FORMAT:
        raise InputError(
            f"results are of format {data.get('format')!r}, not {FORMAT}; run the evaluation again"
        )
    try:
        fields = {key: value for key, value in data.items() if key != "format"}
        fields["systems"] = tuple(_system(system) for system in data["systems"])
        fields["recognisers"] = tuple(data["recognisers"])
        fields["compared"] = tuple(CodesCompared(**pair) for pair in data["compared"])
        return Results(**fields)
    except (KeyError, TypeError) as error:
        raise InputError(f"damaged results: {error!r}; run the evaluation again") from error


def read_results(folder: str | Path) -> Results:
    """Results from the output folder of an evaluation.

    Raises:
        InputError: there are none, or they are damaged.
    """
    path = Path(folder) / RESULTS_FILE
    try:
        return from_json(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: no results of an evaluation ({error})") from error


def _system(data: Mapping[str, Any]) -> SystemResult:
    return SystemResult(
        **{
            **data,
            "clips": tuple(ClipResult(**clip) for clip in data["clips"]),
            "codebooks": tuple(QuantizerUse(**book) for book in data["codebooks"]),
        }
    )
