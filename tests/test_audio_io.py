"""Audio files: what is read, what is noted, what is refused."""

from __future__ import annotations

import os
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dualcodec_jax.audio import headers, reader
from dualcodec_jax.audio.reader import audio_info, read_audio
from dualcodec_jax.audio.writer import write_audio
from dualcodec_jax.errors import AudioError, InputError

RATE = 24000


def tone(num_samples: int = 6000, channels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(0)
    signal = 0.3 * np.sin(np.arange(num_samples) / 7) + 0.01 * rng.standard_normal(num_samples)
    return np.repeat(signal[:, None], channels, axis=1).astype(np.float32)


def save(path: Path, samples: np.ndarray | None = None, rate: int = RATE, **kwargs: str) -> Path:
    soundfile.write(path, tone() if samples is None else samples, rate, **kwargs)
    return path


def set_wav_size(path: Path, size: int, order: str = "<") -> Path:
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack(f"{order}I", size)
    path.write_bytes(data)
    return path


def set_flac_length(path: Path, frames: int) -> Path:
    """Overwrite the 36-bit sample count in STREAMINFO."""
    data = bytearray(path.read_bytes())
    packed = int.from_bytes(data[18:26], "big") >> 36 << 36 | frames
    data[18:26] = packed.to_bytes(8, "big")
    path.write_bytes(data)
    return path


def truncate(path: Path, keep: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path


def refusal(path: Path, **kwargs: float) -> str:
    """The message with which reading is refused; it names the file and is one line."""
    with pytest.raises(AudioError) as caught:
        read_audio(path, **kwargs)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


# -- reading ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kwargs", "tolerance"),
    [
        ("a.wav", {"subtype": "PCM_16"}, 1e-4),
        ("a.wav", {"subtype": "PCM_24"}, 1e-6),
        ("a.wav", {"subtype": "PCM_32"}, 1e-7),
        ("a.wav", {"subtype": "FLOAT"}, 0),
        ("a.wav", {"subtype": "DOUBLE"}, 0),
        ("a.wav", {"format": "WAVEX"}, 1e-4),
        ("a.wav", {"format": "RF64"}, 1e-4),
        ("a.wav", {"endian": "BIG"}, 1e-4),
        ("a.wav", {"subtype": "MS_ADPCM"}, 0.05),
        ("a.flac", {}, 1e-4),
        ("a.flac", {"subtype": "PCM_24"}, 1e-6),
        ("a.aiff", {}, 1e-4),
        ("a.ogg", {}, 0.2),
        ("a.opus", {"format": "OGG", "subtype": "OPUS"}, 0.2),
        ("a.mp3", {}, 0.2),
        ("flac named.wav", {"format": "FLAC"}, 1e-4),
    ],
)
def test_formats(tmp_path, name, kwargs, tolerance):
    path = save(tmp_path / name, **kwargs)
    audio = read_audio(path)
    expected = tone()[:, 0]
    assert audio.samples.dtype == np.float32
    assert audio.samples.ndim == 1
    assert audio.sample_rate == RATE
    assert audio.notes == ()
    assert len(expected) <= len(audio.samples) <= len(expected) + 1024  # ADPCM pads its block
    assert np.abs(audio.samples[: len(expected)] - expected).max() <= tolerance
    info = audio_info(str(path))
    assert (info.path, info.sample_rate, info.channels) == (path, RATE, 1)
    assert info.num_samples == len(audio.samples)
    assert info.seconds == info.num_samples / RATE
    assert info.format in {"WAV", "WAVEX", "RF64", "FLAC", "AIFF", "OGG", "MP3"}


@pytest.mark.parametrize("rate", [1000, 8000, 44100, 192000, 768000])
def test_sample_rates(tmp_path, rate):
    assert read_audio(save(tmp_path / "a.wav", rate=rate)).sample_rate == rate


@pytest.mark.parametrize("rate", [1, 999, 768001, 2**31 - 1])
def test_unbelievable_sample_rates(tmp_path, rate):
    path = save(tmp_path / "a.wav", rate=rate)
    assert f"sample rate {rate} Hz is outside 1000 to 768000 Hz" in refusal(path)
    with pytest.raises(AudioError, match="sample rate"):
        audio_info(path)


def test_blocks_do_not_change_the_signal(tmp_path, monkeypatch):
    # soundfile by itself seeks between blocks, which alters MP3.
    for name in ("a.wav", "a.flac", "a.ogg", "a.mp3"):
        path = save(tmp_path / name, tone(20000, 2))
        whole = read_audio(path).samples
        monkeypatch.setattr(reader, "_BLOCK_VALUES", 1234)
        np.testing.assert_array_equal(read_audio(path).samples, whole)
        monkeypatch.undo()


@pytest.mark.parametrize("channels", [2, 5])
def test_mixdown(tmp_path, channels):
    samples = tone(1000, channels) * np.arange(1, channels + 1, dtype=np.float32) / channels
    audio = read_audio(save(tmp_path / "a.wav", samples, subtype="FLOAT"))
    np.testing.assert_allclose(audio.samples, samples.mean(axis=1), atol=1e-7)
    assert audio.notes == (f"{channels} channels mixed to mono by their mean",)


def test_mixdown_does_not_overflow(tmp_path):
    samples = np.full((10, 2), 3e38, np.float32)
    audio = read_audio(save(tmp_path / "a.wav", samples, subtype="FLOAT"))
    assert np.all(audio.samples == np.float32(3e38))


@pytest.mark.parametrize(("name", "subtype"), [("a.wav", "PCM_U8"), ("a.wav", "ULAW")])
def test_8_bit_note(tmp_path, name, subtype):
    (note,) = read_audio(save(tmp_path / name, subtype=subtype)).notes
    assert "8-bit source" in note


def test_silent_note(tmp_path):
    audio = read_audio(save(tmp_path / "a.wav", np.zeros(5000)))
    assert audio.notes == ("silent: all samples are zero",)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "FLOAT"])
