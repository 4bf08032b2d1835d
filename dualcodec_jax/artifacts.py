"""Encode and decode as serialised programs, to run where this package is not installed.

A folder with two StableHLO programs (``jax.export``), the parameters as safetensors, and a
description. Batch and length are symbolic: one program serves every shape, and JAX compiles it
once for each that it meets. :func:`read_artifacts` loads it; ``docs/deployment.md`` shows how to
do so with jax and safetensors alone.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, export

from dualcodec_jax import functional
from dualcodec_jax.config import Config, DualCodecConfig, WhisperConfig, from_dict, to_dict
from dualcodec_jax.convert.engine import Params, flatten, unflatten
from dualcodec_jax.errors import InputError, WeightsError
from dualcodec_jax.functional import Decoded, Encoded
from dualcodec_jax.inference import Inference
from dualcodec_jax.inputs import as_array, as_audio, as_lengths
from dualcodec_jax.lengths import acoustic_frames, min_samples
from dualcodec_jax.paths import replacing

PLATFORMS = ("cpu", "cuda", "tpu")
KNOWN_PLATFORMS = (*PLATFORMS, "rocm")
FORMAT = "dualcodec_jax.artifacts"
FORMAT_VERSION = 1
DESCRIPTION, PARAMETERS = "artifacts.json", "params.safetensors"
ENCODE, DECODE = "encode.stablehlo", "decode.stablehlo"
MAX_FRAMES = 1 << 20
"""Bound on the frames of one item, so that JAX can decide what depends on the length."""


@dataclasses.dataclass(frozen=True)
class Artifacts:
    """The two programs with their parameters on the default device.

    Attributes:
        description: what ``artifacts.json`` says: model, sample rate, hop, codebook sizes,
            ``n_quantizers``, ``max_frames``, platforms, versions.
        params: their parameters.
    """

    description: dict[str, Any]
    params: Params
    _codec: DualCodecConfig
    _encode: Callable[..., Any]
    _decode: Callable[..., Any]

    def encode(self, audio: Any, lengths: Any | None = None) -> Encoded:
        """Audio ``[B, 1, N]``, N whole hops → codes; as :func:`dualcodec_jax.encode`.

        Raises:
            InputError: on another shape, type or length.
            AudioError: if samples are not finite.
        """
        samples, true = as_audio(audio, lengths)
        hop, codec = self.description["hop_length"], self._codec
        shortest, size = min_samples(codec), samples.shape[2]
        least, most = acoustic_frames(shortest, codec) * hop, self.description["max_frames"] * hop
        if size % hop or not least <= size <= most:
            raise InputError(
                f"audio must have whole hops of {hop} samples, at least {least} and at most "
                f"{most}; got {size}. Pad it with zeros and give lengths"
            )
        if (true < shortest).any():
            raise InputError(
                f"lengths must be at least {shortest} samples, the shortest audio that has a code; "
                f"got {true.tolist()}"
            )
        codes, frames = self._encode(self.params, samples, true)
        return Encoded(codes, frames)

    def decode(self, codes: Any, lengths: Any | None = None) -> Decoded:
        """Codes ``[B, n_quantizers, T]`` → audio; as :func:`dualcodec_jax.decode`.

        Raises:
            InputError: on another shape, type or length, or codes outside their codebooks.
        """
        rows, sizes = as_array(codes, "codes"), self.description["codebook_sizes"]
        if rows.ndim != 3 or rows.shape[1] != len(sizes) or 0 in rows.shape:
            raise InputError(
                f"codes must have shape [batch, {len(sizes)}, frames]; got {list(rows.shape)}"
            )
        if rows.dtype.kind not in "iu":
            raise InputError(f"codes must be integers; got {rows.dtype}")
        most, frames = self.description["max_frames"], rows.shape[2]
        if frames > most:
            raise InputError(f"codes must have at most {most} frames; got {frames}. Split them")
        true = as_lengths(lengths, len(rows), frames, "lengths", "frames")
        if (true < 1).any():
            raise InputError(f"lengths must be at least 1 frame; got {true.tolist()}")
        if (rows < 0).any() or (rows >= np.array(sizes)[:, None]).any():
            raise InputError("codes lie outside their codebooks: damaged, or of another model")
        audio, samples = self._decode({"codec": self.params["codec"]}, rows.astype(np.int32), true)
        return Decoded(audio, samples)


def write_artifacts(
    inference: Inference,
    folder: str | Path,
    *,
    n_quantizers: int | None = None,
    platforms: Sequence[str] = PLATFORMS,
    overwrite: bool = False,
) -> Path:
    """Write a model's programs and parameters, which appear when they are complete.

    Args:
        inference: the model, with its precision.
        folder: to write.
        n_quantizers: codes per frame that are encoded and decoded; None: all.
        platforms: that the programs run on: ``cpu``, ``cuda``, ``rocm``, ``tpu``.
        overwrite: replace an existing folder of this kind.

    Raises:
        InputError: on a wrong number or platform, a folder that exists or holds anything else, or
            without the package flatbuffers.
    """
    config, target = inference.config, Path(folder)
    count = config.codec.n_quantizers if n_quantizers is None else n_quantizers
    if not 1 <= count <= config.codec.n_quantizers:
        raise InputError(f"n_quantizers must be 1…{config.codec.n_quantizers}; got {count}")
    if unknown := sorted(set(platforms) - set(KNOWN_PLATFORMS)):
        raise InputError(f"unknown platform {unknown[0]!r}; use {', '.join(KNOWN_PLATFORMS)}")
    if overwrite and target.is_dir() and any(target.iterdir()):
        _read_description(target)  # refuses to replace anything else
    programs = {
        name: _serialised(program, tuple(platforms))
        for name, program in _programs(inference.params, config, count).items()
    }
    with replacing(target, overwrite=overwrite, folder=True) as temporary:
        for name, data in programs.items():
            (temporary / name).write_bytes(data)
        _save(inference.params, temporary / PARAMETERS)
        description = _description(config, count, platforms)
        (temporary / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")
    return target


def read_artifacts(folder: str | Path) -> Artifacts:
    """Load what :func:`write_artifacts` wrote.

    Raises:
        WeightsError: the folder is missing, damaged or of another kind.
    """
    from safetensors.numpy import load_file

    path = Path(folder)
    description = _read_description(path)
    try:
        codec = from_dict(DualCodecConfig, description["config"])
        flat = load_file(path / PARAMETERS)
        encode, decode = (
            jax.jit(export.deserialize(bytearray((path / name).read_bytes())).call)
            for name in (ENCODE, DECODE)
        )
    except Exception as error:  # flatbuffers and safetensors raise many kinds
        raise WeightsError(
            f"{folder}: damaged or incomplete ({error}); write it again with dualcodec-jax "
            "artifacts"
        ) from error
    params = jax.device_put(unflatten({tuple(name.split("/")): flat[name] for name in flat}))
    return Artifacts(description, params, codec, encode, decode)


def _programs(params: Params, config: Config, count: int) -> dict[str, Callable[[], Any]]:
    """Functions that trace each program."""
    codec = config.codec
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)

    def sizes(least: int) -> tuple[Any, Any, jax.ShapeDtypeStruct]:
        bounds = [f"frames >= {least}", f"frames <= {max_frames(config)}"]
        batch, frames = export.symbolic_shape("batch, frames", constraints=bounds)
        return batch, frames, jax.ShapeDtypeStruct((batch,), jnp.int32)

    batch, frames, encode_lengths = sizes(acoustic_frames(min_samples(codec), codec))
    audio = jax.ShapeDtypeStruct((batch, 1, frames * codec.hop_length), jnp.float32)
    batch, frames, decode_lengths = sizes(1)
    codes = jax.ShapeDtypeStruct((batch, count, frames), jnp.int32)

    def encode(params: Params, audio: Array, lengths: Array) -> tuple[Array, Array]:
        result = functional.encode(params, config, audio, lengths, count)
        return result.codes, result.lengths

    def decode(params: Params, codes: Array, lengths: Array) -> tuple[Array, Array]:
        result = functional.decode(params, config, codes, lengths)
        return result.audio, result.lengths

    return {
        ENCODE: lambda: (encode, (shapes, audio, encode_lengths)),
        DECODE: lambda: (decode, ({"codec": shapes["codec"]}, codes, decode_lengths)),
    }


def max_frames(config: Config) -> int:
    """Longest item of the programs in code frames: Whisper's window, else more than fits."""
    if isinstance(config.semantic, WhisperConfig) and config.codec.is_dual:
        return config.semantic.max_frames // config.codec.semantic_downsample_factor
    return MAX_FRAMES


