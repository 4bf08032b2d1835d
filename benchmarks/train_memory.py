"""Memory of a training step of the full model, as the compiler plans it.

    .venv/bin/python benchmarks/train_memory.py                   # for this machine's device
    .venv/bin/python benchmarks/train_memory.py --topology v5e:2x2 --batch 4 12 --fsdp 4

Nothing is computed, so batches can be planned that do not fit. With ``--topology`` the step is
compiled for TPUs that are not there; that needs ``pip install 'jax[tpu]'``. Per device. State: both
networks, their optimisers and w2v-BERT, which the step runs on the audio. Step: what is allocated
beside it.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import time
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies

import dualcodec_jax
from dualcodec_jax.convert.files import semantic_shapes
from dualcodec_jax.sharding import MeshConfig, batch_sharding, make_mesh
from dualcodec_jax.train.config import ObjectiveConfig
from dualcodec_jax.train.export import placed_shapes
from dualcodec_jax.train.state import state_shapes
from dualcodec_jax.train.step import jit_step


def main() -> None:
    """Print one line of a table for each combination."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=["12hz_v1", "25hz_v1"], default="12hz_v1")
    parser.add_argument("--topology", help="TPUs to compile for, such as v5e:2x2 or v4:2x2x1")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4], help="clips per device")
    parser.add_argument("--seconds", type=float, nargs="+", default=[3.0])
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--checkpoint-discriminators", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--fsdp", type=int, nargs="+", default=[1])
    options = parser.parse_args()
    if options.topology:
        # Not asked for by a cloud that is not there.
        os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost"}
        devices = topologies.get_topology_desc(options.topology, "tpu").devices
    else:
        devices = jax.devices()[:1]
    print(f"{options.model} on {len(devices)} × {devices[0].device_kind}")
    print("| clips | seconds | precision | checkpointed | fsdp | state | step | compile s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for values in itertools.product(
        options.batch,
        options.seconds,
        options.precision,
        options.checkpoint_discriminators,
        options.fsdp,
    ):
        start = time.perf_counter()
        figures = plan(options.model, devices, *values)
        words = " | ".join(str(value) for value in values)
        print(f"| {words} | {figures} | {time.perf_counter() - start:.0f} |", flush=True)


def plan(
    model_id: str,
    devices: list[Any],
    batch: int,
    seconds: float,
    precision: str,
    remat: int,
    fsdp: int,
) -> str:
    """GiB of the state and beside it, or that it does not fit."""
    model = dataclasses.replace(dualcodec_jax.get_config(model_id), precision=precision)
    config = ObjectiveConfig(model=model, checkpoint_discriminators=bool(remat))
    mesh = make_mesh(MeshConfig(fsdp=fsdp), devices)
    state = placed_shapes(state_shapes(config), mesh)
    row = jax.ShapeDtypeStruct((model.semantic.hidden_size,), jnp.float32)
    frozen = {"semantic": semantic_shapes(model.semantic), "statistics": {"mean": row, "var": row}}
    frozen = placed_shapes(frozen, mesh)
    shape = (batch * len(devices), round(seconds * 24000))
    audio = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=batch_sharding(mesh))
    lowered = jit_step(config, mesh, state).lower(state, frozen, {"audio": audio}, bypass=False)
    try:
        memory = lowered.compile().memory_analysis()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return "– | does not fit"
    kept = memory.argument_size_in_bytes
    beside = memory.output_size_in_bytes + memory.temp_size_in_bytes - memory.alias_size_in_bytes
    return f"{kept / 2**30:.1f} GiB | {beside / 2**30:.1f} GiB"


if __name__ == "__main__":
    main()
