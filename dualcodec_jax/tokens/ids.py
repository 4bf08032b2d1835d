"""Ids of recordings: from the paths of files, and back to file names."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from dualcodec_jax.errors import InputError


def path_id(path: str) -> str:
    """The id that a path gives: without suffix, and below any folder, for :func:`target_path`.

    The root and ``..`` are left out: ``/data/a.wav`` gives ``data/a``, ``../b/c.flac`` ``b/c``.

    Raises:
        InputError: nothing is left.
    """
    parts = [part for part in PurePosixPath(path).parts if part.strip("/") and part != ".."]
    if not parts:
        raise InputError(f"the path {path!r} names no file")
    return PurePosixPath(*parts).with_suffix("").as_posix()


def target_path(folder: Path, name: str, audio_format: str) -> Path:
    """The file of an id.

    Raises:
        InputError: the id would lead out of the folder, or to another id's file.
    """
    parts = PurePosixPath(name).parts
    if not parts or "\0" in name or ".." in parts or "/".join(parts) != name or parts[0] == "/":
        raise InputError(f"the id {name!r} is not the name of a file below a folder")
    # Not with_suffix: an id may have dots.
    return folder.joinpath(*parts[:-1], f"{parts[-1]}.{audio_format}")
