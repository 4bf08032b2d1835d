"""A shard as a Parquet file, one row a recording, for tools that do not read array_record."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dualcodec_jax.data.errors import DataError
from dualcodec_jax.tokens.plan import FORMAT, FORMAT_VERSION, Plan
from dualcodec_jax.tokens.records import TokenRecord


def write_parquet(path: Path, plan: Plan, records: Sequence[TokenRecord]) -> None:
    """Write ``records``; the columns are in docs/corpora.md.

    Raises:
        DataError: pyarrow is not installed.
    """
    pa = import_pyarrow()
    small = max(plan.codebook_sizes) <= 1 << 16
    texts = ("id", "text", "language", "speaker")
    columns: dict[str, Any] = {
        "index": pa.array([record.index for record in records], pa.int64()),
        **{
            name: pa.array([_text(getattr(record, name)) for record in records], pa.string())
            for name in texts
        },
        "codes": _nested(pa, records, np.uint16 if small else np.int32),
        "num_frames": pa.array([record.file.num_frames for record in records], pa.int64()),
        "num_samples": pa.array([record.num_samples for record in records], pa.int64()),
        "seconds": pa.array([record.seconds for record in records], pa.float64()),
        "quality": pa.array([record.quality for record in records], pa.float64()),
        "metadata": pa.array([_json(record.metadata) for record in records], pa.string()),
    }
    facts = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model_id": plan.model_id,
        "weights": plan.weights,
        "sample_rate": plan.codec.sample_rate,
        "hop_length": plan.codec.hop_length,
        "codebook_sizes": plan.codebook_sizes,
    }
    table = pa.table(columns).replace_schema_metadata({"dualcodec_jax": json.dumps(facts)})
    _module("pyarrow.parquet").write_table(table, str(path), compression="zstd")


def read_parquet(path: Path) -> list[dict[str, Any]]:
    """The rows of a shard's Parquet file.

    Raises:
        DataError: pyarrow is not installed, or the file is damaged.
    """
    pa = import_pyarrow()
    try:
        rows: list[dict[str, Any]] = _module("pyarrow.parquet").read_table(str(path)).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: damaged ({error}); copy it again") from error
    return rows


def import_pyarrow() -> Any:
    """The module ``pyarrow``; raises :class:`DataError` if it is missing."""
    try:
        return _module("pyarrow")
    except ImportError as error:
        raise DataError(
            f"Parquet files need the package pyarrow ({error}); run pip install "
            "'dualcodec-jax[tokens]', or leave out --parquet"
        ) from error


def _module(name: str) -> Any:
    import importlib

    return importlib.import_module(name)


def _nested(pa: Any, records: Sequence[TokenRecord], dtype: Any) -> Any:
    """``codes`` as a list of n lists of T integers for each record."""
    lengths = [len(row) for record in records for row in record.codes]
    values = [record.codes.reshape(-1).astype(dtype) for record in records]
    flat = np.concatenate([*values, np.zeros(0, dtype)])
    rows = pa.ListArray.from_arrays(_offsets(pa, lengths), pa.array(flat))
    return pa.ListArray.from_arrays(_offsets(pa, [len(record.codes) for record in records]), rows)


def _offsets(pa: Any, lengths: list[int]) -> Any:
    return pa.array(np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]), pa.int32())


def _text(value: str | None) -> str | None:
    """Without the surrogates of a file name that is not UTF-8."""
    return None if value is None else value.encode("utf-8", "replace").decode()


def _json(value: Any) -> str | None:
    return _text(json.dumps(value, ensure_ascii=False)) if value else None
