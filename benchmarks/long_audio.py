"""What windows cost on long audio: agreement of codes, error of early decoding, memory and time.

    .venv/bin/python benchmarks/long_audio.py agreement                   # random weights
    .venv/bin/python benchmarks/long_audio.py agreement --weights dualcodec_ckpts --w2v w2v-bert-2.0
    .venv/bin/python benchmarks/long_audio.py lookahead
    .venv/bin/python benchmarks/long_audio.py memory --hours 0.5 --hours 2

Speech is the repository's own recordings, one after the other, again and again; --audio takes
another. Random weights say something about arithmetic, not about a trained model; tables say which.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import jax
import numpy as np
from calibration import calibrated

import dualcodec_jax
from dualcodec_jax.audio.writer import audio_writer
from dualcodec_jax.config import get_config
from dualcodec_jax.inference import Inference
from dualcodec_jax.lengths import code_length
from dualcodec_jax.stream_decode import StreamDecoder
from dualcodec_jax.stream_encode import SemanticStream, encode_window, semantic_windows

RATE = 24000
BUNDLED = "demo"


def main() -> None:
    """Print the table that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_subparsers(required=True)
    for function in (agreement, lookahead, memory):
        command = what.add_parser(function.__name__, help=function.__doc__.splitlines()[0])
        command.set_defaults(run=function)
        command.add_argument("--model", action="append")
        if function is memory:
            command.add_argument("--hours", type=float, action="append")
            continue
        command.add_argument("--weights", help="released weights; default: random ones")
        command.add_argument("--w2v", help="w2v-BERT 2.0; default: random")
        command.add_argument("--audio", type=Path)
        command.add_argument("--seconds", type=float, default=90.0)
        command.add_argument("--window", type=float, action="append", help="s, of `agreement`")
    options = parser.parse_args()
    print(f"{jax.devices()[0]}, {os.cpu_count()} CPU cores, jax {jax.__version__}\n", flush=True)
    options.run(options)


def agreement(options: argparse.Namespace) -> None:
    """Codes and features of overlapping windows beside those of the whole."""
    speech = _speech(options.seconds, options.audio)
    print("| model | weights | window, s | overlap, s | features' error | equal codes per row, % |")
    print("|---|---|---|---|---|---|")
    for model_id in options.model or ["12hz_v1"]:
        inference, kind = _inference(model_id, options, speech)
        features = _features(inference, speech, options.seconds + 10, options.seconds / 3)
        whole = _codes(inference, speech, features)
        sizes = options.window or [10.0, 20.0, 30.0, 60.0]
        for window, part in itertools.product(sizes, (12, 6, 3)):
            overlap = window / part
            found = _features(inference, speech, window, overlap)
            error = np.sqrt(np.mean((found - features) ** 2) / np.mean(features**2))
            codes = _codes(inference, speech, found)
            equal = " ".join(f"{100 * share:.1f}" for share in (codes == whole).mean(axis=1))
            print(
                f"| {model_id} | {kind} | {window:g} | {overlap:.2f} | {error:.1e} | {equal} |",
                flush=True,
            )


def lookahead(options: argparse.Namespace) -> None:
    """Error of decoding before all the frames that a frame depends on have arrived."""
    speech = _speech(min(options.seconds, 20.0), options.audio)
    print("| model | weights | frames waited for | wait, s | SNR, dB | mel distance |")
    print("|---|---|---|---|---|---|")
    for model_id in options.model or ["12hz_v1", "25hz_v1", BUNDLED]:
        inference, kind = _inference(model_id, options, speech)
        codes = np.concatenate(inference.encode(speech[None, None], None), axis=1)
        whole = np.asarray(inference.decode(codes[:, :1], codes[:, 1:]))[0, 0]
        exact = StreamDecoder(inference.params, inference.config).lookahead
        for frames in [n for n in (1, 2, 3, 4, 6, 8, 12, 16, 20) if n < exact] + [exact]:
            parts = inference.decode_stream([codes], chunk_frames=12, lookahead=frames)
            audio = np.concatenate(list(parts), axis=2)[0, 0]
            noise = np.mean((audio - whole) ** 2)
            ratio = 10 * np.log10(np.mean(whole**2) / max(noise, 1e-20))
            wait = frames / inference.config.codec.frame_rate
            print(
                f"| {model_id} | {kind} | {frames}{' (exact)' if frames == exact else ''} | "
                f"{wait:.2f} | {ratio:.1f} | {_mel(whole, audio):.3f} |",
                flush=True,
            )


