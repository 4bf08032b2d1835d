"""How XLA runs here: its persistent compilation cache, and its memory on a CPU."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from dualcodec_jax.hub import cache_dir


def enable_cache(folder: str | Path | None = None) -> Path:
    """Keep compiled programs on disk, so that the next process starts without compiling.

    Args:
        folder: where; default ``<cache>/xla``. The command line does this on its own.
    """
    import jax

    path = Path(folder) if folder else cache_dir() / "xla"
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return path


HUGE_PAGES = "glibc.malloc.hugetlb=1"
"""For the environment variable ``GLIBC_TUNABLES``, which the C library reads once, at the start."""


def huge_pages_hint(backend: str) -> str | None:
    """How to start the process so that training on a CPU is faster; None if that changes nothing.

    A step allocates about a gigabyte anew, and Linux hands it out in pages of 4 KiB unless the
    allocator asks for larger ones.
    """
    enabled = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if backend != "cpu" or sys.platform != "linux" or not enabled.is_file():
        return None
    if "hugetlb" in os.environ.get("GLIBC_TUNABLES", "") or "[madvise]" not in enabled.read_text():
        return None
    return f"hint: with GLIBC_TUNABLES={HUGE_PAGES} in the environment, a CPU trains faster"
