"""What the golden files are about, without PyTorch: a clip, and weights made from seeds.

Weights are not stored, only drawn: initial values, with every gain, bias and scale moved away
from them. What calibration adjusts on top is small and comes with the golden file.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from dualcodec_jax import config
from dualcodec_jax.audio.load import load_audio
from dualcodec_jax.convert.engine import Path as TreePath
from dualcodec_jax.convert.engine import flatten, unflatten
from dualcodec_jax.convert.files import codec_shapes, semantic_shapes
from dualcodec_jax.nn.random import random_params

FILE = Path(__file__).parent / "tiny.npz"
CONFIG = config.PRESETS["tiny"]
SPEECH = Path(config.__file__).parent / "assets" / "librivox.flac"
# 135 filterbank frames: the last stacked frame is half padding, and belongs to the last code.
START, SAMPLES, FRAMES = 40_000, 32_900, 17
SEMANTIC_ONLY = 2000
"""Samples of the audio decoded from the semantic codes alone that are kept."""


def clip() -> np.ndarray:
    """``[1, 1, N]`` of the bundled speech at 24 kHz, with noise 60 dB below full scale.

    The noise fills spectral bins that would hold nothing but the resampler's rounding, which
    differs from machine to machine: one unit in the last place of the input would change features
    by 7e-5, and changes them by 6e-6 like this.
    """
    samples = load_audio(SPEECH, CONFIG.codec.sample_rate).samples[START : START + SAMPLES]
    noise = np.random.default_rng(4).standard_normal(SAMPLES, np.float32)
    return np.array(samples + np.float32(1e-3) * noise, np.float32)[None, None]


def codec_params(calibration: dict[str, np.ndarray] | None = None) -> dict[str, Any]:
    """Weight-normalised parameters of the generator, calibrated leaves replaced."""
    leaves = _moved(random_params(codec_shapes(CONFIG.codec), seed=0), seed=1)
    for name, value in (calibration or {}).items():
        assert leaves[tuple(name.split("/"))].shape == value.shape
        leaves[tuple(name.split("/"))] = value
    return unflatten(leaves)


def semantic_params() -> dict[str, Any]:
    """Parameters of the semantic model."""
    return unflatten(_moved(random_params(semantic_shapes(CONFIG.semantic), seed=2), seed=3))


def checksum(*trees: Any) -> str:
    """Of all drawn parameters: tells a changed random stream from a changed computation.

    Gains are left out, as machines may sum their squares in another order.
    """
    digest = hashlib.sha256()
    for tree in trees:
        for path, value in sorted(flatten(tree).items()):
            if path[-1] != "weight_g":
                digest.update("/".join(path).encode() + np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def _moved(params: dict[str, Any], seed: int) -> dict[TreePath, np.ndarray]:
    rng = np.random.default_rng(seed)
    leaves = dict(sorted(flatten(params).items()))
    for path, value in leaves.items():
        if path[-1] in ("alpha", "scale", "weight_g"):
            leaves[path] = value * rng.uniform(0.6, 1.4, value.shape).astype(np.float32)
        elif path[-1] == "bias":
            leaves[path] = value + rng.uniform(-0.1, 0.1, value.shape).astype(np.float32)
    return leaves
