"""The PyTorch originals, made importable on a CPU-only machine. Used by tests only.

``dualcodec`` pins packages that cannot live beside current ones, so the parity
environment installs it and what it really needs with ``--no-deps`` and this module
stands in for the rest: compiled torchaudio extensions, TensorBoard, and whatever else
is imported but never called on the paths under test.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any


class _Placeholder(types.ModuleType):
    """A module whose every attribute is an empty class."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def _place(name: str, **attributes: Any) -> None:
    module = _Placeholder(name)
    module.__path__ = []
    for key, value in attributes.items():
        setattr(module, key, value)
    sys.modules[name] = module


def import_with_placeholders(name: str, file: Path | None = None) -> Any:
    """Import ``name``; every module that is missing on the way becomes a placeholder.

    Args:
        name: of the module.
        file: its source, for a module whose package cannot be imported.
    """
    for _ in range(50):
        try:
            return importlib.import_module(name) if file is None else _import_file(name, file)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.split(".")[0] == name.split(".")[0]:
                raise
            _place(error.name)
            for loaded in [m for m in sys.modules if m.split(".")[0] == name.split(".")[0]]:
                del sys.modules[loaded]
    raise ImportError(f"{name}: too many missing modules")


def _import_file(name: str, file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _identity(function: Any = None, *_: Any) -> Any:
    return function


_place(
    "torchaudio._extension",
    _IS_TORCHAUDIO_EXT_AVAILABLE=False,
    _IS_ALIGN_AVAILABLE=False,
    _IS_RIR_AVAILABLE=False,
    fail_if_no_align=_identity,
    fail_if_no_rir=_identity,
    _load_lib=_identity,
)
_place("torch.utils.tensorboard")
# Local paths only: the tests never reach a network.
_place("cached_path", cached_path=lambda path: path)
# Interactive helpers of audiotools that run code at import.
_place("audiotools.core.playback", PlayMixin=type("PlayMixin", (), {}))

import torch  # noqa: E402
import torchaudio.functional  # noqa: E402

import_with_placeholders("audiotools")
import_with_placeholders("dualcodec")

from audiotools import AudioSignal, STFTParams  # noqa: E402
from dualcodec.infer.dualcodec.inference_with_semantic import Inference  # noqa: E402
from dualcodec.model_codec import (  # noqa: E402
    Discriminator,
    DualCodec,
    cnn,
    dac_layers,
    dac_model,
    dac_quantize,
)
from easydict import EasyDict as edict  # noqa: E402

DAC = dac_model.DAC

resample = torchaudio.functional.resample

__all__ = [
    "DAC",
    "AudioSignal",
    "Discriminator",
    "DualCodec",
    "Inference",
    "STFTParams",
    "cnn",
    "dac_layers",
    "dac_model",
    "dac_quantize",
    "edict",
    "resample",
    "torch",
]
