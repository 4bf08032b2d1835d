"""Band-limited resampling, equal to ``torchaudio.functional.resample``.

Hann-windowed sinc interpolation with 6 zero crossings and a roll-off of 0.99.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from dualcodec_jax.errors import AudioError
from dualcodec_jax.lengths import ceil_div, resampled_length

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
    orig, new = _ratio(orig_rate, new_rate)
    width = _kernel(orig, new)[1]
    num_samples = audio.shape[-1]
    padded = jnp.pad(audio.reshape(-1, num_samples), ((0, 0), (width, width + orig)))
    length = resampled_length(num_samples, orig_rate, new_rate)
    return _filter(padded, orig, new)[:, :length].reshape(*audio.shape[:-1], length)


class StreamResampler:
    """:func:`resample` for one signal that comes in pieces, exactly, at constant memory.

    Host arrays in and out; blocks of one shape go through the default device.
    """

    def __init__(self, orig_rate: int, new_rate: int, block: int = 2**16) -> None:
        """Prepare.

        Args:
            orig_rate: of what comes, in Hz.
            new_rate: of what is wanted, in Hz.
            block: about so many samples are filtered at a time.

        Raises:
            AudioError: as :func:`resample`.
        """
        self._rates, self._same = (orig_rate, new_rate), orig_rate == new_rate
        self._orig, self._new = _ratio(orig_rate, new_rate)
        self._width = 0 if self._same else _kernel(self._orig, self._new)[1]
        self._step = ceil_div(block, self._orig) * self._orig
        self._waiting = np.zeros(self._width, np.float32)
        """From ``width`` samples before the next block on."""
        self._received = self._given = 0

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take float32 ``[N]``; give the samples that they complete, maybe none."""
        if self._same:
            return samples
        self._received += len(samples)
        self._waiting = np.concatenate([self._waiting, samples])
        done = []
        while len(self._waiting) >= self._step + 2 * self._width:
            done.append(self._block(self._waiting))
            self._waiting = self._waiting[self._step :]
        self._given += sum(map(len, done))
        return np.concatenate(done) if done else np.zeros(0, np.float32)

    def finish(self) -> np.ndarray:
        """Give the rest: ⌈N · new / orig⌉ samples in all."""
        missing = resampled_length(self._received, *self._rates) - self._given
        if self._same or missing <= 0:
            return np.zeros(0, np.float32)
        count = ceil_div(missing, self._step // self._orig * self._new)
        size = count * self._step + 2 * self._width
        rest = np.pad(self._waiting, (0, max(0, size - len(self._waiting))))
        blocks = [self._block(rest[index * self._step :]) for index in range(count)]
        return np.concatenate(blocks)[:missing]

    def _block(self, samples: np.ndarray) -> np.ndarray:
        part = samples[: self._step + 2 * self._width]
        return np.asarray(_jit_filter(part[None], self._orig, self._new))[0]


def resample_clip(samples: np.ndarray, orig_rate: int, new_rate: int) -> np.ndarray:
    """:func:`resample` for one signal ``[N]`` on the host; no length compiles anew."""
    resampler = StreamResampler(orig_rate, new_rate)
    return np.concatenate([resampler.push(samples), resampler.finish()])


def _ratio(orig_rate: int, new_rate: int) -> tuple[int, int]:
    common = math.gcd(orig_rate, new_rate)
    return orig_rate // common, new_rate // common


def _filter(padded: Array, orig: int, new: int) -> Array:
    """``[B, width + N + width]`` → ``[B, ⌊N / orig⌋ · new]``."""
    kernel, _ = _kernel(orig, new)
    phases = lax.conv_general_dilated(
        padded[..., None],
        jnp.asarray(kernel, padded.dtype),
        window_strides=(orig,),
        padding="VALID",
        dimension_numbers=("NWC", "WIO", "NWC"),
        precision=lax.Precision.HIGHEST,
    )
    return phases.reshape(padded.shape[0], -1)


_jit_filter = jax.jit(_filter, static_argnums=(1, 2))


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
