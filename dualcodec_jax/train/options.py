"""From configuration files and the command line to a :class:`~.run_config.RunConfig`.

Hydra composes YAML files and overrides; this module knows every option there is, checks names and
types, and builds the dataclasses itself: no configuration can name code to run. Option names are
upstream's wherever upstream has the option.

The files are in ``configs/`` at the root of the repository, beside ``train_jax.py``: training is
run from a checkout. Files of your own may lie in another folder (``config_dir``), which is
searched first. Checking imports neither JAX nor what is built on it, so that errors are fast.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dualcodec_jax.errors import ConfigError, DualCodecError

if TYPE_CHECKING:
    from dualcodec_jax.data.config import DataConfig
    from dualcodec_jax.train.config import LossConfig, ObjectiveConfig, ScheduleConfig
    from dualcodec_jax.train.run_config import EvaluationConfig, InitConfig, RunConfig

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
GROUPS = ("data", "machine", "model", "trainer")
MISSING = "???"
"""Value of an option that has to be given on the command line, in Hydra's notation."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """What values an option takes.

    Attributes:
        what: in words, for messages.
        read: value of YAML's types → value; raises ValueError if it is of another kind.
        choices: all values, if they can be listed.
        is_text: whether a value may be any text.
    """

    what: str
    read: Callable[[Any], Any]
    choices: tuple[str, ...] = ()
    is_text: bool = False


def _exactly(*types: type) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if type(value) not in types:
            raise ValueError
        return value

    return read


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError
    return float(value)


def _optional(kind: Kind) -> Kind:
    def read(value: Any) -> Any:
        return None if value is None else kind.read(value)

    return dataclasses.replace(kind, what=f"{kind.what} or null", read=read)


def _several(kind: Kind, what: str, *, or_one: bool = False, count: int | None = None) -> Kind:
    """A list of a kind; with ``or_one``, a single value stands for a list of one."""

    def read(value: Any) -> tuple[Any, ...]:
        values = [value] if or_one and not isinstance(value, list) else value
        if not isinstance(values, list) or count not in (None, len(values)):
            raise ValueError
        return tuple(kind.read(item) for item in values)

    return Kind(what, read, kind.choices, kind.is_text)


def _one_of(*choices: str) -> Kind:
    def read(value: Any) -> str:
        if value not in choices:
            raise ValueError
        return value

    return Kind(" or ".join(choices), read, choices)


INTEGER = Kind("an integer", _exactly(int))
NUMBER = Kind("a number", _number)
FLAG = Kind("true or false", _exactly(bool))
TEXT = Kind("text", _exactly(str), is_text=True)
INTEGERS = _several(INTEGER, "a list of integers")
PAIR = _several(NUMBER, "a pair of numbers", count=2)
PAIRS = _several(PAIR, "a list of pairs of numbers")
TEXTS = _several(TEXT, "text or a list of texts", or_one=True)
ONE_INTEGER = _several(INTEGER, "an integer or a list of one", or_one=True, count=1)

_MEL_SCALES = {
    "window_lengths": INTEGERS,
    "n_mels": INTEGERS,
    "lowest": NUMBER,
    "distance": _one_of("absolute", "squared"),
}
_SCHEDULE = {
    "warmup_steps": INTEGER,
    "total_steps": INTEGER,
    "min_lr": _optional(NUMBER),
    "constant": FLAG,
}
SECTIONS: dict[str, dict[str, Kind]] = {
    "model": {"name": TEXT, "SAMPLE_RATE": INTEGER},
    "model.model": {
        "sample_rate": INTEGER,
        "encoder_dim": INTEGER,
        "encoder_rates": INTEGERS,
        "decoder_dim": INTEGER,
        "decoder_rates": INTEGERS,
        "n_codebooks": INTEGER,
        "codebook_size": INTEGER,
        "codebook_dim": INTEGER,
        "quantizer_dropout": NUMBER,
        "semantic_codebook_size": INTEGER,
        "semantic_codebook_dim": INTEGER,
        "semantic_dim": INTEGER,
        "semantic_downsample_factor": INTEGER,
        "convnext_dim": INTEGER,
        "convnext_layers": INTEGER,
        "convnext_hidden_dim": INTEGER,
        "is_causal": FLAG,
        "decode_semantic_for_codec": FLAG,
    },
    "model.discriminator": {
        "sample_rate": INTEGER,
        "periods": INTEGERS,
        "period_channels": INTEGERS,
        "fft_sizes": INTEGERS,
        "bands": PAIRS,
        "spectral_channels": INTEGER,
    },
    "model.semantic": {
        "input_dim": INTEGER,
        "hidden_size": INTEGER,
        "num_layers": INTEGER,
        "num_heads": INTEGER,
        "intermediate_size": INTEGER,
        "conv_kernel_size": INTEGER,
        "left_max_position": INTEGER,
        "right_max_position": INTEGER,
        "layer_norm_eps": NUMBER,
    },
    "machine": {
        "w2v_path": _optional(TEXT),
        "ckpt_root_path": _optional(TEXT),
        "log_dir": TEXT,
        "init_model_path": _optional(TEXT),
    },
    "machine.mesh": {"data": INTEGER, "fsdp": INTEGER, "tensor": INTEGER},
    "data": {
        "kind": _one_of("folder", "tar", "tfds", "huggingface"),
        "locations": TEXTS,
        "split": TEXT,
        "subset": _optional(TEXT),
        "index_folder": _optional(TEXT),
        "features": _one_of("step", "cache"),
    },
    "data.segment_speech": {
        "segment_length": INTEGER,
        "crop": _one_of("random", "start"),
        "crop_multiple": INTEGER,
    },
    "data.resample": {"resample_rate": INTEGER},
    "data.filter": {
        "min_seconds": NUMBER,
        "max_seconds": _optional(NUMBER),
        "min_sample_rate": INTEGER,
        "min_quality": _optional(NUMBER),
        "languages": TEXTS,
    },
    "data.shuffle": {"enabled": FLAG, "shuffle_size": INTEGER, "seed": INTEGER},
    "data.dataloader": {"num_workers": INTEGER, "prefetch": INTEGER},
    "data.broken": {"max_count": _optional(INTEGER), "max_fraction": _optional(NUMBER)},
    "data.evaluation": {
        "kind": _one_of("folder", "tar", "tfds", "huggingface"),
        "locations": _optional(TEXTS),
        "split": _optional(TEXT),
        "segment_length": INTEGER,
    },
    "trainer": {"sample_rate": INTEGER, "exp_name": TEXT, "batch_size": INTEGER},
    "trainer.args": {
        "log_level": _one_of("DEBUG", "INFO", "WARNING", "ERROR"),
        "seed": INTEGER,
        "resume": FLAG,
        "reset_steps": FLAG,
        "resume_type": _one_of("resume", "finetune"),
        "resume_from_ckpt_path": _optional(TEXT),
        "model_1_name": _optional(TEXT),
        "model_2_name": _optional(TEXT),
    },
    "trainer.cfg": {
        "log_dir": TEXT,
        "bypass_rate": NUMBER,
        "semantic_vq": FLAG,
        "lambda_distill_loss": NUMBER,
        "lambda_semantic_commitment_loss": NUMBER,
        "lambda_semantic_codebook_loss": NUMBER,
        "add_semantic_spec_loss": FLAG,
    },
    "trainer.cfg.losses": {
        "mel": NUMBER,
        "adversarial": NUMBER,
        "feature_matching": NUMBER,
        "commitment": NUMBER,
        "codebook": NUMBER,
        "semantic_mel": NUMBER,
        "gan": _one_of("least_squares", "hinge"),
        "crop_tail": FLAG,
    },
    "trainer.cfg.losses.mel_scales": _MEL_SCALES,
    "trainer.cfg.losses.semantic_mel_scales": _MEL_SCALES,
    "trainer.cfg.semantic_model": {"mean_var_path": _optional(TEXT)},
    "trainer.cfg.semantic_model.semantic_model": {"pretrained_model_name_or_path": _optional(TEXT)},
    "trainer.cfg.train": {
        "max_steps": INTEGER,
        "max_epoch": _optional(INTEGER),
        "gradient_accumulation_step": INTEGER,
        "precision": _one_of("float32", "bfloat16"),
        "disable_mixed_precision": FLAG,
        "checkpoint_discriminators": FLAG,
        "save_checkpoint_stride": ONE_INTEGER,
        "keep_last": ONE_INTEGER,
        "keep_every": _optional(INTEGER),
        "log_every": INTEGER,
        "tracker": _optional(
            _several(
                _one_of("tensorboard", "wandb"),
                "tensorboard, wandb, a list of them,",
                or_one=True,
            )
        ),
        "wandb_project": TEXT,
        "run_eval": FLAG,
        "eval_every": INTEGER,
        "eval_clips": INTEGER,
        "eval_saved_clips": INTEGER,
        "max_bad_steps": INTEGER,
        "debug_nans": FLAG,
        "max_grad_norm": NUMBER,
    },
    "trainer.cfg.train.optimizer": {
        "lr": NUMBER,
        "betas": PAIR,
        "eps": NUMBER,
        "weight_decay": NUMBER,
    },
    "trainer.cfg.train.adamw": {"lr": NUMBER},
    "trainer.cfg.train.scheduler": _SCHEDULE,
    "trainer.cfg.train.discriminator_scheduler": _SCHEDULE,
}
OPTIONS: dict[str, Kind] = {
    f"{section}.{name}": kind for section, names in SECTIONS.items() for name, kind in names.items()
}
"""Every option there is."""

_FILES = "this trainer makes its own from the configuration; leave it out"
_TEXT_TO_SPEECH = "text is not used to train the codec; leave it out"
_BATCHES = "batches have a fixed number of clips; use trainer.batch_size"
REPLACED = {
    "hydra": "Hydra's own settings have no effect; the run's folder is "
    "machine.log_dir/trainer.exp_name",
    "model.model.latent_dim": "it is encoder_dim · 2^(number of encoder_rates)",
    "model.model.distill_projection_out_dim": "distillation is not part of this model",
    "model.discriminator.rates": "upstream's multi-scale discriminator, which it does not use "
    "either, is not implemented",
    "trainer.max_tokens": _BATCHES,
    "trainer.num_epochs": "use trainer.cfg.train.max_epoch or max_steps",
    "trainer.trainer": "there is one trainer; leave it out",
    "trainer.args.exp_name": "use trainer.exp_name",
    "trainer.cfg.model": _FILES,
    "trainer.cfg.discriminator_model": _FILES,
    "trainer.cfg.dataloader": _FILES,
    "trainer.cfg.skip_semantic_normalize": "features are always normalised; give statistics of "
    "mean 0 and variance 1 to trainer.cfg.semantic_model.mean_var_path to leave them as they are",
    "trainer.cfg.semantic_model.repcodec_model": "RepCodec is not implemented",
    "trainer.cfg.semantic_model.repcodec_path": "RepCodec is not implemented",
    "trainer.cfg.train.find_unused_parameters": "JAX knows which parameters are used; leave it out",
    "trainer.cfg.train.dataloader": "use data.dataloader.num_workers",
    "trainer.cfg.train.use_dynamic_batchsize": _BATCHES,
    "trainer.cfg.train.max_sentences": _BATCHES,
    "trainer.cfg.train.exponentiallr": "the schedule is trainer.cfg.train.scheduler, in upstream "
    "too",
    "data.batch": _BATCHES,
    "data.dataset": "use data.locations; of Emilia's German shards alone, data.filter.languages="
    "[de]",
    "data.datalist": _FILES,
    "data.datalist_tmp": _FILES,
    "data.data_pipeline": _FILES,
    "data.gluster_opener": "clips are always shared out among processes; leave it out",
    "data.gluster_filter": "use data.filter.min_seconds and data.filter.max_seconds",
    "data.gluster_padding": _TEXT_TO_SPEECH,
    "data.get_tokenizer": _TEXT_TO_SPEECH,
    "data.tokenize": _TEXT_TO_SPEECH,
    "data.normalize": _TEXT_TO_SPEECH,
    "data.sort": "clips have one length; leave it out",
    "data.w2v_feat_extractor": "use machine.w2v_path",
    "data.w2v_feature": "use data.features",
    "data.dataloader.batch_size": "use trainer.batch_size",
    "data.dataloader.dataset": _FILES,
    "data.dataloader.prefetch_factor": "use data.dataloader.prefetch, in clips",
    "data.dataloader.pin_memory": "there is nothing to pin; leave it out",
    "data.dataloader.persistent_workers": "workers always stay; leave it out",
}
"""Upstream's options, and those below them, that have no meaning here: what to do instead."""

