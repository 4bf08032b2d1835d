"""Kernels as 8-bit integers with a scale for each output channel: a quarter of the bytes.

Only how weights are kept on disk; networks compute with what :func:`dequantize` gives back.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Path = tuple[str, ...]
Leaves = Mapping[Path, np.ndarray]

SCALES = "scale_of"
"""First name of the path under which the scale of a quantized leaf is kept."""
_LARGEST = 127
_SMALLEST = _LARGEST * np.finfo(np.float32).tiny
_QUANTIZED = ("kernel", "weight_v")


def quantize(leaves: Leaves) -> dict[Path, np.ndarray]:
    """Kernels as int8, and their scales; everything else as it is.

    The last axis of a kernel is that of its output channels. The error of a value is at most half
    of its channel's scale, 0.4 % of the channel's largest value.
    """
    result: dict[Path, np.ndarray] = {}
    for path, value in leaves.items():
        if path[-1] not in _QUANTIZED:
            result[path] = value
            continue
        peaks = np.abs(value).max(axis=tuple(range(value.ndim - 1)))
        # Below the normal numbers a scale has too few bits; such channels count as silent.
        scale = np.where(peaks > _SMALLEST, peaks / _LARGEST, 1).astype(np.float32)
        result[path] = np.round(value / scale).astype(np.int8)
        result[(SCALES, *path)] = scale
    return result


def dequantize(leaves: Leaves) -> dict[Path, np.ndarray]:
    """Float32 kernels from int8 ones and their scales; the inverse of :func:`quantize`.

    Raises:
        KeyError: naming the kernel whose scale is missing or of another shape, or the reverse.
    """
    scales = {path[1:]: value for path, value in leaves.items() if path[0] == SCALES}
    values = {path: value for path, value in leaves.items() if path[0] != SCALES}
    for path in values:
        if values[path].dtype != np.int8:
            continue
        scale = scales.pop(path, None)
        if scale is None or scale.shape != values[path].shape[-1:] or scale.dtype != np.float32:
            raise KeyError("/".join(path))
        values[path] = values[path].astype(np.float32) * scale
    for path in scales:
        raise KeyError("/".join(path))
    return values
