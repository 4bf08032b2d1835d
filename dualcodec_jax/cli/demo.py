"""``demo``: the whole path on a bundled recording, with the best weights at hand."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from dualcodec_jax.audio.io import DEFAULT_MAX_SECONDS
from dualcodec_jax.cli.codec import decode_codes, encode_samples, load_file
from dualcodec_jax.cli.common import RANDOM, load_inference, reports_errors, show_note
from dualcodec_jax.hub import CODEC_VARIABLE, W2V_BERT_VARIABLE

MODEL_ID = "12hz_v1"
T = TypeVar("T")


@reports_errors
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = Path(
        "demo_output"
    ),
) -> None:
    """Run audio → codes → file → audio on a bundled LibriVox recording.

    Uses released weights if $DUALCODEC_WEIGHTS names them, random ones otherwise.
    """
    import numpy as np

    from dualcodec_jax.audio.io import write_audio
    from dualcodec_jax.container import read_codes, write_codes

    clip = Path(str(resources.files("dualcodec_jax") / "assets" / "librivox.flac"))
    weights = os.environ.get(CODEC_VARIABLE)
    if not weights:
        show_note(f"{CODEC_VARIABLE} and {W2V_BERT_VARIABLE} name no released weights")
    inference, loading = _timed(
        lambda: load_inference(MODEL_ID, weights or RANDOM, None, "float32")
    )
    samples = load_file(clip, inference.config.codec.sample_rate, DEFAULT_MAX_SECONDS)
    encode = functools.partial(encode_samples, inference, samples, None)
    codes, first = _timed(encode)
    _, again = _timed(encode)
    seconds = samples.size / codes.sample_rate
    code_path = output / "librivox.dualcodec"
    size = write_codes(code_path, codes, overwrite=True)
    stored = read_codes(code_path)
    table = Table("what", "result", title=f"{MODEL_ID} on {seconds:.1f} s of speech")
    table.add_row("weights", weights or "random: not a trained model")
    table.add_row("loading", f"{loading:.1f} s")
    table.add_row(
        "encode", f"{again:.2f} s, {again / seconds:.3f} × real time ({first:.1f} s first)"
    )
    table.add_row("codes", f"{stored.n_quantizers} × {stored.num_frames}")
    table.add_row("file", f"{size} bytes, {stored.bitrate / 1000:.3f} kbit/s of codes")
    write_audio(output / "original.wav", samples, codes.sample_rate)
    for count in (stored.n_quantizers, 1):
        decode = functools.partial(decode_codes, inference, stored, count)
        audio, first = _timed(decode)
        _, again = _timed(decode)
        write_audio(output / f"decoded_{count}.wav", audio, codes.sample_rate)
        peak = float(np.abs(audio).max())
        table.add_row(
            f"decode {count} of {stored.n_quantizers}",
            f"{_speed(again, seconds, first)}, peak {peak:.2f}",
        )
    table.add_row("written to", str(output))
    Console().print(table)


def _timed(function: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


def _speed(again: float, seconds: float, first: float) -> str:
    return f"{again:.2f} s, {again / seconds:.3f} × real time ({first:.1f} s the first time)"