_FIXED = {
    "trainer.cfg.semantic_vq": (True, "models without a semantic codebook are not implemented"),
    "trainer.cfg.train.disable_mixed_precision": (
        True,
        "use trainer.cfg.train.precision=bfloat16 for mixed precision",
    ),
    "trainer.args.reset_steps": (
        True,
        "finetuning starts at step 0; trainer.args.resume_type=resume keeps the step",
    ),
}
"""Upstream's options that are accepted with the value that is the case anyway."""


def compose(
    config_name: str, overrides: Sequence[str] = (), config_dir: str | Path | None = None
) -> RunConfig:
    """A run's configuration from files and overrides, as ``train_jax.py`` does.

    Args:
        config_name: of a file in ``config_dir`` or ``configs/``, without ``.yaml``.
        overrides: such as ``model=tiny`` or ``trainer.batch_size=3``.
        config_dir: folder of your own files; those of ``configs/`` can be named in them.

    Raises:
        ConfigError: on an unknown file, group, option or value, or values that do not fit.
    """
    values = resolve(config_name, overrides, config_dir)
    missing = [name for name, value in flatten(values).items() if value == MISSING]
    if missing:
        raise ConfigError(
            f"{', '.join(missing)} must be given: add {missing[0]}=… to the command line"
        )
    return build(values)


