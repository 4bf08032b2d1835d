"""Speaker similarity by the package ``Resemblyzer``."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from dualcodec_jax.evaluation.metrics.base import (
    ClipMetric,
    MetricInfo,
    load_package,
    loading,
    others_code,
    resampled,
    versions,
)

SAMPLE_RATE = 16000


class SpeakerSimilarity(ClipMetric):
    """Cosine similarity of the voice embeddings of original and output (GE2E), on the CPU.

    The package raises the level to −30 dBFS and cuts out long silences; where it hears no voice,
    a clip has no value. Embeddings are not negative: strangers have about 0.5, not 0.
    """

    requirements: ClassVar = {
        "torch": "torch",
        "resemblyzer": "Resemblyzer",
        "webrtcvad": "webrtcvad",
        "librosa": "librosa",
        "pkg_resources": "setuptools<81",  # webrtcvad imports it
    }

    def __init__(self) -> None:
        super().__init__(
            MetricInfo(
                name="speaker",
                title="speaker similarity",
                unit="",
                higher_is_better=True,
                range=(0.0, 1.0),
                intrusive=True,
                packages=("Resemblyzer", "setuptools<81"),
                source="Wan et al. 2018, package Resemblyzer",
                version=versions("Resemblyzer", "webrtcvad", "torch"),
            )
        )
        package = load_package("resemblyzer")
        self._preprocess = package.preprocess_wav
        with loading("the voice encoder", "reinstall Resemblyzer"):
            self._encoder = package.VoiceEncoder("cpu", verbose=False)

    def _value(self, original: np.ndarray, output: np.ndarray, sample_rate: int) -> float | None:
        embeddings = []
        for clip in (original, output):
            samples = np.clip(resampled(clip, sample_rate, SAMPLE_RATE), -1, 1)
            with others_code():
                voiced = self._preprocess(samples)
                if voiced.size == 0:
                    return None
                embeddings.append(self._encoder.embed_utterance(voiced))
        return float(np.dot(*embeddings))
