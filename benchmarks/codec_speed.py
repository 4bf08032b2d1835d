"""Speed of encode, decode and their parts beside the PyTorch original, in one process.

    make bench                                       # both models, 10 s, batch 1, this machine
    make bench BENCH="--model 12hz_v1 --seconds 30 --batch 1 --batch 4"
    make bench BENCH="--precision bfloat16 --torch compile-bfloat16 --batch 64 --unequal"

Both sides take turns, so that a machine that slows down slows both; medians of times and of their
ratios are printed, the first call apart. With several --torch settings, each part is compared with
the original's fastest. Results go to a JSON file, from which benchmarks/report.py makes the tables
of docs/performance.md. Without torch, or with --no-torch, our side runs alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sides import PARTS, TORCH_SETTINGS, Original, Ours, random_inference, torch

RATE = 24000
RESULTS = Path(__file__).resolve().parent / "results"


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=["12hz_v1", "25hz_v1"], action="append")
    parser.add_argument("--seconds", type=float, default=10.0, help="of a clip")
    parser.add_argument(
        "--batch", type=int, action="append", help="clips at once; several may be given"
    )
    parser.add_argument("--unequal", action="store_true", help="lengths from a fifth to all of it")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--torch", choices=TORCH_SETTINGS, action="append")
    parser.add_argument("--no-torch", action="store_true")
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--name", default="codec_speed", help="of the file in benchmarks/results")
    options = parser.parse_args()
    settings = [] if options.no_torch else options.torch or ["float32"]
    machine = {**_machine(), "matmul_gflops": _matmul_gflops(options.precision)}
    if settings:
        machine["torch_matmul_gflops"] = _torch_matmul_gflops(settings[0])
    print(json.dumps(machine), flush=True)
    rows = []
    for model_id in options.model or ["12hz_v1", "25hz_v1"]:
        rows += _measure_model(model_id, settings, machine, options)
    machine["peak_memory_gb"] = _peak_memory()
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{options.name}.json"
    path.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")
    print(f"written to {path}")


@dataclasses.dataclass(frozen=True)
class Case:
    """Both sides on one batch.

    Attributes:
        batch: number of clips.
        seconds: of audio, without padding.
        ours: this package.
        originals: the original, once for each setting.
        equal: share of codes that are equal; None if they cannot be compared.
    """

    batch: int
    seconds: float
    ours: Ours
    originals: list[Original]
    equal: float | None

    def sides(self, part: str) -> dict[str, Callable[[], Any]]:
        """What to time."""
        originals = {side.setting: side.part(part) for side in self.originals}
        return {"jax": self.ours.part(part)} | originals


def _case(inference: Any, batch: int, settings: list[str], options: argparse.Namespace) -> Case:
    size = round(options.seconds * RATE)
    rng = np.random.default_rng(0)
    audio = (0.1 * rng.standard_normal((batch, 1, size))).astype(np.float32)
    lengths = np.full(batch, size)
    if options.unequal:
        lengths = rng.integers(size // 5, size + 1, batch)
        lengths[0] = size
        audio *= np.arange(size) < lengths[:, None, None]
    ours = Ours(inference, audio, lengths)
    originals = [Original(inference, audio, setting) for setting in settings]
    equal = None
    if originals and not options.unequal:
        theirs = np.concatenate([codes.cpu().numpy() for codes in originals[0].codes], axis=1)
        equal = float(np.mean(theirs == np.asarray(ours.codes)[:, :, : theirs.shape[2]]))
        print(f"batch {batch}: {equal:.2%} of the codes equal those in {settings[0]}", flush=True)
    return Case(batch, float(lengths.sum()) / RATE, ours, originals, equal)


def _measure_model(
    model_id: str, settings: list[str], machine: dict[str, Any], options: argparse.Namespace
) -> list[dict[str, Any]]:
    print(model_id, flush=True)
    inference = random_inference(model_id, options.precision)
    cases = [_case(inference, batch, settings, options) for batch in options.batch or [1]]
    rows = []
    for part in options.part or PARTS:
        sides = [case.sides(part) for case in cases]
        first = [{name: _seconds(run) for name, run in runs.items()} for runs in sides]
        rounds = [
            [{name: _seconds(run) for name, run in runs.items()} for runs in sides]
            for _ in range(options.repeats)
        ]
        for case, compiled, *turns in zip(cases, first, *rounds, strict=True):
            times = {name: sorted(turn[name] for turn in turns) for name in compiled}
            medians = {name: statistics.median(values) for name, values in times.items()}
            best = min(settings, key=medians.__getitem__) if settings else None
            gflop = case.ours.gflop(part)
            row = {
                "model": model_id,
                "part": part,
                "precision": options.precision,
                "batch": case.batch,
                "clip_seconds": options.seconds,
                "unequal": options.unequal,
                "audio_seconds": case.seconds,
                "first_call_s": compiled,
                "median_s": medians,
                "spread_s": {name: [values[0], values[-1]] for name, values in times.items()},
                "best_torch": best,
                "ratio": best and statistics.median(turn["jax"] / turn[best] for turn in turns),
                "gflop": gflop,
                "share_of_matmul": gflop / medians["jax"] / machine["matmul_gflops"],
                "equal_codes": case.equal,
                "repeats": options.repeats,
            }
            rows.append(row)
            against = (
                f", {best} {1e3 * medians[best]:.1f} ms, ratio {row['ratio']:.2f}" if best else ""
            )
            print(
                f"  {part}, batch {case.batch}: {1e3 * medians['jax']:.1f} ms{against}", flush=True
            )
    return rows


def _seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _matmul_gflops(precision: str) -> float:
    """What a product of square matrices reaches here."""
    size = 2048 if jax.default_backend() == "cpu" else 8192
    x = jnp.ones((size, size), jnp.dtype(precision))
    product = jax.jit(lambda a: jnp.matmul(a, a, preferred_element_type=jnp.float32))
    times = [_seconds(lambda: jax.block_until_ready(product(x))) for _ in range(6)]
    return 2 * size**3 / min(times[1:]) / 1e9


def _torch_matmul_gflops(setting: str) -> float:
    """The same in torch; of float32 unless the setting is another type."""
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    size = 2048 if device == "cpu" else 8192
    kind = getattr(torch, setting.removeprefix("compile-"), torch.float32)
    x = torch.ones(size, size, device=device, dtype=kind)

    def product() -> None:
        torch.mm(x, x)
        if device == "cuda":
            torch.cuda.synchronize()

    times = [_seconds(product) for _ in range(6)]
    return 2 * size**3 / min(times[1:]) / 1e9


def _machine() -> dict[str, Any]:
    device = jax.devices()[0]
    name = device.device_kind if device.platform != "cpu" else _cpu_name()
    return {
        "device": name,
        "platform": device.platform,
        "cpu_cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _peak_memory() -> float:
    """Of the device; of this process, both sides together, on a CPU."""
    stats = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return float(stats["peak_bytes_in_use"] / 1e9)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    main()
