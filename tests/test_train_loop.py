"""Whole runs of a small model: resuming, stopping, refusing, exporting, finetuning."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

pytest.importorskip("grain")
pytest.importorskip("tensorflow_datasets")
pytest.importorskip("orbax.checkpoint")

import jax
import orbax.checkpoint as ocp
from micro import CODEC, OBJECTIVE, QUICK

from dualcodec_jax.checkpoint import CheckpointError
from dualcodec_jax.data.config import DataConfig
from dualcodec_jax.data.extract import SemanticExtractor
from dualcodec_jax.data.features import cache_features
from dualcodec_jax.data.folder import FolderSource
from dualcodec_jax.errors import ConfigError
from dualcodec_jax.sharding import global_batch, make_mesh, place
from dualcodec_jax.train import loop
from dualcodec_jax.train.evaluate import Evaluator
from dualcodec_jax.train.export import export_run, load_run
from dualcodec_jax.train.initial import initial_state, load_frozen, load_networks
from dualcodec_jax.train.logs import read_records
from dualcodec_jax.train.loop import TrainingError, train
from dualcodec_jax.train.run_config import (
    EvaluationConfig,
    InitConfig,
    LoggingConfig,
    RunConfig,
    SemanticSource,
)
from dualcodec_jax.train.state import state_shapes
from dualcodec_jax.train.step import jit_step
from dualcodec_jax.weights import load_weights

pytestmark = pytest.mark.slow  # Every run traces its step anew.
RECORDINGS = Path(__file__).parent / "data"
# One program for all runs.
QUIET = dataclasses.replace(OBJECTIVE, bypass_rate=0.0, max_bad_steps=3)


@pytest.fixture(scope="module", autouse=True)
def compiled_once() -> Iterator[None]:
    """Runs of one objective share their step, which compiles quickly: that is most of a run."""
    made: dict[Any, Any] = {}

    def shared(config: Any, mesh: Any, state: Any) -> Any:
        if (config, mesh) not in made:
            made[config, mesh] = jit_step(config, mesh, state, QUICK)
        return made[config, mesh]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "jit_step", shared)
        yield


def make_run(folder: Path, **changes: Any) -> RunConfig:
    values: dict[str, Any] = {
        "name": "test",
        "output": folder,
        "objective": QUIET,
        "data": DataConfig(kind="folder", locations=(str(RECORDINGS),), segment_length=4800),
        "semantic": SemanticSource(w2v_path="random"),
        "batch_size": 2,
        "max_steps": 6,
        "log_every": 1,
        "save_every": 100,
        "keep_last": 3,
        "logging": LoggingConfig(tensorboard=False),
    }
    return RunConfig(**{**values, **changes})


def losses(folder: Path) -> dict[float, dict[str, float]]:
    """Everything but time, by step."""
    return {
        record["step"]: {
            name: value
            for name, value in record.items()
            if name != "time" and not name.startswith("speed/")
        }
        for record in read_records(folder / "metrics.jsonl")
    }


def leaves(tree: Any) -> dict[str, np.ndarray]:
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in flat}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of six steps without a break."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert train(make_run(folder)) == 6
    return folder


def test_a_run_logs_and_saves(whole: Path) -> None:
    records = losses(whole)
    assert sorted(records) == [1, 2, 3, 4, 5, 6]
    for name in ("loss/total", "loss/mel", "loss/discriminator", "norm/generator", "perplexity/0"):
        assert all(np.isfinite(record[name]) for record in records.values()), name
    run, state = load_run(whole)
    assert run == make_run(whole)
    assert int(state.step) == 6


def test_resuming_is_bit_identical(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for steps in (2, 5, 6):
        assert train(make_run(folder, max_steps=steps, resume=True)) == steps
    assert losses(folder) == losses(whole)
    a, b = (leaves(load_run(path)[1]) for path in (folder, whole))
    assert a.keys() == b.keys()
    for name, value in a.items():
        np.testing.assert_array_equal(value, b[name], err_msg=name)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_stops(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    calls = []

    def batch_and_signal(*arguments: Any) -> Any:
        calls.append(None)
        if len(calls) == 3:
            os.kill(os.getpid(), number)
        return original(*arguments)

    original = loop.global_batch
    monkeypatch.setattr(loop, "global_batch", batch_and_signal)
    folder = tmp_path / "run"
    assert train(make_run(folder)) == 3
    monkeypatch.undo()
    assert train(make_run(folder, resume=True)) == 6
    assert losses(folder) == losses(whole)


def test_a_complete_run_has_nothing_to_do(whole: Path) -> None:
    before = losses(whole)
    assert train(make_run(whole, resume=True)) == 6
    assert losses(whole) == before


def test_a_used_folder_is_refused(whole: Path) -> None:
    with pytest.raises(ConfigError, match=r"already has checkpoints, up to step 6.*resume=true"):
        train(make_run(whole))


def test_another_configuration_is_refused(whole: Path) -> None:
    weights = dataclasses.replace(QUIET.losses, mel=1.0)
    changed = dataclasses.replace(QUIET, seed=1, losses=weights)
    with pytest.raises(ConfigError) as error:
        train(make_run(whole, objective=changed, resume=True))
    assert "objective.seed: 43 saved, 1 now" in str(error.value)
    assert "objective.losses.mel: 15.0 saved, 1.0 now" in str(error.value)


def test_too_many_bad_steps_stop_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(batch: dict[str, np.ndarray], mesh: Any) -> Any:
        return original({"audio": np.full_like(batch["audio"], np.nan)}, mesh)

    original = loop.global_batch
    monkeypatch.setattr(loop, "global_batch", broken)
    with pytest.raises(TrainingError, match="3 steps in a row, up to step 3"):
        train(make_run(tmp_path / "run"))


def test_epochs_end_a_run(tmp_path: Path) -> None:
    recordings = len(list(RECORDINGS.glob("*.flac")))
    run = make_run(tmp_path / "run", max_epoch=1, max_steps=100)
    assert train(run) == -(-recordings // run.batch_size)


def test_export_and_finetune(whole: Path, tmp_path: Path) -> None:
    output = tmp_path / "weights"
    written = export_run(whole, output)
    assert sorted(written) == [
        "discriminator",
        "discriminator_micro.safetensors",
        "generator",
        "micro",
        "micro.safetensors",
    ]
    _, state = load_run(whole)
    generator = load_weights(written["micro"], "codec")
    assert generator.config == CODEC
    assert generator.source == {"run": "test", "step": 6}
    exported = leaves(generator.params)
    for name, value in leaves(state.generator).items():
        np.testing.assert_array_equal(exported[name], value)
    start = make_run(tmp_path / "finetune", init=InitConfig(location=str(output)), max_steps=1)
    networks = load_networks(start.init, start)
    for own, saved in zip(networks, (state.generator, state.discriminator), strict=True):
        for name, value in leaves(saved).items():
            np.testing.assert_array_equal(leaves(own)[name], value)
    assert train(start) == 1


def test_export_of_nothing(tmp_path: Path, whole: Path) -> None:
    with pytest.raises(CheckpointError, match="not the folder of a run"):
        export_run(tmp_path, tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"no checkpoint at step 5; there are \[6\]"):
        export_run(whole, tmp_path / "out", step=5)
    assert not (tmp_path / "out").exists()


# Cached features ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def segments(tmp_path_factory: pytest.TempPathFactory, speech: np.ndarray) -> DataConfig:
    """A data set with features of six utterances, each of one segment's length.

    The model hears as much of them in the cache as in the step, so that the features agree.
    """
    folder = tmp_path_factory.mktemp("segments")
    for index, start in enumerate(range(24000, 24000 + 6 * 4800, 4800)):
        samples = speech[start : start + 4800]
        soundfile.write(folder / f"{index}.wav", samples, CODEC.sample_rate, subtype="FLOAT")
    data = DataConfig(kind="folder", locations=(str(folder),), segment_length=4800)
    model = OBJECTIVE.model
    extractor = SemanticExtractor(
        model, **load_frozen(SemanticSource(w2v_path="random"), model.semantic)
    )
    output = tmp_path_factory.mktemp("cache") / "featured"
    cache_features(FolderSource(folder), extractor, data, output, dtype="float32")
    return dataclasses.replace(data, kind="tfds", locations=(str(output),))


def refused(*_: Any) -> Any:
    raise AssertionError("the semantic model was asked for")


def test_cached_features_train_as_those_of_the_step(
    segments: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_step, cached = tmp_path / "step", tmp_path / "cache"
    assert train(make_run(in_step, data=segments, max_steps=3)) == 3
    monkeypatch.setattr(loop, "load_frozen", refused)
    assert train(make_run(cached, data=segments, max_steps=3, features="cache")) == 3
    expected, actual = losses(in_step), losses(cached)
    for step, record in expected.items():
        for name in (name for name in record if name.startswith("loss/")):
            # 6e-7 is what two programs' rounding makes of it.
            assert actual[step][name] == pytest.approx(record[name], rel=1e-5), (step, name)


@pytest.fixture(scope="module")
def evaluated(segments: DataConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A step on cached features with an evaluation after it: two clips, audio of one."""
    held_out = DataConfig(kind="folder", locations=(str(RECORDINGS),), segment_length=24000)
    evaluation = EvaluationConfig(data=held_out, every=1, clips=2, saved_clips=1)
    folder = tmp_path_factory.mktemp("evaluated") / "run"
    run = make_run(folder, data=segments, max_steps=1, features="cache", evaluation=evaluation)
    assert train(run) == 1
    return folder


