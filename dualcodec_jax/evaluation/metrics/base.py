"""What every metric has: facts, and ``measure`` for one clip."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.metadata
import importlib.util
import math
import pickle
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Protocol

import numpy as np

from dualcodec_jax.errors import DualCodecError

MIN_SECONDS = 0.25
"""A shorter clip has no value: PESQ needs so much, and models say little about less."""

SILENCE = 1e-4
"""A clip whose largest sample is below this (3 steps of 16 bits) is silent."""


PACKAGE_FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
)
"""What packages raise where they do not fit each other or a clip: there is no common class."""


class MetricAbsent(DualCodecError):
    """A metric's package or weights are not here; the message says what to install."""


class MetricFailure(DualCodecError):
    """A metric's package could not measure one clip; others may go."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetricInfo:
    """Facts about a metric as opened.

    Attributes:
        name: in :data:`~dualcodec_jax.evaluation.metrics.METRICS`.
        title: what tables call it.
        unit: of its values; empty for scores and ratios.
        higher_is_better: direction.
        range: lowest and highest value that it can have; None: unbounded above.
        intrusive: needs the original, aligned with the output.
        packages: what ``pip install`` needs.
        source: paper or package.
        version: of the packages, the weights and this code; enters the key of cached results.
    """

    name: str
    title: str
    unit: str
    higher_is_better: bool
    range: tuple[float, float] | None
    intrusive: bool
    packages: tuple[str, ...]
    source: str
    version: str


class Metric(Protocol):
    """Something to measure of one clip."""

    info: MetricInfo

    def measure(self, original: np.ndarray, output: np.ndarray, sample_rate: int) -> float | None:
        """The value for ``output [N]``, made from ``original [N]``, both at ``sample_rate`` Hz.

        Returns:
            None if the clip has no value: silence, too short, or not finite.

        Raises:
            MetricFailure: the package cannot do this clip.
        """
        ...


class ClipMetric(ABC):
    """Needs and checks that the metrics share. A subclass computes :meth:`_value` of a sound clip.

    Args:
        info: facts.
    """

    requirements: ClassVar[Mapping[str, str]] = {}
    """Modules that it imports → what to give to ``pip install`` for each."""

    silent_output: ClassVar[bool] = False
    """Whether silence made from speech has a value."""

    failures: ClassVar[tuple[type[Exception], ...]] = (RuntimeError, ValueError, IndexError)
    """What the package raises about clips that it cannot do."""

    def __init__(self, info: MetricInfo) -> None:
        self.require()
        self.info = info

    @classmethod
    def absence(cls) -> str | None:
        """What is missing and how to get it; None if nothing. Imports nothing."""
        return missing_packages(cls.requirements)

    @classmethod
    def require(cls) -> None:
        """Raise :class:`MetricAbsent` if anything is missing."""
        if reason := cls.absence():
            raise MetricAbsent(reason)

    def measure(self, original: np.ndarray, output: np.ndarray, sample_rate: int) -> float | None:
        """See :class:`Metric`."""
        clips = (original, output) if self.info.intrusive else (output,)
        if any(clip.size < MIN_SECONDS * sample_rate for clip in clips):
            return None
        if not all(np.isfinite(clip).all() for clip in clips):
            return None
        heard = (original,) if self.silent_output else clips
        if any(np.abs(clip).max() < SILENCE for clip in heard):
            return None
        try:
            value = self._value(original, output, sample_rate)
        except self.failures as error:
            raise MetricFailure(f"{self.info.name}: {first_line(error)}") from error
        return value if value is not None and math.isfinite(value) else None

    @abstractmethod
    def _value(self, original: np.ndarray, output: np.ndarray, sample_rate: int) -> float | None:
        """The value of clips that are long enough, finite and not silent."""


def resampled(samples: np.ndarray, sample_rate: int, new_rate: int) -> np.ndarray:
    """``samples [N]`` at ``new_rate``, float32."""
    if sample_rate == new_rate:
        return samples.astype(np.float32)
    from dualcodec_jax.audio.resample import resample_clip

    return resample_clip(samples, sample_rate, new_rate)


# Packages -----------------------------------------------------------------------------------


def missing_packages(requirements: Mapping[str, str]) -> str | None:
    """What to install if any module is not there, else None. Imports nothing.

    Args:
        requirements: name of a module → what to give to ``pip install`` for it.
    """
    missing = [module for module in requirements if importlib.util.find_spec(module) is None]
    if not missing:
        return None
    packages = dict.fromkeys(requirements[module] for module in missing)
    arguments = " ".join(f"'{name}'" if "<" in name else name for name in packages)
    return f"{' and '.join(missing)} not installed: pip install {arguments}"


def require_packages(requirements: Mapping[str, str]) -> None:
    """Raise :class:`MetricAbsent` unless all modules are there."""
    if reason := missing_packages(requirements):
        raise MetricAbsent(reason)


def versions(*packages: str, revision: int = 1) -> str:
    """Versions of installed distributions, and the revision of the code that calls them."""
    found = []
    for package in packages:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(package)
    return ", ".join([*found, f"revision {revision}"])


@contextlib.contextmanager
def others_code() -> Iterator[None]:
    """For calls into packages whose warnings are not for the user (deprecations, mostly)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def load_package(module: str) -> Any:
    """Import an optional package.

    Raises:
        MetricAbsent: it is there, but cannot be imported.
    """
    with others_code():
        try:
            return importlib.import_module(module)
        except PACKAGE_FAILURES as error:
            raise MetricAbsent(
                f"{module} is installed, but importing it fails: {first_line(error)}; reinstall it "
                "with packages that fit each other"
            ) from error


@contextlib.contextmanager
def loading(what: str, advice: str) -> Iterator[None]:
    """For calls that load a model; warnings are not shown.

    Args:
        what: the model.
        advice: what to do where it does not load.

    Raises:
        MetricAbsent: it does not load.
    """
    try:
        with others_code():
            yield
    except Exception as error:  # those of pickle and safetensors have no common class
        raise MetricAbsent(f"{what} does not load: {first_line(error)}; {advice}") from error


def first_line(error: Exception) -> str:
    """Of an error's message, not too long; the error's class where it has none."""
    return str(error).strip().partition("\n")[0][:300] or type(error).__name__
