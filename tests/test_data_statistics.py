"""Running mean and variance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from dualcodec_jax.convert.stats import read_statistics
from dualcodec_jax.data.errors import DataError
from dualcodec_jax.data.statistics import (
    Statistics,
    load_statistics,
    merge_all,
    save_statistics,
)
from dualcodec_jax.errors import InputError


@given(
    sizes=st.lists(st.integers(0, 20), min_size=1, max_size=6),
    offset=st.sampled_from([0.0, 1e3, -1e6]),
    seed=st.integers(0, 100),
)
@settings(max_examples=60, deadline=None)
def test_merged_parts_are_the_whole_in_any_order(
    sizes: list[int], offset: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    parts = [offset + rng.standard_normal((size, 3)) for size in sizes]
    whole = np.concatenate(parts)
    for order in (range(len(parts)), rng.permutation(len(parts))):
        total = merge_all(Statistics.of(parts[index]) for index in order)
        assert total.count == len(whole)
        if total.count:
            # Rounding of values near the offset; a sum of squares would lose everything here.
            atol = 1e-15 * abs(offset) * 10
            np.testing.assert_allclose(total.mean, whole.mean(axis=0), rtol=1e-14, atol=1e-14)
            np.testing.assert_allclose(
                total.variance, whole.var(axis=0), rtol=1e-9, atol=1e-12 + atol
            )


def test_float32_input_is_summed_in_float64() -> None:
    values = np.full((100_000, 1), 0.1, np.float32)
    values[::2] += np.float32(1e-4)
    total = Statistics.of(values)
    exact = values.astype(np.float64)
    assert total.mean == pytest.approx(exact.mean(), rel=1e-14)
    assert total.variance == pytest.approx(exact.var(), rel=1e-10)


def test_files_merge_and_are_read_as_statistics(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    parts = [3 + rng.standard_normal((size, 5)) for size in (40, 7)]
    for number, part in enumerate(parts):
        save_statistics(tmp_path / f"{number}.safetensors", Statistics.of(part))
    total = merge_all(load_statistics(tmp_path / f"{number}.safetensors") for number in range(2))
    path = tmp_path / "all.safetensors"
    save_statistics(path, total)
    read = read_statistics(path)
    whole = np.concatenate(parts)
    np.testing.assert_allclose(read["mean"], whole.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(read["var"], whole.var(axis=0), rtol=1e-6)
    assert read["mean"].dtype == np.float32
    assert load_file(path)["count"] == 47
    with pytest.raises(InputError, match="exists already"):
        save_statistics(path, total)
    save_statistics(path, total, overwrite=True)


def test_unusable_values_and_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not finite"):
        Statistics.of(np.array([[np.nan]]))
    with pytest.raises(DataError, match="shape"):
        Statistics.of(np.zeros(3))
    with pytest.raises(DataError, match="cannot be merged"):
        Statistics.empty(2).merge(Statistics.empty(3))
    with pytest.raises(DataError, match="nothing to merge"):
        merge_all([])
    with pytest.raises(DataError, match="variance of nothing"):
        save_statistics(tmp_path / "a.safetensors", Statistics.empty(2))
    with pytest.raises(DataError, match="1 of 2 feature dimensions do not vary"):
        save_statistics(tmp_path / "a.safetensors", Statistics.of(np.array([[1.0, 2], [1, 3]])))
    with pytest.raises(DataError, match="not a readable"):
        load_statistics(tmp_path / "none.safetensors")
    (tmp_path / "b.safetensors").write_text("text")
    with pytest.raises(DataError, match="not a readable"):
        load_statistics(tmp_path / "b.safetensors")
    save_file({"mean": np.zeros(2), "var": np.ones(2)}, tmp_path / "c.safetensors")
    with pytest.raises(DataError, match="can be merged"):
        load_statistics(tmp_path / "c.safetensors")
    assert not (tmp_path / "a.safetensors").exists()
