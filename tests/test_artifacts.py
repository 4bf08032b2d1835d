"""Serialised programs: equal to the functions they were made of, loaded in another process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("flatbuffers")

from dualcodec_jax.artifacts import (
    ENCODE,
    PARAMETERS,
    Artifacts,
    read_artifacts,
    write_artifacts,
)
from dualcodec_jax.cli.main import app
from dualcodec_jax.config import PRESETS
from dualcodec_jax.errors import AudioError, InputError, WeightsError
from dualcodec_jax.inference import Inference
from dualcodec_jax.lengths import min_samples
from dualcodec_jax.model import random_model, random_semantic

HOP = PRESETS["tiny"].codec.hop_length
SCRIPT = """
import json, sys
import jax, numpy as np
from jax import export
from safetensors.numpy import load_file

assert "dualcodec_jax" not in sys.modules
folder, audio = sys.argv[1], np.load(sys.argv[2])
params = {}
for name, value in load_file(f"{folder}/params.safetensors").items():
    *path, leaf = name.split("/")
    node = params
    for part in path:
        node = node.setdefault(part, {})
    node[leaf] = value
program = export.deserialize(bytearray(open(f"{folder}/encode.stablehlo", "rb").read()))
codes, frames = jax.jit(program.call)(params, audio, np.array([audio.shape[2]], np.int32))
np.save(sys.argv[3], np.asarray(codes))
"""


pytestmark = pytest.mark.usefixtures("quick_programs")


@pytest.fixture(scope="module")
def inference() -> Inference:
    semantic = PRESETS["tiny"].semantic
    return Inference(random_model("tiny"), semantic=(semantic, *random_semantic(semantic)))


@pytest.fixture(scope="module")
def folder(inference: Inference, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_artifacts(inference, tmp_path_factory.mktemp("artifacts") / "tiny")


@pytest.fixture(scope="module")
def programs(folder: Path) -> Artifacts:
    return read_artifacts(folder)


def noise(batch: int, frames: int) -> np.ndarray:
    samples = np.random.default_rng(frames).standard_normal((batch, 1, frames * HOP))
    return 0.2 * samples.astype(np.float32)


@pytest.mark.parametrize(("batch", "frames"), [pytest.param(1, 9, marks=pytest.mark.slow), (3, 14)])
def test_programs_are_the_functions(
    inference: Inference, programs: Artifacts, batch: int, frames: int
) -> None:
    audio = noise(batch, frames)
    lengths = np.arange(batch) * -1000 + frames * HOP
    semantic, acoustic, frame_counts = inference.encode(audio, None, lengths=lengths)
    encoded = programs.encode(audio, lengths)
    codes = np.array(encoded.codes)
    np.testing.assert_array_equal(codes[:, :, : semantic.shape[2]][:, :1], semantic)
    np.testing.assert_array_equal(codes[:, :, : semantic.shape[2]][:, 1:], acoustic)
    np.testing.assert_array_equal(encoded.lengths, frame_counts)
    whole, samples = inference.decode(codes[:, :1], codes[:, 1:], code_lengths=frame_counts)
    decoded = programs.decode(codes, encoded.lengths)
    np.testing.assert_allclose(decoded.audio[:, :, : whole.shape[2]], whole, atol=1e-6)
    np.testing.assert_array_equal(decoded.lengths, samples)


@pytest.mark.slow
def test_programs_run_without_this_package(
    inference: Inference, folder: Path, tmp_path: Path
) -> None:
    audio = noise(1, 11)
    np.save(tmp_path / "audio.npy", audio)
    arguments = [str(folder), str(tmp_path / "audio.npy"), str(tmp_path / "codes.npy")]
    same = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}  # as here
    subprocess.run([sys.executable, "-c", SCRIPT, *arguments], check=True, cwd=tmp_path, env=same)
    codes = read_artifacts(folder).encode(audio).codes
    np.testing.assert_array_equal(np.load(tmp_path / "codes.npy"), codes)


def test_description_and_platforms(folder: Path) -> None:
    description = json.loads((folder / "artifacts.json").read_text())
    assert description["platforms"] == ["cpu", "cuda", "tpu"]
    assert description["codebook_sizes"] == list(PRESETS["tiny"].codec.codebook_sizes)


def test_whisper_models_take_a_window(tmp_path: Path) -> None:
    """The bundled model: half a minute at most."""
    arguments = ("artifacts", "--model", "demo", "-o", str(tmp_path / "demo"), "-n", "2")
    result = CliRunner().invoke(app, [*arguments, "--platforms", "cpu"])
    assert result.exit_code == 0, result.output
    programs = read_artifacts(tmp_path / "demo")
    assert programs.description["max_frames"] == 750
    hop = programs.description["hop_length"]
    audio = 0.1 * np.random.default_rng(0).standard_normal((1, 1, 30 * hop)).astype(np.float32)
    assert programs.encode(audio).codes.shape == (1, 2, 30)
    with pytest.raises(InputError, match="at least 960 and at most 720000; got 720960"):
        programs.encode(np.zeros((1, 1, 751 * hop), np.float32))
    with pytest.raises(InputError, match="at most 750 frames; got 751"):
        programs.decode(np.zeros((1, 2, 751), np.int32))
    shortest = programs.encode(audio[:, :, :hop], [719])
    assert programs.decode(shortest.codes).audio.shape == (1, 1, hop - 4)


def test_the_shortest_item_has_one_frame(inference: Inference, programs: Artifacts) -> None:
    audio, shortest = noise(2, 2), min_samples(inference.config.codec)
    encoded = programs.encode(audio.astype(np.float64), [shortest, 2 * HOP])
    assert encoded.lengths.tolist() == [1, 1]
    codes = np.array(encoded.codes)[:, :, :1]
    decoded = programs.decode(codes.tolist(), [1, 1])
    expected = inference.decode(codes[:, :1], codes[:, 1:])
    np.testing.assert_allclose(decoded.audio, expected, atol=1e-6)


AUDIO, CODES = np.zeros((2, 1, 4 * HOP), np.float32), np.zeros((2, 4, 9), np.int32)


@pytest.mark.parametrize(
    ("audio", "lengths", "message"),
    [
        (AUDIO[0], None, r"shape \[batch, 1, samples\]; got \[1, "),
        (AUDIO[:0], None, r"shape \[batch, 1, samples\]; got \[0, "),
        (AUDIO.astype(np.int16), None, "floating point in .* got int16"),
        (AUDIO + np.nan, None, "NaN or infinite"),
        (AUDIO[:, :, 1:], None, f"whole hops of {HOP} samples"),
        (AUDIO[:, :, :0], None, f"at least {2 * HOP} and at most .*; got 0"),
        (AUDIO[:, :, :HOP], None, f"at least {2 * HOP} and at most .*; got {HOP}"),
        (AUDIO, [HOP, 4 * HOP], "lengths must be at least 20.. samples"),
        (AUDIO, [4 * HOP, 4 * HOP + 1], f"lengths must lie in 0…{4 * HOP}"),
        (AUDIO, [4 * HOP], "lengths must be 2 integers"),
        (AUDIO, [4e3, 4e3], "lengths must be 2 integers"),
    ],
)
def test_wrong_audio_is_refused(
    audio: np.ndarray, lengths: list[Any] | None, message: str, programs: Artifacts
) -> None:
    with pytest.raises((InputError, AudioError), match=message):
        programs.encode(audio, lengths)


@pytest.mark.parametrize(
    ("codes", "lengths", "message"),
    [
        (CODES[:, :3], None, r"shape \[batch, 4, frames\]; got \[2, 3, 9\]"),
        (CODES[0], None, r"shape \[batch, 4, frames\]"),
        (CODES[:0], None, r"shape \[batch, 4, frames\]"),
        (CODES[:, :, :0], None, r"shape \[batch, 4, frames\]"),
        (CODES.astype(np.float32), None, "codes must be integers; got float32"),
        (CODES + (1 << 20), None, "outside their codebooks"),
        (CODES - 1, None, "outside their codebooks"),
        (np.broadcast_to(CODES[:1, :, :1], (1, 4, 1 << 21)), None, "at most 1048576 frames"),
        (CODES, [0, 9], r"lengths must be at least 1 frame; got \[0, 9\]"),
        (CODES, [9, 10], "lengths must lie in 0…9 frames"),
        (CODES, [9], "lengths must be 2 integers"),
    ],
)
def test_wrong_codes_are_refused(
    codes: np.ndarray, lengths: list[Any] | None, message: str, programs: Artifacts
) -> None:
    with pytest.raises(InputError, match=message):
        programs.decode(codes, lengths)


def test_bad_folders_and_requests(inference: Inference, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="not a folder of programs"):
        read_artifacts(tmp_path)
    with pytest.raises(InputError, match="n_quantizers must be"):
        write_artifacts(inference, tmp_path / "x", n_quantizers=9)
    with pytest.raises(InputError, match="unknown platform 'abacus'"):
        write_artifacts(inference, tmp_path / "x", platforms=["abacus"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("words")
    with pytest.raises(WeightsError, match="not a folder of programs"):
        write_artifacts(inference, tmp_path / "mine", overwrite=True)
    copy = write_artifacts(inference, tmp_path / "copy", n_quantizers=1, platforms=["cpu"])
    write_artifacts(inference, copy, n_quantizers=2, platforms=["cpu"], overwrite=True)
    assert read_artifacts(copy).description["n_quantizers"] == 2
    (copy / ENCODE).write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="damaged"):
        read_artifacts(copy)
    (copy / PARAMETERS).unlink()
    with pytest.raises(WeightsError, match="damaged"):
        read_artifacts(copy)
