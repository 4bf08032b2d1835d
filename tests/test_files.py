"""Audio files of any length to codes and back: whole, window by window, and in bounded memory."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile

from dualcodec_jax import files
from dualcodec_jax.audio.load import AudioStream, load_audio
from dualcodec_jax.audio.writer import audio_writer
from dualcodec_jax.config import PRESETS
from dualcodec_jax.convert.files import codec_shapes
from dualcodec_jax.errors import AudioError, InputError
from dualcodec_jax.inference import Inference
from dualcodec_jax.lengths import code_length, decoded_samples, samples_to_cover
from dualcodec_jax.model import random_model, random_semantic
from dualcodec_jax.nn.random import random_params

TINY = PRESETS["tiny"].codec
RATE = TINY.sample_rate
WINDOWS = {"whole_seconds": 2.0, "window_seconds": 2.4, "overlap_seconds": 0.8}


@pytest.fixture(scope="module")
def inference() -> Inference:
    semantic = PRESETS["tiny"].semantic
    return Inference(random_model("tiny"), semantic=(semantic, *random_semantic(semantic)))


def noise(seconds: float, rate: int = RATE, seed: int = 0) -> np.ndarray:
    count = round(seconds * rate)
    return 0.2 * np.random.default_rng(seed).standard_normal(count).astype(np.float32)


def save(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    soundfile.write(path, samples, rate, subtype="FLOAT" if path.suffix == ".wav" else None)
    return path


def test_short_files_are_encoded_whole(inference: Inference, tmp_path: Path) -> None:
    samples = noise(1.9)
    codes, notes = files.encode_file(inference, save(tmp_path / "a.wav", samples), **WINDOWS)
    assert codes == files.encode_samples(inference, samples)
    assert notes == ()


def test_long_files_are_encoded_in_windows(inference: Inference, tmp_path: Path) -> None:
    samples = noise(6.1)
    path = save(tmp_path / "a.wav", samples)
    seen: list[tuple[float, float | None]] = []
    codes, notes = files.encode_file(inference, path, **WINDOWS, progress=lambda *a: seen.append(a))
    parts = inference.encode_stream(
        [samples], None, pad_end=True, window_seconds=2.4, overlap_seconds=0.8
    )
    np.testing.assert_array_equal(codes.codes, np.concatenate(list(parts), axis=2)[0])
    assert codes.num_samples == len(samples)
    assert codes.num_frames == code_length(samples_to_cover(len(samples), TINY), TINY)
    assert "2.4 s at a time" in notes[0]
    assert seen[-1] == (6.1, 6.1)


def test_a_model_without_semantic_stream_has_the_codes_of_the_whole(tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, encoding="dac")
    params = random_params(codec_shapes(config), seed=2)
    dac = Inference(dataclasses.replace(random_model("tiny"), config=config, params=params))
    samples = noise(5.3)
    codes, notes = files.encode_file(dac, save(tmp_path / "a.wav", samples), whole_seconds=1.0)
    assert codes == files.encode_samples(dac, samples)
    assert notes == ()


def test_upstream_lengths(inference: Inference, tmp_path: Path) -> None:
    path = save(tmp_path / "a.wav", noise(4.0))
    for options in ({"whole_seconds": 60.0}, WINDOWS):
        codes, _ = files.encode_file(inference, path, upstream_lengths=True, **options)
        frames = code_length(4 * RATE, TINY)
        assert codes.num_frames == frames
        assert codes.num_samples == decoded_samples(frames, TINY)


def test_long_codes_decode_window_by_window(
    inference: Inference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = files.encode_samples(inference, noise(4.0))
    whole = files.decode_codes(inference, codes)
    monkeypatch.setattr(files, "WHOLE_FRAMES", 10)
    monkeypatch.setattr(files, "LONG_CHUNK_FRAMES", 16)
    parts = list(files.decode_parts(inference, codes))
    assert len(parts) > 2
    assert len(whole) == 4 * RATE
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-5)
    seen: list[tuple[float, float | None]] = []
    files.decode_file(inference, codes, tmp_path / "a.wav", 1, progress=lambda *a: seen.append(a))
    assert soundfile.info(tmp_path / "a.wav").frames == 4 * RATE
    assert seen[-1] == (4.0, 4.0)


def test_codes_that_promise_too_much_are_refused(inference: Inference, tmp_path: Path) -> None:
    codes = files.encode_samples(inference, noise(1.0))
    hostile = dataclasses.replace(codes, num_samples=1 << 50)
    with pytest.raises(InputError, match="damaged"):
        files.decode_file(inference, hostile, tmp_path / "a.wav")
    assert not (tmp_path / "a.wav").exists()


def test_errors_late_in_a_file_leave_nothing(inference: Inference, tmp_path: Path) -> None:
    samples = noise(8.0)
    samples[-1] = np.nan
    path = save(tmp_path / "a.wav", samples)
    with pytest.raises(AudioError, match="1 of 192000 sample values are NaN"):
        files.encode_file(inference, path, **WINDOWS)
    with pytest.raises(AudioError, match="max_seconds=5"):
        files.encode_file(inference, path, max_seconds=5.0, **WINDOWS)
    with pytest.raises(InputError, match="whole_seconds"):
        files.encode_file(inference, path, whole_seconds=0.0)


# Reading and writing in blocks ---------------------------------------------------------------


@pytest.mark.parametrize("rate", [16000, 24000, 44100])
def test_a_stream_of_a_file_is_the_file(rate: int, tmp_path: Path) -> None:
    path = save(tmp_path / "a.wav", np.stack([noise(7, rate), noise(7, rate, 1)], axis=1), rate)
    stream = AudioStream(path, RATE)
    assert stream.seconds == 7.0
    assert stream.notes == ()
    blocks = list(stream)
    audio = load_audio(path, RATE)
    np.testing.assert_array_equal(np.concatenate(blocks), audio.samples)
    assert stream.notes == audio.notes
    assert len(stream.notes) == (1 if rate == RATE else 2)
    assert len(audio.samples) == 7 * RATE


def test_writing_in_pieces_is_writing_at_once(tmp_path: Path) -> None:
    samples = noise(1.0)
    for suffix in (".wav", ".flac", ".ogg"):
        with audio_writer(tmp_path / f"whole{suffix}", RATE) as write:
            write(samples)
        with audio_writer(tmp_path / f"parts{suffix}", RATE) as write:
            for part in np.split(samples, [1, 500, 12345]):
                write(part)
        whole, _ = soundfile.read(tmp_path / f"whole{suffix}")
        parts, _ = soundfile.read(tmp_path / f"parts{suffix}")
        np.testing.assert_array_equal(whole, parts)


def test_an_unfinished_file_does_not_appear(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"

    def interrupted() -> None:
        with audio_writer(path, RATE) as write:
            write(noise(0.1))
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        interrupted()
    with pytest.raises(InputError, match="nothing was written"), audio_writer(path, RATE):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_a_wav_file_cannot_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dualcodec_jax.audio.writer._MAX_WAV_SAMPLES", 1000)
    with (
        pytest.raises(AudioError, match=r"write \.flac"),
        audio_writer(tmp_path / "a.wav", RATE) as write,
    ):
        write(noise(0.1))
