"""``data``: prepare, inspect and verify training data; statistics and cache of features."""

from __future__ import annotations

import typer

from dualcodec_jax.cli.data.dataset import inspect, prepare, verify
from dualcodec_jax.cli.data.semantic import features, stats

app = typer.Typer(
    help="Training data: prepare, inspect, verify, statistics, feature cache.",
    no_args_is_help=True,
)
for command in (prepare, inspect, verify, stats, features):
    app.command()(command)
