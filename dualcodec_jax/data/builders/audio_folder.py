"""Anyone's recordings, with optional transcripts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dualcodec_jax.data.builders.base import DualcodecRecords
from dualcodec_jax.data.folder import FolderSource
from dualcodec_jax.data.records import Record


class DualcodecAudioFolder(DualcodecRecords):
    """Audio files of a folder; see :class:`~dualcodec_jax.data.folder.FolderSource`."""

    DESCRIPTION = "Audio files of a folder, with transcripts where there are any."


def read_splits(source: str | Path) -> dict[str, Iterator[Record]]:
    """One split, ``train``, of the audio files below a folder.

    Raises:
        AudioError, InputError, DataError: see :class:`FolderSource`.
    """
    records = FolderSource(source)
    return {"train": (records[index] for index in range(len(records)))}
