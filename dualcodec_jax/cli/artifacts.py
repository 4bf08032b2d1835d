"""``artifacts``: encode and decode as programs that run without this package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dualcodec_jax.cli.codec import CountOption, ModelOption
from dualcodec_jax.cli.common import (
    OverwriteOption,
    PrecisionChoice,
    PrecisionOption,
    W2vOption,
    WeightsOption,
    chosen_model,
    console,
    load_inference,
    reports_errors,
)


@reports_errors
def artifacts(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    model: ModelOption = None,
    n_quantizers: CountOption = None,
    platforms: Annotated[
        str, typer.Option("--platforms", help="That the programs run on: cpu, cuda, rocm, tpu.")
    ] = "cpu,cuda,tpu",
    weights: WeightsOption = None,
    w2v: W2vOption = None,
    precision: PrecisionOption = PrecisionChoice.float32,
    overwrite: OverwriteOption = False,
) -> None:
    """Write encode and decode as StableHLO programs with their parameters (jax.export)."""
    from dualcodec_jax.artifacts import write_artifacts

    inference = load_inference(chosen_model(model, weights), weights, w2v, precision.value)
    with console.status("tracing …"):
        folder = write_artifacts(
            inference,
            output,
            n_quantizers=n_quantizers,
            platforms=[name.strip() for name in platforms.split(",")],
            overwrite=overwrite,
        )
    for path in sorted(folder.iterdir()):
        console.print(f"{path}: {path.stat().st_size} bytes", highlight=False)
