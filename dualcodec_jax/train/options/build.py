"""From checked options to a :class:`~dualcodec_jax.train.run_config.RunConfig`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dualcodec_jax.errors import ConfigError, DualCodecError
from dualcodec_jax.train.options.check import flatten
from dualcodec_jax.train.options.schema import OPTIONS, SECTIONS

if TYPE_CHECKING:
    from dualcodec_jax.data.config import DataConfig
    from dualcodec_jax.train.config import LossConfig, ObjectiveConfig, ScheduleConfig
    from dualcodec_jax.train.run_config import EvaluationConfig, InitConfig, RunConfig


class _Values:
    """Checked options, by dotted name."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._flat = {
            name: OPTIONS[name].read(value)
            for name, value in flatten(values).items()
            if name in OPTIONS
        }

    def get(self, name: str, default: Any = None) -> Any:
        """An option, or ``default`` if no file has it."""
        return self._flat.get(name, default)

    def section(self, section: str, *, leave: Sequence[str] = ()) -> dict[str, Any]:
        """The options directly in a section that are there, but for those in ``leave``."""
        names = (name for name in SECTIONS[section] if name not in leave)
        return {name: self._flat[f"{section}.{name}"] for name in names if self.has(section, name)}

    def fields(self, names: Mapping[str, str]) -> dict[str, Any]:
        """``field: option`` → ``field: value`` for the options that are there."""
        return {field: self._flat[name] for field, name in names.items() if name in self._flat}

    def has(self, section: str, name: str) -> bool:
        """Whether some file has the option."""
        return f"{section}.{name}" in self._flat

    def need(self, *names: str) -> None:
        """Raise :class:`ConfigError` unless all options are there."""
        missing = [name for name in names if name not in self._flat]
        if missing:
            raise ConfigError(
                f"the configuration lacks {', '.join(missing)}; start from one of configs/ by its "
                "defaults list, or add the options"
            )


T = TypeVar("T")


def build(values: Mapping[str, Any]) -> RunConfig:
    """The run that checked options describe.

    Raises:
        ConfigError: if their values do not fit.
    """
    try:
        return _run(_Values(values))
    except ConfigError:
        raise
    except DualCodecError as error:
        raise ConfigError(str(error)) from error


def _run(values: _Values) -> RunConfig:
    from dualcodec_jax.sharding import MeshConfig
    from dualcodec_jax.train.run_config import LoggingConfig, RunConfig, SemanticSource

    train = "trainer.cfg.train"
    values.need("trainer.exp_name", "trainer.batch_size", "trainer.cfg.log_dir")
    name, accumulate = values.get("trainer.exp_name"), _accumulate(values)
    trackers = values.get(f"{train}.tracker", ("tensorboard",)) or ()
    logging = LoggingConfig(
        tensorboard="tensorboard" in trackers,
        wandb=values.get(f"{train}.wandb_project", "dualcodec") if "wandb" in trackers else None,
        **values.fields({"level": "trainer.args.log_level"}),
    )
    semantic = SemanticSource(
        w2v_path=values.get(
            "trainer.cfg.semantic_model.semantic_model.pretrained_model_name_or_path"
        ),
        statistics=values.get("trainer.cfg.semantic_model.mean_var_path"),
    )
    optional = {
        "features": "data.features",
        "resume": "trainer.args.resume",
        "distributed": "machine.distributed",
        "max_steps": f"{train}.max_steps",
        "log_every": f"{train}.log_every",
        "keep_every": f"{train}.keep_every",
        "debug_nans": f"{train}.debug_nans",
    }
    lists = {"save_every": f"{train}.save_checkpoint_stride", "keep_last": f"{train}.keep_last"}
    return RunConfig(
        name=name,
        output=Path(values.get("trainer.cfg.log_dir")).expanduser() / name,
        objective=_objective(values),
        data=_data(values),
        semantic=semantic,
        init=_init(values),
        mesh=MeshConfig(**values.section("machine.mesh")),
        # Upstream's batch size is that of a micro-batch.
        batch_size=values.get("trainer.batch_size") * accumulate,
        max_epoch=_max_epoch(values.get(f"{train}.max_epoch")),
        evaluation=_evaluation(values),
        logging=logging,
        **values.fields(optional),
        **{field: value[0] for field, value in values.fields(lists).items()},
    )


