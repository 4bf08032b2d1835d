"""Use the codec from Flax NNX: as a module, with your choice of what trains, and back again.

    python examples/flax_nnx.py

The decoder learns one recording from its codes; encoder and codebooks stay, so its codes do too.
Needs `pip install 'dualcodec-jax[train]'` for optax.
"""

import argparse
import time
from importlib import resources

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import dualcodec_jax as dualcodec
from dualcodec_jax.ecosystem.nnx import as_model, as_nnx
from dualcodec_jax.losses import mel_distance

DECODER = nnx.All(nnx.Param, nnx.PathContains("decoder"))


def main() -> None:
    """Train the decoder for some steps, and decode with what came out."""
    arguments = parse_arguments()
    model = dualcodec.get_model("demo")
    inference = dualcodec.Inference(model)
    clip = resources.files("dualcodec_jax") / "assets" / "librivox.flac"
    samples = dualcodec.load_audio(str(clip), model.config.sample_rate).samples
    audio = jnp.asarray(samples[: round(arguments.seconds * model.config.sample_rate)])[None, None]
    semantic, acoustic = inference.encode(audio, None)
    codes = jnp.concatenate([semantic, acoustic], axis=1)

    module = as_nnx(model)
    optimizer = nnx.Optimizer(module, optax.adam(arguments.rate), wrt=DECODER)
    for index in range(arguments.steps):
        start = time.perf_counter()
        loss = float(step(module, optimizer, codes, audio))
        print(f"step {index}: mel distance {loss:.4f}, {time.perf_counter() - start:.1f} s")

    trained = as_model(module, model)
    semantic_model = (
        inference.config.semantic,
        inference.params["semantic"],
        inference.params["statistics"],
    )
    ours = dualcodec.Inference(trained, semantic=semantic_model)
    again = jnp.concatenate(ours.encode(audio, None), axis=1)
    print(f"the same codes as before: {bool((again == codes).all())}")
    for name, decoder in (("before", inference), ("after", ours)):
        distance = loss_of(decoder.decode(semantic, acoustic), audio)
        print(f"mel distance {name}: {float(distance):.4f}")


@nnx.jit
def step(
    module: nnx.Module, optimizer: nnx.Optimizer, codes: jax.Array, audio: jax.Array
) -> jax.Array:
    """One step; the loss before it."""

    def loss(module: nnx.Module) -> jax.Array:
        return loss_of(module(codes, method="decode").swapaxes(1, 2), audio)

    value, gradients = nnx.value_and_grad(loss, argnums=nnx.DiffState(0, DECODER))(module)
    optimizer.update(module, gradients)
    return value


def loss_of(decoded: jax.Array, audio: jax.Array) -> jax.Array:
    """Distance of mel spectrograms, as far as the decoder reaches."""
    return mel_distance(
        audio[:, 0, : decoded.shape[2]],
        decoded[:, 0],
        sample_rate=24000,
        window_lengths=(512, 2048),
        n_mels=(80, 160),
    )


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="of the recording")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rate", type=float, default=3e-4, help="learning rate")
    parser.add_argument("--short", action="store_true", help="three steps on half a second")
    arguments = parser.parse_args()
    if arguments.short:
        arguments.seconds, arguments.steps = 0.5, 3
    return arguments


if __name__ == "__main__":
    main()