def test_clipped_note(tmp_path, subtype):
    samples = tone()
    samples[100:150], samples[200:250] = 1, -1
    notes = read_audio(save(tmp_path / "a.wav", samples, subtype=subtype)).notes
    assert "clipped: 100 samples (1.7 %) at full scale" in notes


def test_peak_normalised_is_not_clipped(tmp_path):
    samples = tone()
    samples[100] = 1
    assert read_audio(save(tmp_path / "a.wav", samples)).notes == ()


def test_beyond_full_scale_note(tmp_path):
    samples = tone()
    samples[7] = -3.25
    audio = read_audio(save(tmp_path / "a.wav", samples, subtype="FLOAT"))
    assert audio.notes == ("samples reach 3.25, beyond [-1, 1]; not rescaled",)
    assert audio.samples[7] == -3.25


def test_name_that_is_not_utf8(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.wav")
    try:
        path.write_bytes(save(tmp_path / "a.wav").read_bytes())
    except OSError:
        pytest.skip("the file system takes only UTF-8")
    assert len(read_audio(path).samples) == 6000


# -- refusing --------------------------------------------------------------------------------


def test_missing_folder_empty(tmp_path):
    assert "no such file" in refusal(tmp_path / "a.wav")
    with pytest.raises(AudioError, match="no such file"):
        read_audio("null\0character.wav")
    assert "is a folder" in refusal(tmp_path)
    (tmp_path / "empty.wav").touch()
    assert "is empty (0 bytes)" in refusal(tmp_path / "empty.wav")
    assert "cannot be read" in refusal(tmp_path / "empty.wav" / "below.wav")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    assert "not a regular file" in refusal(tmp_path / "pipe.wav")


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg", "aiff", "txt", "sd2", ""])
@pytest.mark.parametrize("content", [b"Dear sir or madam,\n" * 50, b"\x9c\x01\xd3" * 2000, b"x"])
def test_not_audio(tmp_path, suffix, content):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    message = refusal(path)
    assert "not an audio file" in message
    assert "wav, flac, ogg" in message
    assert "mp3" in message
    assert "does not exist" not in message


def test_m4a(tmp_path):
    content = b"\0\0\0\x20ftypM4A \0\0\0\0" + bytes(1000)
    for name, data in [("a.m4a", content), ("a.wav", content), ("a.aac", b"\xff\xf1" * 100)]:
        (tmp_path / name).write_bytes(data)
        assert "convert it with ffmpeg first" in refusal(tmp_path / name)


def test_exotic_formats(tmp_path):
    path = save(tmp_path / "a.wav", format="MAT5")
    assert "format MAT5" in refusal(path)
    (tmp_path / "a.raw").write_bytes(bytes(1000))
    assert "headerless" in refusal(tmp_path / "a.raw")


@pytest.mark.parametrize("name", ["a.wav", "a.aiff", "a.ogg"])
def test_no_samples(tmp_path, name):
    assert "has no samples" in refusal(save(tmp_path / name, np.zeros(0)))


@pytest.mark.parametrize("name", ["a.flac", "a.mp3"])
def test_no_samples_unreadable(tmp_path, name):
    refusal(save(tmp_path / name, np.zeros(0)))


def test_nonfinite(tmp_path):
    samples = tone(3000, 2)
    samples[5, 0], samples[6] = np.nan, np.inf
    message = refusal(save(tmp_path / "a.wav", samples, subtype="FLOAT"))
    assert "3 of 6000 sample values are NaN or infinite" in message


@pytest.mark.parametrize("name", ["a.wav", "a.aiff"])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_truncated_pcm(tmp_path, name, subtype):
    path = save(tmp_path / name, tone(6000, 2), subtype=subtype)
    path.write_bytes(path.read_bytes()[:-4000])
    message = refusal(path)
    there = 6000 - 4000 // (2 * {"PCM_16": 2, "PCM_24": 3, "FLOAT": 4}[subtype])
    assert "truncated or wrong header" in message
    assert "says 6000 samples" in message
    assert any(f"{number} could be decoded" in message for number in (there, there - 1))
    with pytest.raises(AudioError, match="truncated"):
        audio_info(path)


def test_truncated_other_wav(tmp_path):
    for kwargs in ({"format": "RF64"}, {"endian": "BIG"}, {"subtype": "IMA_ADPCM"}):
        path = truncate(save(tmp_path / "a.wav", **kwargs), 0.5)
        assert "truncated or wrong header" in refusal(path)


def test_wav_header_without_samples(tmp_path):
    path = save(tmp_path / "a.wav")
    path.write_bytes(path.read_bytes()[:44])
    assert "header says 6000 samples, 0 could be decoded" in refusal(path)


def test_wav_header_lies(tmp_path):
    path = set_wav_size(save(tmp_path / "a.wav"), 24000)
    assert "header says 12000 samples, 6000 could be decoded" in refusal(path)
    path.write_bytes(path.read_bytes() + b"LIST" + bytes(30000))
    assert len(read_audio(path).samples) == 12000  # consistent now; nothing to tell it by


@pytest.mark.parametrize("keep", [0.02, 0.3, 0.7, 0.99])
def test_truncated_flac(tmp_path, keep):
    message = refusal(truncate(save(tmp_path / "a.flac", tone(60000)), keep))
    assert "truncated" in message or "not an audio file" in message


def test_flac_header_lies(tmp_path):
    path = set_flac_length(save(tmp_path / "a.flac"), 6001)
    assert "header says 6001 samples, 6000 could be decoded" in refusal(path)


def test_damaged_flac(tmp_path):
    path = save(tmp_path / "a.flac", tone(60000))
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
    path.write_bytes(data)
    message = refusal(path)
    assert "decoding stopped after" in message
    assert "of 60000 samples" in message


# -- lengths that the header does not tell ---------------------------------------------------


@pytest.mark.parametrize("size", [0, 0x7FFFEFFE, 0x7FFFF000, 0x80000000, 0xFFFFFFFF])
def test_streamed_wav(tmp_path, size):
    expected = read_audio(save(tmp_path / "a.wav")).samples
    path = set_wav_size(tmp_path / "a.wav", size)
    audio = read_audio(path)
    np.testing.assert_array_equal(audio.samples, expected)
    assert audio.notes == ("streamed file without a data size: read to the end of the file",)
    assert audio_info(path).num_samples == 6000
    with pytest.raises(AudioError, match="max_seconds"):
        read_audio(path, max_seconds=0.2)


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0x80000000, 0xFFFFFFFF])
def test_streamed_wav_of_more_than_its_placeholder(tmp_path, size):
    """Five GiB of which the file system stores the header only."""
    path = set_wav_size(save(tmp_path / "a.wav"), size)
    start = path.stat().st_size - 2 * 6000
    os.truncate(path, start + (5 << 30))
    assert audio_info(path).num_samples == 5 << 29
    os.truncate(path, start + 0x7FFFF000)
    with path.open("ab") as stream:
        stream.write(b"LIST" + struct.pack("<I", 4) + b"INFO")
    # A chunk that follows where the size says shows that the size is one.
    surplus = 0 if size == 0x7FFFF000 else 12
    assert audio_info(path).num_samples == (0x7FFFF000 + surplus) // 2


