"""``convert``: weights of the PyTorch original to JAX checkpoints, and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dualcodec_jax.cli.common import OverwriteOption, console, reports_errors
from dualcodec_jax.errors import WeightsError

if TYPE_CHECKING:
    from dualcodec_jax.weights import Kind

KINDS = ("codec", "discriminator", "w2v_bert", "whisper", "statistics")


@reports_errors
def convert(
    source: Annotated[
        Path,
        typer.Argument(
            help="A weight file (.safetensors, .pt, .bin), a folder of them, or, with --to-torch, "
            "a checkpoint folder."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to write; with --to-torch, a file.")
    ],
    model: Annotated[
        str | None,
        typer.Option("--model", help="Model that a generator must be. Default: found out."),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--kind", help=f"What the file holds: {', '.join(KINDS)}. Default: found out."
        ),
    ] = None,
    to_torch: Annotated[
        bool, typer.Option("--to-torch", help="Write a safetensors file for the original.")
    ] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="Round kernels to 8 bits: a quarter of the size.")
    ] = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Convert weights of the PyTorch original to JAX checkpoints, or back.

    Conversion is strict: every tensor must be known and present. Every output is read back
    and compared before it gets its name.
    """
    from dualcodec_jax.convert.files import convert_file, export_torch
    from dualcodec_jax.weights import load_any

    if kind is not None and kind not in KINDS:
        raise WeightsError(f"--kind must be one of {', '.join(KINDS)}; got {kind}")
    if to_torch:
        export_torch(load_any(source), output, overwrite=overwrite)
        console.print(f"{source} → {output}", highlight=False)
        return
    for path, target in _plan(source, output):
        with console.status(f"converting {path.name} …"):
            weights = convert_file(
                path,
                target,
                kind=_kind(kind),
                model_id=model,
                overwrite=overwrite,
                quantized=int8,
            )
        console.print(f"{path} → {target} ({weights.kind}, {weights.model_id})", highlight=False)


def _plan(source: Path, output: Path) -> list[tuple[Path, Path]]:
    """Files to convert and their checkpoint folders, named as :func:`get_model` looks for them."""
    from dualcodec_jax.convert.files import (
        DISCRIMINATOR_PREFIX,
        GENERATOR_FILES,
        STATISTICS_FILE,
        W2V_BERT_FILE,
    )

    if not source.is_dir():
        return [(source, output)]
    names = {
        **{file: model_id for model_id, file in GENERATOR_FILES.items()},
        **{
            DISCRIMINATOR_PREFIX + file: f"discriminator_{model_id}"
            for model_id, file in GENERATOR_FILES.items()
        },
        STATISTICS_FILE: "statistics",
        W2V_BERT_FILE: "w2v_bert",
    }
    plan = [(source / f, output / name) for f, name in names.items() if (source / f).is_file()]
    if not plan:
        raise WeightsError(f"{source} has none of the released files: {', '.join(names)}")
    return plan


def _kind(value: str | None) -> Kind | None:
    return value  # type: ignore[return-value]
