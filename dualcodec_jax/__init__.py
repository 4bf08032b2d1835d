"""DualCodec, the low-frame-rate semantic speech codec, in JAX/Flax.

Names are loaded on first use: importing the package touches no device.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "audio.load": ("load_audio",),
    "audio.reader": ("AudioReader", "audio_info", "read_audio"),
    "audio.resample": ("resample",),
    "audio.writer": ("audio_writer", "write_audio"),
    "config": ("Config", "DualCodecConfig", "W2vBertConfig", "get_config"),
    "container": ("CodeFile", "read_codes", "write_codes"),
    "convert.files": ("convert_file", "export_torch"),
    "errors": (
        "AudioError",
        "CodeFileError",
        "ConfigError",
        "DualCodecError",
        "DualCodecWarning",
        "HubError",
        "InputError",
        "WeightsError",
    ),
    "functional": ("Decoded", "Encoded", "decode", "encode", "semantic_features"),
    "inference": ("Inference",),
    "lengths": ("code_length", "decoded_samples", "min_samples"),
    "model": ("DualCodecModel", "get_model", "random_model", "random_semantic"),
    "nn.codec": ("DualCodec",),
}
_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names}
__all__ = ["__version__", *sorted(_MODULE_OF)]

if TYPE_CHECKING:
    from dualcodec_jax.audio.load import load_audio
    from dualcodec_jax.audio.reader import AudioReader, audio_info, read_audio
    from dualcodec_jax.audio.resample import resample
    from dualcodec_jax.audio.writer import audio_writer, write_audio
    from dualcodec_jax.config import Config, DualCodecConfig, W2vBertConfig, get_config
    from dualcodec_jax.container import CodeFile, read_codes, write_codes
    from dualcodec_jax.convert.files import convert_file, export_torch
    from dualcodec_jax.errors import (
        AudioError,
        CodeFileError,
        ConfigError,
        DualCodecError,
        DualCodecWarning,
        HubError,
        InputError,
        WeightsError,
    )
    from dualcodec_jax.functional import Decoded, Encoded, decode, encode, semantic_features
    from dualcodec_jax.inference import Inference
    from dualcodec_jax.lengths import code_length, decoded_samples, min_samples
    from dualcodec_jax.model import DualCodecModel, get_model, random_model, random_semantic
    from dualcodec_jax.nn.codec import DualCodec


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