@pytest.mark.parametrize(
    "kwargs",
    [
        {"subtype": "PCM_16"},
        {"subtype": "IMA_ADPCM"},
        {"subtype": "FLOAT", "format": "WAVEX"},
        {"subtype": "PCM_24", "endian": "BIG"},
    ],
    ids=str,
)
def test_streamed_wav_is_read_to_the_end(tmp_path, monkeypatch, kwargs):
    monkeypatch.setattr(headers, "_PLACEHOLDERS", (range(2000, 2001),))
    path = save(tmp_path / "a.wav", tone(), **kwargs)
    expected = read_audio(path).samples
    order = ">" if path.read_bytes().startswith(b"RIFX") else "<"
    audio = read_audio(set_wav_size(path, 2000, order))
    np.testing.assert_array_equal(audio.samples, expected)
    assert audio.notes == ("streamed file without a data size: read to the end of the file",)


def test_empty_wav_with_trailing_chunk_is_empty(tmp_path):
    path = save(tmp_path / "a.wav", np.zeros(0))
    path.write_bytes(path.read_bytes() + b"LIST" + struct.pack("<I", 6) + b"INFOab")
    assert "has no samples" in refusal(path)


def test_streamed_flac(tmp_path):
    expected = read_audio(save(tmp_path / "a.flac", tone(60000))).samples
    path = set_flac_length(tmp_path / "a.flac", 0)
    np.testing.assert_array_equal(read_audio(path).samples, expected)
    info = audio_info(path)
    assert info.num_samples is None
    assert info.seconds is None
    message = refusal(path, max_seconds=2.4)
    assert "decodes to more than max_seconds=2.4" in message
    assert "--max-seconds" in message
    np.testing.assert_array_equal(read_audio(path, max_seconds=2.5).samples, expected)


