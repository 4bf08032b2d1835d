"""EnCodec, DAC and Mimi through ``transformers``, from a folder or the local Hugging Face cache.

Nothing is downloaded: a codec whose weights are not on disk is absent.
"""

from __future__ import annotations

import functools
import importlib
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

PACKAGES = ("torch", "transformers")
ENCODEC, MIMI = "facebook/encodec_24khz", "kyutai/mimi"
DAC = {rate: f"descript/dac_{rate}" for rate in ("16khz", "24khz", "44khz")}
DEFAULT_DAC = "24khz"


def open_encodec(argument: str | None, n_quantizers: int | None) -> TorchCodec:
    """``encodec:KBITS`` or ``encodec[:FOLDER]@N``; see :func:`~.registry.open_codec`."""
    kbits = _number(argument)
    if kbits is not None and n_quantizers is not None:
        raise InputError("encodec: give kbit/s or a number of quantizers, not both")
    folder = argument if kbits is None else None
    model = _pretrained("EncodecModel", "encodec", folder, ENCODEC)
    config = model.config
    if config.audio_channels != 1 or config.normalize or config.chunk_length_s is not None:
        raise InputError("encodec: only mono models without normalisation (encodec_24khz) are read")
    bits = code_bits(config.codebook_size)
    rate = config.sampling_rate / config.hop_length
    of_count = {round(1000 * b / rate / bits): b for b in config.target_bandwidths}
    if kbits is not None:
        n_quantizers = round(1000 * kbits / rate / bits)
    number = _number_of_quantizers("encodec", n_quantizers, max(of_count))
    if number not in of_count or kbits not in (None, of_count[number]):
        known = ", ".join(f"{b:g} kbit/s (@{n})" for n, b in of_count.items())
        raise InputError(f"encodec: this model has {known}")

    def encode(wave: Tensor) -> Tensor:
        return model.encode(wave, bandwidth=of_count[number]).audio_codes[0, 0]

    def decode(codes: Tensor) -> Tensor:
        return model.decode(codes[None, None], [None]).audio_values

    parts = [model.encoder, model.quantizer], [model.quantizer, model.decoder]
    info = _info(f"encodec:{folder}" if folder else "encodec", model, number, rate, parts)
    return TorchCodec(info, model, encode, decode)


def open_mimi(argument: str | None, n_quantizers: int | None) -> TorchCodec:
    """``mimi:N`` or ``mimi[:FOLDER]@N``; see :func:`~.registry.open_codec`."""
    if argument is not None and argument.isdecimal():
        if n_quantizers is not None:
            raise InputError("mimi: the number of quantizers is given twice")
        n_quantizers, argument = int(argument), None
    model = _pretrained("MimiModel", "mimi", argument, MIMI)
    config = model.config
    number = _number_of_quantizers("mimi", n_quantizers, config.num_quantizers)

    def encode(wave: Tensor) -> Tensor:
        return model.encode(wave, num_quantizers=number).audio_codes[0]

    def decode(codes: Tensor) -> Tensor:
        return model.decode(codes[None]).audio_values

    names = ("encoder", "encoder_transformer", "downsample", "quantizer")
    others = ("quantizer", "upsample", "decoder_transformer", "decoder")
    parts = _children(model, names), _children(model, others)
    name = f"mimi:{argument}" if argument else "mimi"
    return TorchCodec(_info(name, model, number, config.frame_rate, parts), model, encode, decode)


def open_dac(argument: str | None, n_quantizers: int | None) -> TorchCodec:
    """``dac:RATE@N`` or ``dac:FOLDER@N``; see :func:`~.registry.open_codec`."""
    name = argument or DEFAULT_DAC
    folder = None if name in DAC else name
    model = _pretrained("DacModel", "dac", folder, DAC.get(name, DAC[DEFAULT_DAC]))
    config = model.config
    number = _number_of_quantizers("dac", n_quantizers, config.n_codebooks)
    pad = importlib.import_module("torch").nn.functional.pad

    def encode(wave: Tensor) -> Tensor:
        wave = pad(wave, (0, -wave.shape[-1] % config.hop_length))
        return model.encode(wave, n_quantizers=number).audio_codes[0]

    def decode(codes: Tensor) -> Tensor:
        return model.decode(audio_codes=codes[None]).audio_values

    parts = [model.encoder, model.quantizer], [model.quantizer, model.decoder]
    rate = config.sampling_rate / config.hop_length
    info = _info(f"dac:{name}", model, number, rate, parts)
    return TorchCodec(info, model, encode, decode)


def _info(
    name: str, model: Any, number: int, frame_rate: float, parts: tuple[list[Any], list[Any]]
) -> CodecInfo:
    size = model.config.codebook_size
    return CodecInfo(
        name=f"{name}@{number}",
        sample_rate=model.config.sampling_rate,
        version=f"{package_version('transformers')}, weights {fingerprint(model)}",
        parameters=count([model]),
        encode_parameters=count(parts[0]),
        decode_parameters=count(parts[1]),
        bitrate=frame_rate * number * code_bits(size),
        tokens_per_second=frame_rate * number,
        n_quantizers=number,
        codebook_sizes=(size,) * number,
    )


def _children(model: Any, names: tuple[str, ...]) -> list[Any]:
    children = dict(model.named_children())
    return [children[name] for name in names if name in children]


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _number_of_quantizers(family: str, number: int | None, available: int) -> int:
    number = available if number is None else number
    if not 1 <= number <= available:
        raise InputError(f"{family}: this model has 1 to {available} quantizers, not {number}")
    return number


@functools.lru_cache(maxsize=1)
def _pretrained(class_name: str, family: str, folder: str | None, repository: str) -> Any:
    """The model, from ``folder`` or from the cached ``repository``; the last one is kept."""
    require_packages(*PACKAGES)
    load = _model_class(class_name).from_pretrained
    if folder is not None and not Path(folder).is_dir():
        raise CodecAbsent(f"{family}: {folder} is not a folder with weights")
    try:
        model, found = load(folder or repository, local_files_only=True, output_loading_info=True)
    except Exception as error:  # those of pickle and safetensors have no common class
        if folder is None and isinstance(error, OSError | ValueError):
            raise CodecAbsent(_advice(family, repository)) from error
        raise WeightsError(f"{folder or repository}: {first_line(error)}") from error
    if missing := sorted(found["missing_keys"]):
        raise WeightsError(f"{folder or repository}: has no {missing[0]}; it is another model's")
    return model


def _model_class(name: str) -> Any:
    try:
        return getattr(importlib.import_module("transformers"), name)
    except (ImportError, OSError) as error:  # the latter from shared libraries that do not load
        raise CodecAbsent(f"transformers cannot be imported: {error}") from error


def _advice(family: str, repository: str) -> str:
    return (
        f"no weights in the Hugging Face cache: run `hf download {repository}`, or name a folder: "
        f"{family}:FOLDER"
    )


def _absence(family: str, repository: str) -> str | None:
    if reason := missing_packages(*PACKAGES):
        return reason
    import huggingface_hub

    cached = huggingface_hub.try_to_load_from_cache(repository, "config.json")
    return None if isinstance(cached, str) else _advice(family, repository)


def absence_of_encodec() -> str | None:
    """What to install or download, if anything."""
    return _absence("encodec", ENCODEC)


def absence_of_dac() -> str | None:
    """What to install or download, if anything."""
    return _absence("dac", DAC[DEFAULT_DAC])


def absence_of_mimi() -> str | None:
    """What to install or download, if anything."""
    return _absence("mimi", MIMI)
