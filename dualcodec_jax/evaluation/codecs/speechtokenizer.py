"""SpeechTokenizer through its own package ``speechtokenizer``.

Weights are the published pair ``config.json`` and ``SpeechTokenizer.pt``, in a folder or in the
local Hugging Face cache of ``fnlp/SpeechTokenizer``; nothing is downloaded.
"""

from __future__ import annotations

import functools
import importlib
import json
import math
from pathlib import Path
from typing import Any

from dualcodec_jax.config import code_bits
from dualcodec_jax.errors import InputError, WeightsError
from dualcodec_jax.evaluation.codecs.base import CodecAbsent, CodecInfo
from dualcodec_jax.evaluation.codecs.torch_codec import (
    Tensor,
    TorchCodec,
    count,
    fingerprint,
    missing_packages,
    package_version,
    require_packages,
)
from dualcodec_jax.evaluation.metrics.base import first_line

PACKAGES = ("torch", "speechtokenizer")
REPOSITORY, SUBFOLDER = "fnlp/SpeechTokenizer", "speechtokenizer_hubert_avg"
CONFIG_FILE, WEIGHTS_FILE = "config.json", "SpeechTokenizer.pt"
_ADVICE = (
    f"no weights in the Hugging Face cache: run `hf download {REPOSITORY} --include "
    f"'{SUBFOLDER}/*'`, or name a folder: speechtokenizer:FOLDER"
)


def open_speechtokenizer(argument: str | None, n_quantizers: int | None) -> TorchCodec:
    """``speechtokenizer[:FOLDER]@N``; see :func:`~.registry.open_codec`."""
    require_packages(*PACKAGES)
    model, config = _load(argument)
    available, size = int(config["n_q"]), int(config["codebook_size"])
    number = available if n_quantizers is None else n_quantizers
    if number > available:
        raise InputError(f"speechtokenizer: has 1 to {available} quantizers, not {number}")
    rate = config["sample_rate"] / math.prod(config["strides"])

    def encode(wave: Tensor) -> Tensor:
        return model.encode(wave, n_q=number)[:, 0]

    def decode(codes: Tensor) -> Tensor:
        return model.decode(codes[:, None])

    name = f"speechtokenizer:{argument}" if argument else "speechtokenizer"
    info = CodecInfo(
        name=f"{name}@{number}",
        sample_rate=int(config["sample_rate"]),
        version=f"{package_version('speechtokenizer')}, weights {fingerprint(model)}",
        parameters=count([model]),
        encode_parameters=count([model.encoder, model.quantizer]),
        decode_parameters=count([model.quantizer, model.decoder]),
        bitrate=rate * number * code_bits(size),
        tokens_per_second=rate * number,
        n_quantizers=number,
        codebook_sizes=(size,) * number,
    )
    return TorchCodec(info, model, encode, decode)


@functools.lru_cache(maxsize=1)
def _load(folder: str | None) -> tuple[Any, dict[str, Any]]:
    """Model and configuration; the last one is kept."""
    files = _files(folder)
    if files is None:
        missing = f"{folder} has no {CONFIG_FILE} and {WEIGHTS_FILE}"
        raise CodecAbsent(f"speechtokenizer: {_ADVICE if folder is None else missing}")
    try:
        config = json.loads(files[0].read_text("utf-8"))
        package = importlib.import_module("speechtokenizer")
        model = package.SpeechTokenizer.load_from_checkpoint(str(files[0]), str(files[1]))
    except (ImportError, OSError) as error:  # the latter from shared libraries that do not load
        raise CodecAbsent(f"speechtokenizer cannot be imported: {error}") from error
    except Exception as error:  # unpickling errors have no common class
        reason = first_line(error)
        raise WeightsError(f"{files[1].parent}: not a SpeechTokenizer: {reason}") from error
    return model, config


def _files(folder: str | None) -> tuple[Path, Path] | None:
    """Configuration and weights, if both are on disk."""
    if folder is not None:
        paths = Path(folder, CONFIG_FILE), Path(folder, WEIGHTS_FILE)
        return paths if all(path.is_file() for path in paths) else None
    import huggingface_hub

    found = [
        huggingface_hub.try_to_load_from_cache(REPOSITORY, f"{SUBFOLDER}/{name}")
        for name in (CONFIG_FILE, WEIGHTS_FILE)
    ]
    config, weights = (Path(path) if isinstance(path, str) else None for path in found)
    return (config, weights) if config and weights else None


def absence_of_speechtokenizer() -> str | None:
    """What to install or download, if anything."""
    return missing_packages(*PACKAGES) or (None if _files(None) else _ADVICE)
