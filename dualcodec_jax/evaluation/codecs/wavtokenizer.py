"""WavTokenizer through its own source tree, which is in no package registry.

A copy of the repository ``jishengpeng/WavTokenizer`` must be on the Python path (its modules are
``encoder`` and ``decoder``). A folder holds one of its YAML configurations and the checkpoint.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import io
import math
import os
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
    require_packages,
)
from dualcodec_jax.evaluation.metrics.base import first_line

PACKAGES = ("torch", "yaml")
FOLDER_VARIABLE = "WAVTOKENIZER_FOLDER"
SAMPLE_RATE = 24000
_SOURCE_ADVICE = (
    "WavTokenizer's source is not on the Python path: get the repository jishengpeng/WavTokenizer "
    "from GitHub, install its requirements and add its folder to PYTHONPATH"
)
_FOLDER_ADVICE = (
    "name a folder with one *.yaml and one *.ckpt of WavTokenizer: wavtokenizer:FOLDER, or set "
    f"{FOLDER_VARIABLE}"
)


def open_wavtokenizer(argument: str | None, n_quantizers: int | None) -> TorchCodec:
    """``wavtokenizer[:FOLDER]``; see :func:`~.registry.open_codec`."""
    require_packages(*PACKAGES)
    if not _has_source():
        raise CodecAbsent(_SOURCE_ADVICE)
    folder = argument or os.environ.get(FOLDER_VARIABLE)
    if not folder:
        raise CodecAbsent(_FOLDER_ADVICE)
    model, config = _load(folder)
    extractor = config["model"]["init_args"]["feature_extractor"]["init_args"]
    available, size = int(extractor["num_quantizers"]), int(extractor["vq_bins"])
    if n_quantizers not in (None, available):
        raise InputError(f"wavtokenizer: has {available} quantizers, not {n_quantizers}")
    rate = SAMPLE_RATE / math.prod(extractor["dowmsamples"])  # so spelt there
    torch = importlib.import_module("torch")

    def bandwidth(tensor: Tensor) -> Tensor:
        return torch.tensor([0], device=tensor.device)

    def encode(wave: Tensor) -> Tensor:
        return model.encode_infer(wave[:, 0], bandwidth_id=bandwidth(wave))[1][:, 0]

    def decode(codes: Tensor) -> Tensor:
        features = model.codes_to_features(codes[:, None])
        return model.decode(features, bandwidth_id=bandwidth(codes))

    encodec = model.feature_extractor.encodec
    encoding = [encodec.encoder, encodec.quantizer]
    decoding = [encodec.quantizer, model.backbone, model.head]
    name = f"wavtokenizer:{argument}" if argument else "wavtokenizer"
    info = CodecInfo(
        name=f"{name}@{available}",
        sample_rate=SAMPLE_RATE,
        version=f"weights {fingerprint(model)}",
        parameters=count([*encoding, *decoding]),
        encode_parameters=count(encoding),
        decode_parameters=count(decoding),
        bitrate=rate * available * code_bits(size),
        tokens_per_second=rate * available,
        n_quantizers=available,
        codebook_sizes=(size,) * available,
    )
    return TorchCodec(info, model, encode, decode)


@functools.lru_cache(maxsize=1)
def _load(folder: str) -> tuple[Any, dict[str, Any]]:
    """Model and configuration; the last one is kept."""
    configs, checkpoints = (sorted(Path(folder).glob(end)) for end in ("*.yaml", "*.ckpt"))
    if len(configs) != 1 or len(checkpoints) != 1:
        raise CodecAbsent(
            f"{folder} has {len(configs)} *.yaml and {len(checkpoints)} *.ckpt; {_FOLDER_ADVICE}"
        )
    try:
        source = importlib.import_module("decoder.pretrained")
        yaml = importlib.import_module("yaml")
        config = yaml.safe_load(configs[0].read_text("utf-8"))
        with contextlib.redirect_stdout(io.StringIO()):  # it reports on loading by print
            model = source.WavTokenizer.from_pretrained0802(str(configs[0]), str(checkpoints[0]))
    except ImportError as error:
        raise CodecAbsent(f"WavTokenizer cannot be imported: {error}") from error
    except Exception as error:  # unpickling errors have no common class
        reason = first_line(error)
        raise WeightsError(f"{checkpoints[0]}: not a WavTokenizer: {reason}") from error
    return model, config


def _has_source() -> bool:
    spec = importlib.util.find_spec("decoder")
    folders = [] if spec is None else spec.submodule_search_locations or []
    return any(Path(folder, "pretrained.py").is_file() for folder in folders)


def absence_of_wavtokenizer() -> str | None:
    """What to install or download, if anything."""
    if reason := missing_packages(*PACKAGES):
        return reason
    if not _has_source():
        return _SOURCE_ADVICE
    return None if os.environ.get(FOLDER_VARIABLE) else _FOLDER_ADVICE
