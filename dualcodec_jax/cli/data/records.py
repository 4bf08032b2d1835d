"""What the data commands do with records: open, choose, count, show progress."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from dualcodec_jax.cli.common import (
    FAILED,
    console,
)
from dualcodec_jax.cli.data.options import (
    KindChoice,
)
from dualcodec_jax.data.config import DataConfig
from dualcodec_jax.data.errors import DataError
from dualcodec_jax.errors import InputError

if TYPE_CHECKING:
    from dualcodec_jax.data.records import Source


def open_records(sources: list[str], kind: KindChoice, split: str) -> Source:
    """Open what the user names; shards are indexed with a progress bar."""
    from dualcodec_jax.data.sources import open_source

    chosen = _guess(sources) if kind is KindChoice.auto else kind
    config = DataConfig(
        kind=chosen.value,  # type: ignore[arg-type]
        locations=tuple(sources),
        split=split,
        segment_length=1,
    )
    if chosen is not KindChoice.tar:
        return open_source(config)
    with console.status("indexing shards …") as status:

        def show(done: int, total: int) -> None:
            status.update(f"indexing shards: {done} of {total} …")

        return open_source(config, progress=show)


def _guess(sources: list[str]) -> KindChoice:
    """What the sources are: shards by their suffix, a prepared data set by its files."""
    from dualcodec_jax.data.tfds_source import find_dataset

    paths = [Path(source).expanduser() for source in sources]
    if all(p.suffix == ".tar" or (p.is_dir() and any(p.rglob("*.tar"))) for p in paths):
        return KindChoice.tar
    if len(paths) == 1 and paths[0].is_dir():
        try:
            find_dataset(paths[0])
        except DataError as error:
            if "name one of them" in str(error):
                raise
        else:
            return KindChoice.tfds
    return KindChoice.folder


def record_config(
    sample_rate: int,
    min_seconds: float,
    max_seconds: float,
    min_quality: float | None,
    language: list[str] | None,
    *,
    min_rate: int = 16000,
) -> DataConfig:
    """Filters; source and segment are placeholders."""
    return DataConfig(
        kind="folder",
        locations=(".",),
        segment_length=sample_rate,
        sample_rate=sample_rate,
        min_seconds=min_seconds,
        max_seconds=max_seconds or None,
        min_sample_rate=min_rate,
        min_quality=min_quality,
        languages=tuple(language or ()),
    )


def sampled(count: int, sample: int) -> Sequence[int]:
    """All indices, or ``sample`` of them, the same ones every time, in order."""
    if not sample or sample >= count:
        return range(count)
    return sorted(random.Random(0).sample(range(count), sample))


def shared(indices: Sequence[int], shard: str | None) -> Sequence[int]:
    """Every N-th index from the I-th on, for ``I/N``."""
    if shard is None:
        return indices
    match = re.fullmatch(r"(\d+)/(\d+)", shard)
    if match is None or int(match[1]) >= int(match[2]):
        raise InputError(f"--shard must be I/N with I in 0…N−1; got {shard}")
    share = indices[int(match[1]) :: int(match[2])]
    if not share:
        raise InputError(f"--shard {shard}: there are only {len(indices)} records; use a smaller N")
    return share


def check_free(output: Path, overwrite: bool) -> None:
    """Complain before hours of work, not after."""
    if output.exists() and not overwrite:
        raise InputError(f"{output} exists; pass --overwrite to replace it")


def finish(failed: int, total: int) -> None:
    """Exit with status 1, saying how many, if any failed."""
    if failed:
        console.print(f"{failed} of {total} records are damaged", style="red")
        raise typer.Exit(FAILED)


@contextmanager
def progress(total: int | None, what: str) -> Iterator[Callable[[], None]]:
    """A progress bar, also over an unknown number; yields what advances it by one."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)
