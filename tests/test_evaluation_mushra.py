"""Listening tests: the files, their levels, the anchors, and what webMUSHRA's parser takes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from dualcodec_jax.audio.reader import audio_info, read_audio
from dualcodec_jax.audio.writer import write_audio
from dualcodec_jax.cli.main import app
from dualcodec_jax.errors import AudioError, InputError
from dualcodec_jax.evaluation.mushra import (
    ANCHORS,
    SAMPLE_RATE,
    MushraConfig,
    check_mushra,
    low_pass,
    write_mushra,
)

yaml = pytest.importorskip("yaml")


def noise(seconds: float, rate: int, seed: int = 0, level: float = 0.1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal(round(seconds * rate)).astype(np.float32) * np.float32(level)


def tone(frequency: float, seconds: float, rate: int, level: float) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Six clips at 24 kHz; two codecs, one at another rate, one without a clip."""
    folder = tmp_path / "results"
    seconds = {"a": 1.5, "b": 2.0, "c": 1.25, "long": 12.5, "short": 0.5, "lost": 1.5}
    for name, length in seconds.items():
        original = tone(440, length, 24000, 0.2)
        write_audio(folder / "audio" / "original" / f"{name}.flac", original, 24000)
        write_audio(folder / "audio" / "x_1" / f"{name}.flac", original * 0.5, 24000)
        if name != "lost":
            other = tone(440, length - 0.05, 16000, 0.4)
            write_audio(folder / "audio" / "y_8" / f"{name}.flac", other, 16000)
    (folder / "results.json").write_text("{}")
    return folder


def pages(folder: Path, name: str = "dualcodec") -> list[dict[str, Any]]:
    """The pages with ratings, which webMUSHRA shuffles."""
    test = yaml.safe_load((folder / "configs" / f"{name}.yaml").read_text())
    shuffled = next(page for page in test["pages"] if isinstance(page, list))
    assert shuffled[0] == "random"
    return shuffled[1:]


def rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def test_a_test_is_complete(results: Path, tmp_path: Path) -> None:
    """Every file that is named exists; those of a page have one rate and length."""
    folder = tmp_path / "out"
    written = write_mushra(results, folder, MushraConfig(clips=3))
    assert written.clips == ("a", "b", "c")
    assert written.codecs == ("x_1", "y_8")
    assert set(written.left_out) == {"long", "short", "lost"}
    assert check_mushra(folder) == 3
    text = (folder / "configs" / "dualcodec.yaml").read_text()
    # webMUSHRA's parser reads "- - random" as a string.
    assert "- - " not in text
    test = yaml.safe_load(text)
    assert [page["type"] for page in test["pages"] if isinstance(page, dict)] == [
        "generic",
        "volume",
        "finish",
    ]
    assert test["testId"] == "dualcodec"
    assert test["bufferSize"] in (256, 512, 1024, 2048, 4096, 8192, 16384)
    for page in pages(folder):
        assert set(page["stimuli"]) == {"anchor35", "anchor70", "x_1", "y_8"}
        assert not page["showConditionNames"]
        assert page["randomize"]
        assert not page["createAnchor35"]
        original = audio_info(results / "audio" / "original" / f"{page['id']}.flac")
        for file in (page["reference"], *page["stimuli"].values()):
            info = audio_info(folder / file)
            assert (info.sample_rate, info.channels) == (48000, 1)
            assert info.num_samples == 2 * (original.num_samples or 0)
    used = {path.relative_to(folder) for path in folder.rglob("*.wav")}
    named = {page["reference"] for page in pages(folder)}
    named |= {file for page in pages(folder) for file in page["stimuli"].values()}
    assert used == {Path(file) for file in named}


def test_levels(results: Path, tmp_path: Path) -> None:
    """References at −26 dBFS; codecs at the same, or with their own differences."""
    for align in (True, False):
        folder = tmp_path / f"out_{align}"
        write_mushra(results, folder, MushraConfig(clips=1, align_levels=align))
        (page,) = pages(folder)
        levels = {
            name: 20 * math.log10(rms(read_audio(folder / file).samples[4800:-9600]))
            for name, file in {"reference": page["reference"], **page["stimuli"]}.items()
        }
        assert levels["reference"] == pytest.approx(-26, abs=0.02)
        assert levels["anchor70"] == pytest.approx(-26, abs=0.02)
        assert levels["x_1"] == pytest.approx(-26 if align else -26 - 6.02, abs=0.02)
        # Its 50 ms of silence at the end count.
        assert levels["y_8"] == pytest.approx(-26 if align else -26 + 6.02, abs=0.2)
        gains = json.loads((folder / "key.json").read_text())["gain_db"][page["id"]]
        assert gains["x_1"] - gains["reference"] == pytest.approx(6.02 if align else 0, abs=0.01)


