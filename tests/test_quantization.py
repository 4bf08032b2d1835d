"""8-bit kernels: how far they are off, that they are stable, and damaged checkpoints of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dualcodec_jax.config import PRESETS, WhisperConfig
from dualcodec_jax.convert.engine import flatten
from dualcodec_jax.convert.files import codec_shapes, semantic_shapes
from dualcodec_jax.errors import WeightsError
from dualcodec_jax.nn.random import random_params
from dualcodec_jax.quantization import SCALES, dequantize, quantize
from dualcodec_jax.weights import (
    Weights,
    check_tree,
    load_weights,
    read_tensors,
    save_weights,
    write_tensors,
)

SMALL = WhisperConfig(num_mels=20, hidden_size=64, num_layers=1, num_heads=4, intermediate_size=256)
KERNEL = ("layer", "kernel")
SCALE = (SCALES, *KERNEL)
# Half a step, and the rounding of a float32 quotient of up to 127.
HALF = 0.5 + 127 * 2**-23


def as_bytes(leaves: Any) -> dict[Any, tuple[Any, ...]]:
    return {
        path: (np.shape(leaf), str(leaf.dtype), np.asarray(leaf).tobytes())
        for path, leaf in leaves.items()
    }


# From far below any trained weight to far above it; zeros as well.
numbers = st.floats(-1e6, 1e6, width=32).filter(lambda x: x == 0 or abs(x) > 1e-30)
kernels = arrays.arrays(
    np.float32,
    arrays.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=5),
    elements=numbers,
)


@given(kernels)
def test_error_is_at_most_half_a_step_of_the_channel(kernel: np.ndarray) -> None:
    quantized = quantize({KERNEL: kernel})
    scale = quantized[SCALE]
    assert quantized[KERNEL].dtype == np.int8
    assert quantized[KERNEL].shape == kernel.shape
    assert scale.dtype == np.float32
    assert scale.shape == kernel.shape[-1:]
    read = dequantize(quantized)
    assert set(read) == {KERNEL}
    assert read[KERNEL].dtype == np.float32
    error = np.abs(read[KERNEL].astype(np.float64) - kernel)
    assert (error <= HALF * scale.astype(np.float64)).all()
    peak = np.abs(kernel).max(axis=tuple(range(kernel.ndim - 1)))
    np.testing.assert_allclose(scale[peak > 0], peak[peak > 0] / 127, rtol=1e-6)


@given(kernels)
def test_a_second_quantization_changes_nothing(kernel: np.ndarray) -> None:
    """Bit for bit, the scales as well: what is loaded can be saved again without loss."""
    once = quantize({KERNEL: kernel})
    assert as_bytes(quantize(dequantize(once))) == as_bytes(once)


@given(kernels)
def test_the_largest_value_of_a_channel_uses_all_bits(kernel: np.ndarray) -> None:
    quantized = quantize({KERNEL: kernel})[KERNEL]
    assert quantized.min() >= -127
    peaks = np.abs(quantized.astype(int)).max(axis=tuple(range(kernel.ndim - 1)))
    silent = (kernel == 0).all(axis=tuple(range(kernel.ndim - 1)))
    np.testing.assert_array_equal(peaks, np.where(silent, 0, 127))


def test_by_hand() -> None:
    kernel = np.float32([[254, 1, 0], [-127, 0.5, 0], [1.9, -0.25, 0]])
    quantized = quantize({KERNEL: kernel})
    np.testing.assert_array_equal(quantized[SCALE], np.float32([2, 1 / 127, 1]))
    np.testing.assert_array_equal(quantized[KERNEL], [[127, 127, 0], [-64, 64, 0], [1, -32, 0]])


def test_a_channel_of_zeros_stays_so() -> None:
    kernel = np.zeros((3, 4, 2), np.float32)
    kernel[..., 1] = np.arange(12).reshape(3, 4)
    read = dequantize(quantize({KERNEL: kernel}))[KERNEL]
    assert (read[..., 0] == 0).all()
    assert (read[-1, -1] == [0, 11]).all()


def test_what_is_no_kernel_is_not_touched() -> None:
    leaves = {
        (*path, name): np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
        for path in ((), ("a",), ("kernel",))
        for name in ("bias", "scale", "weight_g", "alpha", "codebook", "mean", "var", "kernels")
    }
    leaves["a", "weight_v"] = leaves["a", "kernel"] = np.ones((4, 3), np.float32)
    before = as_bytes(leaves)
    quantized = quantize(leaves)
    assert as_bytes(leaves) == before  # nor is what was given
    changed = {path for path in leaves if quantized[path].dtype != np.float32}
    assert changed == {("a", "weight_v"), ("a", "kernel")}
    assert set(quantized) - set(leaves) == {(SCALES, *path) for path in changed}
    kept = {path: value for path, value in quantized.items() if path in before.keys() - changed}
    assert as_bytes(kept) == {path: before[path] for path in kept}
    assert set(dequantize(quantized)) == set(leaves)


def test_nothing_quantized_is_nothing_changed() -> None:
    leaves = {KERNEL: np.ones((2, 2), np.float32), ("bias",): np.ones(2, np.float32)}
    assert as_bytes(dequantize(leaves)) == as_bytes(leaves)


def test_missing_parts() -> None:
    quantized = quantize({KERNEL: np.ones((2, 2), np.float32)})
    for lost in (KERNEL, SCALE):
        with pytest.raises(KeyError, match=r"layer.*kernel"):
            dequantize({path: value for path, value in quantized.items() if path != lost})


# -- checkpoints -----------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["whisper", "codec"])
def weights(request: pytest.FixtureRequest) -> Weights:
    if request.param == "whisper":
        return Weights("whisper", "small", SMALL, random_params(semantic_shapes(SMALL), 0))
    config = PRESETS["tiny"].codec
    return Weights("codec", "tiny", config, random_params(codec_shapes(config), 0))


@pytest.fixture
def saved(weights: Weights, tmp_path: Path) -> Path:
    return save_weights(weights, tmp_path / "small", quantized=True)


def test_checkpoints_are_float32_once_loaded(weights: Weights, saved: Path) -> None:
    read = load_weights(saved, weights.kind)
    assert read.config == weights.config
    check_tree(read.params, weights.params, what="the model")
    before, after = flatten(weights.params), flatten(read.params)
    kernels = {path for path in before if path[-1] in ("kernel", "weight_v")}
    assert kernels
    for path, value in before.items():
        if path in kernels:
            peak = np.abs(value).max(axis=tuple(range(value.ndim - 1)))
            assert (np.abs(after[path] - value) <= HALF * peak / 127 * (1 + 1e-6)).all()
            assert (after[path] != value).any()
        else:
            np.testing.assert_array_equal(after[path], value)


def test_saving_again_gives_the_same_bytes(weights: Weights, saved: Path, tmp_path: Path) -> None:
    again = save_weights(load_weights(saved, weights.kind), tmp_path / "b", quantized=True)
    for name in ("model.safetensors", "config.json"):
        assert (again / name).read_bytes() == (saved / name).read_bytes()
    # And at full width it is what was loaded, not what was rounded.
    whole = save_weights(load_weights(saved, weights.kind), tmp_path / "c")
    read = flatten(load_weights(whole, weights.kind).params)
    assert as_bytes(read) == as_bytes(flatten(load_weights(saved, weights.kind).params))


def test_a_quarter_of_the_size(tmp_path: Path) -> None:
    """Of a model that is mostly kernels."""
    weights = Weights("whisper", "small", SMALL, random_params(semantic_shapes(SMALL), 0))
    sizes = [
        os.path.getsize(save_weights(weights, tmp_path / str(q), quantized=q) / "model.safetensors")
        for q in (False, True)
    ]
    assert 0.25 < sizes[1] / sizes[0] < 0.33


def test_what_ships_is_a_quarter() -> None:
    """The bundled encoder: a byte for each number of a kernel, four for the others."""
    from dualcodec_jax import hub

    folder = hub.local_path(hub.BUNDLED) / "whisper"
    tensors = read_tensors(folder / "model.safetensors")
    kernels = [name for name in tensors if name.endswith(".kernel") and SCALES not in name]
    assert {str(tensors[name].dtype) for name in kernels} == {"int8"}
    assert len(kernels) == 2 + 4 * 6
    numbers = 8_208_384 - 1500 * 384
    assert os.path.getsize(folder / "model.safetensors") < 0.26 * 4 * numbers


def rewrite(folder: Path, change: Any) -> None:
    tensors = read_tensors(folder / "model.safetensors")
    change(tensors)
    write_tensors(tensors, folder / "model.safetensors")


@pytest.mark.parametrize("part", ["kernel", "scale"])
def test_a_checkpoint_without_a_part(weights: Weights, saved: Path, part: str) -> None:
    names = read_tensors(saved / "model.safetensors")
    scale = next(name for name in names if name.startswith(SCALES))
    kernel = scale.removeprefix(f"{SCALES}.")
    rewrite(saved, lambda tensors: tensors.pop(kernel if part == "kernel" else scale))
    with pytest.raises(WeightsError, match="no 8-bit kernel and scale for") as caught:
        load_weights(saved, weights.kind)
    assert type(caught.value) is WeightsError
    assert str(saved) in str(caught.value)
    assert all(name in str(caught.value) for name in kernel.split("."))


def test_a_scale_of_a_float_kernel_is_refused(weights: Weights, saved: Path) -> None:
    """It would have no effect, so something is wrong."""

    def widen(tensors: dict[str, np.ndarray]) -> None:
        name = next(name for name, value in tensors.items() if value.dtype == np.int8)
        tensors[name] = tensors[name].astype(np.float32)

    rewrite(saved, widen)
    with pytest.raises(WeightsError, match="no 8-bit kernel and scale for"):
        load_weights(saved, weights.kind)
