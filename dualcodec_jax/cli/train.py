"""``train-report``: the curves of training runs. ``export``: weights from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dualcodec_jax.cli.common import OverwriteOption, console, reports_errors

DEFAULT_NAME = "report.html"


@reports_errors
def train_report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN…", help="Folder of a training run; several are compared."),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="A .png or .html file. Default: report.html in the run's folder (of several runs: "
            "in the current folder), which is replaced.",
            show_default=False,
        ),
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Draw the curves of a training run, or of several to compare, to a PNG or HTML file.

    Losses, evaluation, codebooks, gradients, learning rates, speed, skipped steps. HTML pages
    also have the last values, and the clips of the newest evaluation to listen to.
    """
    from dualcodec_jax.train.report import read_runs, write_report

    default = (runs[0] if len(runs) == 1 else Path()) / DEFAULT_NAME
    target = output or default
    write_report(read_runs(runs), target, overwrite=overwrite or output is None)
    console.print(f"written to {target}", markup=False, highlight=False)


@reports_errors
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a training run.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder to write.")],
    step: Annotated[
        int | None,
        typer.Option("--step", help="Which checkpoint. Default: the newest.", show_default=False),
    ] = None,
    torch: Annotated[
        bool, typer.Option(help="Also write the files of the PyTorch original.")
    ] = True,
    int8: Annotated[
        bool, typer.Option("--int8", help="Round kernels to 8 bits: a quarter of the size.")
    ] = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Write a training checkpoint as weights: for inference, for finetuning, for PyTorch."""
    from dualcodec_jax.train.export import export_run

    written = export_run(run, output, step=step, torch=torch, quantized=int8, overwrite=overwrite)
    for path in written.values():
        console.print(f"written: {path}", markup=False, highlight=False)
