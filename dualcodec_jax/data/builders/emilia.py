"""Emilia, from tar shards that were downloaded already."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from dualcodec_jax.data.builders.base import DualcodecRecords
from dualcodec_jax.data.records import Record
from dualcodec_jax.data.tar import TarSource


class DualcodecEmilia(DualcodecRecords):
    """Utterances of Emilia's tar shards; works for any shards of that layout."""

    DESCRIPTION = (
        "Emilia: multilingual in-the-wild speech (He et al., 2024), MP3 at 24 kHz with "
        "transcript, speaker, language and DNSMOS score."
    )


def read_splits(
    source: str | Path, progress: Callable[[int, int], None] | None = None
) -> dict[str, Iterator[Record]]:
    """One split, ``train``, of the tar shards below a folder.

    Raises:
        DataError: see :class:`TarSource`.
    """
    records = TarSource(source, progress=progress)
    return {"train": (records[index] for index in range(len(records)))}