def _accumulate(values: _Values) -> int:
    return values.get("trainer.cfg.train.gradient_accumulation_step", 1)


def _max_epoch(value: int | None) -> int | None:
    """None, 0 and negative numbers mean no limit, as upstream."""
    return value if value is not None and value > 0 else None


def _objective(values: _Values) -> ObjectiveConfig:
    from dualcodec_jax.train.config import AdamWConfig, CodebookConfig, ObjectiveConfig

    train = "trainer.cfg.train"
    precision = values.get(f"{train}.precision")
    if values.get(f"{train}.disable_mixed_precision") and precision == "bfloat16":
        raise ConfigError(
            f"{train}.disable_mixed_precision=true and {train}.precision=bfloat16 contradict each "
            "other; leave one out"
        )
    adamw = values.section(f"{train}.optimizer", leave=("lr",))
    adamw |= values.fields({"max_grad_norm": f"{train}.max_grad_norm"})
    optional = {
        "bypass_rate": "trainer.cfg.bypass_rate",
        "keep_codes": f"{train}.keep_codes",
        "checkpoint_discriminators": f"{train}.checkpoint_discriminators",
        "seed": "trainer.args.seed",
        "max_bad_steps": f"{train}.max_bad_steps",
    }
    return ObjectiveConfig(
        model=_model(values),
        discriminator=_discriminator(values),
        losses=_losses(values),
        adamw=AdamWConfig(**adamw),
        codebooks=CodebookConfig(**values.section(f"{train}.codebooks")),
        generator_schedule=_schedule(values, "scheduler", "adamw", constant=False),
        discriminator_schedule=_schedule(
            values, "discriminator_scheduler", "optimizer", constant=True
        ),
        accumulate=_accumulate(values),
        **values.fields(optional),
    )


def _model(values: _Values) -> Any:
    """Sizes of generator and semantic model, and the precision."""
    from dualcodec_jax.config import PRESETS, Config, DualCodecConfig

    section = "model.model"
    required = ["encoder_rates", "decoder_rates", "n_codebooks", "codebook_size"]
    # Upstream's own defaults of these are not those of the released models.
    required += ["is_causal", "quantizer_dropout", "sample_rate"]
    values.need(*(f"{section}.{name}" for name in required))
    # Upstream's 25 Hz file leaves these to the constructor.
    sizes = {"encoder_dim": 64, "decoder_dim": 1536, "semantic_downsample_factor": 2}
    kind = values.get("model.semantic.kind", "w2v_bert")
    codec = DualCodecConfig(**(sizes | values.section(section)), semantic_model=kind)
    semantic = _semantic(values, kind)
    if semantic.hidden_size != codec.semantic_dim:
        raise ConfigError(
            f"{section}.semantic_dim {codec.semantic_dim} must equal model.semantic.hidden_size "
            f"{semantic.hidden_size}"
        )
    if values.get("trainer.cfg.semantic_vq", codec.is_dual) != codec.is_dual:
        raise ConfigError(
            f"trainer.cfg.semantic_vq={str(not codec.is_dual).lower()} contradicts "
            f"{section}.encoding={codec.encoding}; leave it out: {section}.encoding says whether "
            "there is a semantic stream (dual) or not (dac, dac_distilled)"
        )
    known = (name for name, preset in PRESETS.items() if preset.codec.same_model(codec))
    model_id = next(known, values.get("trainer.exp_name"))
    precision = values.fields({"precision": "trainer.cfg.train.precision"})
    return Config(model_id=model_id, codec=codec, semantic=semantic, **precision)


def _semantic(values: _Values, kind: Any) -> Any:
    from dualcodec_jax.config import default_semantic

    given, default = values.section("model.semantic", leave=("kind",)), default_semantic(kind)
    known = {field.name for field in dataclasses.fields(default)}
    if foreign := sorted(given.keys() - known):
        raise ConfigError(f"model.semantic.{foreign[0]}: not a size of model.semantic.kind={kind}")
    return dataclasses.replace(default, **given)


def _discriminator(values: _Values) -> Any:
    from dualcodec_jax.config import DiscriminatorConfig

    rate, expected = values.get("model.discriminator.sample_rate"), "model.model.sample_rate"
    if rate not in (None, values.get(expected)):
        raise ConfigError(
            f"model.discriminator.sample_rate {rate} must equal {expected} {values.get(expected)}"
        )
    return DiscriminatorConfig(**values.section("model.discriminator", leave=("sample_rate",)))


