"""One step of training: the discriminators, then the generator against the updated ones."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh

from dualcodec_jax.functional import semantic_features
from dualcodec_jax.sharding import replicated, tree_shardings
from dualcodec_jax.train.codebooks import update_codebooks
from dualcodec_jax.train.config import ObjectiveConfig
from dualcodec_jax.train.objective import (
    Params,
    Terms,
    discriminator_objective,
    generator_objective,
    reconstruct,
)
from dualcodec_jax.train.optimizer import apply_gradients, clip_by_norm, learning_rate
from dualcodec_jax.train.state import TrainState

Batch = dict[str, Array]

FREQUENCY_DECAY = 0.99
"""Of the moving average of code frequencies: a memory of some hundred steps."""


def draw_bypass(config: ObjectiveConfig, step: int) -> bool:
    """Whether ``step`` decodes from the semantic latent alone: one draw for the global batch.

    Drawn on the host from seed and step, so that all processes agree and a resumed run repeats.
    """
    return bool(np.random.default_rng((config.seed, step)).random() < config.bypass_rate)


def train_step(
    config: ObjectiveConfig, state: TrainState, frozen: Params, batch: Batch, *, bypass: bool
) -> tuple[TrainState, Terms]:
    """Update both networks.

    Args:
        config: static.
        state: as of the step before.
        frozen: ``semantic`` and ``statistics``, as for :func:`dualcodec_jax.encode`; may lack
            both if the batch has features, or the model needs none.
        batch: ``audio`` float32 ``[B, N]``, and maybe ``features`` ``[B, T, semantic_dim]``:
            pooled and normalised. B must be a multiple of ``config.accumulate``.
        bypass: static; see :func:`draw_bypass`.

    Returns:
        The next state, and scalars to log. A step whose losses or gradients are not finite
        leaves everything but the counters as it was.
    """
    batch = _with_features(config, frozen, batch)
    batch["active"] = _draw_active(config, state.step, batch["audio"].shape[0])
    if config.accumulate == 1:
        gradients = _gradients(config, state, batch, bypass=bypass)
    else:
        gradients = _accumulated_gradients(config, state, batch, bypass=bypass)
    d_params, d_optimizer, d_terms, g_gradients, g_terms, assignment = gradients
    g_gradients, g_norm = clip_by_norm(g_gradients, config.adamw.max_grad_norm)
    rate = learning_rate(config.generator_schedule, state.step)
    g_params, g_optimizer = apply_gradients(
        config.adamw,
        g_gradients,
        state.generator_optimizer,
        state.generator,
        rate,
        bypass=bypass,
    )
    frequency = _code_frequency(state.code_frequency, assignment.codes)
    if config.keep_codes:
        g_params = _with_decoder(state.generator, g_params["dac"]["decoder"])
    elif config.codebooks.moving:
        key = jax.random.fold_in(jax.random.key(config.seed + 1), state.step)
        g_params, frequency = update_codebooks(
            config.codebooks, config.model.codec, g_params, assignment, frequency, key
        )
    terms = {**g_terms, **d_terms, "generator_norm": g_norm, "learning_rate": rate}
    good = jnp.isfinite(jnp.stack([terms[name] for name in sorted(terms)])).all()
    updated = dataclasses.replace(
        state,
        generator=g_params,
        discriminator=d_params,
        generator_optimizer=g_optimizer,
        discriminator_optimizer=d_optimizer,
        code_frequency=frequency,
    )
    kept = jax.tree.map(lambda new, old: jnp.where(good, new, old), updated, state)
    bad = 1 - good.astype(jnp.int32)
    next_state = dataclasses.replace(
        kept,
        step=state.step + 1,
        bad_steps=state.bad_steps + bad,
        bad_steps_in_a_row=(state.bad_steps_in_a_row + 1) * bad,
    )
    return next_state, terms


def jit_step(
    config: ObjectiveConfig,
    mesh: Mesh,
    state: TrainState,
    compiler_options: dict[str, Any] | None = None,
) -> Callable[..., Any]:
    """:func:`train_step` compiled for a mesh: ``step(state, frozen, batch, bypass=…)``.

    ``state`` (arrays or shapes) says where everything lies; the state given to a call is donated.
    Each value of ``bypass`` compiles on its first use. ``compiler_options`` are those of XLA.
    """
    return jax.jit(
        functools.partial(train_step, config),
        static_argnames="bypass",
        donate_argnames="state",
        out_shardings=(tree_shardings(state, mesh), replicated(mesh)),
        compiler_options=compiler_options,
    )


def _with_features(config: ObjectiveConfig, frozen: Params, batch: Batch) -> Batch:
    if not config.needs_features:
        return {"audio": batch["audio"]}
    if "features" in batch:
        features = batch["features"].astype(batch["audio"].dtype)
    else:
        features, _ = semantic_features(frozen, config.model, batch["audio"])
    return {"audio": batch["audio"], "features": lax.stop_gradient(features)}


def _draw_active(config: ObjectiveConfig, step: Array, batch: int) -> Array:
    """Quantizer dropout: layers of the DAC that count, per item, int32 ``[B]``.

    The first share of the batch draws from 1…n; the rest keeps all, as upstream.
    """
    codec = config.model.codec
    layers = len(codec.dac_codebook_sizes)
    key = jax.random.fold_in(jax.random.key(config.seed), step)
    drawn = jax.random.randint(key, (batch,), 1, layers + 1)
    dropped = jnp.arange(batch) < int(batch * codec.quantizer_dropout)
    return jnp.where(dropped, drawn, layers)


def _gradients(config: ObjectiveConfig, state: TrainState, batch: Batch, *, bypass: bool) -> Any:
    """The discriminators' step, and the generator's gradients after it; one forward pass."""
    output, pullback, assignment = jax.vjp(
        lambda params: _reconstruct(config, params, batch, bypass), state.generator, has_aux=True
    )
    d_params, d_optimizer, d_terms = state.discriminator, state.discriminator_optimizer, {}
    if config.adversarial:
        d_loss, d_gradients = jax.value_and_grad(discriminator_objective, argnums=1)(
            config, state.discriminator, batch["audio"], output.audio
        )
        d_params, d_optimizer, d_terms = _update_discriminator(config, state, d_gradients, d_loss)
    (total, terms), output_gradients = jax.value_and_grad(
        generator_objective, argnums=2, has_aux=True
    )(config, d_params, output, batch["audio"], batch.get("features"), bypass=bypass)
    (g_gradients,) = pullback(output_gradients)
    return d_params, d_optimizer, d_terms, g_gradients, {**terms, "total": total}, assignment


def _accumulated_gradients(
    config: ObjectiveConfig, state: TrainState, batch: Batch, *, bypass: bool
) -> Any:
    """As :func:`_gradients`, over micro-batches; the generator runs twice on each.

    The generator's gradients wait for the updated discriminators, which wait for the last
    micro-batch: keeping every pass for the backward would undo the saving of memory.
    """
    count = config.accumulate
    # Strided micro-batches: each keeps the sharding of the batch.
    micro = {name: _strided(value, count) for name, value in batch.items()}

    def discriminate(item: Batch) -> Any:
        output, _ = _reconstruct(config, state.generator, item, bypass)
        return jax.value_and_grad(discriminator_objective, argnums=1)(
            config, state.discriminator, item["audio"], output.audio
        )

    d_params, d_optimizer, d_terms = state.discriminator, state.discriminator_optimizer, {}
    if config.adversarial:
        d_loss, d_gradients = _mean_over(discriminate, micro, count)
        d_params, d_optimizer, d_terms = _update_discriminator(config, state, d_gradients, d_loss)

    def objective(params: Params, item: Batch) -> Any:
        output, assignment = _reconstruct(config, params, item, bypass)
        total, terms = generator_objective(
            config, d_params, output, item["audio"], item.get("features"), bypass=bypass
        )
        return total, ({**terms, "total": total}, assignment)

    def generate(item: Batch) -> Any:
        gradients, (terms, assignment) = jax.grad(objective, has_aux=True)(state.generator, item)
        return (gradients, terms), assignment

    (g_gradients, g_terms), parts = _mean_over(generate, micro, count, keep=True)
    assignment = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), parts)
    return d_params, d_optimizer, d_terms, g_gradients, g_terms, assignment


def _with_decoder(generator: Params, decoder: Params) -> Params:
    """``generator`` with another DAC decoder, the one part that codes do not depend on."""
    return {**generator, "dac": {**generator["dac"], "decoder": decoder}}


def _reconstruct(config: ObjectiveConfig, params: Params, batch: Batch, bypass: bool) -> Any:
    if config.keep_codes:
        params = _with_decoder(lax.stop_gradient(params), params["dac"]["decoder"])
    return reconstruct(
        config, params, batch["audio"], batch.get("features"), batch["active"], bypass=bypass
    )


def _update_discriminator(
    config: ObjectiveConfig, state: TrainState, gradients: Params, loss: Array
) -> Any:
    gradients, norm = clip_by_norm(gradients, config.adamw.max_grad_norm)
    rate = learning_rate(config.discriminator_schedule, state.step)
    params, optimizer = apply_gradients(
        config.adamw, gradients, state.discriminator_optimizer, state.discriminator, rate
    )
    terms = {
        "discriminator": loss,
        "discriminator_norm": norm,
        "discriminator_learning_rate": rate,
    }
    return params, optimizer, terms


def _strided(x: Array, count: int) -> Array:
    """``[B, …] → [count, B / count, …]``; entry i holds items i, i + count, …"""
    return x.reshape(x.shape[0] // count, count, *x.shape[1:]).swapaxes(0, 1)


def _mean_over(function: Any, items: Batch, count: int, *, keep: bool = False) -> Any:
    """Mean of ``function`` over the leading axis; with ``keep``, of its first result only.

    The second result is then stacked.
    """

    def body(total: Any, item: Batch) -> Any:
        result = function(item)
        value, rest = result if keep else (result, None)
        return jax.tree.map(jnp.add, total, value), rest

    shapes = jax.eval_shape(function, jax.tree.map(lambda x: x[0], items))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes[0] if keep else shapes)
    total, rest = lax.scan(body, zeros, items)
    mean = jax.tree.map(lambda x: x / count, total)
    return (mean, rest) if keep else mean


def _code_frequency(frequency: Array, codes: Array) -> Array:
    """Moving average after a batch of ``codes [B, n, T]``; rows that were not used stay."""
    rows = codes.shape[1]
    index = jnp.broadcast_to(jnp.arange(rows)[None, :, None], codes.shape)
    counts = jnp.zeros((rows, frequency.shape[1]), frequency.dtype).at[index, codes].add(1)
    share = counts / (codes.shape[0] * codes.shape[2])
    used = frequency[:rows]
    # The first batch counts fully, so that the average starts without a bias.
    empty = jnp.sum(used, axis=1, keepdims=True) == 0
    decay = jnp.where(empty, 0, FREQUENCY_DECAY).astype(frequency.dtype)
    return frequency.at[:rows].set(decay * used + (1 - decay) * share)
