"""Configuration files and overrides: upstream's words, and what happens to wrong ones."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("hydra")

from dualcodec_jax.config import PRESETS, WhisperConfig
from dualcodec_jax.errors import ConfigError
from dualcodec_jax.train.config import LossConfig
from dualcodec_jax.train.options import compose
from dualcodec_jax.train.run_config import RunConfig, differences, from_dict, to_dict

ROOT = Path(__file__).resolve().parents[1]
DATA = ["data=audio_folder", "data.locations=recordings"]
UPSTREAM = [
    "model=dualcodec_12hz_16384_4096_8vq",
    "trainer.batch_size=3",
    "data.segment_speech.segment_length=24000",
]


def test_upstreams_command() -> None:
    run = compose("dualcodec_train", UPSTREAM)
    assert run.objective.model == PRESETS["12hz_v1"]
    assert (run.batch_size, run.data.segment_length) == (3, 24000)
    assert run.objective.losses == LossConfig()
    assert run.objective.adamw.betas == (0.8, 0.9)
    assert run.max_steps == 1_000_000
    assert run.save_every == 20_000
    assert run.keep_last == 1


def test_the_default_model_is_upstreams() -> None:
    assert compose("dualcodec_train", DATA).objective.model == PRESETS["25hz_v1"]


@pytest.mark.parametrize(
    ("name", "model_id", "file"),
    [
        ("dualcodec_ft_12hzv1", "12hz_v1", "dualcodec_12hz_16384_4096.safetensors"),
        ("dualcodec_ft_25hzv1", "25hz_v1", "dualcodec_25hz_16384_1024.safetensors"),
    ],
)
def test_finetuning(name: str, model_id: str, file: str) -> None:
    run = compose(name, DATA)
    assert run.objective.model == PRESETS[model_id]
    assert run.init is not None
    assert (run.init.generator, run.init.discriminator) == (file, f"discriminator_{file}")
    schedule = run.objective.generator_schedule
    assert (schedule.lr, schedule.min_lr) == (1e-5, 1e-5)
    assert run.objective.discriminator_schedule.lr == 1e-5
    assert run.objective.discriminator_schedule.constant
    assert model_id.replace("_", "") in run.name


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "ablation").glob("[!_]*.yaml")))
def test_ablations_compose(path: Path) -> None:
    run = compose(f"ablation/{path.stem}", DATA)
    assert isinstance(run, RunConfig)
    assert run.name == f"ablation_{path.stem}"
    assert run.max_steps == 400_000


def test_options_reach_their_fields() -> None:
    changes = {
        "trainer.cfg.train.optimizer.lr": "2e-4",
        "trainer.cfg.train.adamw.lr": "3e-4",
        "trainer.cfg.train.scheduler.warmup_steps": "7",
        "trainer.cfg.train.gradient_accumulation_step": "3",
        "trainer.cfg.lambda_distill_loss": "1.5",
        "trainer.cfg.add_semantic_spec_loss": "false",
        "trainer.cfg.train.precision": "bfloat16",
        "trainer.args.seed": "5",
        "trainer.args.resume": "true",
        "machine.mesh.fsdp": "4",
        "trainer.exp_name": "mine",
        "machine.log_dir": "runs",
    }
    run = compose("dualcodec_train", [*DATA, *(f"{k}={v}" for k, v in changes.items())])
    objective = run.objective
    assert objective.discriminator_schedule.lr == 2e-4
    assert objective.generator_schedule.lr == 3e-4
    assert objective.generator_schedule.warmup_steps == 7
    assert objective.accumulate == 3
    assert objective.losses.reconstruction == 1.5
    assert objective.losses.semantic_mel == 0
    assert objective.precision == "bfloat16"
    assert objective.seed == 5
    assert run.resume
    assert run.mesh.fsdp == 4
    assert run.output == Path("runs/mine")


@pytest.mark.parametrize(
    ("override", "suggestion"),
    [
        ("trainer.bacth_size=3", "trainer.batch_size"),
        ("trainer.cfg.train.optimizer.learning=1", "trainer.cfg.train.optimizer"),
        ("data.segment_speech.segment_lenght=1", "data.segment_speech.segment_length"),
        ("model=dualcodec_12hz_16384_4096_8v", "dualcodec_12hz_16384_4096_8vq"),
        ("trainer.batch_size=many", "trainer.batch_size"),
        ("trainer.cfg.train.precision=bfloat61", "bfloat16"),
    ],
)
def test_typos_name_what_was_meant(override: str, suggestion: str) -> None:
    with pytest.raises(ConfigError) as error:
        compose("dualcodec_train", [*DATA, override])
    assert suggestion in str(error.value)


def test_an_unknown_file_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="dualcodec_train"):
        compose("dualcodec_trian", DATA)


def test_targets_are_refused(tmp_path: Path) -> None:
    text = "defaults:\n  - dualcodec_train\n  - _self_\ntrainer:\n  _target_: os.system\n"
    (tmp_path / "evil.yaml").write_text(text)
    with pytest.raises(ConfigError, match="_target_"):
        compose("evil", [], tmp_path)


def test_round_trip_and_differences() -> None:
    run = compose("dualcodec_train", [*DATA, *UPSTREAM[1:]])
    values = json.loads(json.dumps(to_dict(run)))
    assert from_dict(values) == run
    assert differences(values, values) == []
    harmless = dataclasses.replace(run, max_steps=7, log_every=1, resume=True)
    assert differences(values, to_dict(harmless)) == []
    other = dataclasses.replace(run, objective=dataclasses.replace(run.objective, seed=1))
    assert differences(values, to_dict(other)) == ["objective.seed: 43 saved, 1 now"]
    with pytest.raises(ConfigError, match="unknown field more"):
        from_dict(values | {"more": 1})


def run_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "train_jax.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_script_shows_the_configuration() -> None:
    result = run_script("--config-name=dualcodec_train", *DATA, "--cfg", "job")
    assert result.returncode == 0, result.stderr
    assert "lambda_distill_loss: 15.0" in result.stdout


def test_the_script_fails_in_one_line() -> None:
    result = run_script("--config-name=dualcodec_train", *DATA, "trainer.bacth_size=3")
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert "trainer.batch_size" in result.stderr
    assert "Traceback" not in result.stderr


# -- the semantic model ----------------------------------------------------------------------

WHISPER = ["model=demo", "semantic=whisper_tiny"]


def test_the_default_semantic_model_is_w2v_bert() -> None:
    run = compose("dualcodec_train", DATA)
    explicit = compose("dualcodec_train", [*DATA, "semantic=w2v_bert_2"])
    assert run.objective.model.codec.semantic_model == "w2v_bert"
    assert explicit == run


def test_whisper_is_found_in_the_package() -> None:
    run = compose("dualcodec_train", [*DATA, *WHISPER])
    assert run.objective.model == PRESETS["demo"]
    assert run.semantic.w2v_path == run.semantic.statistics == "bundled"


def test_the_demos_configuration() -> None:
    run = compose("demo", ["data.locations=corpus", "data.evaluation.locations=valid"])
    assert run.objective.model == PRESETS["demo"]
    assert run.semantic.w2v_path == "bundled"
    assert run.data.kind == "tfds"
    assert run.features == "cache"


def test_the_codec_does_not_name_the_kind_twice() -> None:
    with pytest.raises(ConfigError, match=r"model\.model\.semantic_model"):
        compose("dualcodec_train", [*DATA, *WHISPER, "+model.model.semantic_model=whisper"])


def test_sizes_of_another_whisper() -> None:
    changes = {
        "model.model.encoder_dim": 16,
        "model.model.semantic_dim": 512,
        "+model.semantic.hidden_size": 512,
        "+model.semantic.num_layers": 6,
        "+model.semantic.num_heads": 8,
        "+model.semantic.intermediate_size": 2048,
        "+model.semantic.overlap_frames": 100,
    }
    overrides = [f"{name}={value}" for name, value in changes.items()]
    model = compose("dualcodec_train", [*DATA, *WHISPER, *overrides]).objective.model
    assert model.semantic == WhisperConfig(
        hidden_size=512, num_layers=6, num_heads=8, intermediate_size=2048, overlap_frames=100
    )
    assert model.codec.semantic_dim == 512


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+model.semantic.input_dim=160"], "model.semantic.input_dim: not a size of .*whisper"),
        (["model.semantic.kind=hubert"], "whisper"),
        (["model.semantic.kind=w2v_bert"], "semantic_dim 384 must equal .*hidden_size 1024"),
        (["+model.semantic.hidden_size=768"], "semantic_dim 384 must equal .*hidden_size 768"),
        (["+model.semantic.num_heads=7"], "must be divisible by num_heads 7"),
        (["+model.semantic.max_frames=100"], "overlap_frames 200 must lie below max_frames 100"),
    ],
)
def test_sizes_that_do_not_fit_the_kind(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose("dualcodec_train", [*DATA, *WHISPER, *overrides])


def test_sizes_of_whisper_do_not_fit_w2v_bert() -> None:
    with pytest.raises(ConfigError, match=r"num_mels: not a size of .*w2v_bert"):
        compose("dualcodec_train", [*DATA, "+model.semantic.num_mels=80"])


def test_runs_with_whisper_are_saved_and_read_again() -> None:
    run = compose("dualcodec_train", [*DATA, *WHISPER])
    values = json.loads(json.dumps(to_dict(run)))
    again = from_dict(values)
    assert again == run
    assert isinstance(again.objective.model.semantic, WhisperConfig)