def test_nothing_clips(tmp_path: Path) -> None:
    """A peak far above the level lowers the gain of the whole page."""
    quiet = noise(1.5, 24000, level=0.01)
    peak = quiet.copy()
    peak[1000] = 0.9
    write_audio(tmp_path / "audio" / "original" / "a.flac", quiet, 24000)
    write_audio(tmp_path / "audio" / "x" / "a.flac", peak, 24000)
    write_mushra(tmp_path, tmp_path / "out", MushraConfig(align_levels=False))
    (page,) = pages(tmp_path / "out")
    spiky = read_audio(tmp_path / "out" / page["stimuli"]["x"]).samples
    reference = read_audio(tmp_path / "out" / page["reference"]).samples
    assert np.abs(spiky).max() == pytest.approx(0.99, abs=1e-3)
    assert rms(reference) < 10 ** (-26 / 20)


@pytest.mark.parametrize("edge", ANCHORS.values())
def test_anchors_are_low_passed(edge: float) -> None:
    """BS.1534: 0.1 dB in the pass band, 25 dB from 500 Hz and 50 dB from 1 kHz above it."""
    impulse = np.zeros(48000, np.float32)
    impulse[24000] = 1
    response = low_pass(impulse, edge)
    assert int(np.argmax(response)) == 24000  # no delay
    np.testing.assert_allclose(response, response[::-1][np.r_[-1, 0:47999]], atol=1e-7)
    levels = 20 * np.log10(np.abs(np.fft.rfft(response)) + 1e-12)
    frequency = np.fft.rfftfreq(48000, 1 / SAMPLE_RATE)
    assert np.abs(levels[frequency <= edge]).max() < 0.01
    assert levels[frequency >= edge + 500].max() < -60


def test_anchors_keep_what_is_low(tmp_path: Path) -> None:
    low, high = tone(3000, 1.5, 24000, 0.1), tone(5000, 1.5, 24000, 0.1)
    write_audio(tmp_path / "audio" / "original" / "a.flac", low + high, 24000)
    write_audio(tmp_path / "audio" / "x" / "a.flac", low + high, 24000)
    write_mushra(tmp_path, tmp_path / "out")
    (page,) = pages(tmp_path / "out")
    power = {}
    for name in ANCHORS:
        samples = read_audio(tmp_path / "out" / page["stimuli"][name]).samples[9600:57600]
        spectrum = np.abs(np.fft.rfft(samples))
        power[name] = spectrum[3000] / max(spectrum[5000], 1e-9)
    assert power["anchor35"] > 1000
    assert power["anchor70"] == pytest.approx(1, rel=0.01)


def test_the_choice_of_clips_follows_the_seed(tmp_path: Path) -> None:
    for index in range(12):
        for codec in ("original", "x"):
            write_audio(
                tmp_path / "audio" / codec / f"{index:02}.flac", noise(1, 8000, index), 8000
            )
    first, again, other = (
        write_mushra(tmp_path, tmp_path / f"out{i}", MushraConfig(clips=4, seed=seed)).clips
        for i, seed in enumerate((0, 0, 1))
    )
    assert first == again
    assert first != other
    assert len(set(first)) == 4
    codecs = MushraConfig(codecs=["x"], clips=40)
    assert len(write_mushra(tmp_path, tmp_path / "all", codecs).clips) == 12


def test_what_cannot_be_tested(results: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        write_mushra(tmp_path / "no", tmp_path / "out")
    with pytest.raises(InputError, match="has no z; it has x_1, y_8"):
        write_mushra(results, tmp_path / "out", MushraConfig(codecs=["z"]))
    with pytest.raises(InputError, match="choose 1 to 10"):
        write_mushra(results, tmp_path / "out", MushraConfig(codecs=[]))
    with pytest.raises(InputError, match="test name"):
        MushraConfig(name="Test 1")
    with pytest.raises(InputError, match="at least 1"):
        MushraConfig(clips=0)
    (results / "audio" / "empty").mkdir()
    with pytest.raises(InputError, match="no clip can be used"):
        write_mushra(results, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_overwriting(results: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    write_mushra(results, folder, MushraConfig(clips=3))
    with pytest.raises(InputError, match="exists already"):
        write_mushra(results, folder)
    write_mushra(results, folder, MushraConfig(clips=1), overwrite=True)
    assert check_mushra(folder) == 1
    (folder / "notes.txt").touch()
    with pytest.raises(InputError, match=r"notes\.txt"):
        write_mushra(results, folder, overwrite=True)


def test_a_spoilt_test_is_noticed(results: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    write_mushra(results, folder, MushraConfig(clips=1))
    (page,) = pages(folder)
    file = folder / page["stimuli"]["x_1"]
    write_audio(file, noise(1, 48000), 48000)
    with pytest.raises(InputError, match="differ in rate or length"):
        check_mushra(folder)
    file.unlink()
    with pytest.raises(AudioError):
        check_mushra(folder)
    with pytest.raises(InputError, match="no listening test"):
        check_mushra(results)


def test_command(results: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    arguments = ["mushra", str(results), "-o", str(folder), "--name", "first", "--codec", "y_8"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "only 3 clips could be used" in result.output
    assert set(pages(folder, "first")[0]["stimuli"]) == {*ANCHORS, "y_8"}
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "exists already" in result.output
