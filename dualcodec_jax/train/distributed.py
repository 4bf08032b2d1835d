"""Several processes: joining them, and being asked to stop."""

from __future__ import annotations

import os
import signal
import types
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from dualcodec_jax.errors import ConfigError

_LAUNCHERS = ("SLURM_NTASKS", "SLURM_NPROCS", "OMPI_COMM_WORLD_SIZE")


def join_processes(distributed: bool | None = None) -> None:
    """Call ``jax.distributed.initialize`` where there are other processes.

    ``JAX_COORDINATOR_ADDRESS``, ``JAX_NUM_PROCESSES`` and ``JAX_PROCESS_ID`` say it for any
    launcher; SLURM, Open MPI and TPU pods on Kubernetes are found out about. Must come before
    anything else of JAX. Does nothing for a single process, or when called again.

    Args:
        distributed: True: there are others, and JAX finds out how to reach them (hosts of a TPU
            pod have nothing in their environment that says so). False: there are none. None: look
            at the environment.

    Raises:
        ConfigError: if there should be others, but JAX does not find out about them.
    """
    if distributed is False or jax.distributed.is_initialized():
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
    elif distributed:
        try:
            jax.distributed.initialize()
        except (RuntimeError, ValueError) as error:
            raise ConfigError(
                "machine.distributed=true (--distributed), but this is no cluster that JAX knows; "
                "start the processes with SLURM or Open MPI, or set JAX_COORDINATOR_ADDRESS, "
                "JAX_NUM_PROCESSES and JAX_PROCESS_ID in each"
            ) from error


class StopRequest:
    """Whether the process was asked to stop, by SIGTERM or Ctrl-C."""

    def __init__(self) -> None:
        self.received: str | None = None

    def note(self, number: int, frame: types.FrameType | None) -> None:
        """Remember the signal; a second Ctrl-C interrupts at once."""
        if self.received == "SIGINT" and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name

    def forward(self, number: int, frame: types.FrameType | None) -> None:
        """Ctrl-C, as the signal that all processes stop for together."""
        self.note(number, frame)
        signal.raise_signal(signal.SIGTERM)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Catch SIGTERM and Ctrl-C inside the block, so that the run can save before it stops.

    With ``jax.distributed`` SIGTERM is left to JAX, which makes all processes agree on the step
    (:meth:`dualcodec_jax.checkpoint.Checkpoints.reached_preemption`), and Ctrl-C is turned into it.
    """
    request = StopRequest()
    if jax.distributed.is_initialized():
        handlers = {signal.SIGINT: request.forward}
    else:
        handlers = {signal.SIGINT: request.note, signal.SIGTERM: request.note}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
