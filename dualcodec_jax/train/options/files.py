"""Configuration files and overrides, composed by Hydra."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dualcodec_jax.errors import ConfigError
from dualcodec_jax.train.options.check import name_problem, problems
from dualcodec_jax.train.options.schema import GROUPS, OPTIONS

CONFIGS = Path(__file__).resolve().parents[3] / "configs"


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
    found = list(problems(values))
    if found:
        raise ConfigError("; ".join(found))
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
    if problem := name_problem(name):
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
