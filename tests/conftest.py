"""Shared fixtures: real speech, and a tiny model whose codes depend on all of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from calibration import calibrated

from dualcodec_jax import config
from dualcodec_jax.audio.reader import read_audio
from dualcodec_jax.audio.resample import resample
from dualcodec_jax.inference import Inference
from dualcodec_jax.model import DualCodecModel

jax.config.update("jax_platforms", "cpu")

# Most of the time goes into compiling programs that other files, the other process or the run
# before compiled too. Not through the environment: programs that tests start keep their own.
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".cache" / "xla"))
jax.config.update("jax_compilation_cache_max_size", 2**30)  # with a limit, JAX locks the folder
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

TINY = config.PRESETS["tiny"]
SPEECH = Path(config.__file__).parent / "assets" / "librivox.flac"


@pytest.fixture(scope="session")
def speech() -> np.ndarray:
    """Seven seconds of a LibriVox reader at 24 kHz, float32 ``[N]``; read-only."""
    audio = read_audio(SPEECH)
    samples = np.array(resample(audio.samples, audio.sample_rate, TINY.codec.sample_rate))
    samples.flags.writeable = False
    return samples


@pytest.fixture(scope="session")
def tiny(speech: np.ndarray) -> tuple[DualCodecModel, tuple[Any, Any, Any]]:
    """The tiny generator and semantic model, calibrated (see :mod:`calibration`)."""
    return calibrated(TINY, speech)


@pytest.fixture(scope="session")
def tiny_model(tiny: tuple[DualCodecModel, Any]) -> DualCodecModel:
    """The tiny generator."""
    return tiny[0]


@pytest.fixture(scope="session")
def tiny_semantic(tiny: tuple[DualCodecModel, Any]) -> tuple[Any, Any, Any]:
    """(configuration, parameters, statistics) of the tiny semantic model, in numpy."""
    return tiny[1]


@pytest.fixture(scope="session")
def tiny_inference(tiny_model: DualCodecModel, tiny_semantic: tuple[Any, Any, Any]) -> Inference:
    """Encoder and decoder of the tiny model."""
    return Inference(tiny_model, semantic=tiny_semantic)


@pytest.fixture(scope="module")
def quick_programs() -> Iterator[None]:
    """For small programs that run a few times: optimising them would take longer than that."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
