"""Batches of recordings → codes, one part of the batch on each device."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from dualcodec_jax import functional
from dualcodec_jax.config import Config
from dualcodec_jax.inference import Inference
from dualcodec_jax.lengths import code_length, min_samples, samples_to_cover
from dualcodec_jax.sharding import batch_sharding, make_mesh, replicated, shards

BATCH_SECONDS = {"cpu": 30.0}
OTHER_BATCH_SECONDS = 120.0
"""Seconds of padded audio on each device at once, on a CPU and on accelerators."""


def default_batch_seconds() -> float:
    """Seconds of padded audio on each device at once, for the default backend."""
    return BATCH_SECONDS.get(jax.default_backend(), OTHER_BATCH_SECONDS)


class BatchEncoder:
    """Encodes stacks of equal batches, one on each device of this process.

    Every device runs the program that a single device would run (``shard_map``), so codes do not
    depend on how many there are.

    Attributes:
        devices: number of batches at once.
        config: of the model.
    """

    def __init__(
        self, inference: Inference, n_quantizers: int, devices: Sequence[Any] | None = None
    ) -> None:
        """Copy the parameters to all ``devices``; default: all of this process."""
        self.config = inference.config
        mesh = make_mesh(devices=jax.local_devices() if devices is None else devices)
        self.devices = shards(mesh)
        self._batch = batch_sharding(mesh)
        self._params = jax.device_put(inference.params, replicated(mesh))

        self._encode = _program(inference.config, n_quantizers, mesh)

    def start(self, stack: Sequence[Sequence[np.ndarray]], frames: int, rows: int) -> Array:
        """Begin to encode; the result may be waited for elsewhere.

        Args:
            stack: for each device at most ``rows`` recordings, float32 ``[N]``.
            frames: N is at most so many times the hop.
            rows: of the batch on each device; what is missing is filled up.

        Returns:
            int32 ``[devices · rows, n, T]``, in the order of ``stack``, zero past a recording's
            codes (see :meth:`length`).
        """
        codec = self.config.codec
        audio = np.zeros((self.devices * rows, 1, frames * codec.hop_length), np.float32)
        lengths = np.full(len(audio), min_samples(codec), np.int32)
        for device, batch in enumerate(stack):
            for row, samples in enumerate(batch, start=device * rows):
                audio[row, 0, : samples.size] = samples
                lengths[row] = samples_to_cover(samples.size, codec)
        put = jax.device_put((audio, lengths), self._batch)
        result: Array = self._encode(self._params, *put)
        return result

    def length(self, num_samples: int) -> int:
        """Code frames of a recording: as many as cover all of it."""
        codec = self.config.codec
        return int(code_length(samples_to_cover(num_samples, codec), codec))


@functools.lru_cache(maxsize=8)
def _program(config: Config, n_quantizers: int, mesh: Mesh) -> Any:
    """(parameters, audio, lengths) → codes, each device on its part of the batch."""

    def encode(params: functional.Params, audio: Array, lengths: Array) -> Array:
        return functional.encode(params, config, audio, lengths, n_quantizers).codes

    split = batch_sharding(mesh).spec
    parts = jax.shard_map(
        encode,
        mesh=mesh,
        in_specs=(PartitionSpec(), split, split),
        out_specs=split,
        check_vma=False,
    )
    return jax.jit(parts)
