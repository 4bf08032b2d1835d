"""Time from command to result: ``dualcodec-jax encode`` and ``decode`` of one clip, cold and warm.

    .venv/bin/python benchmarks/first_result.py                 # 12hz_v1, 10 s

Random weights of the released sizes are first written as the PyTorch files that a user downloads.
The cold run starts with an empty cache: it converts the weights and compiles. Warm runs find both.
Every run is a new process. Both read files that are in the page cache of the operating system.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

import dualcodec_jax
from dualcodec_jax.convert.files import GENERATOR_FILES, W2V_BERT_FILE, export_torch
from dualcodec_jax.weights import Weights

COMMAND = [sys.executable, "-m", "dualcodec_jax.cli.main"]


def main() -> None:
    """Write the files, run the commands, print the times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=list(GENERATOR_FILES), default="12hz_v1")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(f"importing the package: {_import_seconds(options.repeats):.3f} s", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # In a process of its own: a child's peak memory is at least what its parent had.
        writer = multiprocessing.get_context("spawn").Process(
            target=_write_release, args=(folder, options.model)
        )
        writer.start()
        writer.join()
        if writer.exitcode:
            raise SystemExit("the weights could not be written")
        rng = np.random.default_rng(0)
        samples = 0.1 * rng.standard_normal(round(options.seconds * 24000))
        soundfile.write(folder / "clip.wav", samples, 24000)
        location = ["--weights", str(folder)]
        encode = [
            *("encode", str(folder / "clip.wav"), "-o", str(folder), "--model", options.model),
            *(*location, "--w2v", str(folder / "w2v")),
        ]
        decode = ["decode", str(folder / "clip.dualcodec"), "-o", str(folder / "out"), *location]
        for command in (encode, decode):
            shutil.rmtree(folder / "cache", ignore_errors=True)
            cold, cold_peak = _run(command, folder)
            warm, peaks = zip(*(_run(command, folder) for _ in range(options.repeats)), strict=True)
            print(
                f"{options.model} {command[0]}, {options.seconds:g} s: cold {cold:.1f} s and "
                f"{cold_peak:.1f} GB, warm {statistics.median(warm):.1f} s ({min(warm):.1f} to "
                f"{max(warm):.1f}) and {max(peaks):.1f} GB",
                flush=True,
            )


def _import_seconds(repeats: int) -> float:
    code = "import time; t = time.perf_counter(); import dualcodec_jax; "
    code += "print(time.perf_counter() - t)"
    runs = [subprocess.check_output([sys.executable, "-c", code]) for _ in range(repeats)]
    return statistics.median(float(run) for run in runs)


def _write_release(folder: Path, model_id: str) -> None:
    """Files with the names and layouts of the released ones."""
    dualcodec_jax.random_model(model_id).export_torch(folder / GENERATOR_FILES[model_id])
    config = dualcodec_jax.get_config(model_id).semantic
    params, stats = dualcodec_jax.random_semantic(config)
    np.savez(folder / "statistics.npz", **stats)
    (folder / "w2v").mkdir()
    export_torch(Weights("w2v_bert", "random", config, params), folder / "w2v" / W2V_BERT_FILE)
    sizes = {"num_hidden_layers": config.num_layers}
    (folder / "w2v" / "config.json").write_text(json.dumps(sizes))


def _run(command: list[str], folder: Path) -> tuple[float, float]:
    """Wall time in s, and peak memory in GB, of a command."""
    environment = os.environ | {"DUALCODEC_JAX_CACHE": str(folder / "cache")}
    start = time.perf_counter()
    process = subprocess.Popen(
        [*COMMAND, *command, "--overwrite"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{' '.join(command)} failed")
    return time.perf_counter() - start, usage.ru_maxrss / 1e6


if __name__ == "__main__":
    main()
