"""Running the command-line programs of codecs: no shell, a limit in time, clear errors."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from dualcodec_jax.evaluation.codecs.base import CodecAbsent, CodecFailure

TIMEOUT = 300.0
"""Seconds that one run may take."""


def missing_programs(names: Sequence[str], package: str) -> str | None:
    """What to install if any of the programs is not on the path; else None."""
    missing = [name for name in names if shutil.which(name) is None]
    if not missing:
        return None
    return f"{' and '.join(missing)} not found; install {package} (Debian: apt install {package})"


def require_programs(names: Sequence[str], package: str) -> None:
    """Raise :class:`CodecAbsent` if any of the programs is not on the path."""
    if reason := missing_programs(names, package):
        raise CodecAbsent(reason)


def run(arguments: Sequence[str | Path], *, timeout: float = TIMEOUT) -> None:
    """Run a program to its end.

    Raises:
        CodecAbsent: there is no such program.
        CodecFailure: it failed or took too long; the message has its last words.
    """
    name = Path(arguments[0]).name
    try:
        result = subprocess.run(
            [str(argument) for argument in arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        raise CodecAbsent(f"{name} not found; install it") from error
    except subprocess.TimeoutExpired as error:
        raise CodecFailure(f"{name} took more than {timeout:g} s; use shorter clips") from error
    if result.returncode:
        words = (result.stderr or result.stdout).decode("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(words) if line.strip()), "no message")
        raise CodecFailure(f"{name} failed with status {result.returncode}: {last[:300]}")


@functools.cache
def debian_version(package: str) -> str:
    """Version of an installed Debian package; empty elsewhere."""
    try:
        result = subprocess.run(
            ["dpkg-query", "--show", "--showformat=${Version}", package],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.decode("utf-8", "replace") if result.returncode == 0 else ""
