"""Decoding, filters and crops of single records."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from dualcodec_jax.audio.reader import read_audio
from dualcodec_jax.data.config import DataConfig
from dualcodec_jax.data.errors import DataError
from dualcodec_jax.data.records import FileSlice, Record
from dualcodec_jax.data.transforms import (
    Clip,
    Reason,
    Reject,
    Waveform,
    crop_start,
    load_record,
    make_clip,
)

RATE = 24000
SPEECH = sorted((Path(__file__).parent / "data").glob("*.flac"))


def config(**changes: Any) -> DataConfig:
    fields: dict[str, Any] = {"kind": "folder", "locations": ("x",), "segment_length": 2400}
    return DataConfig(**{**fields, **changes})


def noise(size: int = RATE, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(size)


def record(samples: np.ndarray, rate: int = RATE, file_format: str = "WAV", **known: Any) -> Record:
    stream = io.BytesIO()
    subtype = "FLOAT" if file_format == "WAV" else None
    soundfile.write(stream, samples, rate, format=file_format, subtype=subtype)
    return Record("clip", stream.getvalue(), **known)


def loaded(item: Record, **changes: Any) -> Waveform:
    result = load_record(item, config(**changes))
    assert isinstance(result, Waveform), result
    return result


def reject(item: Record, **changes: Any) -> Reject:
    result = load_record(item, config(**changes), 7)
    assert isinstance(result, Reject)
    assert (result.key, result.index) == ("clip", 7)
    return result


@pytest.mark.parametrize("file_format", ["WAV", "FLAC", "OGG", "MP3"])
def test_formats_are_decoded_from_memory(file_format: str) -> None:
    waveform = loaded(record(noise(), file_format=file_format))
    assert waveform.samples.dtype == np.float32
    assert abs(waveform.samples.size - RATE) < 2 * 1152
    assert 0.05 < waveform.samples.std() < 0.12


def test_speech_files_are_read_as_read_audio_does() -> None:
    for path in SPEECH:
        audio = read_audio(path)
        waveform = loaded(Record("a", FileSlice(path)), sample_rate=audio.sample_rate)
        np.testing.assert_array_equal(waveform.samples, audio.samples)


def test_channels_are_mixed_and_rates_converted() -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    waveform = loaded(record(np.stack([tone, 0 * tone], axis=1), 16000))
    assert waveform.original_rate == 16000
    assert waveform.samples.size == RATE
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    middle = slice(1000, -1000)
    np.testing.assert_allclose(waveform.samples[middle], expected[middle], atol=1e-4)


def test_peaks_above_one_are_divided_out() -> None:
    samples = noise()
    quiet = loaded(record(samples)).samples
    np.testing.assert_array_equal(quiet, samples.astype(np.float32))
    loud = loaded(record(-30 * samples)).samples
    assert np.abs(loud).max() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(loud, -samples / np.abs(samples).max(), atol=1e-6)


def test_filters_have_reasons() -> None:
    second = record(noise(), language="en", quality=3.0)
    assert reject(second, min_seconds=1.001).reason is Reason.TOO_SHORT
    assert reject(second, max_seconds=0.999).reason is Reason.TOO_LONG
    assert reject(second, min_sample_rate=RATE + 1).reason is Reason.LOW_RATE
    assert reject(record(noise(8000), 8000)).reason is Reason.LOW_RATE
    assert reject(second, min_quality=3.1).detail == "quality 3 < 3.1"
    assert reject(second, languages=("de", "fr")).reason is Reason.LANGUAGE
    unknown = record(noise())
    assert reject(unknown, min_quality=1.0).detail == "has no quality score"
    assert reject(unknown, languages=("de",)).detail == "language unknown"
    loaded(
        second, min_seconds=1.0, max_seconds=1.0, min_quality=3.0, languages=("de", "en")
    )  # limits are inclusive


def test_mp3_length_is_taken_from_the_samples() -> None:
    item = record(noise(3 * RATE), file_format="MP3")
    assert reject(item, max_seconds=1.5).reason is Reason.TOO_LONG
    assert reject(item, max_seconds=2.9).reason is Reason.TOO_LONG
    assert reject(item, min_seconds=3.2).reason is Reason.TOO_SHORT


def test_duration_is_checked_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("decoded")

    item = record(noise())
    monkeypatch.setattr("dualcodec_jax.data.transforms.read_audio", fail)
    assert reject(item, max_seconds=0.5).reason is Reason.TOO_LONG
    assert reject(item, min_sample_rate=48000).reason is Reason.LOW_RATE


@pytest.mark.parametrize(
    "data",
    [b"", b"this is text, renamed .wav", b"RIFF", record(noise()).audio_bytes()[:5000]],
    ids=["empty", "text", "stub", "truncated"],
)
def test_damaged_audio_is_a_reject_not_an_exception(data: bytes, tmp_path: Path) -> None:
    in_memory = reject(Record("clip", data))
    assert in_memory.reason is Reason.DAMAGED
    assert "/proc/" not in in_memory.detail
    path = tmp_path / "clip.wav"
    path.write_bytes(data)
    assert reject(Record("clip", FileSlice(path))).reason is Reason.DAMAGED


def test_unreadable_samples_and_files_are_rejects(tmp_path: Path) -> None:
    samples = noise()
    samples[5] = np.nan
    assert "NaN" in reject(record(samples)).detail
    assert "no such file" in reject(Record("clip", FileSlice(tmp_path / "gone.wav"))).detail
    gone = reject(Record("clip", FileSlice(tmp_path / "gone.tar", 5, 10)))
    assert gone.reason is Reason.DAMAGED


def test_soxr_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soxr", None)
    with pytest.raises(DataError, match=r"dualcodec-jax\[train\]"):
        load_record(record(noise(16000), 16000), config())


def test_clips_have_one_length() -> None:
    rng = np.random.default_rng(0)
    short = make_clip(record(noise(1000)), config(), rng, index=3)
    assert isinstance(short, Clip)
    assert (short.audio.shape, short.audio.dtype, short.num_samples) == ((2400,), np.float32, 1000)
    assert not short.audio[1000:].any()
    np.testing.assert_array_equal(short.audio[:1000], noise(1000).astype(np.float32))
    long = make_clip(record(noise()), config(), rng)
    assert isinstance(long, Clip)
    assert long.num_samples == 2400
    first = make_clip(record(noise()), config(crop="start"), rng)
    assert isinstance(first, Clip)
    np.testing.assert_array_equal(first.audio, noise()[:2400].astype(np.float32))


@given(
    size=st.integers(1, 60),
    segment=st.integers(1, 30),
    multiple=st.integers(1, 9),
    seed=st.integers(0, 1000),
)
@settings(max_examples=100, deadline=None)
def test_random_starts_stay_in_upstreams_range(
    size: int, segment: int, multiple: int, seed: int
) -> None:
    start = crop_start(size, config(segment_length=segment), np.random.default_rng(seed), multiple)
    assert start % multiple == 0
    assert 0 <= start <= max(0, size - segment - 1)


def test_every_start_is_reached() -> None:
    rng = np.random.default_rng(0)
    starts = {crop_start(15, config(segment_length=10), rng, 1) for _ in range(200)}
    assert starts == {0, 1, 2, 3, 4}
    starts = {crop_start(15, config(segment_length=10), rng, 2) for _ in range(200)}
    assert starts == {0, 2, 4}
