"""What changes from step to step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import Array

from dualcodec_jax.convert.files import codec_shapes, discriminator_shapes
from dualcodec_jax.nn.random import random_params
from dualcodec_jax.train.config import ObjectiveConfig
from dualcodec_jax.train.optimizer import adamw

Params = dict[str, Any]


@struct.dataclass
class TrainState:
    """Networks, optimisers and counters; a pytree that Orbax saves.

    Attributes:
        step: int32, steps taken (skipped ones included).
        generator: parameters, float32.
        discriminator: parameters, float32.
        generator_optimizer: AdamW's moments and counts.
        discriminator_optimizer: the same.
        code_frequency: float32 ``[n_quantizers, codebook_size]``, moving average of how often
            each code is used, for telling whether codebooks collapse.
        bad_steps: int32, skipped steps in all.
        bad_steps_in_a_row: int32, skipped steps up to now.
    """

    step: Array
    generator: Params
    discriminator: Params
    generator_optimizer: optax.PartitionState
    discriminator_optimizer: optax.PartitionState
    code_frequency: Array
    bad_steps: Array
    bad_steps_in_a_row: Array


def new_state(
    config: ObjectiveConfig,
    generator: Params | None = None,
    discriminator: Params | None = None,
) -> TrainState:
    """The state before the first step; networks at random unless given (finetuning)."""
    codec = config.model.codec
    if generator is None:
        generator = random_params(codec_shapes(codec), config.seed)
    if discriminator is None:
        discriminator = random_params(discriminator_shapes(config.discriminator), config.seed + 1)
    generator, discriminator = jax.tree.map(jnp.asarray, (generator, discriminator))
    optimizer = adamw(config.adamw)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        generator=generator,
        discriminator=discriminator,
        generator_optimizer=optimizer.init(generator),
        discriminator_optimizer=optimizer.init(discriminator),
        code_frequency=jnp.zeros((codec.n_quantizers, max(codec.codebook_sizes)), jnp.float32),
        bad_steps=jnp.zeros((), jnp.int32),
        bad_steps_in_a_row=jnp.zeros((), jnp.int32),
    )


def state_shapes(config: ObjectiveConfig) -> TrainState:
    """Shapes and dtypes of a state, without making one."""
    shapes = codec_shapes(config.model.codec), discriminator_shapes(config.discriminator)
    return jax.eval_shape(lambda *networks: new_state(config, *networks), *shapes)