def resolve(
    config_name: str, overrides: Sequence[str] = (), config_dir: str | Path | None = None
) -> dict[str, Any]:
    """The composed configuration as nested dictionaries, names and types checked.

    Arguments and errors are those of :func:`compose`. Options that must be given but are not
    have the value :data:`MISSING`.
    """
    if importlib.util.find_spec("hydra") is None:
        raise ConfigError("training needs more packages: pip install 'dualcodec-jax[train]'")
    folders = _folders(config_dir)
    name = config_name.removesuffix(".yaml")
    _check_choice("configuration", name, config_names(config_dir), "--config-name=")
    prepared = [_prepared(text, config_dir) for text in overrides]
    values = _composed(name, prepared, folders)
    problems = list(_problems(values))
    if problems:
        raise ConfigError("; ".join(problems))
    return values


def config_names(config_dir: str | Path | None = None) -> list[str]:
    """Values of ``--config-name``."""
    found: set[str] = set()
    for folder in _folders(config_dir):
        paths = [*folder.glob("*.yaml"), *folder.glob("ablation/*.yaml")]
        found |= {path.relative_to(folder).with_suffix("").as_posix() for path in paths}
    return sorted(name for name in found if not name.split("/")[-1].startswith("_"))


def group_choices(group: str, config_dir: str | Path | None = None) -> list[str]:
    """Values of a group such as ``model``."""
    paths = [path for folder in _folders(config_dir) for path in folder.glob(f"{group}/*.yaml")]
    return sorted({path.stem for path in paths if not path.stem.startswith("_")})


