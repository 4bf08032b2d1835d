"""What is in a data set: headers looked at, or everything decoded."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from dualcodec_jax.audio.headers import ESTIMATED_FORMATS, AudioInfo, read_header
from dualcodec_jax.data.config import DataConfig
from dualcodec_jax.data.records import Record
from dualcodec_jax.data.transforms import Reject, fault, load_record
from dualcodec_jax.errors import AudioError

UNKNOWN = "unknown"


@dataclass
class Survey:
    """Counts over records, as :func:`survey` fills them in.

    Attributes:
        clips: records whose audio has a believable header.
        seconds: duration of each; what the metadata say if the header does not know, or
            estimates (MP3); without either it is left out.
        sample_rates: clips by rate in Hz.
        formats: clips by container and sample format.
        languages: clips by language.
        with_text: clips with a transcript.
        with_quality: clips with a quality score.
        broken: key and fault of the others.
    """

    clips: int = 0
    seconds: list[float] = field(default_factory=list)
    sample_rates: Counter[int] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    with_text: int = 0
    with_quality: int = 0
    broken: dict[str, str] = field(default_factory=dict)

    @property
    def hours(self) -> float:
        """Duration of all clips."""
        return sum(self.seconds) / 3600

    def add(self, record: Record | Reject) -> None:
        """Count one record, or one that its source could not give."""
        if isinstance(record, Reject):
            self.broken[record.key] = record.detail
            return
        try:
            info = audio_header(record)
        except AudioError as error:
            self.broken[record.key] = str(error).removeprefix(f"{record.key}: ")
            return
        seconds = with_duration(record, info).duration
        self.clips += 1
        if seconds is not None:
            self.seconds.append(seconds)
        self.sample_rates[info.sample_rate] += 1
        self.formats[f"{info.format} {info.subtype}"] += 1
        self.languages[record.language or UNKNOWN] += 1
        self.with_text += record.text is not None
        self.with_quality += record.quality is not None


def verify(record: Record | Reject, config: DataConfig) -> Reject | None:
    """Decode a record as training does; None if it gives a clip."""
    loaded = record if isinstance(record, Reject) else load_record(record, config)
    return loaded if isinstance(loaded, Reject) else None


def checked(
    records: Iterable[Record],
    on_record: Callable[[Record, AudioError | None], None] | None = None,
) -> Iterator[Record]:
    """Records whose audio has a header that can be believed, with the duration that it says.

    Args:
        records: any.
        on_record: called for every record, with the error if it is left out.
    """
    for record in records:
        try:
            info = audio_header(record)
        except AudioError as error:
            if on_record is not None:
                on_record(record, error)
            continue
        if on_record is not None:
            on_record(record, None)
        yield with_duration(record, info)


def audio_header(record: Record) -> AudioInfo:
    """What the header of a record's audio says.

    Raises:
        AudioError: it is damaged, or cannot be read; the message starts with the record's key.
    """
    try:
        with record.audio_path() as path:
            try:
                return read_header(path).info
            except AudioError as error:
                raise AudioError(f"{record.key}: {fault(error, path)}") from error
    except OSError as error:
        raise AudioError(f"{record.key}: cannot be read ({error.strerror or error})") from error


def with_duration(record: Record, info: AudioInfo) -> Record:
    """A record with the duration that the header says, unless the metadata know better."""
    # An MP3's header gives an estimate: what the metadata say is better.
    if info.seconds is None or (info.format in ESTIMATED_FORMATS and record.duration is not None):
        return record
    return dataclasses.replace(record, duration=info.seconds)
