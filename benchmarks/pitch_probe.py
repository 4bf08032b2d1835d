"""How well a linear map reads the pitch from what a model computes on the way to its codes.

    python benchmarks/pitch_probe.py build/corpus/train --model demo

If the latents say it and the output does not sing it, the decoder is to blame; if they do not, the
encoder. Pitch by librosa's YIN on voiced frames; ridge regression on five frames of latents, fitted
on three quarters of the clips, judged on the rest.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import librosa
import numpy as np
from numpy.typing import NDArray

from dualcodec_jax import get_model, load_audio
from dualcodec_jax.evaluation.runner import spread
from dualcodec_jax.functional import semantic_features
from dualcodec_jax.inference import Inference
from dualcodec_jax.nn.codec import make_codec
from dualcodec_jax.paths import find_audio_files

RATE, SECONDS, CONTEXT = 24000, 4.0, 2
WINDOW = 1536
RIDGE = 100.0

Floats = NDArray[np.floating[Any]]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--clips", type=int, default=200)
    options = parser.parse_args()
    inference = Inference(get_model(options.model))
    files = [path for path, _ in find_audio_files(options.folder)]
    size, latents = round(SECONDS * RATE), latents_of(inference)
    pitches, frames = [], []
    for path in spread(files, options.clips):
        samples = load_audio(path).samples
        if len(samples) < size:
            continue
        found = latents(samples[:size])
        count = len(found["encoder"])
        log_pitch, voiced = pitch(samples[:size], inference.config.codec.hop_length, count)
        pitches.append(log_pitch[voiced])
        frames.append({name: _context(value)[voiced] for name, value in found.items()})
    train = round(0.75 * len(frames))
    spread_of = 12 * np.concatenate(pitches[train:]).std()
    print(f"{len(frames)} clips; pitch varies by {spread_of:.2f} semitones (standard deviation)\n")
    print("| from | R² | median error, semitones |")
    print("|---|---|---|")
    for name in frames[0]:
        score, error = probe([part[name] for part in frames], pitches, train)
        print(f"| {name} | {score:.3f} | {error:.2f} |")


def latents_of(inference: Inference) -> Callable[[Floats], dict[str, Floats]]:
    """Samples → arrays ``[T, D]``: before quantization, and what the decoder gets from n codes."""
    config, params = inference.config, inference.params
    module, variables = make_codec(config.codec), {"params": params["codec"]}

    @jax.jit
    def run(audio: Any) -> dict[str, Any]:
        features, _ = semantic_features(params, config, audio[:, :, 0])
        count = config.codec.n_quantizers
        codes: Any = module.apply(variables, audio, features, count, method="encode")
        encoder: Any = module.apply(variables, audio, method="encode_acoustic")
        found = {"encoder": encoder[:, : codes.shape[2]]}
        for rows in range(1, count + 1):
            found[f"{rows} codes"] = module.apply(variables, codes[:, :rows], method="dequantize")
        return found

    return lambda samples: {
        name: np.asarray(value)[0] for name, value in run(samples[None, :, None]).items()
    }


def pitch(samples: Floats, hop: int, count: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Binary logarithm of the pitch in Hz of each frame, and where there is one."""
    found = librosa.yin(samples, fmin=60, fmax=400, sr=RATE, frame_length=WINDOW, hop_length=hop)
    level = librosa.feature.rms(y=samples, frame_length=WINDOW, hop_length=hop)[0]
    padded = np.pad(samples, WINDOW)
    periodicity = []
    for frame, lag in enumerate(np.rint(RATE / found).astype(int)):
        part = padded[frame * hop + WINDOW // 2 :][:WINDOW]
        early, late = part[:-lag], part[lag:]
        periodicity.append(early @ late / np.sqrt((early @ early) * (late @ late) + 1e-9))
    voiced = (np.array(periodicity) > 0.8) & (level > 0.1 * level.max())
    return np.log2(found[:count]), voiced[:count]


def probe(inputs: list[Floats], targets: list[Floats], train: int) -> tuple[float, float]:
    """R² and median absolute error in semitones on the clips from ``train`` on."""
    x, y = np.concatenate(inputs[:train]), np.concatenate(targets[:train])
    x_new, y_new = np.concatenate(inputs[train:]), np.concatenate(targets[train:])
    mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-6
    x, x_new = (x - mean) / scale, (x_new - mean) / scale
    weights = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ (y - y.mean()))
    error = x_new @ weights + y.mean() - y_new
    return float(1 - np.mean(error**2) / y_new.var()), float(12 * np.median(np.abs(error)))


def _context(values: Floats) -> Floats:
    """``[T, D]`` → ``[T, 5 · D]``: two frames before and after."""
    padded = np.pad(values, ((CONTEXT, CONTEXT), (0, 0)))
    return np.concatenate(
        [padded[shift : shift + len(values)] for shift in range(2 * CONTEXT + 1)], axis=1
    )


if __name__ == "__main__":
    main()