def listing(config_dir: str | Path | None = None) -> str:
    """What can be named on the command line, as text."""
    lines = {"--config-name": config_names(config_dir)}
    lines |= {group: group_choices(group, config_dir) for group in GROUPS}
    return "".join(
        f"{name}=\n" + "".join(f"  {choice}\n" for choice in choices)
        for name, choices in lines.items()
    )


def to_yaml(values: Mapping[str, Any]) -> str:
    """A composed configuration as YAML."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(dict(values)))


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Options by their dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _folders(config_dir: str | Path | None) -> list[Path]:
    """Where configuration files are looked for, in order."""
    if not CONFIGS.is_dir():
        raise ConfigError(
            f"{CONFIGS} does not exist: training is run from a checkout of the repository"
        )
    if config_dir is None:
        return [CONFIGS]
    own = Path(config_dir).expanduser().absolute()
    if not own.is_dir():
        raise ConfigError(f"{own}: there is no such folder of configurations")
    return [own, CONFIGS]


def _prepared(text: str, config_dir: str | Path | None) -> str:
    """One override in the form that Hydra takes whether or not the files have the option."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    name, equals, value = text.lstrip("+").partition("=")
    name = name.strip()
    if not equals:
        raise ConfigError(f"cannot read {text!r}: write option=value, or option=null to unset it")
    if name in GROUPS:
        _check_choice(name, value, group_choices(name, config_dir), f"{name}=")
        return f"{name}={value}"
    if problem := _name_problem(name):
        raise ConfigError(problem)
    try:
        parsed = OverridesParser.create().parse_override(f"++{name}={value}")
    except HydraException:
        parsed = None
    if parsed is not None and not parsed.is_sweep_override():
        return f"++{name}={value}"
    if OPTIONS[name].is_text and not value.startswith(("[", "'", '"')):
        # Hydra's grammar wants quotes around a path or a split with its punctuation.
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"++{name}='{escaped}'"
    raise ConfigError(f"cannot read {text!r}: {name} must be {OPTIONS[name].what}")