def memory(options: argparse.Namespace) -> None:
    """Time and peak memory of encoding and decoding files, a new process each."""
    print("| model | hours | command | wall, s | × real time | peak memory, GB |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model_id in options.model or [BUNDLED]:
            weights = [] if model_id == BUNDLED else ["--weights", "random"]
            for hours in options.hours or [0.1, 0.5, 2.0]:
                recording = folder / f"{hours:g}h.wav"
                _write_hours(recording, hours)
                encode = ["encode", str(recording), "--model", model_id]
                decode = ["decode", str(recording.with_suffix(".dualcodec"))]
                for command in (encode, decode):
                    arguments = [*command, *weights, "-o", name, "--overwrite"]
                    wall, peak = _run(arguments)
                    print(
                        f"| {model_id} | {hours:g} | {command[0]} | {wall:.0f} | "
                        f"{wall / hours / 3600:.3f} | {peak:.2f} |",
                        flush=True,
                    )


def _inference(
    model_id: str, options: argparse.Namespace, speech: np.ndarray
) -> tuple[Inference, str]:
    """The model, and what its weights are."""
    if model_id == BUNDLED:
        return Inference(dualcodec_jax.get_model(model_id)), "bundled"
    if options.weights:
        model = dualcodec_jax.get_model(model_id, options.weights)
        return Inference(model, options.weights, options.w2v), options.weights
    model, semantic = calibrated(get_config(model_id), speech[: 10 * RATE])
    return Inference(model, semantic=semantic), "random"


def _features(inference: Inference, speech: np.ndarray, window: float, overlap: float) -> Any:
    """Semantic features ``[T, D]``; those of the whole if the window is longer."""
    windows = semantic_windows(inference.config, window, overlap)
    stream = SemanticStream(inference.params, inference.config, windows)
    stream.push(speech)
    frames = int(code_length(len(speech), inference.config.codec))
    stream.finish(frames)
    return stream.features.window(0, frames)


def _codes(inference: Inference, speech: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Codes ``[n, T]``: all but the semantic model is exact in windows, so the whole will do."""
    codec = inference.config.codec
    samples, frames = np.array([len(speech)]), np.array([len(features)])
    encode = jax.jit(encode_window, static_argnames=("config", "n_quantizers"))
    codes = encode(
        inference.params,
        inference.config,
        speech[None],
        features[None],
        samples,
        frames,
        codec.n_quantizers,
    )
    return np.asarray(codes)[0]


def _mel(target: np.ndarray, output: np.ndarray) -> float:
    from dualcodec_jax.evaluation.metrics import open_metric

    return float(open_metric("mel").measure(target, output, RATE) or 0.0)


def _speech(seconds: float, path: Path | None = None) -> np.ndarray:
    """Float32 ``[N]`` at 24 kHz."""
    if path is not None:
        return dualcodec_jax.load_audio(path, max_seconds=None).samples[: round(seconds * RATE)]
    package = Path(dualcodec_jax.__file__).parent
    clips = [package / "assets" / "librivox.flac", *sorted((ROOT / "tests/data").glob("*.flac"))]
    joined = np.concatenate([dualcodec_jax.load_audio(clip).samples for clip in clips])
    return np.resize(joined, round(seconds * RATE))


def _write_hours(path: Path, hours: float) -> None:
    minute = _speech(60.0)
    with audio_writer(path, RATE) as write:
        for _ in range(round(60 * hours)):
            write(minute)


def _run(arguments: list[str]) -> tuple[float, float]:
    """Wall time in s, and peak memory in GB, of a command."""
    command = [sys.executable, "-m", "dualcodec_jax.cli.main", *arguments]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{' '.join(command)} failed")
    return time.perf_counter() - start, usage.ru_maxrss / 1e6


if __name__ == "__main__":
    main()
