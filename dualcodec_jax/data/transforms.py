"""From a record to a clip of fixed length, or to the reason why not."""

from __future__ import annotations

import enum
import math
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dualcodec_jax.audio.headers import ESTIMATED_FORMATS, read_header
from dualcodec_jax.audio.reader import Audio, read_audio
from dualcodec_jax.data.config import DataConfig
from dualcodec_jax.data.errors import DataError
from dualcodec_jax.data.records import Record, Source
from dualcodec_jax.errors import AudioError

_DEFAULT_LIMIT = 6 * 3600.0  # seconds decoded at most where the configuration sets no limit
_SLACK = 1e-9  # seconds; a clip of exactly the limit stays


class Reason(enum.StrEnum):
    """Why a record gives no clip. :attr:`DAMAGED` is a fault; the others are filters at work."""

    DAMAGED = "damaged"
    TOO_SHORT = "too short"
    TOO_LONG = "too long"
    LOW_RATE = "sample rate too low"
    LOW_QUALITY = "quality too low or unknown"
    LANGUAGE = "other or unknown language"


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that is left out.

    Attributes:
        key: its name.
        reason: class of reasons, for counting.
        detail: a sentence for the user.
        index: its place in the source; −1 if it has none.
    """

    key: str
    reason: Reason
    detail: str
    index: int = -1


@dataclass(frozen=True, slots=True)
class Waveform:
    """A decoded record.

    Attributes:
        samples: float32 ``[N]``, mono, |x| ≤ 1, at the configured rate.
        original_rate: of the file, in Hz.
    """

    samples: NDArray[np.float32]
    original_rate: int


@dataclass(frozen=True, slots=True)
class Clip:
    """A training item.

    Attributes:
        audio: float32 ``[segment_length]``, zero past ``num_samples``.
        num_samples: samples before the padding.
        features: ``[T, D]`` of the source's dtype, zero past the utterance's end; None if the
            source has none.
        index: place of its record in the source; −1 if it has none.
    """

    audio: NDArray[np.float32]
    num_samples: int
    features: NDArray[Any] | None = None
    index: int = -1


@dataclass(frozen=True)
class ClipMaker:
    """Reads, decodes, filters and crops the records of a source, deterministically.

    Attributes:
        source: the records.
        config: filters and crop.
        feature_frames: frames of cached features per clip; None: the source has none.
        hop_length: samples per frame of cached features.
    """

    source: Source
    config: DataConfig
    feature_frames: int | None = None
    hop_length: int = 1

    def __call__(self, step: int, index: int) -> Clip | Reject:
        """Clip of record ``index``, drawn as element ``step`` of the endless sequence.

        The crop depends on the seed, the record and the epoch ``step // len(source)`` only.
        """
        index = int(index)
        rng = np.random.default_rng((self.config.seed, step // len(self.source), index))
        record = fetch(self.source, index)
        if isinstance(record, Reject):
            return record
        return make_clip(
            record,
            self.config,
            rng,
            index=index,
            feature_frames=self.feature_frames,
            hop_length=self.hop_length,
        )


def fetch(source: Source, index: int) -> Record | Reject:
    """Record ``index`` of a source, or the reject that stands for one it cannot give."""
    try:
        return source[index]
    except (DataError, OSError) as error:
        return Reject(f"record {index}", Reason.DAMAGED, str(error), index)


def make_clip(
    record: Record,
    config: DataConfig,
    rng: np.random.Generator,
    *,
    index: int = -1,
    feature_frames: int | None = None,
    hop_length: int = 1,
) -> Clip | Reject:
    """Load a record and cut ``config.segment_length`` samples out of it.

    Args:
        record: what to load.
        config: filters and crop.
        rng: draws the start of a random crop.
        index: place of the record in its source.
        feature_frames: frames to cut out of ``record.features``.
        hop_length: samples per frame of these features.
    """
    loaded = load_record(record, config, index)
    if isinstance(loaded, Reject):
        return loaded
    multiple = math.lcm(config.crop_multiple, 1 if feature_frames is None else hop_length)
    start = crop_start(loaded.samples.size, config, rng, multiple)
    piece = loaded.samples[start : start + config.segment_length]
    audio = np.zeros(config.segment_length, np.float32)
    audio[: piece.size] = piece
    features = None
    if feature_frames is not None:
        if record.features is None:
            return Reject(record.key, Reason.DAMAGED, "has no cached features", index)
        frames = record.features[start // hop_length :][:feature_frames]
        features = np.zeros((feature_frames, record.features.shape[1]), record.features.dtype)
        features[: len(frames)] = frames
    return Clip(audio, piece.size, features, index)


def crop_start(
    num_samples: int, config: DataConfig, rng: np.random.Generator, multiple: int
) -> int:
    """First sample of the crop of an utterance of ``num_samples``.

    Random starts are uniform over the multiples in 0…N − segment_length − 1, as upstream's.
    """
    surplus = num_samples - config.segment_length
    if config.crop == "start" or surplus <= 0:
        return 0
    return multiple * int(rng.integers(0, -(-surplus // multiple)))


def load_record(record: Record, config: DataConfig, index: int = -1) -> Waveform | Reject:
    """Filter, decode, mix to mono, resample, and divide by the peak if it exceeds 1.

    What the metadata and the file's header say is checked first, so that decoding starts only
    if the result can be used.

    Args:
        record: what to load.
        config: ``sample_rate`` and filters.
        index: place of the record in its source.

    Raises:
        DataError: soxr is needed and not installed.
    """
    reason = _check_metadata(record, config)
    if reason is not None:
        return Reject(record.key, *reason, index)
    limit = config.max_seconds or _DEFAULT_LIMIT
    try:
        with record.audio_path() as path:
            audio = _decode(path, config, limit)
    except OSError as error:
        text = f"cannot be read ({error.strerror or error})"
        return Reject(record.key, Reason.DAMAGED, text, index)
    if isinstance(audio, tuple):
        return Reject(record.key, *audio, index)
    samples = resample(audio.samples, audio.sample_rate, config.sample_rate)
    peak = float(np.abs(samples).max())
    if peak > 1:
        samples = samples / np.float32(peak)
    return Waveform(samples, audio.sample_rate)


def resample(samples: NDArray[np.float32], rate: int, new_rate: int) -> NDArray[np.float32]:
    """``samples [N]`` at ``new_rate``, by soxr in high quality; unchanged if the rates agree.

    Raises:
        DataError: soxr is not installed.
    """
    if rate == new_rate:
        return samples
    resampled = _soxr().resample(samples, rate, new_rate, quality="HQ")
    # soxr rounds the length down: one sample at a low rate may become none.
    return resampled if resampled.size else np.zeros(1, np.float32)


def _soxr() -> types.ModuleType:
    try:
        import soxr
    except ImportError as error:
        raise DataError(
            "resampling training data needs the package soxr; run pip install "
            "'dualcodec-jax[train]', or convert the files to the model's sample rate"
        ) from error
    return soxr


_Why = tuple[Reason, str] | None


def _decode(path: Path, config: DataConfig, limit: float) -> Audio | tuple[Reason, str]:
    """The audio at its own rate, or why it is left out."""
    try:
        info = read_header(path).info
        # The length in an MP3's header can be far off, either way.
        seconds = None if info.format in ESTIMATED_FORMATS else info.seconds
        reason = _check_rate(info.sample_rate, config) or _check_seconds(seconds, config)
        if reason is not None:
            return reason
        # A little more than the limit, which then has its own words.
        audio = read_audio(path, max_seconds=limit + 1)
    except AudioError as error:
        text = fault(error, path)
        if "more than max_seconds=" in text:
            return Reason.TOO_LONG, f"is longer than {limit:g} s"
        return Reason.DAMAGED, text
    return _check_seconds(audio.samples.size / audio.sample_rate, config) or audio


def fault(error: AudioError, path: Path) -> str:
    """What is wrong with a file, without its path, which may be that of a copy in memory."""
    return str(error).removeprefix(f"{path}: ")


def _check_metadata(record: Record, config: DataConfig) -> _Why:
    if config.languages and record.language not in config.languages:
        return Reason.LANGUAGE, f"language {record.language or 'unknown'}"
    if config.min_quality is not None:
        if record.quality is None:
            return Reason.LOW_QUALITY, "has no quality score"
        if record.quality < config.min_quality:
            return Reason.LOW_QUALITY, f"quality {record.quality:g} < {config.min_quality:g}"
    return None


def _check_rate(rate: int, config: DataConfig) -> _Why:
    if rate < config.min_sample_rate:
        return Reason.LOW_RATE, f"{rate} Hz < {config.min_sample_rate} Hz"
    return None


def _check_seconds(seconds: float | None, config: DataConfig) -> _Why:
    if seconds is None:
        return None
    if seconds < config.min_seconds - _SLACK:
        return Reason.TOO_SHORT, f"{seconds:.3f} s < {config.min_seconds:g} s"
    if config.max_seconds is not None and seconds > config.max_seconds + _SLACK:
        return Reason.TOO_LONG, f"{seconds:.3f} s > {config.max_seconds:g} s"
    return None
