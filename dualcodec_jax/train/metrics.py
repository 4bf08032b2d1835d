"""What a run's log says: means of the loss terms, speed, use of the codebooks.

Every value has a flat name, ``group/name``, in :mod:`dualcodec_jax.train.logs` and in the
report: ``loss/mel``, ``norm/generator``, ``rate/generator``, ``speed/steps_per_second``,
``usage/0``, ``perplexity/0``, ``eval/mel``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from dualcodec_jax.errors import InputError
from dualcodec_jax.train.step import FREQUENCY_DECAY

BYPASSED_TERMS = frozenset({"commitment", "codebook"})
"""Terms that :func:`~dualcodec_jax.train.step.train_step` gives as 0 on bypass steps."""

COMPILE, DATA = "compile", "data"
"""What :class:`SpeedMeter` keeps apart: time to compile; time spent waiting for a batch."""

_NAMES = {
    "generator_norm": "norm/generator",
    "discriminator_norm": "norm/discriminator",
    "learning_rate": "rate/generator",
    "discriminator_learning_rate": "rate/discriminator",
}


def log_name(term: str) -> str:
    """The name in the log of a scalar that ``train_step`` returns."""
    return _NAMES.get(term, term if "/" in term else f"loss/{term}")


# Means --------------------------------------------------------------------------------------


class Means:
    """Means of the terms of the steps between two log points, without waiting for the device.

    :meth:`add` keeps references to the device's scalars; :meth:`take` fetches them together. No
    computation is started, so that with several processes one alone may fetch. A term counts in
    the steps that have it, and its mean is over finite values: skipped steps are told by
    ``loss/not_finite``, the number of steps with any other value, which appears if there were
    such steps. A term that was never finite is NaN.
    """

    def __init__(self) -> None:
        self._steps: list[dict[str, Any]] = []

    def add(self, terms: Mapping[str, Any], *, bypass: bool = False) -> None:
        """Keep the scalars of one step.

        Args:
            terms: as ``train_step`` returns them.
            bypass: whether it was a bypass step: its terms that are 0 by definition are left
                out, or they would pull the means down.
        """
        left_out = BYPASSED_TERMS if bypass else frozenset()
        self._steps.append({name: x for name, x in terms.items() if name not in left_out})

    def take(self) -> dict[str, float]:
        """Means since the last call, by :func:`log_name`; waits for the newest step."""
        steps, self._steps = jax.device_get(self._steps), []
        values: dict[str, list[float]] = defaultdict(list)
        for step in steps:
            for name, value in step.items():
                values[log_name(name)].append(float(value))
        means = {name: _finite_mean(of_term) for name, of_term in values.items()}
        bad = sum(not all(math.isfinite(float(x)) for x in step.values()) for step in steps)
        return {**means, "loss/not_finite": float(bad)} if bad else means


def _finite_mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


# Speed --------------------------------------------------------------------------------------


class SpeedMeter:
    """Steps and seconds of audio per second, and the time that is left.

    The clock runs from construction. Call :meth:`measure` where the device has just been waited
    for, that is after :meth:`Means.take`, or the steps counted may not have happened yet.

    Args:
        audio_seconds: seconds of audio in a step, over all processes.
        total_steps: at which the run ends; None: it has no end, and there is no ETA.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        audio_seconds: float,
        total_steps: int | None = None,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._audio_seconds, self._total_steps, self._clock = audio_seconds, total_steps, clock
        self._since = clock()
        self._steps = 0
        self._paused: dict[str, float] = {}
        self._data_wait = 0.0

    def count(self, steps: int = 1) -> None:
        """Note that ``steps`` have been started."""
        self._steps += steps

    @contextlib.contextmanager
    def paused(self, what: str = COMPILE) -> Iterator[None]:
        """Keep the block's time out of the speed: compiling, evaluating, saving.

        The log then has it as ``speed/WHAT_seconds``. Compiling happens in the first call of a
        jitted function, which returns before the device is done: put that call in the block.
        """
        start = self._clock()
        try:
            yield
        finally:
            self._paused[what] = self._paused.get(what, 0.0) + self._clock() - start

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Measure the block as waiting for data; it counts as training time all the same."""
        start = self._clock()
        try:
            yield
        finally:
            self._data_wait += self._clock() - start

    def measure(self, step: int) -> dict[str, float]:
        """Values for the log since the last call; ``step`` is how many the run has taken.

        Returns:
            ``speed/steps_per_second``, ``audio_seconds_per_second``, ``data_share`` (of the time
            spent waiting for data; near 1, the data pipeline is what limits the speed),
            ``eta_seconds``, and ``…_seconds`` of what was :meth:`paused`. Without steps, only
            the last.
        """
        now = self._clock()
        seconds = max(now - self._since - sum(self._paused.values()), 1e-9)
        values = {f"{what}_seconds": spent for what, spent in self._paused.items()}
        if self._steps:
            rate = self._steps / seconds
            values["steps_per_second"] = rate
            values["audio_seconds_per_second"] = rate * self._audio_seconds
            values["data_share"] = min(self._data_wait / seconds, 1.0)
            if self._total_steps is not None:
                values["eta_seconds"] = max(self._total_steps - step, 0) / rate
        self._since, self._steps, self._paused, self._data_wait = now, 0, {}, 0.0
        return {f"speed/{name}": value for name, value in values.items()}


# Codebooks ----------------------------------------------------------------------------------

USED_SHARE = 0.1
"""A code counts as used if its share exceeds this part of the uniform share, 1 / K."""

COLLAPSE_SHARE = 0.05
"""A perplexity below this part of what is attainable is a collapse."""

MEMORY_STEPS = (1 + FREQUENCY_DECAY) / (1 - FREQUENCY_DECAY)
"""Steps of codes that weigh as much, for the perplexity, as the moving average over all."""


@dataclasses.dataclass(frozen=True)
class CodebookUse:
    """How much of a codebook is in use.

    Attributes:
        quantizer: row of the codes; 0 is semantic.
        size: codes in the codebook, K.
        usage: share of the codes, 0…1, that are used more than :data:`USED_SHARE` / K.
        perplexity: exp of the entropy of the codes' shares: 1 if only one is used, K if all are
            used alike.
    """

    quantizer: int
    size: int
    usage: float
    perplexity: float


def codebook_use(frequency: Any, sizes: Sequence[int]) -> list[CodebookUse]:
    """Use of every codebook that has been used at all.

    Few codes cannot show that all of a large codebook is alive: N codes give a usage of at most
    N / K, and ``TrainState.code_frequency`` forgets; see :func:`attainable_perplexity`.

    Args:
        frequency: ``[n_quantizers, max K]``, shares or counts of codes; rows need not add up to
            one. A row of zeros has not been used and is left out.
        sizes: codes in the codebook of each row, at most max K.

    Raises:
        InputError: if the shape does not fit ``sizes``.
    """
    rows = np.asarray(frequency, np.float64)
    if rows.ndim != 2 or rows.shape[0] != len(sizes) or rows.shape[1] < max(sizes, default=0):
        raise InputError(
            f"frequency must have shape [{len(sizes)}, {max(sizes, default=0)}]; got "
            f"{list(rows.shape)}"
        )
    return [
        _use(index, row[:size])
        for index, (row, size) in enumerate(zip(rows, sizes, strict=True))
        if row[:size].sum() > 0
    ]


def count_codes(codes: Any, lengths: Any, size: int) -> np.ndarray:
    """How often each code occurs, ``[n, size]``, in ``codes [B, n, T]`` up to ``lengths [B]``."""
    codes, counts = np.asarray(codes), np.zeros((np.shape(codes)[1], size))
    for item, length in zip(codes, np.asarray(lengths), strict=True):
        for row, row_counts in zip(item[:, :length], counts, strict=True):
            row_counts += np.bincount(row, minlength=size)
    return counts


def codebook_values(uses: Sequence[CodebookUse]) -> dict[str, float]:
    """Values for the log: ``usage/Q`` and ``perplexity/Q`` of every quantizer Q."""
    usage = {f"usage/{use.quantizer}": use.usage for use in uses}
    return usage | {f"perplexity/{use.quantizer}": use.perplexity for use in uses}


def attainable_perplexity(size: int, codes_per_step: float) -> float:
    """A bound on the perplexity that the moving average of a run can show.

    Weights decaying by d a step hold as much as (1 + d) / (1 − d) steps of codes, here about
    200: small batches cannot show more codes than they have.
    """
    return min(size, MEMORY_STEPS * codes_per_step)


class CollapseWatch:
    """Notices codebooks that collapse.

    The rule: after ``after_step`` steps, a codebook has collapsed if its perplexity lies below
    :data:`COLLAPSE_SHARE` of what is attainable (:func:`attainable_perplexity`). One message a
    codebook; another only after it has recovered to twice that.

    Args:
        sizes: codes in each codebook.
        codes_per_step: codes of one quantizer in a step: global batch × code frames.
        after_step: the end of the warm-up; before it, codebooks are still finding their place.
    """

    def __init__(self, sizes: Sequence[int], codes_per_step: float, after_step: int) -> None:
        self._limits = [
            COLLAPSE_SHARE * attainable_perplexity(size, codes_per_step) for size in sizes
        ]
        self._after_step = after_step
        self._collapsed: set[int] = set()

    def check(self, step: int, uses: Collection[CodebookUse]) -> list[str]:
        """Messages about codebooks that have collapsed since the last call."""
        if step < self._after_step:
            return []
        messages = []
        for use in uses:
            limit = self._limits[use.quantizer]
            if use.perplexity < limit and use.quantizer not in self._collapsed:
                self._collapsed.add(use.quantizer)
                messages.append(_collapse_message(step, use, limit))
            elif use.perplexity > 2 * limit:
                self._collapsed.discard(use.quantizer)
        return messages


def _use(index: int, counts: np.ndarray) -> CodebookUse:
    shares = counts / counts.sum()
    positive = shares[shares > 0]
    # Rounding can put the entropy of a single code below 0.
    entropy = max(0.0, float(-np.sum(positive * np.log(positive))))
    used = int(np.count_nonzero(shares > USED_SHARE / len(shares)))
    return CodebookUse(index, len(shares), used / len(shares), math.exp(entropy))


def _collapse_message(step: int, use: CodebookUse, limit: float) -> str:
    if use.quantizer == 0:
        name = "the semantic codebook (quantizer 0)"
        first = (
            "check that the statistics (mean, var) are those of this semantic model, then the data "
            "for silence and repeated clips"
        )
    else:
        name = f"acoustic codebook {use.quantizer} (quantizer {use.quantizer})"
        first = "check the data for silence and repeated clips"
    return (
        f"step {step}: {name} has collapsed: perplexity {use.perplexity:.1f} of {use.size} codes "
        f"(warning below {limit:.1f}), {100 * use.usage:.1f} % in use. Codes that nothing selects "
        f"get no gradient and do not come back by themselves: {first}; if the data is fine, go "
        "back to an earlier checkpoint with a lower learning rate or a longer warm-up, a larger "
        "batch, or a smaller codebook. On a few clips only, this is expected"
    )
