"""UTMOS, a mean opinion score predicted from the output alone, with weights of one's own.

No package carries the weights. They are used from a torch.hub cache, which this fills on a machine
with internet::

    torch.hub.load("tarepan/SpeechMOS:v1.2.0", "utmos22_strong")

Elsewhere, :data:`HUB_VARIABLE` names a copy of that cache. Nothing is downloaded here.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from dualcodec_jax.evaluation.metrics.base import (
    ClipMetric,
    MetricInfo,
    load_package,
    loading,
    resampled,
    versions,
)

HUB_VARIABLE = "DUALCODEC_UTMOS"
"""Environment variable with a torch.hub folder; unset: torch's own."""

CODE_FOLDER = "tarepan_SpeechMOS_*"
WEIGHTS_FILE = "checkpoints/utmos22_strong_step7459_v1.pt"
SAMPLE_RATE = 16000


def hub_folder() -> Path:
    """Where code and weights are looked for."""
    if folder := os.environ.get(HUB_VARIABLE):
        return Path(folder)
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("TORCH_HOME") or Path(cache) / "torch").expanduser() / "hub"


class Utmos(ClipMetric):
    """UTMOS22, strong learner, of the whole clip, on the CPU.

    Raises:
        MetricAbsent: no torch, code or weights; or the code does not fit.
    """

    requirements: ClassVar = {"torch": "torch", "torchaudio": "torchaudio"}

    @classmethod
    def absence(cls) -> str | None:
        """What to install or to name; None if nothing."""
        return super().absence() or _missing_weights(hub_folder())

    def __init__(self) -> None:
        self.require()
        folder = hub_folder()
        with open(folder / WEIGHTS_FILE, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        code = _code_folder(folder)
        super().__init__(
            MetricInfo(
                name="utmos",
                title="UTMOS",
                unit="MOS",
                higher_is_better=True,
                range=(1.0, 5.0),
                intrusive=False,
                packages=tuple(self.requirements.values()),
                source="Saeki et al. 2022, tarepan/SpeechMOS",
                version=f"{code.name}, weights {digest[:12]}, {versions('torch')}",
            )
        )
        self._torch = load_package("torch")
        self._model = _load(self._torch, folder, code)

    def _value(self, original: np.ndarray, output: np.ndarray, sample_rate: int) -> float:
        samples = np.array(resampled(output, sample_rate, SAMPLE_RATE)[None])
        with self._torch.inference_mode():
            return float(self._model(self._torch.from_numpy(samples), SAMPLE_RATE)[0])


def _code_folder(folder: Path) -> Path:
    return sorted(folder.glob(CODE_FOLDER))[-1]


def _missing_weights(folder: Path) -> str | None:
    if any(folder.glob(CODE_FOLDER)) and (folder / WEIGHTS_FILE).is_file():
        return None
    return (
        f'no UTMOS in the torch.hub cache: run `python -c "import torch; '
        f"torch.hub.load('tarepan/SpeechMOS:v1.2.0', 'utmos22_strong')\"` where there is internet, "
        f"and set {HUB_VARIABLE} to the folder (with {WEIGHTS_FILE} in it) if it is not torch's own"
    )


def _load(torch: Any, folder: Path, code: Path) -> Any:
    previous = torch.hub.get_dir()
    torch.hub.set_dir(str(folder))
    advice = f"fetch it and {WEIGHTS_FILE} again"
    try:
        with loading(code.name, advice), _without_speechmos():
            model = torch.hub.load(str(code), "utmos22_strong", source="local", progress=False)
    finally:
        torch.hub.set_dir(previous)
    return model.eval()


@contextlib.contextmanager
def _without_speechmos() -> Iterator[None]:
    """Hide the package that DNSMOS comes from: the code of UTMOS has the same name."""
    hidden = _take_speechmos()
    try:
        yield
    finally:
        _take_speechmos()
        sys.modules.update(hidden)


def _take_speechmos() -> dict[str, Any]:
    names = [name for name in sys.modules if name.partition(".")[0] in ("speechmos", "hubconf")]
    return {name: sys.modules.pop(name) for name in names}