def _check_choice(what: str, value: str, choices: list[str], prefix: str) -> None:
    if value in choices:
        return
    close = difflib.get_close_matches(value, choices, n=1)
    hint = f"did you mean {prefix}{close[0]}? There are" if close else "there are"
    raise ConfigError(f"unknown {what} {value!r}; {hint}: {', '.join(choices)}")


def _composed(name: str, overrides: list[str], folders: list[Path]) -> dict[str, Any]:
    """Run Hydra, and turn its errors into one line."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    for folder in folders[1:]:
        quoted = folder.as_posix().replace("'", "\\'")
        overrides = [*overrides, f"hydra.searchpath=['file://{quoted}']"]
    try:
        with initialize_config_dir(str(folders[0]), version_base="1.3"):
            composed = hydra_compose(name, overrides)
            values = OmegaConf.to_container(composed, resolve=True)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ConfigError(f"{name}: {' '.join(lines[:2]) or type(error).__name__}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{name}: not a configuration but a {type(values).__name__}")
    return {str(key): value for key, value in values.items()}


def _problems(values: Mapping[str, Any]) -> Iterator[str]:
    """Everything that is wrong with names and types."""
    for name, value in flatten(values).items():
        problem = _name_problem(name)
        if problem and value == {} and _is_section(name):
            continue
        yield from [problem] if problem else _value_problems(name, value)


def _value_problems(name: str, value: Any) -> Iterator[str]:
    kind = OPTIONS[name]
    if value == MISSING:
        return
    try:
        kind.read(value)
    except ValueError:
        close = difflib.get_close_matches(str(value), kind.choices, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        if kind.is_text and type(value) in (int, float, bool):
            hint = f"; in quotes: {name}='\"{value}\"'"
        yield f"{name} must be {kind.what}; got {value!r}{hint}"
        return
    if name in _FIXED and value != _FIXED[name][0]:
        yield f"{name} cannot be {str(value).lower()}: {_FIXED[name][1]}"


def _name_problem(name: str) -> str | None:
    """What is wrong with the name of an option; None if there is such an option."""
    if name in OPTIONS:
        return None
    parts = name.split(".")
    if any(part.startswith("_") and part.endswith("_") for part in parts):
        return f"{name}: configurations cannot name code to run here; remove it"
    for end in range(len(parts), 0, -1):
        if (instead := REPLACED.get(".".join(parts[:end]))) is not None:
            return f"{name} has no meaning here: {instead}"
    if _is_section(name):
        inside = ", ".join(_names_below(name))
        return f"{name} is a section, not an option; it has {inside}"
    suggestions = _suggestions(parts)
    if suggestions:
        return f"unknown option {name}; did you mean {' or '.join(suggestions)}?"
    parent = next(
        (
            ".".join(parts[:end])
            for end in range(len(parts) - 1, 0, -1)
            if _names_below(parts[:end])
        ),
        "",
    )
    where = f"{parent} has" if parent else "there are"
    return f"unknown option {name}; {where} {', '.join(_names_below(parent))}"


def _is_section(name: str) -> bool:
    return bool(_names_below(name))


def _names_below(section: str | Sequence[str]) -> list[str]:
    """Names one level below a section, in order; of '' the groups."""
    text = section if isinstance(section, str) else ".".join(section)
    prefix = f"{text}." if text else ""
    inside = (name.removeprefix(prefix) for name in OPTIONS if name.startswith(prefix))
    return list(dict.fromkeys(name.split(".")[0] for name in inside))


def _suggestions(parts: Sequence[str]) -> list[str]:
    """Options that may have been meant: misspelt on the way, else of the same last name."""
    corrected = _corrected(parts)
    if corrected:
        return [corrected]
    by_last: dict[str, list[str]] = {}
    for option in OPTIONS:
        by_last.setdefault(option.split(".")[-1], []).append(option)
    close = difflib.get_close_matches(parts[-1], by_last, n=1, cutoff=0.8)
    return by_last[close[0]][:3] if close else []


def _corrected(parts: Sequence[str]) -> str | None:
    """The path with every name replaced by the nearest one at its level."""
    path: list[str] = []
    for part in parts:
        names = _names_below(path)
        close = [part] if part in names else difflib.get_close_matches(part, names, n=1)
        if not close:
            return None
        path.append(close[0])
    name = ".".join(path)
    return name if name in OPTIONS or name in GROUPS else None


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
    from dualcodec_jax.train.run_config import LoggingConfig, RunConfig, SemanticConfig

    train = "trainer.cfg.train"
    values.need("trainer.exp_name", "trainer.batch_size", "trainer.cfg.log_dir")
    name, accumulate = values.get("trainer.exp_name"), _accumulate(values)
    trackers = values.get(f"{train}.tracker", ("tensorboard",)) or ()
    logging = LoggingConfig(
        tensorboard="tensorboard" in trackers,
        wandb=values.get(f"{train}.wandb_project", "dualcodec") if "wandb" in trackers else None,
        **values.fields({"level": "trainer.args.log_level"}),
    )
    semantic = SemanticConfig(
        w2v_path=values.get(
            "trainer.cfg.semantic_model.semantic_model.pretrained_model_name_or_path"
        ),
        statistics=values.get("trainer.cfg.semantic_model.mean_var_path"),
    )
    optional = {
        "features": "data.features",
        "resume": "trainer.args.resume",
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
    from dualcodec_jax.train.config import AdamWConfig, ObjectiveConfig

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
        "checkpoint_discriminators": f"{train}.checkpoint_discriminators",
        "seed": "trainer.args.seed",
        "max_bad_steps": f"{train}.max_bad_steps",
    }
    return ObjectiveConfig(
        model=_model(values),
        discriminator=_discriminator(values),
        losses=_losses(values),
        adamw=AdamWConfig(**adamw),
        generator_schedule=_schedule(values, "scheduler", "adamw", constant=False),
        discriminator_schedule=_schedule(
            values, "discriminator_scheduler", "optimizer", constant=True
        ),
        accumulate=_accumulate(values),
        **values.fields(optional),
    )


def _model(values: _Values) -> Any:
    """Sizes of generator and semantic model, and the precision."""
    from dualcodec_jax.config import PRESETS, Config, DualCodecConfig, W2vBertConfig

    section = "model.model"
    required = ["encoder_rates", "decoder_rates", "n_codebooks", "codebook_size"]
    # Upstream's own defaults of these are not those of the released models.
    required += ["is_causal", "quantizer_dropout", "sample_rate"]
    values.need(*(f"{section}.{name}" for name in required))
    # Upstream's 25 Hz file leaves these to the constructor.
    sizes = {"encoder_dim": 64, "decoder_dim": 1536, "semantic_downsample_factor": 2}
    codec = DualCodecConfig(**(sizes | values.section(section)))
    semantic = W2vBertConfig(**values.section("model.semantic"))
    if semantic.hidden_size != codec.semantic_dim:
        raise ConfigError(
            f"{section}.semantic_dim {codec.semantic_dim} must equal model.semantic.hidden_size "
            f"{semantic.hidden_size}"
        )
    known = (name for name, preset in PRESETS.items() if preset.codec == codec)
    model_id = next(known, values.get("trainer.exp_name"))
    precision = values.fields({"precision": "trainer.cfg.train.precision"})
    return Config(model_id=model_id, codec=codec, semantic=semantic, **precision)


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
