"""``demo``: the whole path on a bundled recording, with the best weights at hand."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from dualcodec_jax.cli.codec import ModelOption
from dualcodec_jax.cli.common import (
    WeightsOption,
    chosen_model,
    load_inference,
    reports_errors,
    show_note,
)
from dualcodec_jax.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from dualcodec_jax.evaluation.metrics.base import Metric

METRICS = ("mel", "stoi", "estoi", "pesq_wb")
CLIP = "librivox.flac"
T = TypeVar("T")


@reports_errors
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = Path(
        "demo_output"
    ),
    model: ModelOption = None,
    weights: WeightsOption = None,
) -> None:
    """Run audio → codes → file → audio on a bundled LibriVox recording.

    Writes the code file, the audio decoded from every number of codes a frame, and a picture.
    """
    from dualcodec_jax.audio.load import load_audio
    from dualcodec_jax.audio.writer import write_audio
    from dualcodec_jax.container import read_codes, write_codes
    from dualcodec_jax.files import decode_codes, encode_samples

    if output.is_file():
        raise InputError(f"{output}: is a file; name a folder with -o")
    clip = Path(str(resources.files("dualcodec_jax") / "assets" / CLIP))
    model_id = chosen_model(model, weights)
    inference, loading = _timed(lambda: load_inference(model_id, weights, None, "float32"))
    samples = load_audio(clip, inference.config.codec.sample_rate).samples
    encode = functools.partial(encode_samples, inference, samples, None)
    codes, first = _timed(encode)
    _, again = _timed(encode)
    seconds = samples.size / codes.sample_rate
    code_path = output / Path(CLIP).with_suffix(".dualcodec")
    size = write_codes(code_path, codes, overwrite=True)
    stored = read_codes(code_path)
    write_audio(output / "original.wav", samples, codes.sample_rate)
    metrics = _open_metrics()
    titles = [metric.info.title for metric in metrics]
    table = Table("codes a frame", "kbit/s", "decode × real time", *titles)
    signals = {"original": samples}
    for count in range(1, stored.n_quantizers + 1):
        decode = functools.partial(decode_codes, inference, stored, count)
        decode()
        audio, elapsed = _timed(decode)
        path = output / f"decoded_{count}.wav"
        write_audio(path, audio, codes.sample_rate)
        kilobits = inference.config.codec.bitrate(count) / 1000
        signals[f"{count} of {stored.n_quantizers} codes, {kilobits:.3f} kbit/s"] = audio
        quality = [_shown(m.measure(samples, audio, codes.sample_rate)) for m in metrics]
        table.add_row(str(count), f"{kilobits:.3f}", f"{elapsed / seconds:.3f}", *quality)
    console = Console()
    console.print(
        f"{model_id} on {seconds:.1f} s of speech: loaded in {loading:.1f} s, encoded in "
        f"{again:.2f} s ({again / seconds:.3f} × real time; {first:.1f} s the first time), "
        f"{stored.n_quantizers} × {stored.num_frames} codes in a file of {size} bytes",
        highlight=False,
    )
    console.print(table)
    _draw(signals, codes.sample_rate, output / "comparison.png")
    console.print(f"written to {output}", highlight=False)


def _open_metrics() -> list[Metric]:
    """The measures of :data:`METRICS` that are installed."""
    from dualcodec_jax.evaluation.metrics import open_metric
    from dualcodec_jax.evaluation.metrics.base import MetricAbsent

    opened = []
    for name in METRICS:
        with contextlib.suppress(MetricAbsent):
            opened.append(open_metric(name))
    return opened


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _draw(signals: dict[str, np.ndarray], sample_rate: int, path: Path) -> None:
    if importlib.util.find_spec("matplotlib") is None:
        show_note("no picture: pip install 'dualcodec-jax[demo]' brings matplotlib and STOI")
        return
    from dualcodec_jax.pictures import write_comparison

    write_comparison(signals, sample_rate, path)


def _timed(function: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start