def _losses(values: _Values) -> LossConfig:
    from dualcodec_jax.train.config import LossConfig

    losses, defaults = "trainer.cfg.losses", LossConfig()
    weights = values.section(losses) | values.fields(
        {
            "reconstruction": "trainer.cfg.lambda_distill_loss",
            "semantic_commitment": "trainer.cfg.lambda_semantic_commitment_loss",
            "semantic_codebook": "trainer.cfg.lambda_semantic_codebook_loss",
        }
    )
    if not values.get("trainer.cfg.add_semantic_spec_loss", True):
        weights["semantic_mel"] = 0.0
    weights |= {
        name: dataclasses.replace(getattr(defaults, name), **values.section(f"{losses}.{name}"))
        for name in ("mel_scales", "semantic_mel_scales")
    }
    return LossConfig(**weights)


def _schedule(values: _Values, schedule: str, rate: str, *, constant: bool) -> ScheduleConfig:
    from dualcodec_jax.train.config import ScheduleConfig

    train = "trainer.cfg.train"
    settings = {"constant": constant} | values.section(f"{train}.{schedule}")
    settings |= values.fields({"lr": f"{train}.{rate}.lr"})
    if settings.get("min_lr") is None:
        # Upstream's 5e-5 lies above its rate for finetuning, which would rise over the run.
        settings["min_lr"] = min(ScheduleConfig.min_lr, settings.get("lr", ScheduleConfig.lr))
    try:
        return ScheduleConfig(**settings)
    except ConfigError as error:
        raise ConfigError(f"{train}.{schedule} and {train}.{rate}.lr: {error}") from None


def _data(values: _Values) -> DataConfig:
    from dualcodec_jax.data.config import DataConfig

    values.need("data.kind", "data.locations", "data.segment_speech.segment_length")
    optional = {
        "sample_rate": "data.resample.resample_rate",
        "shuffle": "data.shuffle.enabled",
        "shuffle_buffer": "data.shuffle.shuffle_size",
        "seed": "data.shuffle.seed",
        "max_broken": "data.broken.max_count",
        "max_broken_fraction": "data.broken.max_fraction",
    }
    return DataConfig(
        **values.section("data", leave=("features",)),
        **values.section("data.segment_speech"),
        **values.section("data.filter"),
        **values.section("data.dataloader"),
        **values.fields(optional),
    )


def _evaluation(values: _Values) -> EvaluationConfig | None:
    """Held-out clips, where the data's configuration names some."""
    from dualcodec_jax.train.run_config import EvaluationConfig

    train = "trainer.cfg.train"
    own = values.section("data.evaluation")
    changes = {name: value for name, value in own.items() if value is not None}
    if not values.get(f"{train}.run_eval", True) or not changes.keys() & {"locations", "split"}:
        return None
    names = {"every": "eval_every", "clips": "eval_clips", "saved_clips": "eval_saved_clips"}
    options = {field: f"{train}.{name}" for field, name in names.items()}
    return EvaluationConfig(
        data=_data(values).for_evaluation(num_workers=0, **changes), **values.fields(options)
    )


def _init(values: _Values) -> InitConfig | None:
    from dualcodec_jax.train.run_config import InitConfig

    args = "trainer.args"
    location = values.get(f"{args}.resume_from_ckpt_path") or None
    finetune = values.get(f"{args}.resume_type", "resume") == "finetune"
    if not finetune:
        if location is not None:
            raise ConfigError(
                f"{args}.resume_from_ckpt_path needs {args}.resume_type=finetune, which starts a "
                f"new run from these weights; with {args}.resume_type=resume a run goes on from "
                "the newest checkpoint in its own folder, machine.log_dir/trainer.exp_name"
            )
        return None
    if location is None:
        raise ConfigError(
            f"{args}.resume_type=finetune needs {args}.resume_from_ckpt_path (or "
            "machine.init_model_path): where the weights to start from are"
        )
    return InitConfig(
        location=location,
        generator=values.get(f"{args}.model_1_name"),
        discriminator=values.get(f"{args}.model_2_name"),
    )
