"""The tiny model against files that the PyTorch originals made (``make golden``)."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from golden import recipe

from dualcodec_jax import functional
from dualcodec_jax.inference import Inference
from dualcodec_jax.model import DualCodecModel

# Of the greatest value. Upstream rounds its spectra to complex64, which quiet bins feel; the
# decoder's own float32 noise is some 2e-6 at this size.
FEATURES, AUDIO = 1e-4, 2e-5


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(recipe.FILE) as file:
        return dict(file)


@pytest.fixture(scope="module")
def runner(golden: dict[str, np.ndarray]) -> Inference:
    prefix = "calibration/"
    calibration = {k.removeprefix(prefix): v for k, v in golden.items() if k.startswith(prefix)}
    params, semantic = recipe.codec_params(calibration), recipe.semantic_params()
    assert recipe.checksum(params, semantic) == golden["weights"], (
        "numpy draws other random numbers than it did: rewrite the file with `make golden`"
    )
    model = DualCodecModel("tiny", recipe.CONFIG.codec, params)
    statistics = {"mean": golden["mean"], "var": golden["var"]}
    return Inference(model, semantic=(recipe.CONFIG.semantic, semantic, statistics))


def error(actual: Any, expected: np.ndarray) -> float:
    assert actual.shape == expected.shape
    return float(np.max(np.abs(actual - expected)) / np.max(np.abs(expected)))


def test_the_golden_file_says_something(golden: dict[str, np.ndarray]) -> None:
    assert recipe.FILE.stat().st_size < 150_000
    for row in golden["codes"]:
        assert len(np.unique(row)) > 9
    assert 0.1 < golden["audio"].std() < 0.5
    assert abs(golden["audio"].mean()) < 0.1
    assert golden["features"].std() == pytest.approx(1, rel=0.01)
    start = golden["audio"][: recipe.SEMANTIC_ONLY]
    assert error(golden["semantic_audio"], start) > 0.1


def test_features(runner: Inference, golden: dict[str, np.ndarray]) -> None:
    run = jax.jit(functional.semantic_features, static_argnames="config")
    features, frames = run(runner.params, runner.config, recipe.clip()[:, 0])
    assert frames.tolist() == [recipe.FRAMES]
    assert error(features[0], golden["features"]) < FEATURES


def test_codes(runner: Inference, golden: dict[str, np.ndarray]) -> None:
    semantic, acoustic = runner.encode(recipe.clip(), None)
    np.testing.assert_array_equal(np.concatenate([semantic, acoustic], axis=1)[0], golden["codes"])


def test_audio(runner: Inference, golden: dict[str, np.ndarray]) -> None:
    codes = golden["codes"][None]
    audio = runner.decode(codes[:, :1], codes[:, 1:])
    assert error(audio[0, 0], golden["audio"]) < AUDIO


def test_audio_of_the_semantic_codes(runner: Inference, golden: dict[str, np.ndarray]) -> None:
    audio = runner.decode(golden["codes"][None, :1])
    start = audio[0, 0, : recipe.SEMANTIC_ONLY]
    assert error(start, golden["semantic_audio"]) < AUDIO
