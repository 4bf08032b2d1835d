"""Several processes: joining them, and being asked to stop."""

from __future__ import annotations

import os
import signal
import types
from collections.abc import Iterator
from contextlib import contextmanager

import jax

_LAUNCHERS = ("SLURM_NTASKS", "SLURM_NPROCS", "OMPI_COMM_WORLD_SIZE")


def join_processes() -> None:
    """Call ``jax.distributed.initialize`` where the environment says that there are others.

    ``JAX_COORDINATOR_ADDRESS``, ``JAX_NUM_PROCESSES`` and ``JAX_PROCESS_ID`` say it for any
    launcher; SLURM, Open MPI and TPU pods are found out about. Must come before anything else
    of JAX. Does nothing for a single process, or when called again.
    """
    if jax.distributed.is_initialized():
        return
    if os.environ.get("JAX_COORDINATOR_ADDRESS"):
        count, index = (os.environ.get(f"JAX_{name}") for name in ("NUM_PROCESSES", "PROCESS_ID"))
        jax.distributed.initialize(
            num_processes=None if count is None else int(count),
            process_id=None if index is None else int(index),
        )
    elif any(int(os.environ.get(name) or 1) > 1 for name in _LAUNCHERS) or (
        "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")
    ):
        jax.distributed.initialize()


class StopRequest:
    """Whether the process was asked to stop, by SIGTERM or Ctrl-C."""

    def __init__(self) -> None:
        self.received: str | None = None

    def note(self, number: int, _: types.FrameType | None) -> None:
        """Remember the signal; a second Ctrl-C interrupts at once."""
        if self.received == "SIGINT" and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Catch SIGTERM and Ctrl-C inside the block, so that the run can save before it stops.

    With ``jax.distributed`` SIGTERM is left to JAX, which makes all processes agree on the step
    (:meth:`dualcodec_jax.checkpoint.Checkpoints.reached_preemption`).
    """
    request = StopRequest()
    numbers = [signal.SIGINT]
    if not jax.distributed.is_initialized():
        numbers.append(signal.SIGTERM)
    before = {number: signal.signal(number, request.note) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
