"""Everything that a training run needs to know, and what of it may change when it is resumed.

:mod:`dualcodec_jax.train.options` builds a :class:`RunConfig` from configuration files and the
command line. It travels with every checkpoint as JSON.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from dualcodec_jax.data.config import DataConfig
from dualcodec_jax.errors import ConfigError, InputError
from dualcodec_jax.lengths import min_samples
from dualcodec_jax.nn.discriminator import check_length
from dualcodec_jax.sharding import MeshConfig
from dualcodec_jax.train.config import ObjectiveConfig

RANDOM = "random"
"""In place of the semantic model's location: random parameters, for tests and smoke runs."""

Features = Literal["step", "cache"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class InitConfig:
    """Trained networks to start from, with fresh optimisers and at step 0.

    Attributes:
        location: folder or ``hf://owner/name`` that has the files below; without their names, a
            run of ours, one of its checkpoints, or an export.
        generator: name of the generator's weights in it.
        discriminator: name of the discriminator's weights in it; None with a ``generator``:
            discriminators start from scratch.
    """

    location: str
    generator: str | None = None
    discriminator: str | None = None

    def __post_init__(self) -> None:
        if self.discriminator and not self.generator:
            raise ConfigError(
                "a discriminator file without a generator file to start from; name both "
                "(trainer.args.model_1_name, trainer.args.model_2_name), or none"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SemanticSource:
    """Where the semantic model and the statistics of its features come from.

    Attributes:
        w2v_path: as ``w2v_path`` of :func:`dualcodec_jax.model.load_semantic`, or ``random``.
        statistics: as its ``dualcodec_path``: a folder or file. Unused with ``random``.
    """

    w2v_path: str | None = None
    statistics: str | None = None

    @property
    def random(self) -> bool:
        """Whether parameters are random, and features not normalised."""
        return self.w2v_path == RANDOM


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Evaluation on held-out clips during training.

    Attributes:
        data: the clips, each once and from its start.
        every: steps between evaluations.
        clips: how many of the data set to use.
        saved_clips: of how many to write audio and pictures.
    """

    data: DataConfig
    every: int = 5000
    clips: int = 16
    saved_clips: int = 4

    def __post_init__(self) -> None:
        _check_positive(self, "every", "clips")
        if self.saved_clips < 0:
            raise ConfigError(f"saved_clips must not be negative; got {self.saved_clips}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoggingConfig:
    """Where losses go besides the JSON lines that are always written.

    Attributes:
        tensorboard: whether to write TensorBoard's files.
        wandb: project of Weights & Biases; None: not used.
        level: of Python's ``logging``.
    """

    tensorboard: bool = True
    wandb: str | None = None
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A training run.

    Attributes:
        name: of the experiment.
        output: folder of checkpoints and logs.
        objective: networks, losses, optimisers, seed.
        data: clips to train on.
        features: semantic features are computed in the ``step``, or read from the ``cache`` that
            ``dualcodec-jax data features`` wrote.
        semantic: w2v-BERT and statistics; with ``cache`` for evaluation only.
        init: networks to start from; None: from scratch. Counts only while ``output`` has no
            checkpoint.
        resume: True: continue from the newest checkpoint in ``output``, if there is one. False:
            refuse a folder that has any.
        distributed: whether there are other processes, see
            :func:`dualcodec_jax.train.distributed.join_processes`.
        mesh: devices.
        batch_size: clips per step and batch shard, all micro-batches together: a step sees
            ``batch_size · shards(mesh)`` of them.
        max_steps: steps after which the run is complete.
        max_epoch: passes over the data after which it is, counted every ``log_every`` steps when
            there are several processes; None: no limit.
        log_every: steps between lines of the log.
        save_every: steps between checkpoints.
        keep_last: newest checkpoints to keep.
        keep_every: checkpoints at multiples of so many steps are kept for ever; None: none are.
        evaluation: None: no evaluation.
        logging: where losses go.
        debug_nans: stop at the operation that makes the first NaN (``jax_debug_nans``); slow.
    """

    name: str
    output: Path
    objective: ObjectiveConfig
    data: DataConfig
    features: Features = "step"
    semantic: SemanticSource = SemanticSource()
    init: InitConfig | None = None
    resume: bool = False
    distributed: bool | None = None
    mesh: MeshConfig = MeshConfig()
    batch_size: int = 3
    max_steps: int = 1_000_000
    max_epoch: int | None = None
    log_every: int = 50
    save_every: int = 20_000
    keep_last: int = 1
    keep_every: int | None = None
    evaluation: EvaluationConfig | None = None
    logging: LoggingConfig = LoggingConfig()
    debug_nans: bool = False

    def __post_init__(self) -> None:
        if not self.name or set(self.name) & set("/\\") or self.name in (".", ".."):
            raise ConfigError(
                f"the run's name {self.name!r} (trainer.exp_name) names its folder: it must not "
                "be empty or have slashes"
            )
        _check_positive(self, "batch_size", "max_steps", "log_every", "save_every", "keep_last")
        _check_positive(self, "max_epoch", "keep_every")
        if self.batch_size % self.objective.accumulate:
            raise ConfigError(
                f"batch_size {self.batch_size} must be a multiple of accumulate "
                f"{self.objective.accumulate}, the number of micro-batches"
            )
        if self.features == "cache" and self.data.kind != "tfds":
            raise ConfigError(
                f"features are cached in data sets of kind tfds only, not {self.data.kind}; write "
                "one with `dualcodec-jax data features`, then pass data=tfds, or use "
                "data.features=step"
            )
        _check_audio(self.data, self.objective)
        if self.evaluation is not None:
            _check_audio(self.evaluation.data, self.objective)


def to_dict(run: RunConfig) -> dict[str, Any]:
    """A run's configuration as plain JSON types."""
    return json.loads(json.dumps(dataclasses.asdict(run), default=str))


def from_dict(values: Mapping[str, Any]) -> RunConfig:
    """The inverse of :func:`to_dict`, strictly.

    Raises:
        ConfigError: on unknown or missing fields, all listed together, or a value of a wrong type.
    """
    problems = list(_field_problems(RunConfig, values, ""))
    if problems:
        raise ConfigError(
            f"run configuration: {'; '.join(problems)}; it was written by another version of "
            "dualcodec_jax or edited by hand"
        )
    return _build(RunConfig, values)


MAY_CHANGE = (
    # Names, places, and what only says when something is written or shown.
    "name",
    "output",
    "resume",
    "init",  # read once, before the first step
    "max_steps",
    "max_epoch",
    "log_every",
    "save_every",
    "keep_last",
    "keep_every",
    "evaluation",
    "logging",
    "debug_nans",
    # How the work is spread. The global batch may change with it: machines differ, and every
    # clip counts the same.
    "distributed",
    "mesh",
    "batch_size",
    "objective.accumulate",
    "objective.checkpoint_discriminators",
    # A run that meets NaN in bfloat16 can go on in float32; parameters are float32 in both.
    "objective.model.precision",
    "objective.max_bad_steps",
    # Data may have moved. That they are the same is checked by kind, split, seed here, and by
    # the number of records when the iterator's position is restored.
    "data.locations",
    "data.index_folder",
    "data.num_workers",
    "data.prefetch",
    "data.max_broken",
    "data.max_broken_fraction",
    "semantic.w2v_path",
    "semantic.statistics",
)
"""Fields that may differ between a checkpoint and the run that continues from it.

All others must not: model and discriminator sizes, losses, optimiser, schedules, seed, bypass
rate; the data's kind, split, order, filters and crops; where features are computed. To change
these, start a new run from the checkpoint's weights.
"""


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two configurations in fields that must not change on resume.

    Args:
        old: what a checkpoint was written with, from :func:`to_dict`; fields that it lacks count
            as different.
        new: what the run is configured with now.

    Returns:
        One line per field, such as ``objective.seed: 43 saved, 44 now``.
    """
    saved, now = _fixed(old), _fixed(new)
    lines = []
    for name in sorted(saved.keys() | now.keys()):
        if name not in saved:
            lines.append(f"{name}: not saved, {now[name]!r} now")
        elif name not in now:
            lines.append(f"{name}: {saved[name]!r} saved, none now")
        elif saved[name] != now[name]:
            lines.append(f"{name}: {saved[name]!r} saved, {now[name]!r} now")
    return lines


def _fixed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that must not change, by dotted name."""
    flat = _flatten(values)
    fixed = {name: value for name, value in flat.items() if not _may_change(name)}
    # A path may change, but not from real to random parameters, nor from one repository to
    # another.
    fixed["semantic.random"] = flat.get("semantic.w2v_path") == RANDOM
    if flat.get("data.kind") == "huggingface":
        fixed["data.locations"] = flat.get("data.locations")
    return fixed


def _may_change(name: str) -> bool:
    return any(name == field or name.startswith(f"{field}.") for field in MAY_CHANGE)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat


def _check_positive(config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and value < 1:
            raise ConfigError(f"{name} must be at least 1; got {value}")


def _check_audio(data: DataConfig, objective: ObjectiveConfig) -> None:
    codec = objective.model.codec
    if data.sample_rate != codec.sample_rate:
        raise ConfigError(
            f"the data are resampled to {data.sample_rate} Hz, but the model is for "
            f"{codec.sample_rate} Hz"
        )
    if data.segment_length < min_samples(codec):
        raise ConfigError(
            f"segment_length {data.segment_length} is too short for one code frame of this model, "
            f"which takes {min_samples(codec)} samples"
        )
    try:
        check_length(data.segment_length, objective.discriminator)
    except InputError as error:
        raise ConfigError(f"segment_length: {error}") from None


T = TypeVar("T")


def _field_problems(cls: type, values: Any, prefix: str) -> typing.Iterator[str]:
    """Unknown and missing fields of a dataclass and those inside it."""
    if not isinstance(values, Mapping):
        yield f"{prefix.rstrip('.') or 'it'} must have fields; got {values!r}"
        return
    hints = typing.get_type_hints(cls)
    known = {field.name: hints[field.name] for field in dataclasses.fields(cls)}
    yield from (f"unknown field {prefix}{name}" for name in values if name not in known)
    for name, hint in known.items():
        inner = _dataclass_in(hint, values.get(name))
        if name not in values:
            yield f"missing field {prefix}{name}"
        elif inner is not None and not (values[name] is None and type(None) in _options(hint)):
            yield from _field_problems(inner, values[name], f"{prefix}{name}.")


def _build(cls: type[T], values: Mapping[str, Any], prefix: str = "") -> T:
    hints = typing.get_type_hints(cls)
    built = {
        name: _convert(value, hints[name], f"{prefix}{name}") for name, value in values.items()
    }
    return cls(**built)


def _convert(value: Any, hint: Any, name: str) -> Any:
    """``value``, of JSON's types, as what a field's annotation says."""
    if isinstance(value, Mapping) and (chosen := _dataclass_in(hint, value)) is not None:
        return _build(chosen, value, f"{name}.")
    for option in _options(hint):
        inner = typing.get_origin(option)
        if option is type(None) and value is None:
            return None
        if inner is tuple and isinstance(value, list | tuple):
            return _tuple(value, typing.get_args(option), name)
        if inner is Literal and value in typing.get_args(option):
            return value
        if option is Path and isinstance(value, str):
            return Path(value)
        if option is float and type(value) is int:
            return float(value)
        if isinstance(option, type) and type(value) is option:
            return value
    raise ConfigError(f"run configuration: {name} cannot be {value!r}")


def _tuple(values: Any, hints: tuple[Any, ...], name: str) -> tuple[Any, ...]:
    if len(hints) == 2 and hints[1] is ...:
        hints = (hints[0],) * len(values)
    if len(hints) != len(values):
        raise ConfigError(f"run configuration: {name} must have {len(hints)} values; got {values}")
    return tuple(_convert(value, hint, name) for value, hint in zip(values, hints, strict=True))


def _options(hint: Any) -> tuple[Any, ...]:
    """What an annotation allows: the members of a union, or itself."""
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def _dataclass_in(hint: Any, values: Any) -> type | None:
    """The dataclass of an annotation; of several, that whose fields are nearest to ``values``."""
    classes = [option for option in _options(hint) if isinstance(option, type)]
    found = [option for option in classes if dataclasses.is_dataclass(option)]
    names = set(values) if isinstance(values, Mapping) else set()

    def distance(cls: type) -> int:
        return len(names ^ {field.name for field in dataclasses.fields(cls)})

    return min(found, key=distance, default=None)