def test_flac_followed_by_a_tag(tmp_path):
    path = save(tmp_path / "a.flac")
    path.write_bytes(path.read_bytes() + b"TAG" + bytes(125))
    assert len(read_audio(path).samples) == 6000


def test_understated_flac_is_bounded(tmp_path):
    # libsndfile stops where the header says; there is no way to notice.
    path = set_flac_length(save(tmp_path / "a.flac"), 1000)
    assert len(read_audio(path).samples) == 1000


def vbr_mp3(path: Path, loud_first: bool) -> Path:
    """An MP3 file of variable bit rate without the Xing frame that counts its frames."""
    noise = np.random.default_rng(0).standard_normal(120000)
    envelope = np.repeat([0.5, 0, 0, 0.01] if loud_first else [0, 0.5, 0.5, 0.5], 30000)
    samples = (noise * envelope).clip(-1, 1)
    soundfile.write(path, samples, RATE, bitrate_mode="VARIABLE", compression_level=0.1)
    data = path.read_bytes()
    second = data.index(data[:2], 4)
    path.write_bytes(data[second:])
    return path


@pytest.mark.parametrize("loud_first", [True, False])
def test_mp3_of_wrong_estimate_is_read_whole(tmp_path, loud_first):
    path = vbr_mp3(tmp_path / "a.mp3", loud_first)
    estimate = audio_info(path).num_samples
    assert (estimate < 100_000) if loud_first else (estimate > 140_000)
    audio = read_audio(path, max_seconds=5.1)
    assert 120_000 <= len(audio.samples) <= 122_400
    assert any("header announces" in note for note in audio.notes) is not loud_first
    assert "decodes to more than max_seconds=4.9" in refusal(path, max_seconds=4.9)


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.71, 0.999])
def test_truncated_mp3_is_noted(tmp_path, keep):
    audio = read_audio(truncate(save(tmp_path / "a.mp3", tone(60000)), keep))
    assert keep * 60000 - 9000 < len(audio.samples) < 60000
    assert any("the header announces 60000 samples" in note for note in audio.notes)


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.71, 0.999])
@pytest.mark.parametrize("tag", [b"", b"TAG" + bytes(125)])
def test_truncated_mp3_without_frame_count(tmp_path, keep, tag):
    path = truncate(vbr_mp3(tmp_path / "a.mp3", loud_first=True), keep)
    path.write_bytes(b"ID3\4\0\0\0\0\1\0" + bytes(128) + path.read_bytes() + tag)
    assert len(read_audio(path).samples) > 30000 * keep


