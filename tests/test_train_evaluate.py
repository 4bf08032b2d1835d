"""Evaluation on held-out clips, with the tiny model."""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

pytest.importorskip("optax")
pytest.importorskip("librosa")

from dualcodec_jax import losses
from dualcodec_jax.config import PRESETS
from dualcodec_jax.errors import InputError
from dualcodec_jax.inference import Inference
from dualcodec_jax.model import DualCodecModel
from dualcodec_jax.train import evaluate
from dualcodec_jax.train.config import MelLossConfig
from dualcodec_jax.train.evaluate import Clip, Evaluation, Evaluator, load_clips
from dualcodec_jax.train.logs import read_evaluations

TINY = PRESETS["tiny"]
RATE = TINY.codec.sample_rate
MEL = MelLossConfig(window_lengths=(512,), n_mels=(40,))

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def clips(speech: np.ndarray) -> list[Clip]:
    return [Clip("long", speech[: 2 * RATE]), Clip("short", speech[-RATE - 7 :])]


@pytest.fixture(scope="module")
def params(tiny_model: DualCodecModel, tiny_semantic: tuple[Any, Any, Any]) -> dict[str, Any]:
    _, semantic, statistics = tiny_semantic
    return {"codec": tiny_model.params, "semantic": semantic, "statistics": statistics}


