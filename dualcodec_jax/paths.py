"""Paths that users give: files that inputs lead to, outputs that appear whole or not at all."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from dualcodec_jax.errors import AudioError, DualCodecError, InputError

AUDIO_SUFFIXES = frozenset(
    {".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff"}
)
"""File name suffixes that :func:`find_audio_files` takes from folders, in lower case."""


def find_audio_files(inputs: Sequence[str | Path] | str | Path) -> list[tuple[Path, Path]]:
    """Expand files, folders and glob patterns into audio files; see :func:`find_files`.

    Raises:
        AudioError: an input is missing or leads to no audio file.
        InputError: two files would have the same place below an output folder.
    """
    return find_files(inputs, AUDIO_SUFFIXES, error=AudioError)


def find_files(
    inputs: Sequence[str | Path] | str | Path,
    suffixes: Iterable[str],
    *,
    error: type[DualCodecError] = InputError,
) -> list[tuple[Path, Path]]:
    """Expand files, folders and glob patterns, in the order given, each one sorted.

    A plain file is taken whatever its suffix. Folders, also those that a pattern matches,
    are searched recursively for the suffixes, leaving out hidden files and folders and not
    following links to folders. A file reached twice is listed once.

    Args:
        inputs: paths or patterns (``*``, ``?``, ``[...]``, ``**``); a path that exists is
            never taken for a pattern.
        suffixes: suffixes to look for, in lower case, with the dot.
        error: class of the error for missing inputs.

    Returns:
        Pairs of a file and the relative path that keeps the folder structure below an output
        folder: relative to the folder given, or to the part of a pattern before the first
        wildcard; of a plain file, its name.

    Raises:
        DualCodecError: of class ``error``, if an input is missing or leads to no file.
        InputError: two files have the same relative path.
    """
    wanted = frozenset(suffixes)
    names = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
    if not names:
        raise error("no input files given; name files, folders or glob patterns")
    found: dict[Path, Path] = {}
    seen: set[str] = set()
    for name in names:
        for file, relative in _expand(os.fspath(name), wanted, error):
            if (place := os.path.abspath(file)) in seen:
                continue
            seen.add(place)
            other = found.setdefault(relative, file)
            if other != file and not os.path.samefile(other, file):
                raise InputError(
                    f"{other} and {file} would both become {relative} below the output folder; "
                    "process them separately or give their common folder"
                )
    return [(file, relative) for relative, file in found.items()]


@contextlib.contextmanager
def replacing(path: str | Path, *, overwrite: bool, folder: bool = False) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``, which takes its place on success.

    If the block raises, what ``path`` held stays and the temporary path goes. Missing parent
    folders are created; a symbolic link is written through.

    A killed process leaves at most a hidden ``.….tmp`` beside ``path``, which may be deleted.
    A file is replaced in one step. No system call in Python exchanges two folders, so there is
    a moment when the old one has moved to ``NAME.replaced-…`` and the new one is not yet in
    place: killed then, nothing has the name, the old folder is complete under that one, and
    renaming it back restores it. Beside a folder NAME, a ``NAME.replaced-…`` may be deleted.

    Args:
        path: what to write or replace.
        overwrite: whether ``path`` may exist.
        folder: write a folder, which exists empty when the block starts, not a file. Replacing
            removes all of the old folder: check first that it holds nothing else.

    Raises:
        InputError: ``path`` exists and ``overwrite`` is not set, is a folder instead of a file
            or the reverse, or cannot be written.
    """
    target = _writable(path, overwrite=overwrite, folder=folder)
    temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if folder:
            temporary.mkdir()
        yield temporary
        if folder and target.exists():
            _replace_folder(target, temporary)
        else:
            os.replace(temporary, target)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror or error}); choose another place or make "
            "room"
        ) from error
    finally:
        _remove(temporary)


def _writable(path: str | Path, *, overwrite: bool, folder: bool) -> Path:
    if "\0" in str(path):
        raise InputError(f"{str(path)!r}: a path cannot contain a null character")
    if not overwrite and os.path.lexists(path):
        raise InputError(
            f"{path}: exists already; pass overwrite=True (--overwrite on the command line) or "
            "choose another name"
        )
    target = os.path.realpath(path)
    if folder and os.path.exists(target) and not os.path.isdir(target):
        raise InputError(f"{path}: is not a folder; give the name of a folder to write")
    if not folder and os.path.isdir(target):
        raise InputError(f"{path}: is a folder; give the name of a file to write")
    if not folder and os.path.exists(target) and not os.path.isfile(target):
        raise InputError(f"{path}: is not a regular file; give the name of a file to write")
    return Path(target)


def _replace_folder(old: Path, new: Path) -> None:
    """Put ``new`` in the place of ``old``; if that fails, ``old`` is where it was."""
    aside = old.with_name(f"{old.name}.replaced-{uuid.uuid4().hex[:8]}")
    try:
        os.replace(old, aside)
        os.replace(new, old)
    finally:
        if old.exists():
            _remove(aside)
        else:
            os.replace(aside, old)


def _remove(path: Path) -> None:
    """Delete a file or folder, if it is there and can be deleted."""
    if os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _expand(
    name: str, suffixes: frozenset[str], error: type[DualCodecError]
) -> Iterator[tuple[Path, Path]]:
    """Yield (file, relative path) of one input."""
    path = Path(name)
    if "\0" in name:
        raise error(f"{name!r}: a path cannot contain a null character")
    listed = ", ".join(sorted(suffixes))
    if os.path.isdir(name):
        pairs = [(file, file.relative_to(path)) for file in _walk(path, suffixes)]
        if not pairs:
            raise error(f"{name}: no files with suffix {listed} in this folder")
    elif os.path.exists(name):
        pairs = [(path, Path(path.name))]
    elif glob.has_magic(name):
        pairs = list(_expand_glob(name, suffixes))
        if not pairs:
            raise error(f"{name}: the pattern matches no files with suffix {listed}")
    else:
        raise error(f"{name}: no such file or folder; check the path")
    yield from pairs


def _expand_glob(pattern: str, suffixes: frozenset[str]) -> Iterator[tuple[Path, Path]]:
    parts = Path(pattern).parts
    fixed = next(index for index, part in enumerate(parts) if re.search(r"[*?[]", part))
    base = Path(*parts[:fixed])
    if ".." in parts[fixed:]:
        raise InputError(f"{pattern}: '..' cannot follow a wildcard; resolve it first")
    for match in sorted(Path(name) for name in glob.glob(pattern, recursive=True)):
        for file in _walk(match, suffixes) if match.is_dir() else [match]:
            if file.suffix.lower() in suffixes:
                yield file, file.relative_to(base)


def _walk(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    """Files below a folder that have one of the suffixes and are not hidden, sorted."""
    files = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(file for file in files if file.suffix.lower() in suffixes)
