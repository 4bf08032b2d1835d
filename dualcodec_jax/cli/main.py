"""Entry point of ``dualcodec-jax``: the list of commands.

Exit status: 0 all went well; 1 at least one input failed (the others were processed);
2 wrong usage, or weights that cannot be loaded (nothing was processed).
"""

from __future__ import annotations

from typing import Annotated

import typer

from dualcodec_jax import __version__
from dualcodec_jax.cli.app import app as serve_app
from dualcodec_jax.cli.artifacts import artifacts
from dualcodec_jax.cli.codec import decode, encode, reconstruct
from dualcodec_jax.cli.convert import convert
from dualcodec_jax.cli.data import app as data_app
from dualcodec_jax.cli.demo import demo
from dualcodec_jax.cli.evaluate import evaluate
from dualcodec_jax.cli.info import info
from dualcodec_jax.cli.mushra import mushra
from dualcodec_jax.cli.tokens import detokenize, tokenize
from dualcodec_jax.cli.train import export, train_report

app = typer.Typer(
    name="dualcodec-jax",
    help="DualCodec in JAX: speech to discrete codes and back.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
for command in (
    encode,
    decode,
    reconstruct,
    convert,
    info,
    demo,
    train_report,
    export,
    artifacts,
    evaluate,
    mushra,
    tokenize,
    detokenize,
):
    app.command()(command)
app.command("app")(serve_app)
app.add_typer(data_app, name="data")


def _version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """DualCodec in JAX: speech to discrete codes and back."""


if __name__ == "__main__":
    app()
