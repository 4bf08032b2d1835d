"""Gradients in the forms of ``dualcodec_jax.nn`` for a CPU, beside those that JAX derives.

    .venv/bin/python benchmarks/conv_gradients.py

Shapes are those of 12hz_v1 and its discriminators on two clips of one second. The two sides take
turns; medians in milliseconds. The last ones are of the demo model's first layers on eight clips;
the "kernel" of snake is its α.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dualcodec_jax.nn import conv, ops

UPSAMPLE = ((13, 1536, 1536), (26, 768, 3072), (208, 384, 1152), (1248, 192, 480), (6000, 96, 192))
"""Frames, inputs, strides times outputs."""
PLANES = (
    ((890, 3, 128), (5, 1, 128, 512), (3, 1)),
    ((99, 3, 1024), (5, 1, 1024, 1024), (1, 1)),
    ((94, 128, 64), (3, 9, 64, 64), (1, 2)),
)
"""Input without its batch, kernel, stride."""
STRIDED = ((24000, 24, 48, 8), (24000, 12, 24, 3), (8000, 24, 48, 5))
"""Samples, inputs, outputs, stride; kernels of two strides."""
SNAKES = ((24000, 32), (24000, 16), (8000, 32))


def main() -> None:
    """Time both sides of every shape."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    rng = np.random.default_rng(0)
    print(f"{'shape':44} {'gradient':9} {'derived':>9} {'ours':>9}")
    for frames, inputs, outputs in UPSAMPLE:
        shapes = (2, frames, inputs), (2, inputs, outputs)
        _compare(
            f"up-sampling {shapes}", conv._two_taps_plain, conv._two_taps, shapes, repeats, rng
        )
    for plane, kernel, stride in PLANES:

        def derived(x: Any, k: Any, stride: tuple[int, int] = stride) -> Any:
            return conv._conv2d_plain(x, k, stride)

        def ours(x: Any, k: Any, stride: tuple[int, int] = stride) -> Any:
            return conv.conv2d(x, k, stride=stride)

        shapes = (2, *plane), kernel
        _compare(f"planes {shapes}", derived, ours, shapes, repeats, rng)
    for samples, inputs, outputs, step in STRIDED:
        options: Any = {"stride": step, "padding": (-(-step // 2),) * 2}
        shapes = (8, samples, inputs), (2 * step, inputs, outputs)
        plain = functools.partial(conv._conv1d_plain, **options)
        own = functools.partial(conv.conv1d, **options)
        _compare(f"strided {shapes}", plain, own, shapes, repeats, rng)
    for samples, channels in SNAKES:
        shapes = (8, samples, channels), (channels,)
        _compare(f"snake {shapes}", _snake, ops.snake, shapes, repeats, rng)


def _snake(x: jax.Array, alpha: jax.Array) -> jax.Array:
    return x + ops.sin_squared(alpha * x) / (alpha + 1e-9)


def _compare(
    what: str,
    derived: Callable[..., Any],
    ours: Callable[..., Any],
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    repeats: int,
    rng: np.random.Generator,
) -> None:
    x, kernel = (jnp.asarray(rng.standard_normal(shape, np.float32)) for shape in shapes)
    slope = jnp.ones(jax.eval_shape(derived, x, kernel).shape)
    for name, argument in (("input", 0), ("kernel", 1)):
        runs = [
            jax.jit(lambda x, k, s, f=f, a=argument: jax.vjp(f, x, k)[1](s)[a])
            for f in (derived, ours)
        ]
        times: list[list[float]] = [[], []]
        for turn in range(repeats + 1):
            for run, taken in zip(runs, times, strict=True):
                start = time.perf_counter()
                jax.block_until_ready(run(x, kernel, slope))
                if turn:
                    taken.append(1000 * (time.perf_counter() - start))
        medians = [statistics.median(taken) for taken in times]
        print(f"{what:44} {name:9} {medians[0]:9.1f} {medians[1]:9.1f}", flush=True)


if __name__ == "__main__":
    main()