@pytest.fixture(scope="module")
def evaluation(
    clips: list[Clip], params: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Evaluation:
    return Evaluator(TINY, clips, mel=MEL)(params, 12345, tmp_path_factory.mktemp("run"))


def test_what_is_written(evaluation: Evaluation, clips: list[Clip]) -> None:
    assert evaluation.folder.name == "step_00012345"
    for clip in clips:
        for path in (
            evaluation.folder / f"{clip.name}.wav",
            evaluation.folder / f"{clip.name}.rvq1.wav",
            evaluation.folder.parent / "original" / f"{clip.name}.wav",
        ):
            info = soundfile.info(path)
            assert (info.frames, info.samplerate) == (clip.samples.size, RATE)
    assert [path for path in evaluation.folder.parent.iterdir() if path.name[0] == "."] == []


def test_pictures_are_written(evaluation: Evaluation, clips: list[Clip]) -> None:
    pytest.importorskip("matplotlib")
    for clip in clips:
        assert (evaluation.folder / f"{clip.name}.png").read_bytes()[:4] == b"\x89PNG"


def test_metrics_are_those_of_the_log(evaluation: Evaluation) -> None:
    content = json.loads((evaluation.folder / "metrics.json").read_text())
    assert content["step"] == 12345
    assert content["clips"] == evaluation.clips
    run_folder = evaluation.folder.parents[1]
    assert read_evaluations(run_folder) == {12345: evaluation.values}
    mean = np.mean([values["mel"] for values in evaluation.clips.values()])
    assert evaluation.values["eval/mel"] == pytest.approx(mean)


@pytest.fixture(scope="module")
def expected(clips: list[Clip], tiny_inference: Inference) -> tuple[np.ndarray, ...]:
    """Codes ``[B, n, T]``, their lengths, and audio ``[B, N]`` from all of them.

    Batched as the evaluation batches, for speed; that a batch gives what its items give alone
    is shown in test_inference.
    """
    lengths = np.array([clip.samples.size for clip in clips])
    batch = np.zeros((len(clips), 1, lengths.max()), np.float32)
    for row, clip in zip(batch, clips, strict=True):
        row[0, : clip.samples.size] = clip.samples
    semantic, acoustic, frames = tiny_inference.encode(batch, None, lengths, pad_end=True)
    audio = tiny_inference.decode(semantic, acoustic, frames, lengths)[0]
    codes = np.concatenate([semantic, acoustic], axis=1)
    return codes, np.asarray(frames), np.asarray(audio)[:, 0]


def test_reconstructions_are_those_of_inference(
    evaluation: Evaluation, clips: list[Clip], expected: tuple[np.ndarray, ...]
) -> None:
    for clip, audio in zip(clips, expected[2], strict=True):
        written, _ = soundfile.read(evaluation.folder / f"{clip.name}.wav")
        rvq1, _ = soundfile.read(evaluation.folder / f"{clip.name}.rvq1.wav")
        # 16-bit files are exact to half a step.
        np.testing.assert_allclose(written, audio[: clip.samples.size], atol=2e-5)
        assert np.abs(rvq1 - written).max() > 1e-3


def test_the_mel_distance_is_that_of_training(evaluation: Evaluation, clips: list[Clip]) -> None:
    written, _ = soundfile.read(evaluation.folder / "long.wav", dtype="float32")
    expected = losses.mel_distance(
        jnp.asarray(clips[0].samples[None]),
        jnp.asarray(written[None]),
        sample_rate=RATE,
        window_lengths=MEL.window_lengths,
        n_mels=MEL.n_mels,
    )
    # The file has 16 bits, and the logarithm sees its rounding.
    assert evaluation.clips["long"]["mel"] == pytest.approx(float(expected), rel=0.02)


def test_codebook_use_is_over_all_clips(
    evaluation: Evaluation, expected: tuple[np.ndarray, ...]
) -> None:
    codes, frames, _ = expected
    semantic = np.concatenate([item[0, :count] for item, count in zip(codes, frames, strict=True)])
    use = evaluation.codebooks[0]
    assert use.usage == np.unique(semantic).size / TINY.codec.semantic_codebook_size
    assert len(evaluation.codebooks) == TINY.codec.n_quantizers
    assert evaluation.values["eval/perplexity/0"] == use.perplexity


def test_a_model_that_diverged_is_told_by_its_metrics(
    clips: list[Clip], params: dict[str, Any], tmp_path: Path
) -> None:
    """With NaN for parameters all audio is silence, not an error."""
    broken = params | {"codec": jax.tree.map(lambda x: x * jnp.nan, params["codec"])}
    evaluator = Evaluator(TINY, clips, mel=MEL)
    evaluator(params, 1, tmp_path)
    result = evaluator(broken, 1, tmp_path)  # also replaces the first
    written, _ = soundfile.read(result.folder / "long.wav")
    assert not written.any()
    assert "pesq" not in result.clips["long"]


def test_stoi_and_pesq_of_equal_and_of_silent_audio(speech: np.ndarray) -> None:
    pytest.importorskip("pystoi")
    pytest.importorskip("pesq")
    clip, silence = speech[: 2 * RATE], np.zeros(2 * RATE, np.float32)
    assert evaluate._stoi(clip, clip, RATE) == pytest.approx(1)
    assert evaluate._pesq(clip, clip, RATE) == pytest.approx(4.64, abs=0.01)
    assert evaluate._pesq(clip, silence, RATE) is None
    for measure in (evaluate._stoi, evaluate._pesq):
        assert measure(silence, clip, RATE) is None
    assert evaluate._stoi(clip[:3000], clip[:3000], RATE) is None  # too few frames


def test_missing_packages_are_left_out_and_said_once(
    clips: list[Clip],
    params: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    missing = ("pystoi", "pesq", "matplotlib")
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in missing else find_spec(name)
    )
    with caplog.at_level(logging.WARNING):
        evaluator = Evaluator(TINY, clips, mel=MEL)
        result = evaluator(params, 1, tmp_path)
        evaluator(params, 2, tmp_path)
    assert [record.args[1] for record in caplog.records] == list(missing)  # type: ignore[index]
    assert set(result.clips["long"]) == {"mel", "mel_rvq1"}
    assert list(result.folder.glob("*.png")) == []


def test_unusable_clips_are_refused(speech: np.ndarray) -> None:
    good = speech[:RATE]
    for clips, message in (
        ([], "at least one"),
        ([Clip("a", good), Clip("a", good)], "several clips"),
        ([Clip("a/b", good)], "a/b"),
        ([Clip("a", good[None])], "shape"),
        ([Clip("a", good[:100])], "too short"),
    ):
        with pytest.raises(InputError, match=message):
            Evaluator(TINY, clips)


def test_clips_from_files(tmp_path: Path) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(16000)
    for name in ("sub/a b.wav", "sub/a-b.wav", "sub/a+b.wav", "z.wav"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, noise, 16000)
    clips = load_clips(tmp_path, RATE, limit=3, max_seconds=0.75)
    assert [clip.name for clip in clips] == ["sub_a_b", "sub_a_b_1", "sub_a-b"]
    assert {clip.samples.size for clip in clips} == {18000}
    Evaluator(TINY, clips)