def test_mp3_of_constant_bit_rate_without_frame_count(tmp_path):
    path = tmp_path / "a.mp3"
    soundfile.write(path, tone(60000), RATE, bitrate_mode="CONSTANT")
    data = path.read_bytes()
    assert b"Info" in data or b"Xing" in data
    whole = read_audio(path).samples
    path.write_bytes(data[data.index(data[:2], 4) :])
    audio = read_audio(path)
    # Without the frame that counts them, the encoder's delay stays in.
    delay = len(audio.samples) - len(whole)
    assert 0 <= delay <= 2 * 1152
    assert audio.notes == ()


# -- too long --------------------------------------------------------------------------------


def test_max_seconds(tmp_path):
    path = save(tmp_path / "a.wav", np.zeros(24001))
    assert len(read_audio(path, max_seconds=None).samples) == 24001
    assert len(read_audio(path, max_seconds=1.1).samples) == 24001
    message = refusal(path, max_seconds=1)
    assert "1.000 s long, more than max_seconds=1;" in message
    assert "--max-seconds" in message


@pytest.mark.parametrize("value", [0, -1.0, float("nan")])
def test_bad_max_seconds(tmp_path, value):
    with pytest.raises(InputError, match="max_seconds must be positive"):
        read_audio(save(tmp_path / "a.wav"), max_seconds=value)


def test_hours_of_flac_are_not_decoded(tmp_path, monkeypatch):
    path = set_flac_length(save(tmp_path / "a.flac", np.zeros(60000)), 6 * 3600 * RATE)
    monkeypatch.setattr(reader, "_blocks", lambda *_: pytest.fail("decoded"))
    assert "21600.000 s long" in refusal(path)


def test_hours_of_streamed_flac_stop_early(tmp_path, monkeypatch):
    """Half an hour of zeros in 140 kB: decoding stops one block after the limit."""
    path = tmp_path / "a.flac"
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        for _ in range(30):
            file.write(np.zeros(60 * RATE, np.int16))
    set_flac_length(path, 0)
    decoded = []
    add = reader._Stats.add
    monkeypatch.setattr(
        reader._Stats, "add", lambda self, block: (decoded.append(len(block)), add(self, block))
    )
    assert "decodes to more than max_seconds=300" in refusal(path)
    assert sum(decoded) <= 300 * RATE + reader._BLOCK_VALUES


