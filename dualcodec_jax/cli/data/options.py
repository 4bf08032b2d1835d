"""Options that the data commands share."""

from __future__ import annotations

import enum
from typing import Annotated

import typer


class KindChoice(enum.StrEnum):
    """Values of ``--kind``."""

    auto = "auto"
    folder = "folder"
    tar = "tar"
    tfds = "tfds"


class LayoutChoice(enum.StrEnum):
    """What ``prepare`` reads."""

    audio_folder = "audio_folder"
    librispeech = "librispeech"
    emilia = "emilia"


class DtypeChoice(enum.StrEnum):
    """Values of ``--dtype``."""

    float16 = "float16"
    float32 = "float32"


SourcesArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE…", help="Audio files or folders, tar shards, or one prepared data set."
    ),
]
KindOption = Annotated[
    KindChoice,
    typer.Option("--kind", help="What SOURCE is; auto looks at what is there."),
]
SplitOption = Annotated[str, typer.Option("--split", help="Split of a prepared data set.")]
SampleOption = Annotated[
    int, typer.Option("--sample", min=0, help="Take so many records at random; 0: all.")
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Take every N-th record from number I (0…N−1) on, for N processes at a time.",
        show_default=False,
    ),
]
MinSecondsOption = Annotated[
    float, typer.Option("--min-seconds", min=0, help="Leave out shorter clips.")
]
MaxSecondsOption = Annotated[
    float, typer.Option("--max-seconds", min=0, help="Leave out longer clips; 0 lifts the limit.")
]
MinQualityOption = Annotated[
    float | None,
    typer.Option("--min-quality", help="Leave out clips with a lower score.", show_default=False),
]
LanguageOption = Annotated[
    list[str] | None,
    typer.Option("--language", help="Keep this language; repeatable.", show_default=False),
]
ModelOption = Annotated[str, typer.Option("--model", help="12hz_v1 or 25hz_v1.")]
