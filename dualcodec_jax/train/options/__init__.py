"""From configuration files and the command line to a :class:`~.run_config.RunConfig`.

Hydra composes YAML files and overrides; this module knows every option there is, checks names and
types, and builds the dataclasses itself: no configuration can name code to run. Option names are
upstream's wherever upstream has the option.

The files are in ``configs/`` at the root of the repository, beside ``train_jax.py``: training is
run from a checkout. Files of your own may lie in another folder (``config_dir``), which is
searched first. Checking imports neither JAX nor what is built on it, so that errors are fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dualcodec_jax.errors import ConfigError
from dualcodec_jax.train.options.build import build
from dualcodec_jax.train.options.check import flatten
from dualcodec_jax.train.options.files import config_names, group_choices, listing, resolve, to_yaml
from dualcodec_jax.train.options.schema import MISSING

if TYPE_CHECKING:
    from dualcodec_jax.train.run_config import RunConfig

__all__ = ["compose", "config_names", "group_choices", "listing", "resolve", "to_yaml"]


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
