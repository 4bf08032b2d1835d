"""``python -m dualcodec_jax.app``: the command ``dualcodec-jax app``."""

import typer

from dualcodec_jax.cli.app import app

typer.run(app)