# -- fuzz ------------------------------------------------------------------------------------


def read_or_refuse(data: bytes, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"a{suffix}")
        path.write_bytes(data)
        try:
            audio = read_audio(path, max_seconds=20)
        except AudioError as error:
            assert str(path) in str(error)
        else:
            assert audio.samples.dtype == np.float32
            assert audio.samples.ndim == 1
            assert len(audio.samples)
            assert np.isfinite(audio.samples).all()
            assert 1000 <= audio.sample_rate <= 768000
            assert len(audio.samples) <= 20 * audio.sample_rate


@pytest.fixture(scope="module")
def valid_files(tmp_path_factory) -> list[tuple[str, bytes]]:
    folder = tmp_path_factory.mktemp("valid")
    made = [
        (".wav", {"subtype": "PCM_16"}),
        (".wav", {"subtype": "FLOAT"}),
        (".wav", {"subtype": "IMA_ADPCM"}),
        (".wav", {"format": "RF64"}),
        (".flac", {}),
        (".aiff", {}),
        (".ogg", {}),
        (".mp3", {}),
    ]
    files = []
    for number, (suffix, kwargs) in enumerate(made):
        path = save(folder / f"{number}{suffix}", tone(1500, 1 + number % 2), **kwargs)
        files.append((suffix, path.read_bytes()))
    return files


SUFFIXES = st.sampled_from([".wav", ".flac", ".ogg", ".mp3", ".aiff", ".txt"])
STARTS = [b"", b"RIFF", b"RIFF\0\0\0\0WAVEfmt ", b"fLaC\0\0\0\x22", b"OggS\0\x02", b"ID3", b"FORM"]
# (kind, position as a share of the file, bytes); most damage goes to the header.
EDIT = st.tuples(
    st.sampled_from(["flip", "insert", "delete", "cut"]),
    st.one_of(st.floats(0, 0.03), st.floats(0, 1)),
    st.binary(min_size=1, max_size=8),
)


@settings(max_examples=150, deadline=None)
@given(
    start=st.sampled_from([*STARTS, b"\xff\xfb\x90\x64"]),
    rest=st.binary(max_size=300),
    suffix=SUFFIXES,
)
def test_fuzz_arbitrary_bytes(start, rest, suffix):
    read_or_refuse(start + rest, suffix)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(which=st.integers(0, 7), edits=st.lists(EDIT, min_size=1, max_size=4))
def test_fuzz_damaged_files(valid_files, which, edits):
    suffix, content = valid_files[which]
    data = bytearray(content)
    for kind, share, payload in edits:
        at = int(share * len(data))
        if kind == "flip":
            data[at : at + len(payload)] = payload
        elif kind == "insert":
            data[at:at] = payload
        elif kind == "delete":
            del data[at : at + len(payload)]
        else:
            del data[at:]
    read_or_refuse(bytes(data), suffix)


# -- writing ---------------------------------------------------------------------------------


def test_write_wav_is_exact_for_16_bit(tmp_path):
    samples = np.arange(-32768, 32768, dtype=np.float32) / 32768
    path = tmp_path / "new" / "folder" / "a.wav"
    write_audio(path, samples, RATE)
    info = audio_info(path)
    assert (info.format, info.subtype, info.num_samples) == ("WAV", "PCM_16", 65536)
    np.testing.assert_array_equal(read_audio(path).samples, samples)
    assert os.listdir(path.parent) == ["a.wav"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.wav", ("WAV", "PCM_16")), ("a.FLAC", ("FLAC", "PCM_16")), ("a.ogg", ("OGG", "VORBIS"))],
)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_write_formats(tmp_path, name, expected, dtype):
    write_audio(tmp_path / name, tone().T.astype(dtype), 44100)
    info = audio_info(tmp_path / name)
    assert (info.format, info.subtype) == expected
    assert (info.sample_rate, info.num_samples, info.channels) == (44100, 6000, 1)


