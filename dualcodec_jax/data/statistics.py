"""Mean and variance of feature vectors: streaming, mergeable, in float64."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dualcodec_jax.data.errors import DataError
from dualcodec_jax.paths import replacing

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Statistics:
    """Count, mean and sum of squared deviations of vectors.

    Attributes:
        count: number of vectors.
        mean: float64 ``[D]``.
        m2: float64 ``[D]``, Σ (x − mean)².
    """

    count: int
    mean: Vector
    m2: Vector

    @classmethod
    def empty(cls, size: int) -> Statistics:
        """Of no vectors with ``size`` elements."""
        return cls(0, np.zeros(size), np.zeros(size))

    @classmethod
    def of(cls, values: NDArray[Any]) -> Statistics:
        """Of the rows of ``values [N, D]``.

        Raises:
            DataError: another shape, or values that are not finite.
        """
        rows = np.asarray(values, np.float64)
        if rows.ndim != 2:
            raise DataError(f"statistics are taken of arrays [N, D]; got shape {rows.shape}")
        if not np.isfinite(rows).all():
            raise DataError("features have values that are not finite; check weights and audio")
        if not len(rows):
            return cls.empty(rows.shape[1])
        mean = rows.mean(axis=0)
        return cls(len(rows), mean, np.square(rows - mean).sum(axis=0))

    def merge(self, other: Statistics) -> Statistics:
        """Of both sets of vectors together.

        With δ = mean_b − mean_a: mean = mean_a + δ·n_b/n and
        M2 = M2_a + M2_b + δ²·n_a·n_b/n (Chan, Golub and LeVeque, 1979).

        Raises:
            DataError: the vectors differ in size.
        """
        if self.mean.shape != other.mean.shape:
            raise DataError(
                f"statistics of vectors with {self.mean.size} and {other.mean.size} elements "
                "cannot be merged; they are of different models"
            )
        count = self.count + other.count
        if not count:
            return self
        delta = other.mean - self.mean
        return Statistics(
            count,
            self.mean + delta * (other.count / count),
            self.m2 + other.m2 + np.square(delta) * (self.count * (other.count / count)),
        )

    @property
    def variance(self) -> Vector:
        """Σ (x − mean)² / count, float64 ``[D]``.

        Raises:
            DataError: of no vectors.
        """
        if not self.count:
            raise DataError("there is no variance of nothing; give audio long enough for features")
        return self.m2 / self.count


def merge_all(parts: Iterable[Statistics]) -> Statistics:
    """Of all parts together.

    Raises:
        DataError: there are none, or they differ in size.
    """
    total: Statistics | None = None
    for part in parts:
        total = part if total is None else total.merge(part)
    if total is None:
        raise DataError("nothing to merge; name files that dualcodec-jax data stats wrote")
    return total


def save_statistics(path: str | Path, statistics: Statistics, *, overwrite: bool = False) -> None:
    """Write a safetensors file that ``dualcodec_jax.convert.stats.read_statistics`` reads.

    It holds ``mean`` and ``var`` as float32 for use, and ``count``, ``mean64`` and ``m2`` for
    merging.

    Raises:
        InputError: the file exists and ``overwrite`` is not set, or cannot be written.
        DataError: the statistics are of no vectors, or some element never varied.
    """
    from safetensors.numpy import save_file

    variance = statistics.variance.astype(np.float32)
    if not (variance > 0).all():
        raise DataError(
            f"{int((variance <= 0).sum())} of {variance.size} feature dimensions do not vary; use "
            "more audio, or audio that is not silent"
        )
    tensors: dict[str, NDArray[Any]] = {
        "mean": statistics.mean.astype(np.float32),
        "var": variance,
        "count": np.array([statistics.count], np.int64),
        "mean64": np.ascontiguousarray(statistics.mean),
        "m2": np.ascontiguousarray(statistics.m2),
    }
    with replacing(path, overwrite=overwrite) as temporary:
        save_file(tensors, temporary)


def load_statistics(path: str | Path) -> Statistics:
    """Read what :func:`save_statistics` wrote.

    Raises:
        DataError: the file is missing, damaged, or without the entries for merging.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
        count = int(tensors["count"].item())
        mean, m2 = tensors["mean64"], tensors["m2"]
    except KeyError as error:
        raise DataError(
            f"{path}: has no {error}; only files that dualcodec-jax data stats wrote can be merged"
        ) from error
    except (OSError, ValueError, SafetensorError) as error:
        raise DataError(f"{path}: not a readable statistics file ({error})") from error
    if count < 1 or mean.ndim != 1 or mean.shape != m2.shape or (m2 < 0).any():
        raise DataError(f"{path}: damaged statistics file; compute it again")
    return Statistics(count, mean, m2)
