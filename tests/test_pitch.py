"""The target of the pitch loss on tones whose pitch is known, and the loss itself."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dualcodec_jax import losses
from dualcodec_jax.audio import pitch

RATE, HOP = 24000, 960
SEMITONE = 2 ** (1 / 12)


def voice(hertz: float, *, seconds: float = 1.0) -> np.ndarray:
    """A buzz with the harmonics of ``hertz`` up to 4 kHz."""
    time = np.arange(round(seconds * RATE)) / RATE
    orders = range(1, int(4000 / hertz))
    return np.sum([np.cos(2 * np.pi * hertz * k * time) / k for k in orders], axis=0).astype("f4")


def divergence(audio: np.ndarray, logits: jax.Array) -> jax.Array:
    return losses.pitch_divergence(audio[None], logits, hop=HOP, sample_rate=RATE)


@pytest.mark.parametrize("hertz", [70.0, 123.4, 222.0, 399.0])
def test_the_target_is_the_pitch(hertz: float) -> None:
    audio = voice(hertz)
    undecided = jnp.zeros((1, RATE // HOP, pitch.BINS))
    push = -jax.grad(lambda logits: divergence(audio, logits))(undecided)[0, 3:-3]
    best = pitch.candidates()[push.argmax(axis=-1)]
    np.testing.assert_allclose(best / hertz, 1, atol=SEMITONE**0.5 - 1)


def test_the_loss_falls_as_the_pitch_is_said() -> None:
    right, wrong = (jnp.abs(pitch.candidates() / hertz - 1) < 0.03 for hertz in (150.0, 170.0))
    loss = [
        divergence(voice(150.0), jnp.broadcast_to(8.0 * said, (1, RATE // HOP, pitch.BINS)))
        for said in (right, 0 * right, wrong)
    ]
    assert loss[0] < 1 < 2 < loss[1] < loss[2]


def test_noise_and_silence_count_nothing() -> None:
    noise = np.random.default_rng(0).standard_normal((1, RATE)).astype("f4")
    assert pitch.periodicity(noise, HOP, RATE).max(axis=-1).mean() < 0.3
    assert not np.asarray(pitch.periodicity(jnp.zeros((1, RATE)), HOP, RATE)).any()
    logits = jnp.ones((1, 25, pitch.BINS)).at[..., 0].set(5.0)
    for audio in (noise, jnp.zeros((1, RATE))):
        loss, slope = jax.value_and_grad(lambda x, audio=audio: divergence(audio[0], x))(logits)
        assert loss == 0
        chex.assert_tree_all_finite(slope)


def test_level_is_not_heard() -> None:
    audio = voice(150.0)[None]
    loud, quiet = (pitch.periodicity(gain * audio, HOP, RATE) for gain in (1.0, 0.01))
    np.testing.assert_allclose(loud, quiet, atol=1e-4)


@pytest.mark.parametrize("samples", [RATE, RATE - 1, RATE + 1, 500])
def test_a_frame_for_each_hop(samples: int) -> None:
    audio = voice(200.0)[None, :samples] if samples <= RATE else np.pad(voice(200.0), 1)[None]
    found = pitch.periodicity(jnp.asarray(audio), HOP, RATE)
    assert found.shape == (1, -(-audio.shape[1] // HOP), pitch.BINS)
