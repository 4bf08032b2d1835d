"""Training steps beside the PyTorch original's, in one process, on the same machine.

    .venv-parity/bin/python benchmarks/train_speed.py                    # 12hz_v1, 2 clips of 1 s
    .venv-parity/bin/python benchmarks/train_speed.py --model 25hz_v1 --batch 12 --seconds 3

Both sides take whole steps: full generator, full discriminators, both optimisers, no bypass. The
original runs its own ``Trainer._train_step`` with its model, loss and discriminator classes and
torch's AdamW, on a GPU if torch sees one. Semantic features are given to both: its loader and ours
prepare them differently. ``--semantic`` adds w2v-BERT to our step, ``--no-torch`` leaves the
original out. Compilation apart; the sides take turns; medians.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "parity"))
warnings.simplefilter("ignore")

import jax
import numpy as np

import dualcodec_jax
from dualcodec_jax.lengths import code_length
from dualcodec_jax.sharding import make_mesh, place
from dualcodec_jax.train.config import ObjectiveConfig
from dualcodec_jax.train.state import new_state
from dualcodec_jax.train.step import jit_step


def main() -> None:
    """Measure and print; write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=["12hz_v1", "25hz_v1"], default="12hz_v1")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--checkpoint-discriminators", action="store_true")
    parser.add_argument("--semantic", action="store_true", help="w2v-BERT in our step")
    parser.add_argument("--no-torch", action="store_true", help="measure ours alone")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    samples = round(options.seconds * 24000)
    audio = 0.1 * rng.standard_normal((options.batch, samples), np.float32)
    frames = code_length(samples, dualcodec_jax.get_config(options.model).codec)
    features = rng.standard_normal((options.batch, frames, 1024), np.float32)
    ours = _ours(options, audio, features)
    sides = {"ours": ours}
    start = time.perf_counter()
    ours()
    compiled = time.perf_counter() - start
    ours_memory = _peak_memory()
    if not options.no_torch:
        sides["original"] = _original(options.model, audio, features)
        sides["original"]()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(options.steps):
        for name, step in sides.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    audio_seconds = options.batch * options.seconds
    print(
        f"{options.model}, {options.batch} clips of {options.seconds:g} s, {options.precision}, "
        f"{jax.devices()[0].device_kind}: first step {compiled:.1f} s with compilation, peak "
        f"memory of ours {ours_memory / 2**30:.1f} GiB"
    )
    for name, median in medians.items():
        spread = f"{min(seconds[name]):.2f} to {max(seconds[name]):.2f}"
        print(
            f"  {name}: {median:.3f} s a step ({spread}), {1 / median:.3f} steps/s, "
            f"{audio_seconds / median:.2f} audio-seconds/s"
        )
    if "original" in medians:
        print(f"  ours / original: {medians['ours'] / medians['original']:.2f}")
    if options.json:
        record = {
            "options": {k: str(v) for k, v in vars(options).items() if k != "json"},
            "compile_seconds": compiled,
            "peak_bytes": ours_memory,
            "step_seconds": seconds,
        }
        options.json.write_text(json.dumps(record, indent=2) + "\n")


def _ours(
    options: argparse.Namespace, audio: np.ndarray, features: np.ndarray
) -> Callable[[], Any]:
    """One step of ours a call, on the default device."""

    model = dataclasses.replace(
        dualcodec_jax.get_config(options.model), precision=options.precision
    )
    config = ObjectiveConfig(
        model=model, checkpoint_discriminators=options.checkpoint_discriminators
    )
    mesh = make_mesh(devices=jax.devices()[:1])
    state = place(new_state(config), mesh)
    frozen, batch = {}, {"audio": audio, "features": features}
    if options.semantic:
        params, statistics_ = dualcodec_jax.random_semantic(model.semantic)
        frozen = place({"semantic": params, "statistics": statistics_}, mesh)
        batch.pop("features")
    batch = jax.device_put(batch)
    step = jit_step(config, mesh, state)

    def run() -> None:
        nonlocal state
        state, terms = step(state, frozen, batch, bypass=False)
        if not np.isfinite(float(terms["total"])):
            raise SystemExit("the step gave a loss that is not finite")

    return run


def _original(model_id: str, audio: np.ndarray, features: np.ndarray) -> Callable[[], Any]:
    """One step of the original a call."""
    import oracle
    import upstream
    from oracle import torch
    from upstream_trainer import Trainer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = upstream.bare_codec(model_id).to(device)
    discriminator = oracle.Discriminator(sample_rate=24000).to(device)
    factor = generator.semantic_downsample_factor
    trainer = Trainer(generator, discriminator, factor=factor)._trainer
    trainer.accelerator.device = device
    hidden = torch.from_numpy(np.repeat(features, factor, axis=1)).to(device)
    trainer._extract_semantic_code = lambda *_: hidden
    batch = {"speech": torch.from_numpy(audio), "speech_lens": None}

    def run() -> None:
        random.seed(1)  # Its first draw is no bypass.
        trainer._train_step({**batch, "input_features": None, "attention_mask": None})
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def _peak_memory() -> int:
    """Bytes: of the device if it counts them, else of this process."""
    counted = jax.devices()[0].memory_stats() or {}
    return (
        counted.get("peak_bytes_in_use")
        or 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    )


if __name__ == "__main__":
    main()