def test_evaluation_beside_cached_features(evaluated: Path) -> None:
    """With the semantic model that the step has no use for."""
    (logged,) = [x for x in read_records(evaluated / "metrics.jsonl") if "eval/mel" in x]
    run, state = load_run(evaluated)
    assert run.evaluation is not None
    frozen = load_frozen(run.semantic, run.objective.model.semantic)
    evaluator = Evaluator(run.objective.model, loop.held_out_clips(run.evaluation))
    expected = evaluator({"codec": state.generator, **frozen}, 1, evaluated / "again").values
    assert logged["step"] == 1
    assert {name: logged[name] for name in expected} == expected


def test_audio_of_as_many_clips_as_asked_for(evaluated: Path) -> None:
    (folder,) = evaluated.glob("eval/step_*")
    assert {path.name for path in folder.glob("*.wav")} == {"clip_00.wav", "clip_00.rvq1.wav"}
    assert [path.name for path in folder.parent.glob("original/*")] == ["clip_00.wav"]
    content = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert set(content["clips"]) == {"clip_00", "clip_01"}
    distances = [values["mel"] for values in content["clips"].values()]
    assert content["values"]["mel"] == pytest.approx(np.mean(distances))


# bfloat16 -----------------------------------------------------------------------------------

HALF = dataclasses.replace(QUIET, model=dataclasses.replace(QUIET.model, precision="bfloat16"))


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of three steps in bfloat16."""
    folder = tmp_path_factory.mktemp("half") / "run"
    assert train(make_run(folder, objective=HALF, max_steps=3)) == 3
    return folder


def first_terms(run: RunConfig, speech: np.ndarray) -> dict[str, np.ndarray]:
    """What the first step logs, for each of seven batches ``[7]``."""
    mesh = make_mesh(run.mesh)
    frozen = place(load_frozen(run.semantic, run.objective.model.semantic), mesh)
    step = loop.jit_step(run.objective, mesh, state_shapes(run.objective))
    logged = []
    for start in range(20_000, 20_000 + 7 * 20_000, 20_000):
        audio = np.stack([speech[start:][:4800], speech[start + 10_000 :][:4800]])
        state = place(initial_state(run), mesh)
        logged.append(step(state, frozen, global_batch({"audio": audio}, mesh), bypass=False)[1])
    return {name: np.array([terms[name] for terms in logged]) for name in logged[0]}


def test_half_precision_is_near_single(half: Path, speech: np.ndarray) -> None:
    for step, record in losses(half).items():
        assert all(np.isfinite(value) for value in record.values()), step
        assert record["steps/skipped"] == 0
    single = first_terms(make_run(half), speech)
    actual = first_terms(make_run(half, objective=HALF), speech)
    limits = {"generator_norm": 0.05, "discriminator_norm": 0.001}
    for name, expected in single.items():
        # One of the 40 frames of a batch may get another code, which moves losses by a percent
        # or more: how many batches have one, three of seven or four, depends on the processor.
        errors = np.abs(actual[name] - expected) / np.median(expected)
        assert np.quantile(errors, 0.25) <= limits.get(name, 0.002), name
        assert np.median(errors) <= 0.05, name
    assert (actual["mel"] != single["mel"]).all()


def test_half_precision_keeps_its_state_in_single(half: Path) -> None:
    """As the checkpoint describes itself: restoring could cast."""
    with ocp.StandardCheckpointer() as checkpointer:
        saved = checkpointer.metadata((half / "checkpoints/00000003/state").absolute())
    dtypes = [str(leaf.dtype) for leaf in jax.tree.leaves(saved.item_metadata.tree)]
    assert len(dtypes) > 300
    assert set(dtypes) == {"float32", "int32"}


def test_a_run_goes_on_in_half_precision(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    assert train(make_run(folder, objective=HALF, max_steps=7, resume=True)) == 7
    records = losses(folder)
    assert records.pop(7)["steps/skipped"] == 0
    assert records == losses(whole)
