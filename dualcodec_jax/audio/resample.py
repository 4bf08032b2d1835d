"""Band-limited resampling, equal to ``torchaudio.functional.resample``.

Hann-windowed sinc interpolation with 6 zero crossings and a roll-off of 0.99.
"""

from __future__ import annotations

import functools
import math

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from dualcodec_jax.errors import AudioError
from dualcodec_jax.lengths import resampled_length

ZERO_CROSSINGS = 6
ROLLOFF = 0.99
MAX_KERNEL = 2**25
"""Filter coefficients allowed for one pair of rates: 128 MiB."""


def resample(audio: Array, orig_rate: int, new_rate: int) -> Array:
    """Resample ``audio [..., N]`` to ``[..., ⌈N · new / orig⌉]``; jittable, float32.

    Audio is taken to be zero outside its length, so an utterance that is zero-padded gives
    the same samples, followed by the tail of the filter and zeros.

    Raises:
        AudioError: if the rates have so small a common divisor that the filter bank would
            not fit (for example 24000 and 44101).
    """
    if orig_rate == new_rate:
        return audio
    common = math.gcd(orig_rate, new_rate)
    orig, new = orig_rate // common, new_rate // common
    kernel, width = _kernel(orig, new)
    num_samples = audio.shape[-1]
    flat = audio.reshape(-1, num_samples, 1)
    padded = jnp.pad(flat, ((0, 0), (width, width + orig), (0, 0)))
    phases = lax.conv_general_dilated(
        padded,
        jnp.asarray(kernel, audio.dtype),
        window_strides=(orig,),
        padding="VALID",
        dimension_numbers=("NWC", "WIO", "NWC"),
        precision=lax.Precision.HIGHEST,
    )
    length = resampled_length(num_samples, orig_rate, new_rate)
    return phases.reshape(flat.shape[0], -1)[:, :length].reshape(*audio.shape[:-1], length)


@functools.lru_cache(maxsize=16)
def _kernel(orig: int, new: int) -> tuple[np.ndarray, int]:
    """Filter bank ``[taps, 1, new]``, one column per output phase, and its half width.

    Evaluated in float32 like torchaudio's functional form.
    """
    base = min(orig, new) * ROLLOFF
    width = math.ceil(ZERO_CROSSINGS * orig / base)
    if (2 * width + orig) * new > MAX_KERNEL:
        raise AudioError(
            f"cannot resample with the ratio {orig}:{new}: it is not simple enough for an exact "
            "filter bank. Resample the file to a common rate first, for example with "
            "`ffmpeg -i in.wav -ar 24000 out.wav`"
        )
    taps = (np.arange(-width, width + orig, dtype=np.float32) / np.float32(orig))[:, None]
    phases = (np.arange(0, -new, -1, dtype=np.float32) / np.float32(new))[None, :]
    t = np.clip((phases + taps) * np.float32(base), -ZERO_CROSSINGS, ZERO_CROSSINGS)
    window = np.cos(t * np.float32(np.pi / ZERO_CROSSINGS / 2)) ** 2
    t = t * np.float32(np.pi)
    safe = np.where(t == 0, np.float32(1), t)
    sinc = np.where(t == 0, np.float32(1), np.sin(safe) / safe)
    kernel = sinc * (window * np.float32(base / orig))
    return kernel.astype(np.float32)[:, None, :], width
