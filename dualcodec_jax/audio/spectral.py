"""Short-time Fourier transforms, equal to ``torch.stft`` and audiotools' ``AudioSignal.stft``.

Computed in float32, or wider for float64 audio, whatever the compute dtype of the networks.
"""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
from jax import Array

from dualcodec_jax.errors import InputError


@functools.lru_cache(maxsize=32)
def hann_window(length: int) -> np.ndarray:
    """Periodic Hann window ``[length]``, float32 from float64 (``scipy.signal.get_window``)."""
    phases = np.linspace(-np.pi, np.pi, length + 1)[:-1]
    window = (0.5 + 0.5 * np.cos(phases)).astype(np.float32)
    window.flags.writeable = False  # Shared by the cache.
    return window


def reflect_pad(x: Array, left: int, right: int) -> Array:
    """Mirror ``x [B, N]`` at both ends, without repeating the edge samples.

    Raises:
        InputError: if a side would need more than the N − 1 samples there are (as in torch).
    """
    longest, available = max(left, right), x.shape[1]
    if longest >= available:
        raise InputError(
            f"audio of {available} samples is too short to be mirrored by {longest} samples at "
            f"an end: use at least {longest + 1} samples"
        )
    return jnp.pad(x, ((0, 0), (left, right)), mode="reflect")


def stride_padding(num_samples: int, window_length: int, hop_length: int) -> tuple[int, int]:
    """Samples mirrored at the start and at the end for ``match_stride``.

    Source: audiotools ``AudioSignal.compute_stft_padding``.
    """
    pad = (window_length - hop_length) // 2
    return pad, pad + -num_samples % hop_length


def stft(
    x: Array,
    window_length: int,
    hop_length: int,
    *,
    center: bool = True,
    match_stride: bool = False,
) -> Array:
    """Unnormalised one-sided transform of Hann-windowed frames; jittable, differentiable.

    Args:
        x: ``[B, N]``, real.
        window_length: samples per frame, also the size of the transform.
        hop_length: samples from frame to frame. The graph has one slice for each
            ``hop_length`` of a window, so it should not be a tiny part of it.
        center: mirror half a window at both ends, so that frame k is centred on sample
            k · hop.
        match_stride: give frames the alignment of a strided convolution instead; takes the
            place of ``center``. The window must be four hops.

    Returns:
        complex64 ``[B, frames, window_length // 2 + 1]``: ⌈N / hop⌉ frames with
        ``match_stride`` (for an even hop), 1 + ⌊N / hop⌋ with ``center`` (for an even
        window), else 1 + ⌊(N − window) / hop⌋.

    Raises:
        InputError: if there are too few samples, or if a ``match_stride`` window is not
            four hops.

    Source: ``torch.stft``; audiotools ``AudioSignal.stft``.
    """
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    if match_stride:
        if window_length != 4 * hop_length:
            raise InputError(
                f"match_stride needs a window of four hops; got window {window_length}, hop "
                f"{hop_length}"
            )
        # audiotools then centres, and drops the two frames at each end: those are exactly
        # the frames that touch the half window of centring, so it can be left out.
        x = reflect_pad(x, *stride_padding(x.shape[1], window_length, hop_length))
    elif center:
        x = reflect_pad(x, window_length // 2, window_length // 2)
    if x.shape[1] < window_length:
        raise InputError(
            f"audio of {x.shape[1]} samples is shorter than the window of {window_length}"
        )
    windowed = _frames(x, window_length, hop_length) * hann_window(window_length)
    return jnp.fft.rfft(windowed, axis=-1)


def _frames(x: Array, length: int, hop: int) -> Array:
    """Overlapping frames of ``x [B, N]``: ``[B, 1 + (N − length) // hop, length]``.

    Frames are runs of whole hops, cut to ``length``: slices, whose gradient is a sum of
    pads. A gather's gradient would be a scatter, which is slow on CPU.
    """
    batch, num_samples = x.shape
    count, hops = 1 + (num_samples - length) // hop, -(-length // hop)
    needed = (count + hops - 1) * hop
    padded = jnp.pad(x, ((0, 0), (0, max(needed - num_samples, 0))))[:, :needed]
    blocks = padded.reshape(batch, count + hops - 1, hop)
    runs = jnp.concatenate([blocks[:, shift : shift + count] for shift in range(hops)], axis=-1)
    return runs[..., :length]


def safe_magnitude(z: Array) -> Array:
    """|z| of a complex array, with gradient 0 where z is 0 (as ``torch.abs``).

    Digital silence gives such values. Magnitudes below 1e-19 count as 0 in float32.
    """
    power = jnp.square(z.real) + jnp.square(z.imag)
    silent = power == 0
    # The inner `where` keeps the infinite slope of the root out of the gradient.
    return jnp.where(silent, 0, jnp.sqrt(jnp.where(silent, 1, power)))
