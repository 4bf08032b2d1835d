"""XLA's persistent compilation cache."""

from __future__ import annotations

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
