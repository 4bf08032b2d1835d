"""The command line, run in process on the tiny model with random weights."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner, Result

from dualcodec_jax.cli.common import load_inference
from dualcodec_jax.cli.main import app
from dualcodec_jax.config import TINY, get_config
from dualcodec_jax.container import read_codes, write_codes
from dualcodec_jax.lengths import code_length, decoded_samples
from dualcodec_jax.model import get_model, load_semantic, random_model

RATE = TINY.sample_rate
MODEL = ("--model", "tiny", "--weights", "random")
CLIP = 2 * RATE - 7


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("DUALCODEC_JAX_CACHE", str(cache))
    monkeypatch.delenv("DUALCODEC_WEIGHTS", raising=False)
    monkeypatch.setattr("dualcodec_jax.compilation.enable_cache", lambda: cache)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    for seed, name in enumerate(("a.wav", "sub/b.flac")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = 0.1 * np.random.default_rng(seed).standard_normal(CLIP)
        soundfile.write(path, noise, RATE)
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def fails(status: int, *arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    assert "error: " in result.stderr
    return " ".join(result.stderr.split())


def test_encode_and_decode_keep_structure_length_and_codes(clips: Path, tmp_path: Path) -> None:
    assert run("encode", clips, "-o", tmp_path / "codes", *MODEL).exit_code == 0
    codes = read_codes(tmp_path / "codes" / "sub" / "b.dualcodec")
    assert codes.num_samples == CLIP
    assert codes.n_quantizers == TINY.n_quantizers
    result = run("decode", tmp_path / "codes", "-o", tmp_path / "wav", "--weights", "random")
    assert result.exit_code == 0, result.output
    for name in ("a.wav", "sub/b.wav"):
        audio, rate = soundfile.read(tmp_path / "wav" / name)
        assert (audio.shape, rate) == ((CLIP,), RATE)


def test_reconstruct_equals_encode_then_decode(clips: Path, tmp_path: Path) -> None:
    source = clips / "a.wav"
    assert run("encode", source, "-o", tmp_path, "-n", 2, *MODEL).exit_code == 0
    code_file = tmp_path / "a.dualcodec"
    assert read_codes(code_file).n_quantizers == 2
    assert run("decode", code_file, "-o", tmp_path / "x", "--weights", "random").exit_code == 0
    assert run("reconstruct", source, "-o", tmp_path / "y", "-n", 2, *MODEL).exit_code == 0
    assert (tmp_path / "x" / "a.wav").read_bytes() == (tmp_path / "y" / "a.wav").read_bytes()


def test_upstream_lengths_give_the_originals_frames_and_samples(
    clips: Path, tmp_path: Path
) -> None:
    source = clips / "a.wav"
    options = ("-o", tmp_path, "--upstream-lengths", *MODEL)
    assert run("encode", source, *options).exit_code == 0
    assert run("reconstruct", source, *options).exit_code == 0
    frames = code_length(CLIP, TINY)
    codes = read_codes(tmp_path / "a.dualcodec")
    assert codes.num_frames == frames
    assert codes.num_samples == soundfile.info(tmp_path / "a.wav").frames
    assert codes.num_samples == decoded_samples(frames, TINY) < CLIP


def test_long_recordings_are_encoded_in_windows(tmp_path: Path) -> None:
    source = tmp_path / "long.wav"
    soundfile.write(source, 0.1 * np.random.default_rng(0).standard_normal(9 * RATE), RATE)
    options = ("-o", tmp_path, "--whole-seconds", 4, "--window-seconds", 3, *MODEL)
    result = run("encode", source, *options)
    assert result.exit_code == 0, result.output
    assert "3 s at a time" in " ".join(result.stderr.split())
    codes = read_codes(tmp_path / "long.dualcodec")
    assert codes.num_samples == 9 * RATE
    message = fails(2, "encode", source, "-o", tmp_path / "x", "--overlap-seconds", 20, *MODEL)
    assert "cannot overlap" in message


def test_existing_outputs_are_refused_before_any_work(clips: Path, tmp_path: Path) -> None:
    old = tmp_path / "codes" / "sub" / "b.dualcodec"
    old.parent.mkdir(parents=True)
    old.write_text("old")
    message = fails(2, "encode", clips, "-o", tmp_path / "codes", *MODEL)
    assert "--overwrite" in message
    assert old.read_text() == "old"
    assert not (tmp_path / "codes" / "a.dualcodec").exists()
    assert run("encode", clips, "-o", tmp_path / "codes", "--overwrite", *MODEL).exit_code == 0
    assert read_codes(old).model_id == "tiny"


def test_a_bad_file_fails_alone(clips: Path, tmp_path: Path) -> None:
    (clips / "c.wav").write_text("not audio")
    message = fails(1, "encode", clips, "-o", tmp_path / "codes", *MODEL)
    assert "c.wav" in message
    assert "1 of 3 inputs failed" in message
    assert sorted(p.name for p in (tmp_path / "codes").rglob("*.dualcodec")) == [
        "a.dualcodec",
        "b.dualcodec",
    ]


def test_one_name_from_two_inputs_is_refused(clips: Path, tmp_path: Path) -> None:
    shutil.copy(clips / "sub" / "b.flac", clips / "a.flac")
    assert "would both be written" in fails(2, "encode", clips, "-o", tmp_path, *MODEL)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: soundfile.write(path, np.zeros(0), RATE), "no samples"),
        (lambda path: soundfile.write(path, np.full(9, np.nan), RATE, subtype="FLOAT"), "NaN"),
        (lambda path: soundfile.write(path, np.zeros(9 * RATE), RATE), "--max-seconds"),
    ],
)
def test_unusable_audio_gives_one_error_and_no_output(make, expected, tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    make(path)
    options = ("-o", tmp_path / "out", "--max-seconds", 5, *MODEL)
    message = fails(1, "encode", path, *options)
    assert expected.lower() in message.lower()
    assert not (tmp_path / "out").exists()


def test_too_short_for_upstream_lengths_names_the_minimum(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    soundfile.write(path, np.full(2038, 0.1), RATE)
    message = fails(1, "encode", path, "-o", tmp_path, "--upstream-lengths", *MODEL)
    assert "2039" in message
    assert run("encode", path, "-o", tmp_path, *MODEL).exit_code == 0


@pytest.mark.parametrize("command", ["encode", "decode", "reconstruct"])
def test_n_quantizers_must_be_positive(command: str, tmp_path: Path) -> None:
    assert "--n-quantizers" in fails(2, command, tmp_path, "-n", 0)


def test_missing_inputs_and_unknown_models(clips: Path, tmp_path: Path) -> None:
    assert "nowhere.wav" in fails(2, "encode", tmp_path / "nowhere.wav", *MODEL)
    assert "12hz_v1" in fails(2, "encode", clips, "-o", tmp_path / "o", "--model", "13hz")
    missing = ("--weights", tmp_path / "nowhere")
    assert "does not exist" in fails(2, "encode", clips, "-o", tmp_path / "o", *missing)


def test_codes_of_another_model_are_refused(clips: Path, tmp_path: Path) -> None:
    assert run("encode", clips / "a.wav", "-o", tmp_path, *MODEL).exit_code == 0
    path = tmp_path / "a.dualcodec"
    codes = read_codes(path)
    fields = {name: getattr(codes, name) for name in codes.__dataclass_fields__}
    write_codes(path, type(codes)(**{**fields, "hop_length": 960}), overwrite=True)
    message = fails(1, "decode", path, "-o", tmp_path / "o", "--weights", "random")
    assert "not those of that model" in " ".join(message.split())


def test_a_damaged_code_file_gives_an_error(clips: Path, tmp_path: Path) -> None:
    assert run("encode", clips / "a.wav", "-o", tmp_path, *MODEL).exit_code == 0
    path = tmp_path / "a.dualcodec"
    path.write_bytes(path.read_bytes()[:-1])
    assert "a.dualcodec" in fails(1, "decode", path, "-o", tmp_path / "o", "--weights", "random")
    assert not (tmp_path / "o").exists()


def test_info_describes_everything(clips: Path, tmp_path: Path) -> None:
    model = json.loads(run("info", "12hz_v1", "--json").stdout)
    assert model["generator parameters"] == 84_014_578
    audio = json.loads(run("info", clips / "a.wav", "--json").stdout)
    assert audio["sample rate"] == "24000 Hz"
    assert run("encode", clips / "a.wav", "-o", tmp_path, *MODEL).exit_code == 0
    codes = json.loads(run("info", tmp_path / "a.dualcodec", "--json").stdout)
    assert codes["model"] == "tiny"
    checkpoint = random_model("tiny").save(tmp_path / "checkpoint")
    facts = json.loads(run("info", checkpoint, "--json").stdout)
    assert (facts["kind"], facts["parameters"]) == ("codec", random_model("tiny").num_parameters)
    assert "model" in run("info", "25hz_v1").stdout
    assert "neither" in fails(2, "info", "nothing")


def test_convert_there_and_back_is_bit_exact(tmp_path: Path) -> None:
    original = random_model("tiny").export_torch(tmp_path / "tiny.safetensors")
    assert run("convert", original, "-o", tmp_path / "jax").exit_code == 0
    back = tmp_path / "back.safetensors"
    assert run("convert", tmp_path / "jax", "--to-torch", "-o", back).exit_code == 0
    assert back.read_bytes() == original.read_bytes()
    assert "--overwrite" in fails(2, "convert", original, "-o", tmp_path / "jax")
    assert "--kind" in fails(2, "convert", original, "-o", tmp_path / "x", "--kind", "nonsense")
    assert "none of the released files" in fails(2, "convert", tmp_path, "-o", tmp_path / "x")


def test_convert_script_is_the_command(tmp_path: Path) -> None:
    script = Path(__file__).parent.parent / "convert_torch_weights.py"
    result = subprocess.run(
        [sys.executable, script, tmp_path / "missing.safetensors", "-o", tmp_path / "x"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert "no such file" in result.stderr


@pytest.mark.slow
def test_demo_runs_the_whole_path_and_says_that_weights_are_random(tmp_path: Path) -> None:
    result = run("demo", "-o", tmp_path, *MODEL)
    assert result.exit_code == 0, result.output
    assert "random" in result.output
    config = get_config("tiny").codec
    codes = read_codes(tmp_path / "librivox.dualcodec")
    assert codes.codes.shape[0] == config.n_quantizers
    for count in range(1, config.n_quantizers + 1):
        assert soundfile.info(tmp_path / f"decoded_{count}.wav").frames == codes.num_samples
        assert f"{config.bitrate(count) / 1000:.3f}" in result.output
    picture = importlib.util.find_spec("matplotlib") is not None
    assert (tmp_path / "comparison.png").exists() == picture


def test_default_model(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundled one, which says so, unless released weights are configured."""
    result = run("encode", clips / "a.wav", "-o", tmp_path / "codes")
    assert result.exit_code == 0, result.output
    assert "not the DualCodec release" in " ".join(result.stderr.split())
    assert read_codes(tmp_path / "codes" / "a.dualcodec").model_id == "demo"
    monkeypatch.setenv("DUALCODEC_WEIGHTS", str(tmp_path))
    assert "12hz_v1" in fails(2, "encode", clips / "a.wav", "-o", tmp_path / "other")


def test_weights_without_statistics(tmp_path: Path) -> None:
    """As an export leaves them: the statistics are where those of the model always are."""
    get_model("demo").save(tmp_path / "demo")
    inference = load_inference("demo", str(tmp_path), None, "float32")
    _, _, expected = load_semantic(kind="whisper")
    for name, value in expected.items():
        np.testing.assert_array_equal(inference.params["statistics"][name], value)


def test_version() -> None:
    assert run("--version").stdout.strip().count(".") == 2
