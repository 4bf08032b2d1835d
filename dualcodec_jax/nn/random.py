"""Random parameters in seconds, for tests, benchmarks and demonstrations at full size.

The distributions are those of ``module.init`` (``tests/test_random.py`` compares them), drawn
with numpy: compiling JAX's generators for a thousand differently shaped tensors takes a minute.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Params = dict[str, Any]


def random_params(shapes: Params, seed: int) -> Params:
    """Float32 numpy arrays for a tree of shapes (leaves with ``shape``), reproducible by seed."""
    return _layer(shapes, (), np.random.default_rng(seed))


def _layer(shapes: Params, path: tuple[str, ...], rng: np.random.Generator) -> Params:
    result: Params = {}
    kernel = shapes.get("weight_v", shapes.get("kernel"))
    fan_in = 0 if kernel is None else _fan_in(tuple(kernel.shape), path[-1])
    for name, value in shapes.items():
        if isinstance(value, dict):
            result[name] = _layer(value, (*path, name), rng)
            continue
        shape = tuple(value.shape)
        match name:
            case "alpha" | "scale":
                result[name] = np.ones(shape, np.float32)
            case "codebook" | "distance_embedding":
                result[name] = rng.standard_normal(shape, np.float32)
            case "weight_v" | "kernel":
                result[name] = _uniform(rng, shape, fan_in)
            case "bias" if fan_in and not _starts_at_zero(path):
                result[name] = _uniform(rng, shape, fan_in)
            case "bias":
                result[name] = np.zeros(shape, np.float32)
            case "weight_g":
                pass
            case _:
                raise ValueError(f"no rule for parameter {'/'.join((*path, name))}")
    if "weight_g" in shapes:
        gain = tuple(shapes["weight_g"].shape)
        axes = tuple(axis for axis, size in enumerate(gain) if size == 1)
        squares = np.sum(np.square(result["weight_v"]), axis=axes, keepdims=True)
        result["weight_g"] = np.sqrt(squares)
    return result


def _fan_in(shape: tuple[int, ...], layer: str) -> int:
    if layer == "upsample":
        return shape[0] * math.prod(shape[2:])
    if layer in ("dwconv", "depthwise_conv"):
        return shape[0]
    return math.prod(shape[:-1])


def _starts_at_zero(path: tuple[str, ...]) -> bool:
    return path[0] == "dac" and path[-1] != "upsample"


def _uniform(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int) -> np.ndarray:
    values = rng.random(shape, np.float32)
    values -= np.float32(0.5)
    values *= np.float32(2 / math.sqrt(fan_in))
    return values
