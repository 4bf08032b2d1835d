"""Packages that hold recordings, voices and tools: fetched by name, checked, unpacked."""

from __future__ import annotations

import hashlib
import logging
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from dualcodec_jax.errors import InputError
from dualcodec_jax.paths import replacing

logger = logging.getLogger(__name__)

PROGRAMS = {"apt-get": "apt", "dpkg": "dpkg", "ffmpeg": "ffmpeg"}
"""Programs that are run, and the Debian package that has each."""


@dataclass(frozen=True, slots=True)
class Package:
    """One package of a registry.

    Attributes:
        name: as the registry knows it.
        version: the version whose contents were looked at.
        sha256: of the package file; None for a tool, of which no sound or text is kept.
        licence: of what is used from it.
        debian: whether it is Debian's, else PyPI's.
    """

    name: str
    version: str
    sha256: str | None
    licence: str
    debian: bool = True


class Packages:
    """Unpacked packages in one folder.

    Args:
        folder: where package files and their contents are kept between runs.
        accept_new_versions: take packages other than the recorded ones, with a warning.
    """

    def __init__(self, folder: Path, *, accept_new_versions: bool = False) -> None:
        self._folder = folder
        self._accept = accept_new_versions
        self.digests: dict[Package, tuple[str, str]] = {}
        """File name and SHA-256 of every package used so far."""

    def unpacked(self, package: Package) -> Path:
        """The folder with a package's contents, fetched if it is not there yet.

        Raises:
            InputError: it is not to be had, is not the recorded one, or cannot be unpacked.
        """
        downloads = self._folder / "downloads" / package.name
        file = _only_file(downloads)
        if file is None:
            logger.info("fetching %s", package.name)
            with replacing(downloads, overwrite=True, folder=True) as temporary:
                _download(package, temporary, pinned=not self._accept)
            file = _only_file(downloads)
        if file is None:
            raise InputError(f"{package.name}: fetched nothing; try again")
        digest = check_digest(package, file, accept=self._accept)
        self.digests[package] = (file.name, digest)
        contents = self._folder / "contents" / f"{package.name}-{digest[:16]}"
        if not contents.is_dir():
            with replacing(contents, overwrite=True, folder=True) as temporary:
                _unpack(file, temporary)
        return contents


def check_digest(package: Package, file: Path, *, accept: bool) -> str:
    """The SHA-256 of a package file, compared with the recorded one if there is one.

    Raises:
        InputError: they differ, and ``accept`` is not set.
    """
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if package.sha256 not in (None, digest):
        message = (
            f"{file.name}: SHA-256 {digest} is not that of {package.name} {package.version}, "
            f"{package.sha256}"
        )
        if not accept:
            raise InputError(
                f"{message}; use a release that has version {package.version}, or pass "
                "--accept-new-versions after checking the new version's licence, and delete "
                f"{file.parent} to fetch it again"
            )
        logger.warning("%s; going on as asked", message)
    return digest


def require(program: str) -> str:
    """Path of a program.

    Raises:
        InputError: it is not installed.
    """
    path = shutil.which(program)
    if path is None:
        raise InputError(
            f"{program} is not installed; on Debian or Ubuntu: apt-get install {PROGRAMS[program]}"
        )
    return path


def _only_file(folder: Path) -> Path | None:
    return next((path for path in sorted(folder.glob("*")) if path.is_file()), None)


def _download(package: Package, folder: Path, *, pinned: bool) -> None:
    if package.debian:
        command = [require("apt-get"), "-q", "-o", "APT::Sandbox::User=root", "download"]
        command.append(package.name)
        hint = "run 'apt-get update' first; the package is in Debian's section main"
    else:
        command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"]
        command += ["--no-deps", "--only-binary", ":all:"]
        command.append(f"{package.name}=={package.version}" if pinned else package.name)
        hint = "check that pip is installed and can reach PyPI"
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode:
        errors = [line for line in result.stderr.splitlines() if line.startswith(("E", "ERROR"))]
        raise InputError(
            f"{package.name} {package.version}: cannot be fetched ({' '.join(errors) or 'no word'}"
            f"); {hint}"
        )


def _unpack(file: Path, folder: Path) -> None:
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as archive:
            archive.extractall(folder)
        return
    result = subprocess.run(
        [require("dpkg"), "-x", file, folder], capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise InputError(f"{file}: cannot be unpacked ({result.stderr.strip()}); delete it")


def decode_g722(file: Path) -> tuple[bytes, int]:
    """Decode headerless G.722 at 64 kbit/s.

    Returns:
        Little-endian 16-bit samples and their rate in Hz.

    Raises:
        InputError: ffmpeg is not installed or does not decode it.
    """
    command = [require("ffmpeg"), "-v", "error", "-f", "g722", "-i", str(file)]
    with tempfile.TemporaryFile() as errors:
        result = subprocess.run(
            [*command, "-f", "s16le", "-"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            check=False,
        )
        errors.seek(0)
        message = errors.read().decode(errors="replace").strip()
    if result.returncode or not result.stdout:
        raise InputError(f"{file}: ffmpeg cannot decode it ({message}); install Debian's ffmpeg")
    return result.stdout, 16000
