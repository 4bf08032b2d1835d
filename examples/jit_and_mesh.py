"""Encode inside your own jitted training step, on one device and over a mesh.

    python examples/jit_and_mesh.py

A small language model learns to predict the next semantic code. Its step takes audio: noise,
encoding, loss, gradients and update are one program, and no codes are stored. Over a mesh the
batch is split and the parameters are replicated; JAX adds the communication. Without a GPU or TPU
the mesh has eight virtual CPU devices.
"""

import argparse
import functools
import os
import time
from importlib import resources
from typing import Any

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import dualcodec_jax as dualcodec

Params = dict[str, Any]
WIDTH, RATE = 64, 2.0


def main() -> None:
    """Take the same steps on one device and on all."""
    arguments = parse_arguments()
    inference = dualcodec.Inference(dualcodec.get_model(arguments.model))
    audio = excerpts(arguments.batch, arguments.seconds, inference.config.codec.sample_rate)
    print(f"audio {audio.shape}, {inference.config.model_id}, {jax.device_count()} devices")

    alone = jax.make_mesh((1,), ("data",), (AxisType.Auto,), devices=jax.devices()[:1])
    everywhere = jax.make_mesh((jax.device_count(),), ("data",), (AxisType.Auto,))
    results = [
        train(mesh, inference.params, inference.config, audio, arguments.steps)
        for mesh in (alone, everywhere)
    ]
    codes = [codes for codes, _ in results]
    losses = [losses for _, losses in results]
    print(f"codes on the mesh equal those of one device: {np.mean(codes[0] == codes[1]):.2%}")
    print(f"greatest difference of a loss: {np.max(np.abs(np.subtract(*losses))):.1e}")


def train(
    mesh: jax.sharding.Mesh,
    params: Params,
    config: dualcodec.Config,
    audio: np.ndarray,
    steps: int,
) -> tuple[np.ndarray, list[float]]:
    """Codes ``[B, T]`` of the last step and the loss of each, on a mesh."""
    batch = NamedSharding(mesh, PartitionSpec("data"))
    everywhere = NamedSharding(mesh, PartitionSpec())
    params = jax.device_put(params, everywhere)
    shard = jax.device_put(audio, batch)
    size = config.codec.semantic_codebook_size
    model = jax.device_put(new_model(jax.random.key(0), size), everywhere)
    losses = []
    for index in range(steps):
        start = time.perf_counter()
        key = jax.random.key(index + 1)
        model, loss, codes = step(model, params, config, shard, key)
        losses.append(float(loss))
        seconds = time.perf_counter() - start
        print(f"{mesh.size} devices, step {index}: loss {losses[-1]:.4f}, {seconds:.1f} s")
    return np.asarray(codes), losses


@functools.partial(jax.jit, static_argnames="config", donate_argnames="model")
def step(
    model: Params, params: Params, config: dualcodec.Config, audio: jax.Array, key: jax.Array
) -> tuple[Params, jax.Array, jax.Array]:
    """One step of training; ``config`` is static, the codec's ``params`` are an argument."""
    noisy = audio + 1e-3 * jax.random.normal(key, audio.shape)
    codes = dualcodec.encode(params, config, noisy, n_quantizers=1).codes[:, 0]
    loss, gradients = jax.value_and_grad(next_code_loss)(model, codes)
    model = jax.tree.map(lambda leaf, slope: leaf - RATE * slope, model, gradients)
    return model, loss, codes


def new_model(key: jax.Array, size: int) -> Params:
    """A table of embeddings and a projection back."""
    first, second = jax.random.split(key)
    return {
        "embedding": jax.random.normal(first, (size, WIDTH)),
        "projection": jax.random.normal(second, (WIDTH, size)) / WIDTH**0.5,
    }


def next_code_loss(model: Params, codes: jax.Array) -> jax.Array:
    """Mean cross-entropy of the codes ``[B, T]``, each given the one before."""
    logits = model["embedding"][codes[:, :-1]] @ model["projection"]
    scores = jax.nn.log_softmax(logits)
    return -jnp.mean(jnp.take_along_axis(scores, codes[:, 1:, None], axis=2))


def excerpts(count: int, seconds: float, sample_rate: int) -> np.ndarray:
    """Overlapping excerpts of the bundled recording, ``[count, 1, N]``."""
    clip = resources.files("dualcodec_jax") / "assets" / "librivox.flac"
    samples = dualcodec.load_audio(str(clip), sample_rate).samples
    size = round(seconds * sample_rate)
    starts = np.linspace(0, samples.size - size, count).astype(int)
    return np.stack([samples[None, start : start + size] for start in starts])


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="demo", help="demo, 12hz_v1 or 25hz_v1")
    parser.add_argument("--batch", type=int, default=16, help="a multiple of the devices")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each excerpt")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--short", action="store_true", help="two steps on eight half seconds")
    arguments = parser.parse_args()
    if arguments.short:
        arguments.batch, arguments.seconds, arguments.steps = 8, 0.5, 2
    if arguments.batch % jax.device_count():
        parser.error(f"--batch must be a multiple of {jax.device_count()}, the devices")
    return arguments


if __name__ == "__main__":
    main()
