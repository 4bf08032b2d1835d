"""Speed of ``dualcodec-jax tokenize`` beside a plain loop over the Python API.

    .venv/bin/python benchmarks/tokenize_speed.py                     # an hour, the demo model
    .venv/bin/python benchmarks/tokenize_speed.py --model 12hz_v1 --precision bfloat16
    .venv/bin/python benchmarks/tokenize_speed.py --model 12hz_v1 --weights random --hours 0.1

An hour of speech is made of the bundled recordings (or those given), cut to 1–20 s at random and
written as FLAC files at 16 kHz, so that both sides decode and resample. The loop reads, encodes and
writes one file after the other, as a user of the API would. Both run on compiled programs unless
--cold is given: every shape is compiled before the clock starts. Printed are wall times, hours of
audio per hour, what share of codes is equal, and where the time of ``tokenize`` went.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")

import jax
import numpy as np
import soundfile

import dualcodec_jax
from dualcodec_jax.audio.load import load_audio
from dualcodec_jax.cli.common import load_inference
from dualcodec_jax.files import encode_samples
from dualcodec_jax.inference import Inference
from dualcodec_jax.lengths import acoustic_frames, bucket, samples_to_cover
from dualcodec_jax.paths import find_audio_files
from dualcodec_jax.tokens.batches import padded_frames
from dualcodec_jax.tokens.corpus import Corpus, open_corpus
from dualcodec_jax.tokens.encode import BatchEncoder, default_batch_seconds
from dualcodec_jax.tokens.run import Outcome, tokenize
from dualcodec_jax.tokens.settings import Settings
from dualcodec_jax.tokens.source import TokenSource

ROOT = Path(__file__).resolve().parent.parent
RECORDINGS = (ROOT / "tests" / "data", ROOT / "dualcodec_jax" / "assets" / "librivox.flac")
FILE_RATE = 16000


def main() -> None:
    """Make the corpus, measure both sides, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recordings", nargs="*", type=Path, help="default: those of the repository")
    parser.add_argument("--hours", type=float, default=1.0, help="of speech for tokenize")
    parser.add_argument("--plain-hours", type=float, help="for the loop; default: as many")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--weights", help="as for dualcodec-jax encode; 'random' works")
    parser.add_argument("--w2v")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("-n", "--n-quantizers", type=int)
    parser.add_argument("--batch-seconds", type=float)
    parser.add_argument("--readers", type=int)
    parser.add_argument("--shard-size", type=int, default=1000)
    parser.add_argument("--cold", action="store_true", help="count compiling")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    inference = load_inference(options.model, options.weights, options.w2v, options.precision)
    count = options.n_quantizers or inference.config.codec.n_quantizers
    settings = Settings(
        n_quantizers=count,
        batch_seconds=options.batch_seconds,
        readers=options.readers,
        shard_size=options.shard_size,
    )
    with tempfile.TemporaryDirectory() as folder:
        clips, output = Path(folder, "clips"), Path(folder, "tokens")
        make_corpus(options.recordings or RECORDINGS, clips, options.hours)
        corpus = open_corpus(clips)
        if not options.cold:
            compile_batches(inference, corpus, settings)
        start = time.perf_counter()
        outcome = tokenize(corpus, output, inference, "0" * 64, settings)
        ours = {"seconds": time.perf_counter() - start, "audio": outcome.status.audio_seconds}
        limit = 3600 * (options.plain_hours or options.hours)
        if not options.cold:
            compile_loop(inference, corpus, count, limit)
        plain = measure_loop(inference, corpus, count, limit, Path(folder, "plain"), output)
    report(options, ours, plain, outcome)


def make_corpus(recordings: Any, folder: Path, hours: float) -> None:
    """Files of 1–20 s, ``hours`` in all, out of the recordings end to end, again and again."""
    parts = [load_audio(path, FILE_RATE).samples for path, _ in find_audio_files(recordings)]
    speech, rng = np.concatenate(parts), np.random.default_rng(0)
    folder.mkdir()
    position, number, rest = 0, 0, round(3600 * hours * FILE_RATE)
    while rest > 0:
        size = min(rest, round(FILE_RATE * rng.uniform(1, 20)))
        samples = np.take(speech, range(position, position + size), mode="wrap")
        soundfile.write(folder / f"{number:07d}.flac", samples, FILE_RATE)
        position, number, rest = position + size, number + 1, rest - size


