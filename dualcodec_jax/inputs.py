"""Arrays as users give them, checked: audio, codes and their lengths."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from dualcodec_jax.errors import AudioError, InputError

ArrayLike = Any
"""A numpy array, JAX array, torch tensor, or nested list."""


def as_array(value: ArrayLike, name: str) -> np.ndarray:
    """Numpy view of numpy, JAX, torch and nested lists, without importing torch.

    Raises:
        InputError: it is none of them.
    """
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is not an array: {error}") from error


def as_lengths(
    value: ArrayLike | None, batch: int, largest: int, name: str, unit: str
) -> np.ndarray:
    """Int32 ``[batch]`` in 0…``largest``; None: all of them ``largest``.

    Raises:
        InputError: on another shape, type or range.
    """
    if value is None:
        return np.full(batch, largest, np.int32)
    lengths = as_array(value, name)
    if lengths.shape != (batch,) or lengths.dtype.kind not in "iu":
        raise InputError(
            f"{name} must be {batch} integers, one an item; got {lengths.dtype} "
            f"{list(lengths.shape)}"
        )
    if lengths.size and (lengths.min() < 0 or lengths.max() > largest):
        raise InputError(
            f"{name} must lie in 0…{largest} {unit}, the padded length; got {lengths.tolist()}"
        )
    return lengths.astype(np.int32)


def as_audio(audio: ArrayLike, lengths: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
    """Audio as float32 ``[B, 1, N]``, zero past each item's length, and int32 lengths ``[B]``.

    Raises:
        InputError: on wrong shapes, types or lengths.
        AudioError: if samples are not finite.
    """
    samples = as_array(audio, "audio")
    if samples.ndim != 3 or samples.shape[1] != 1 or samples.shape[0] == 0:
        raise InputError(
            f"audio must have shape [batch, 1, samples]; got {list(samples.shape)}. Use "
            "audio.reshape(1, 1, -1) for one mono clip, and mix stereo to mono first"
        )
    if not jnp.issubdtype(samples.dtype, jnp.floating):
        raise InputError(
            f"audio must be floating point in [-1, 1]; got {samples.dtype}. Divide integer "
            "samples by their full scale (32768 for 16 bits)"
        )
    size = samples.shape[2]
    true = as_lengths(lengths, samples.shape[0], size, "lengths", "samples")
    samples = np.where(np.arange(size) < true[:, None, None], samples, 0)
    with np.errstate(over="ignore"):  # what overflows is not finite
        samples = samples.astype(np.float32)
    if not np.isfinite(samples).all():
        raise AudioError("audio has samples that are NaN or infinite; remove them first")
    return samples, true
