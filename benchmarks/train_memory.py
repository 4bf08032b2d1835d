"""Memory of a training step of the full model, as the compiler plans it for this machine's device.

    .venv/bin/python benchmarks/train_memory.py
    .venv/bin/python benchmarks/train_memory.py --batch 4 12 24 --precision bfloat16

Nothing is computed, so that batches can be planned that do not fit. State: both networks with
their optimisers. Step: what is allocated beside it. With features from a cache; w2v-BERT adds its
parameters, 1.5 GiB, and little else, because it keeps no activations.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import time

import jax
import jax.numpy as jnp

import dualcodec_jax
from dualcodec_jax.lengths import code_length
from dualcodec_jax.sharding import make_mesh, placed_shapes
from dualcodec_jax.train.config import ObjectiveConfig
from dualcodec_jax.train.state import state_shapes
from dualcodec_jax.train.step import jit_step


def main() -> None:
    """Print one line of a table for each combination."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=["12hz_v1", "25hz_v1"], default="12hz_v1")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--seconds", type=float, nargs="+", default=[1.0, 3.0])
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--checkpoint-discriminators", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--accumulate", type=int, nargs="+", default=[1])
    options = parser.parse_args()
    print(f"{options.model} on {jax.devices()[0].device_kind}")
    print("| clips | seconds | precision | checkpointed | accumulate | state | step | compile s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for values in itertools.product(
        options.batch,
        options.seconds,
        options.precision,
        options.checkpoint_discriminators,
        options.accumulate,
    ):
        state, step, seconds = plan(options.model, *values)
        words = " | ".join(str(value) for value in values)
        print(f"| {words} | {state:.1f} GiB | {step:.1f} GiB | {seconds:.0f} |", flush=True)


def plan(
    model_id: str, batch: int, seconds: float, precision: str, remat: int, accumulate: int
) -> tuple[float, float, float]:
    """GiB of the state, GiB beside it, and seconds to compile."""
    model = dataclasses.replace(dualcodec_jax.get_config(model_id), precision=precision)
    config = ObjectiveConfig(
        model=model, checkpoint_discriminators=bool(remat), accumulate=accumulate
    )
    mesh = make_mesh(devices=jax.devices()[:1])
    state = placed_shapes(state_shapes(config), mesh)
    samples, clips = round(seconds * 24000), batch * accumulate
    frames = int(code_length(samples, model.codec))
    inputs = {
        "audio": jax.ShapeDtypeStruct((clips, samples), jnp.float32),
        "features": jax.ShapeDtypeStruct((clips, frames, 1024), jnp.float32),
    }
    start = time.perf_counter()
    compiled = jit_step(config, mesh, state).lower(state, {}, inputs, bypass=False).compile()
    elapsed = time.perf_counter() - start
    memory = compiled.memory_analysis()
    kept = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    beside = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes
        - kept
    )
    return kept / 2**30, beside / 2**30, elapsed


if __name__ == "__main__":
    main()