def test_write_clips(tmp_path):
    write_audio(tmp_path / "a.wav", np.array([2.0, -1e38, 0.5], np.float32), RATE)
    samples = read_audio(tmp_path / "a.wav").samples
    np.testing.assert_array_equal(samples, np.float32([32767 / 32768, -1, 0.5]))


def test_write_long_vorbis(tmp_path):
    write_audio(tmp_path / "a.ogg", np.zeros(2_000_000, np.float32), RATE)  # crashed libsndfile
    assert audio_info(tmp_path / "a.ogg").num_samples == 2_000_000


def test_write_replaces_and_keeps_permissions_usable(tmp_path):
    path = tmp_path / "a.wav"
    path.write_text("old")
    write_audio(path, tone()[:, 0], RATE)
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    link = tmp_path / "link.wav"
    link.symlink_to(path)
    write_audio(link, tone(100)[:, 0], RATE)
    assert link.is_symlink()
    assert audio_info(path).num_samples == 100


@pytest.mark.parametrize(
    ("name", "samples", "rate", "message"),
    [
        ("a.mp3", np.zeros(9), RATE, "unknown suffix '.mp3'.*.wav, .flac, .ogg"),
        ("a", np.zeros(9), RATE, "unknown suffix"),
        ("a.wav", np.zeros((2, 9)), RATE, r"shape \[N\] or \[1, N\].*\(2, 9\)"),
        ("a.wav", np.zeros((9, 1)), RATE, r"shape \[N\] or \[1, N\]"),
        ("a.wav", np.zeros((1, 1, 9)), RATE, r"shape \[N\] or \[1, N\]"),
        ("a.wav", np.zeros(0), RATE, "N > 0"),
        ("a.wav", np.zeros(9, np.int16), RATE, "floating point.*int16"),
        ("a.wav", [[0.0], [0.0, 1.0]], RATE, "samples must be an array"),
        ("a.wav", np.array([0, np.nan, np.inf]), RATE, "2 of 3 values are NaN or infinite"),
        ("a.wav", np.zeros(9), 24000.0, "sample_rate must be an integer"),
        ("a.wav", np.zeros(9), 0, "sample_rate must be 1000 to 768000 Hz"),
        ("a.ogg", np.zeros(9), 200001, "sample_rate must be 1000 to 200000 Hz"),  # else a crash
        ("a.flac", np.zeros(9), 655351, "sample_rate must be 1000 to 655350 Hz"),
        ("null\0.wav", np.zeros(9), RATE, "null character"),
    ],
)
def test_write_refuses(tmp_path, name, samples, rate, message):
    with pytest.raises(InputError, match=message):
        write_audio(tmp_path / name, samples, rate)
    assert os.listdir(tmp_path) == []


def test_write_where_it_cannot(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        write_audio(tmp_path / "folder.wav", np.zeros(9), RATE)
    with pytest.raises(InputError, match="cannot be written"):
        write_audio(tmp_path / "file" / "a.wav", np.zeros(9), RATE)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.wav")
        with pytest.raises(InputError, match="not a regular file"):
            write_audio(tmp_path / "pipe.wav", np.zeros(9), RATE)


def test_write_failure_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.wav"
    path.write_text("old")
    with pytest.raises(AudioError, match="cannot be written as FLAC at 200001 Hz"):
        write_audio(tmp_path / "b.flac", np.zeros(9), 200001)

    def fail(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(soundfile.SoundFile, "write", fail)
    with pytest.raises(InputError, match="No space left on device"):
        write_audio(path, np.zeros(9), RATE)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.wav"]


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
@pytest.mark.parametrize("missing", [1, 50, 600])
def test_a_full_disk_leaves_no_file(tmp_path, suffix, missing):
    resource = pytest.importorskip("resource")
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, RATE).astype(np.float32)
    whole = tmp_path / f"whole{suffix}"
    write_audio(whole, samples, RATE)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (whole.stat().st_size - missing, limits[1]))
    try:
        with pytest.raises(AudioError, match="make room"):
            write_audio(tmp_path / f"part{suffix}", samples, RATE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == [whole.name]