def lengths_of(inference: Inference, corpus: Corpus) -> list[int]:
    """Samples of every file at the model's rate."""
    rate = inference.config.codec.sample_rate
    lengths = []
    for index in range(len(corpus.source)):
        with corpus.source[index].audio_path() as path:
            lengths.append(-(-soundfile.info(path).frames * rate // FILE_RATE))
    return lengths


def compile_batches(inference: Inference, corpus: Corpus, settings: Settings) -> None:
    """Compile every program that ``tokenize`` will run."""
    codec = inference.config.codec
    encoder = BatchEncoder(inference, settings.n_quantizers or codec.n_quantizers)
    seconds = settings.batch_seconds or default_batch_seconds()
    start = time.perf_counter()
    shapes = {padded_frames(length, codec) for length in lengths_of(inference, corpus)}
    for frames in sorted(shapes):
        rows = max(1, int(seconds * codec.frame_rate // frames))
        encoder.start([], frames, rows).block_until_ready()
    print(f"tokenize: {len(shapes)} programs in {time.perf_counter() - start:.1f} s", flush=True)


def compile_loop(inference: Inference, corpus: Corpus, count: int, limit: float) -> None:
    """Compile every program that the loop will run."""
    codec, seconds = inference.config.codec, 0.0
    start, shapes = time.perf_counter(), {}
    for length in lengths_of(inference, corpus):
        shapes[bucket(acoustic_frames(samples_to_cover(length, codec), codec))] = length
        seconds += length / codec.sample_rate
        if seconds >= limit:
            break
    for length in shapes.values():
        encode_samples(inference, np.zeros(length, np.float32), count)
    print(f"loop: {len(shapes)} programs in {time.perf_counter() - start:.1f} s", flush=True)


def measure_loop(
    inference: Inference, corpus: Corpus, count: int, limit: float, folder: Path, tokens: Path
) -> dict[str, float]:
    """One file after the other, up to ``limit`` seconds of audio."""
    rate = inference.config.codec.sample_rate
    made, seconds, read = [], 0.0, 0.0
    start = time.perf_counter()
    for index in range(len(corpus.source)):
        record = corpus.source[index]
        begin = time.perf_counter()
        with record.audio_path() as path:
            samples = load_audio(path, rate).samples
        read += time.perf_counter() - begin
        made.append(encode_samples(inference, samples, count))
        dualcodec_jax.write_codes(folder / f"{index}.dualcodec", made[-1])
        seconds += made[-1].seconds
        if seconds >= limit:
            break
    elapsed = time.perf_counter() - start
    pairs = list(zip(TokenSource(tokens), made, strict=False))
    equal = [np.mean(record.codes == alone.codes) for record, alone in pairs]
    return {"seconds": elapsed, "audio": seconds, "read": read, "equal": float(np.mean(equal))}


def report(
    options: argparse.Namespace, ours: dict[str, float], plain: dict[str, float], outcome: Outcome
) -> None:
    """Print both sides and where the time went."""
    status = dataclasses.asdict(outcome.status)
    machine = {
        "devices": [str(device) for device in jax.local_devices()],
        "kind": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "jax": jax.__version__,
        "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }
    print(f"\n{options.model}, {options.precision}, {machine}\n")
    print("| | hours of audio | seconds | × real time |")
    print("|---|---|---|---|")
    for name, side in (("tokenize", ours), ("plain loop", plain)):
        speed = side["audio"] / side["seconds"]
        print(f"| {name} | {side['audio'] / 3600:.3f} | {side['seconds']:.1f} | {speed:.1f} |")
    ratio = (ours["audio"] / ours["seconds"]) / (plain["audio"] / plain["seconds"])
    print(f"\ntokenize / plain loop: {ratio:.2f}; codes equal: {plain['equal']:.4%}\n")
    print("| where the time of tokenize went | seconds |")
    print("|---|---|")
    for name, text in (
        ("elapsed", "from the first file to the last shard"),
        ("waited_for_readers", "starting thread: waited for files"),
        ("waited_for_writer", "starting thread: waited for codes to be fetched"),
        ("long", "starting thread: long recordings"),
        ("waited_for_codes", "writing thread: waited for the device"),
        ("write", "writing thread: packed and wrote"),
        ("read", "reader threads, all together: decoded and resampled"),
    ):
        print(f"| {text} | {status[name]:.1f} |")
    print(f"\nplain loop: {plain['read']:.1f} s of it decoding and resampling")
    if options.json:
        values = {"machine": machine, "tokenize": ours, "plain": plain, "status": status}
        arguments = {name: str(value) for name, value in vars(options).items()}
        text = json.dumps({**values, "options": arguments, "ratio": ratio}, indent=2)
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
