"""Where an evaluation ran: versions and hardware, for whoever reads its figures."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path

from dualcodec_jax import __version__

PACKAGES = ("jax", "numpy", "torch", "transformers")


def environment() -> dict[str, str]:
    """Facts by name; packages that are not installed are left out."""
    facts = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "hardware": hardware(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "dualcodec_jax": __version__,
    }
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            facts[package] = importlib.metadata.version(package)
    return facts


@functools.cache
def hardware() -> str:
    """Processor, cores that this process may use, and JAX's devices."""
    import jax

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    text = f"{_processor()}, {cores} cores"
    devices = jax.devices()
    if devices[0].platform != "cpu":
        text += f"; JAX on {len(devices)} × {devices[0].device_kind}"
    return text


def _processor() -> str:
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
        if found:
            return found[1]
    return platform.processor() or platform.machine()
