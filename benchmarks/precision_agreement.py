"""How many codes, and how much of the audio, the bfloat16 mode leaves as float32 has them.

    .venv/bin/python benchmarks/precision_agreement.py            # random weights, calibrated
    .venv/bin/python benchmarks/precision_agreement.py --weights dualcodec_ckpts --w2v w2v-bert-2.0

Random weights say something about arithmetic, not about a trained model; the table says which.
"""

from __future__ import annotations

import argparse
import sys
from importlib import resources
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import numpy as np
from calibration import calibrated

import dualcodec_jax
from dualcodec_jax.config import get_config


def main() -> None:
    """Encode the bundled recording both ways and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", action="append")
    parser.add_argument("--weights", help="released weights; default: random ones")
    parser.add_argument("--w2v", help="w2v-BERT 2.0; default: random")
    options = parser.parse_args()
    clip = Path(str(resources.files("dualcodec_jax") / "assets" / "librivox.flac"))
    speech = dualcodec_jax.load_audio(clip).samples
    print("| model | weights | frames | equal codes per row, % | decoded audio, relative error |")
    print("|---|---|---|---|---|")
    for model_id in options.model or ["12hz_v1", "25hz_v1"]:
        if options.weights:
            model, semantic = dualcodec_jax.get_model(model_id, options.weights), None
        else:
            model, semantic = calibrated(get_config(model_id), speech)
        exact, rough = (
            dualcodec_jax.Inference(
                model, options.weights, options.w2v, precision=precision, semantic=semantic
            )
            for precision in ("float32", "bfloat16")
        )
        codes, other = (
            np.concatenate(side.encode(speech.reshape(1, 1, -1), None), axis=1)[0]
            for side in (exact, rough)
        )
        equal = " ".join(f"{100 * share:.1f}" for share in (codes == other).mean(axis=1))
        rows = codes[None]
        audio, approximate = (
            np.asarray(side.decode(rows[:, :1], rows[:, 1:])) for side in (exact, rough)
        )
        error = np.abs(approximate - audio).max() / np.abs(audio).max()
        kind = options.weights or "random"
        print(f"| {model_id} | {kind} | {codes.shape[1]} | {equal} | {error:.1e} |", flush=True)


if __name__ == "__main__":
    main()
