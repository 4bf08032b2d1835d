"""``mushra``: a listening test from an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dualcodec_jax.cli.common import OverwriteOption, console, reports_errors, show_note


@reports_errors
def mushra(
    results: Annotated[
        Path, typer.Argument(metavar="RESULTS", help="Output folder of `evaluate`, with audio.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the listening test.")
    ] = Path("listening_test"),
    codecs: Annotated[
        list[str] | None,
        typer.Option(
            "--codec",
            help="Codec to test, a folder name below RESULTS/audio; repeatable. Default: all.",
            show_default=False,
        ),
    ] = None,
    clips: Annotated[int, typer.Option("--clips", help="Number of clips, one page each.")] = 10,
    seed: Annotated[int, typer.Option("--seed", help="Of the choice of clips.")] = 0,
    name: Annotated[
        str, typer.Option("--name", help="Of the test: its configuration file and its results.")
    ] = "dualcodec",
    title: Annotated[
        str, typer.Option("--title", help="What listeners see.")
    ] = "Quality of coded speech",
    keep_levels: Annotated[
        bool,
        typer.Option(
            "--keep-levels", help="Do not bring what codecs give to the level of the reference."
        ),
    ] = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Write a MUSHRA listening test for webMUSHRA from an evaluation's audio.

    Reference, hidden reference and both anchors are added; see docs/listening_tests.md.
    """
    from dualcodec_jax.evaluation.mushra import MushraConfig, write_mushra

    config = MushraConfig(
        name=name,
        title=title,
        codecs=codecs or None,
        clips=clips,
        seed=seed,
        align_levels=not keep_levels,
    )
    test = write_mushra(results, output, config, overwrite=overwrite)
    for clip, reason in test.left_out.items():
        show_note(f"{clip} left out: {reason}")
    if len(test.clips) < clips:
        show_note(f"only {len(test.clips)} clips could be used")
    console.print(
        f"{output}: {len(test.clips)} pages with {len(test.codecs)} codecs, a hidden reference and "
        f"2 anchors each. Copy {output / 'configs'} into webMUSHRA and open "
        f"/?config={name}.yaml there",
        highlight=False,
    )
