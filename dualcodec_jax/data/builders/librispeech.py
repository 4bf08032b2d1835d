"""LibriSpeech, from its folders or from its tar.gz files as downloaded."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from dualcodec_jax.data.builders.base import DualcodecRecords
from dualcodec_jax.data.errors import DataError
from dualcodec_jax.data.records import FileSlice, Record

SUBSETS = (
    "dev-clean",
    "dev-other",
    "test-clean",
    "test-other",
    "train-clean-100",
    "train-clean-360",
    "train-other-500",
)
MAX_MEMBER_BYTES = 2**27
MAX_TRANSCRIPT_BYTES = 2**22

_UTTERANCE = re.compile(r"(\d+)-(\d+)-(\d+)\.flac")
_TRANSCRIPT = re.compile(r"(\d+)-(\d+)\.trans\.txt")


class DualcodecLibrispeech(DualcodecRecords):
    """Read English speech, one split per subset, ``train_clean_100`` for ``train-clean-100``."""

    DESCRIPTION = "LibriSpeech (Panayotov et al., 2015): read English speech, FLAC at 16 kHz."


def read_splits(source: str | Path) -> dict[str, Iterator[Record]]:
    """A split for every subset found.

    Args:
        source: ``LibriSpeech`` or the folder above it; or a folder with ``dev-clean.tar.gz`` and
            so on, or one such file. Archives are read in place, twice: nothing is extracted.

    Raises:
        DataError: no subset is there, or an archive is damaged.
    """
    root = Path(source).expanduser()
    folders = {
        name: folder
        for name in SUBSETS
        for folder in (root / name, root / "LibriSpeech" / name)
        if folder.is_dir()
    }
    if root.is_dir() and root.name in SUBSETS and not folders:
        folders = {root.name: root}
    archives = {
        name: path
        for name in SUBSETS
        for path in (root if root.is_file() else root / f"{name}.tar.gz",)
        if path.name == f"{name}.tar.gz" and path.is_file()
    }
    splits: dict[str, Iterator[Record]] = {}
    for name in SUBSETS:
        if name in folders:
            splits[name.replace("-", "_")] = _from_folder(folders[name])
        elif name in archives:
            splits[name.replace("-", "_")] = _from_archive(archives[name])
    if not splits:
        raise DataError(
            f"{root}: no LibriSpeech here; expected folders or tar.gz files named "
            f"{', '.join(SUBSETS)} (from https://www.openslr.org/12)"
        )
    return splits


def _from_folder(folder: Path) -> Iterator[Record]:
    for chapter in sorted(path for path in folder.glob("*/*") if path.is_dir()):
        texts: dict[str, str] = {}
        for path in sorted(chapter.glob("*.trans.txt")):
            texts.update(_transcripts(path.read_bytes(), path))
        for path in sorted(chapter.glob("*.flac")):
            if match := _UTTERANCE.fullmatch(path.name):
                yield _record(match, FileSlice(path), texts)


def _from_archive(path: Path) -> Iterator[Record]:
    # A transcript may follow its recordings, hence two passes.
    texts: dict[str, str] = {}
    for name, data in _members(path, _TRANSCRIPT, MAX_TRANSCRIPT_BYTES):
        texts.update(_transcripts(data, name))
    for name, data in _members(path, _UTTERANCE, MAX_MEMBER_BYTES):
        match = _UTTERANCE.fullmatch(name)
        if match:
            yield _record(match, data, texts)


def _members(path: Path, pattern: re.Pattern[str], max_bytes: int) -> Iterator[tuple[str, bytes]]:
    """Base names and contents of the regular members whose base name matches."""
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                if not member.isreg() or not pattern.fullmatch(name):
                    continue
                if member.size > max_bytes:
                    raise DataError(
                        f"{path}: member {member.name} is larger than {max_bytes} bytes"
                    )
                stream = archive.extractfile(member)
                if stream is not None:
                    yield name, stream.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{path}: damaged archive ({error}); download it again") from error


def _transcripts(data: bytes, name: object) -> dict[str, str]:
    try:
        lines: Iterable[str] = data.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: transcript is not UTF-8 text; download it again") from error
    pairs = (line.partition(" ") for line in lines if line.strip())
    return {key: text for key, _, text in pairs}


def _record(match: re.Match[str], audio: bytes | FileSlice, texts: dict[str, str]) -> Record:
    key = match[0].removesuffix(".flac")
    extra = {"speaker": match[1], "chapter": match[2]}
    return Record(key=key, audio=audio, text=texts.get(key), language="en", extra=extra)
