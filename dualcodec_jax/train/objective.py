"""The two objectives of adversarial training, as functions of a reconstruction.

total_G = 15·mel + adversarial + 2·feature matching + 0.25·commitment + codebook
+ 15·reconstruction + 0.25·semantic commitment + semantic codebook
[+ 15·semantic mel on bypass steps], with the default weights of
:class:`~dualcodec_jax.train.config.LossConfig`. Source: upstream ``trainer.py``.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array, lax

from dualcodec_jax import losses
from dualcodec_jax.lengths import code_length, decoded_samples
from dualcodec_jax.nn.codec import make_codec
from dualcodec_jax.nn.discriminator import Discriminator, check_length, normalize
from dualcodec_jax.train.codebooks import Assignment
from dualcodec_jax.train.config import MelLossConfig, ObjectiveConfig

Params = dict[str, Any]
Terms = dict[str, Array]


@struct.dataclass
class Reconstruction:
    """What the generator's objective depends on.

    Attributes:
        audio: ``[B, N]``, float32, of the input's length.
        semantic_latent: ``[B, T, semantic_dim]``, at least as long as the features; None without.
        quantization: scalars: ``commitment`` and ``codebook``, 0 on bypass, and with a semantic
            stream ``semantic_commitment`` and ``semantic_codebook``.
        first: ``[B, T, latent_dim]``, what the first acoustic code gives; None on bypass.
    """

    audio: Array
    semantic_latent: Array | None
    quantization: Terms
    first: Array | None


def reconstruct(
    config: ObjectiveConfig,
    params: Params,
    audio: Array,
    features: Array | None,
    active: Array,
    *,
    bypass: bool,
) -> tuple[Reconstruction, Assignment]:
    """Run the generator on ``audio [B, N]`` and pooled ``features [B, T, semantic_dim]``, if any.

    Returns:
        The reconstruction, and what the quantizers made of it: n is 1 on ``bypass``.
    """
    module = make_codec(config.model.codec, jnp.dtype(config.precision))
    output: Any = module.apply(
        {"params": params}, audio[..., None], features, active=active, bypass=bypass
    )
    zero = jnp.zeros((), jnp.float32)
    terms = {"commitment": zero, "codebook": zero}
    if output.acoustic is not None:
        terms["commitment"] = output.acoustic.commitment_loss
        terms["codebook"] = output.acoustic.codebook_loss
    if output.semantic is not None:
        terms["semantic_commitment"] = output.semantic.commitment_loss
        terms["semantic_codebook"] = output.semantic.codebook_loss
    parts = [part for part in (output.semantic, output.acoustic) if part is not None]
    latents = jnp.concatenate([part.latents for part in parts], axis=1)
    assignment = Assignment(output.codes, lax.stop_gradient(latents))
    first = None if output.acoustic is None else output.acoustic.first
    return Reconstruction(output.audio[..., 0], output.semantic_latent, terms, first), assignment


def discriminator_objective(
    config: ObjectiveConfig, params: Params, real: Array, fake: Array
) -> Array:
    """Loss of the discriminators on ``real [B, N]`` and generated ``fake [B, N]``."""
    hinge = config.losses.gan == "hinge"
    loss = losses.hinge_discriminator_loss if hinge else losses.least_squares_discriminator_loss
    real, fake = _judged(config, real, lax.stop_gradient(fake))

    def scores(index: int, params: Params, real: Array, fake: Array) -> tuple[Array, ...]:
        return tuple(_judge(config, params, x, index).score for x in (real, fake))

    run = _each(config, scores)
    pairs = [run(index, params, real, fake) for index in range(config.discriminator.count)]
    return loss([pair[0] for pair in pairs], [pair[1] for pair in pairs])


def generator_objective(
    config: ObjectiveConfig,
    discriminator: Params,
    reconstruction: Reconstruction,
    audio: Array,
    features: Array | None,
    *,
    bypass: bool,
) -> tuple[Array, Terms]:
    """Total loss of the generator, and its terms before weighting.

    Terms whose weight is 0 are not computed.
    """
    weights = config.losses
    terms = dict(reconstruction.quantization)
    if features is not None and reconstruction.semantic_latent is not None:
        latent = reconstruction.semantic_latent[:, : features.shape[1]]
        terms["reconstruction"] = losses.reconstruction_loss(features, latent)
    if weights.mel:
        terms["mel"] = _mel(config, weights.mel_scales, audio, reconstruction)
    if bypass and weights.semantic_mel:
        terms["semantic_mel"] = _mel(config, weights.semantic_mel_scales, audio, reconstruction)
    if reconstruction.first is not None and weights.pitch:
        terms["pitch"] = losses.pitch_divergence(
            audio,
            reconstruction.first,
            hop=config.model.codec.hop_length,
            sample_rate=config.model.codec.sample_rate,
        )
    if weights.adversarial or weights.feature_matching:
        terms |= _against(config, discriminator, audio, reconstruction.audio)
    total = sum(getattr(weights, name) * term for name, term in terms.items())
    return jnp.asarray(total), terms


def _mel(
    config: ObjectiveConfig, scales: MelLossConfig, audio: Array, result: Reconstruction
) -> Array:
    return losses.mel_distance(
        _cropped(config, audio),
        _cropped(config, result.audio),
        sample_rate=config.model.codec.sample_rate,
        window_lengths=scales.window_lengths,
        n_mels=scales.n_mels,
        lowest=scales.lowest,
        distance=scales.distance,
    )


def _against(config: ObjectiveConfig, params: Params, real: Array, fake: Array) -> Terms:
    """Adversarial and feature-matching loss; each sub-discriminator is reduced to two scalars."""
    hinge = config.losses.gan == "hinge"
    adversarial = losses.hinge_adversarial_loss if hinge else losses.least_squares_adversarial_loss
    real, fake = _judged(config, real, fake)

    def terms(index: int, params: Params, real: Array, fake: Array) -> tuple[Array, Array]:
        of_fake = _judge(config, params, fake, index)
        of_real = _judge(config, params, real, index)
        matching = losses.feature_matching_loss([of_real.features], [of_fake.features])
        return adversarial([of_fake.score]), matching

    run, count = _each(config, terms), config.discriminator.count
    pairs = [run(index, params, real, fake) for index in range(count)]
    share = 1 / count if hinge else 1
    return {
        "adversarial": share * jnp.sum(jnp.stack([pair[0] for pair in pairs])),
        "feature_matching": share * jnp.sum(jnp.stack([pair[1] for pair in pairs])),
    }


def _each(config: ObjectiveConfig, function: Any) -> Any:
    """``function``, whose first argument is static; recomputed in the backward pass if asked."""
    if not config.checkpoint_discriminators:
        return function
    return jax.checkpoint(function, static_argnums=0)


def _judged(config: ObjectiveConfig, real: Array, fake: Array) -> tuple[Array, Array]:
    """Both ``[B, N]`` as the discriminators see them, ``[B, N, 1]``."""
    real, fake = _cropped(config, real), _cropped(config, fake)
    check_length(real.shape[1], config.discriminator)
    return normalize(real[..., None]), normalize(fake[..., None])


def _judge(config: ObjectiveConfig, params: Params, audio: Array, index: int) -> Any:
    module = Discriminator(config.discriminator, jnp.dtype(config.precision))
    return module.apply({"params": params}, audio, index, method="judge")


def _cropped(config: ObjectiveConfig, audio: Array) -> Array:
    """``audio [B, N]`` without the tail that the decoder does not reach, if asked."""
    if not config.losses.crop_tail:
        return audio
    return audio[:, : reach(config, audio.shape[1])]


def reach(config: ObjectiveConfig, num_samples: int) -> int:
    """Samples of a segment of ``num_samples`` that the decoder generates."""
    codec = config.model.codec
    return decoded_samples(code_length(num_samples, codec), codec)
