"""Data sets by kind: open what a configuration names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dualcodec_jax.data.config import DataConfig
from dualcodec_jax.data.errors import DataError

if TYPE_CHECKING:
    from dualcodec_jax.data.records import Source

__all__ = ["open_source"]


def open_source(
    config: DataConfig, *, progress: Callable[[int, int], None] | None = None
) -> Source:
    """The records that a configuration names, in random access.

    Args:
        config: ``kind``, ``locations``, ``split`` and ``index_folder`` are read.
        progress: called with (shards done, shards) while tar shards are indexed.

    Raises:
        DataError: the data set is missing or damaged, is only a stream, or needs a package that
            is not installed.
        AudioError, InputError: no audio files where ``config.locations`` point.
    """
    if config.kind == "folder":
        from dualcodec_jax.data.folder import FolderSource

        return FolderSource(config.locations)
    if config.kind == "tar":
        from dualcodec_jax.data.tar import TarSource

        return TarSource(config.locations, index_folder=config.index_folder, progress=progress)
    if config.kind == "tfds":
        from dualcodec_jax.data.tfds_source import TfdsSource

        return TfdsSource(config.locations[0], config.split)
    raise DataError(
        f"a data set of kind {config.kind} has no random access; use open_batches to stream it"
    )
