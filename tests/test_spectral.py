"""Short-time Fourier transforms against their definition, in float64 numpy."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dualcodec_jax.audio import spectral
from dualcodec_jax.errors import InputError


def textbook_stft(x: np.ndarray, window_length: int, hop_length: int) -> np.ndarray:
    """Discrete Fourier transforms of Hann-windowed frames, by the sum that defines them."""
    n = np.arange(window_length)
    window = np.sin(np.pi * n / window_length) ** 2
    basis = np.exp(-2j * np.pi * np.outer(n, np.arange(window_length // 2 + 1)) / window_length)
    starts = range(0, x.shape[1] - window_length + 1, hop_length)
    return np.stack([(x[:, s : s + window_length] * window) @ basis for s in starts], axis=1)


def noise(num_samples: int, batch: int = 2) -> Any:
    return np.random.default_rng(0).standard_normal((batch, num_samples)).astype(np.float32)


def assert_close(actual: jax.Array, expected: np.ndarray, limit: float = 1e-6) -> None:
    assert actual.shape == expected.shape
    assert np.max(np.abs(actual - expected)) <= limit * np.max(np.abs(expected))


@pytest.mark.parametrize("length", [2, 7, 512])
def test_hann_window_is_periodic(length: int) -> None:
    window = spectral.hann_window(length)
    assert window.dtype == np.float32
    expected = np.sin(np.pi * np.arange(length) / length) ** 2
    np.testing.assert_allclose(window, expected, atol=1e-7)


# Windows of whole and of broken hops, an odd window, and a hop that skips samples.
@pytest.mark.parametrize(("window", "hop"), [(64, 16), (64, 20), (31, 7), (16, 40)])
@pytest.mark.parametrize("num_samples", [320, 333])
def test_stft_is_the_textbook_sum(window: int, hop: int, num_samples: int) -> None:
    x = noise(num_samples)
    centred = np.pad(x, ((0, 0), (window // 2,) * 2), mode="reflect")
    assert_close(spectral.stft(x, window, hop), textbook_stft(centred, window, hop))
    assert_close(spectral.stft(x, window, hop, center=False), textbook_stft(x, window, hop))


@pytest.mark.parametrize("num_samples", [320, 321, 335])
def test_match_stride_drops_the_two_outer_frames(num_samples: int) -> None:
    x, window, hop = noise(num_samples), 64, 16
    right = -num_samples % hop
    padded = np.pad(x, ((0, 0), (24, 24 + right)), mode="reflect")
    centred = np.pad(padded, ((0, 0), (32, 32)), mode="reflect")
    actual = spectral.stft(x, window, hop, match_stride=True)
    assert actual.shape[1] == -(-num_samples // hop)
    assert_close(actual, textbook_stft(centred, window, hop)[:, 2:-2])


def test_stft_is_never_narrower_than_float32() -> None:
    x = jnp.asarray(noise(100), jnp.bfloat16)
    assert spectral.stft(x, 32, 8).dtype == jnp.complex64
    with jax.enable_x64(True):
        assert spectral.stft(jnp.ones((1, 100), jnp.float64), 32, 8).dtype == jnp.complex128


def test_stft_runs_under_jit_and_vmap() -> None:
    x = noise(100)
    expected = np.asarray(spectral.stft(x, 32, 8))
    jitted = jax.jit(spectral.stft, static_argnums=(1, 2))
    assert_close(jitted(x, 32, 8), expected)
    assert_close(jax.vmap(lambda item: spectral.stft(item[None], 32, 8)[0])(x), expected)


@pytest.mark.parametrize(
    ("num_samples", "options"),
    [(16, {}), (31, {"center": False}), (17, {"match_stride": True})],
)
def test_stft_refuses_short_audio(num_samples: int, options: dict[str, bool]) -> None:
    with pytest.raises(InputError, match=f"audio of {num_samples} samples"):
        jax.jit(lambda x: spectral.stft(x, 32, 8, **options))(noise(num_samples))


def test_match_stride_needs_four_hops() -> None:
    with pytest.raises(InputError, match="window 32, hop 16"):
        spectral.stft(noise(100), 32, 16, match_stride=True)


def test_reflect_pad_says_how_many_samples_it_needs() -> None:
    assert spectral.reflect_pad(noise(4), 3, 0).shape == (2, 7)
    with pytest.raises(InputError, match="at least 5 samples"):
        spectral.reflect_pad(noise(4), 1, 4)


def test_safe_magnitude_and_its_gradient() -> None:
    z = jnp.asarray([3 - 4j, 0, -1e-12 + 0j, 5e8j], jnp.complex64)
    np.testing.assert_allclose(spectral.safe_magnitude(z), np.abs(z), rtol=1e-6)

    def total(parts: jax.Array) -> jax.Array:
        return jnp.sum(spectral.safe_magnitude(parts[0] + 1j * parts[1]))

    gradient = jax.grad(total)(jnp.stack([z.real, z.imag]))
    np.testing.assert_allclose(gradient, [[0.6, 0, -1, 0], [-0.8, 0, 0, 1]], atol=1e-6)


def test_gradient_on_silence_is_finite_and_zero() -> None:
    def energy(x: jax.Array) -> jax.Array:
        return jnp.sum(spectral.safe_magnitude(spectral.stft(x, 32, 8)))

    assert not np.any(jax.grad(energy)(jnp.zeros((1, 100))))
