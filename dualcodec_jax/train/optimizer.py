"""AdamW with the original's details: clipping, schedules, and parts that sit out a step.

On a bypass step upstream's encoder and acoustic quantizer have no gradient at all, so torch
leaves them and their moments alone: no weight decay, no decay of the moments, no step count.
Hence two groups with a state each.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from dualcodec_jax.train.config import AdamWConfig, ScheduleConfig

Params = dict[str, Any]

ALWAYS, ACOUSTIC = "always", "acoustic"
"""Groups of parameters: updated at every step; not updated on bypass steps."""

CLIP_EPS = 1e-6
"""As in ``torch.nn.utils.clip_grad_norm_``."""


def groups(params: Params) -> Params:
    """The group of every leaf: ``dac.encoder`` and ``dac.quantizer`` are acoustic."""

    def group(path: tuple[Any, ...], _: Any) -> str:
        names = tuple(key.key for key in path[:2])
        return ACOUSTIC if names in (("dac", "encoder"), ("dac", "quantizer")) else ALWAYS

    return jax.tree_util.tree_map_with_path(group, params)


def adamw(config: AdamWConfig) -> optax.GradientTransformation:
    """AdamW up to the learning rate, decaying every parameter, with one state per group."""

    def rule() -> optax.GradientTransformation:
        return optax.chain(
            optax.scale_by_adam(*config.betas, config.eps),
            optax.add_decayed_weights(config.weight_decay),
        )

    return optax.partition({ALWAYS: rule(), ACOUSTIC: rule()}, groups)


def apply_gradients(
    config: AdamWConfig,
    gradients: Params,
    state: optax.PartitionState,
    params: Params,
    learning_rate: Array,
    *,
    bypass: bool = False,
) -> tuple[Params, optax.PartitionState]:
    """One step of AdamW on clipped gradients; the acoustic group sits out if ``bypass``."""
    updates, new_state = adamw(config).update(gradients, state, params)
    new_params = jax.tree.map(lambda p, u: p - (learning_rate * u).astype(p.dtype), params, updates)
    if bypass:
        new_params = jax.tree.map(
            lambda group, old, new: old if group == ACOUSTIC else new,
            groups(params),
            params,
            new_params,
        )
        kept = {**new_state.inner_states, ACOUSTIC: state.inner_states[ACOUSTIC]}
        new_state = new_state._replace(inner_states=kept)
    return new_params, new_state


def clip_by_norm(gradients: Params, max_norm: float) -> tuple[Params, Array]:
    """Scale all gradients so that their joint L2 norm is at most ``max_norm``; also that norm.

    Source: ``torch.nn.utils.clip_grad_norm_``.
    """
    norm = optax.tree.norm(gradients)
    factor = jnp.minimum(1, max_norm / (norm + CLIP_EPS))
    return jax.tree.map(lambda g: g * factor.astype(g.dtype), gradients), norm


def learning_rate(config: ScheduleConfig, step: Array) -> Array:
    """Rate at ``step``, float32.

    Source: upstream ``BaseTrainer.get_lr``; step 0 has rate 0 unless the rate is constant.
    """
    if config.constant:
        return jnp.full((), config.lr, jnp.float32)
    step = step.astype(jnp.float32)
    warmup = config.lr * step / max(config.warmup_steps, 1)
    progress = (step - config.warmup_steps) / (config.total_steps - config.warmup_steps)
    cosine = 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(progress, 0, 1)))
    decayed = config.min_lr + cosine * (config.lr - config.min_lr)
    return jnp.where(step < config.warmup_steps, warmup, decayed)
