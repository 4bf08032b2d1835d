"""Training losses: small pure functions of arrays, each a scalar in float32 (or wider).

Source: upstream ``loss.py`` and ``trainer.py``. Which of them count, and how much, is the
business of :mod:`dualcodec_jax.train.objective`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array, lax

from dualcodec_jax.audio import pitch
from dualcodec_jax.audio.mel import mel_basis
from dualcodec_jax.audio.spectral import safe_magnitude, stft

MEL_FLOOR = 1e-5
"""Mel magnitudes below it count as it in the logarithmic term, without a gradient."""

Distance = Literal["absolute", "squared"]
_DISTANCES: dict[str, Callable[[Array], Array]] = {"absolute": jnp.abs, "squared": jnp.square}


# Spectra ------------------------------------------------------------------------------------


def mel_spectrogram(audio: Array, window_length: int, n_mels: int, sample_rate: int) -> Array:
    """Mel magnitudes ``[B, frames, n_mels]`` of ``audio [B, N]``, centred frames, hop = window / 4.

    The basis is librosa's (Slaney scale and normalisation, 0 Hz to half the sample rate).
    Source: audiotools ``AudioSignal.mel_spectrogram``.
    """
    magnitude = safe_magnitude(stft(audio, window_length, window_length // 4))
    basis = jnp.asarray(mel_basis(sample_rate, window_length, n_mels))
    return jnp.matmul(magnitude, basis.T, precision=lax.Precision.HIGHEST)


def mel_distance(
    target: Array,
    output: Array,
    *,
    sample_rate: int,
    window_lengths: Sequence[int],
    n_mels: Sequence[int],
    lowest: float = 1.0,
    distance: Distance = "absolute",
) -> Array:
    """Multi-scale distance of mel spectrograms.

    Σ over windows of mean d(log₁₀ max(m, 1e-5)²) + mean d(m), where d is the absolute or squared
    difference of the mel magnitudes m of target and output.

    Args:
        target: ``[B, N]``.
        output: ``[B, N]``.
        sample_rate: of both, in Hz.
        window_lengths: samples per frame; hops are a quarter.
        n_mels: mel bins for each window.
        lowest: share of the mel bins that is compared, from the lowest (rounded down).
        distance: ``absolute`` or ``squared``.

    Source: upstream ``MelSpectrogramLoss`` and ``MultibandMelSpectrogramLoss``.
    """
    measure = _DISTANCES[distance]
    total = jnp.zeros((), jnp.promote_types(output.dtype, jnp.float32))
    for window_length, bins in zip(window_lengths, n_mels, strict=True):
        kept = int(lowest * bins)
        m_target, m_output = (
            mel_spectrogram(audio, window_length, bins, sample_rate)[..., :kept]
            for audio in (target, output)
        )
        logarithms = _log_power(m_target) - _log_power(m_output)
        total += jnp.mean(measure(logarithms)) + jnp.mean(measure(m_target - m_output))
    return total


def _log_power(magnitude: Array) -> Array:
    return 2 * jnp.log10(jnp.maximum(magnitude, MEL_FLOOR))


# Pitch --------------------------------------------------------------------------------------

PITCH_TEMPERATURE, OCTAVE_COST, VOICED = 0.03, 0.1, (0.5, 0.8)
"""Of the target; what an octave below costs; periodicities that do not and that fully count."""


def pitch_divergence(audio: Array, logits: Array, *, hop: int, sample_rate: int) -> Array:
    """Mean over voiced frames of KL(target ‖ softmax(logits)) over pitch candidates.

    The target is softmax(periodicity / temperature), with a cost for low candidates, because
    speech that repeats itself after a period also does after two.

    Args:
        audio: ``[B, N]``.
        logits: ``[B, T, K ≥ BINS]``, the first BINS of K counting (:mod:`~.audio.pitch`).
        hop: samples a frame.
        sample_rate: of ``audio``, in Hz.
    """
    found = lax.stop_gradient(pitch.periodicity(audio, hop, sample_rate)[:, : logits.shape[1]])
    octaves_down = jnp.log2(pitch.candidates()[-1] / pitch.candidates())
    target = jax.nn.softmax((found - OCTAVE_COST * octaves_down) / PITCH_TEMPERATURE)
    low, high = VOICED
    voiced = jnp.clip((found.max(axis=-1) - low) / (high - low), 0, 1)
    output = jax.nn.log_softmax(_wide(logits[..., : pitch.BINS]))
    divergence = jnp.sum(target * (jnp.log(target + 1e-9) - output), axis=-1)
    return jnp.sum(voiced * divergence) / (jnp.sum(voiced) + 1)


# Adversarial --------------------------------------------------------------------------------


def least_squares_discriminator_loss(real: Sequence[Array], fake: Sequence[Array]) -> Array:
    """Σ_d mean(D(y)²) + mean((1 − D(x))²) over the scores of every sub-discriminator d.

    A sum, not a mean over d, as upstream's ``GANLoss.discriminator_loss``.
    """
    return _sum(jnp.mean(jnp.square(score)) for score in fake) + _sum(
        jnp.mean(jnp.square(1 - score)) for score in real
    )


def least_squares_adversarial_loss(fake: Sequence[Array]) -> Array:
    """Σ_d mean((1 − D(y))²), as upstream's ``GANLoss.generator_loss``."""
    return _sum(jnp.mean(jnp.square(1 - score)) for score in fake)


def hinge_discriminator_loss(real: Sequence[Array], fake: Sequence[Array]) -> Array:
    """mean_d [mean(max(0, 1 − D(x))) + mean(max(0, 1 + D(y)))].

    Source: upstream ``GANLoss.discriminator_hinge_loss``, which its trainer does not use.
    """
    total = _sum(jnp.mean(jnp.maximum(1 - score, 0)) for score in real) + _sum(
        jnp.mean(jnp.maximum(1 + score, 0)) for score in fake
    )
    return total / len(fake)


def hinge_adversarial_loss(fake: Sequence[Array]) -> Array:
    """mean_d mean(max(0, 1 − D(y))), as upstream's ``GANLoss.generator_hinge_loss``."""
    return _sum(jnp.mean(jnp.maximum(1 - score, 0)) for score in fake) / len(fake)


def feature_matching_loss(
    real: Sequence[Sequence[Array]], fake: Sequence[Sequence[Array]]
) -> Array:
    """Σ_d Σ_layers mean abs(D(y) − sg D(x)) over all activations but the score.

    Sums, not means, as upstream's ``GANLoss.generator_loss``; the hinge variant divides by the
    number of sub-discriminators.
    """
    return _sum(
        jnp.mean(jnp.abs(_wide(y) - lax.stop_gradient(_wide(x))))
        for of_real, of_fake in zip(real, fake, strict=True)
        for x, y in zip(of_real, of_fake, strict=True)
    )


# Semantic stream ----------------------------------------------------------------------------


def reconstruction_loss(features: Array, latent: Array) -> Array:
    """mean (feature − latent)², of the pooled semantic features and their reconstruction."""
    return jnp.mean(jnp.square(features - latent))


def _wide(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _sum(terms: object) -> Array:
    return functools.reduce(jnp.add, terms)  # type: ignore[call-overload]
