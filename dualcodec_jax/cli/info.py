"""``info``: what a model, a checkpoint, a code file or an audio file is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from dualcodec_jax.cli.common import reports_errors
from dualcodec_jax.config import PRESETS
from dualcodec_jax.errors import InputError


@reports_errors
def info(
    what: Annotated[
        str, typer.Argument(help="A model id, a checkpoint folder, a code file or an audio file.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Describe a model, a checkpoint, a code file or an audio file."""
    facts = _facts(what)
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    table = Table(show_header=False, box=None)
    for name, value in facts.items():
        table.add_row(name, str(value))
    Console().print(table)


def _facts(what: str) -> dict[str, Any]:
    from dualcodec_jax.weights import is_checkpoint

    path = Path(what).expanduser()
    if what in PRESETS and not (path.is_file() or is_checkpoint(path)):
        return _model_facts(what)
    if is_checkpoint(path):
        return _checkpoint_facts(path)
    if path.suffix == ".dualcodec":
        return _code_facts(path)
    if path.is_file():
        return _audio_facts(path)
    raise InputError(
        f"{what}: neither a model id ({', '.join(PRESETS)}) nor a checkpoint folder nor a file"
    )


def _model_facts(model_id: str) -> dict[str, Any]:
    from dualcodec_jax.lengths import min_samples

    config = PRESETS[model_id].codec
    return {
        "model": model_id,
        "sample rate": f"{config.sample_rate} Hz",
        "frame rate": f"{config.frame_rate:g} Hz",
        "hop": f"{config.hop_length} samples",
        "quantizers": f"{config.n_quantizers} (1 semantic, {config.n_codebooks} acoustic)",
        "codebook sizes": list(config.codebook_sizes),
        "bitrate": f"{config.bitrate() / 1000:.3f} kbit/s with all quantizers, "
        f"{config.bitrate(1) / 1000:.3f} with the semantic one",
        "shortest input": f"{min_samples(config)} samples "
        f"({min_samples(config) / config.sample_rate:.3f} s)",
        "generator parameters": _count_codec(model_id),
        "receptive field": "whole utterance (w2v-BERT attends over all of it)",
    }


def _count_codec(model_id: str) -> int:
    from dualcodec_jax.convert.engine import flatten
    from dualcodec_jax.convert.files import codec_shapes

    return sum(leaf.size for leaf in flatten(codec_shapes(PRESETS[model_id].codec)).values())


def _checkpoint_facts(path: Path) -> dict[str, Any]:
    from dualcodec_jax.convert.engine import flatten
    from dualcodec_jax.weights import load_any

    weights = load_any(path)
    leaves = flatten(weights.params)
    return {
        "checkpoint": str(path),
        "kind": weights.kind,
        "model": weights.model_id,
        "tensors": len(leaves),
        "parameters": sum(leaf.size for leaf in leaves.values()),
        "source": weights.source,
    }


def _code_facts(path: Path) -> dict[str, Any]:
    from dualcodec_jax.container import read_codes

    codes = read_codes(path)
    size = path.stat().st_size
    seconds = codes.num_samples / codes.sample_rate
    return {
        "code file": str(path),
        "model": codes.model_id,
        "duration": f"{seconds:.3f} s ({codes.num_samples} samples at {codes.sample_rate} Hz)",
        "frames": codes.num_frames,
        "frame rate": f"{codes.frame_rate:g} Hz",
        "quantizers": codes.n_quantizers,
        "codebook sizes": list(codes.codebook_sizes),
        "bitrate": f"{codes.bitrate / 1000:.3f} kbit/s",
        "file size": f"{size} bytes",
        "distinct codes per row": [len(set(row)) for row in codes.codes.tolist()],
    }


def _audio_facts(path: Path) -> dict[str, Any]:
    from dualcodec_jax.audio.reader import audio_info
    from dualcodec_jax.lengths import code_length, resampled_length, samples_to_cover

    header = audio_info(path)
    facts: dict[str, Any] = {
        "audio file": str(path),
        "format": f"{header.format} {header.subtype}",
        "sample rate": f"{header.sample_rate} Hz",
        "channels": header.channels,
    }
    if header.num_samples is None:
        return {**facts, "duration": "not in the header"}
    facts["duration"] = f"{header.seconds:.3f} s ({header.num_samples} samples)"
    for model_id in ("12hz_v1", "25hz_v1"):
        config = PRESETS[model_id].codec
        samples = resampled_length(header.num_samples, header.sample_rate, config.sample_rate)
        frames = code_length(samples_to_cover(samples, config), config)
        size = frames * config.bitrate() / config.frame_rate / 8
        facts[f"codes of {model_id}"] = f"{frames} frames, about {size:.0f} bytes"
    return facts