def _serialised(program: Callable[[], Any], platforms: tuple[str, ...]) -> bytes:
    function, arguments = program()
    try:
        exported = export.export(jax.jit(function), platforms=platforms)(*arguments)
        return bytes(exported.serialize())
    except ImportError:
        raise InputError(
            "programs need flatbuffers; run pip install 'dualcodec-jax[artifacts]'"
        ) from None


def _description(config: Config, count: int, platforms: Sequence[str]) -> dict[str, Any]:
    from dualcodec_jax import __version__

    codec = config.codec
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model_id": config.model_id,
        "sample_rate": codec.sample_rate,
        "hop_length": codec.hop_length,
        "n_quantizers": count,
        "codebook_sizes": list(codec.codebook_sizes[:count]),
        "max_frames": max_frames(config),
        "precision": config.precision,
        "platforms": list(platforms),
        "config": to_dict(codec),
        "versions": {"dualcodec_jax": __version__, "jax": jax.__version__},
    }


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION
    try:
        description = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{folder}: is not a folder of programs ({error}); dualcodec-jax artifacts writes one"
        ) from None
    if description.get("format") != FORMAT or description.get("format_version") != FORMAT_VERSION:
        raise WeightsError(
            f"{path}: format {description.get('format')} {description.get('format_version')}, "
            f"not {FORMAT} {FORMAT_VERSION}; write it again with this version"
        )
    return dict(description)


def _save(params: Params, path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"/".join(name): np.asarray(x) for name, x in flatten(params).items()}, path)
