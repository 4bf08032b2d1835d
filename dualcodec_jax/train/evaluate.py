"""Periodic evaluation: what the codec makes of a few held-out clips.

Each evaluation is a folder ``eval/step_00012345`` of the run, which appears when it is
complete::

    NAME.wav         reconstruction from all codes
    NAME.rvq1.wav    reconstruction from the semantic codes alone
    NAME.png         spectrograms: original, and both below it
    metrics.json     means over the clips, and the values of each clip

The originals are in ``eval/original``.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import logging
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dualcodec_jax.audio.load import load_audio
from dualcodec_jax.audio.writer import write_audio
from dualcodec_jax.config import Config
from dualcodec_jax.errors import InputError
from dualcodec_jax.evaluation.metrics import Metric, MetricFailure, open_metric
from dualcodec_jax.evaluation.metrics.mel import MelDistance
from dualcodec_jax.inference import Inference
from dualcodec_jax.model import DualCodecModel
from dualcodec_jax.paths import find_audio_files, replacing
from dualcodec_jax.train import plots
from dualcodec_jax.train.config import MelLossConfig
from dualcodec_jax.train.logs import EVAL_FOLDER, EVAL_METRICS_FILE, ORIGINAL_FOLDER, RVQ1
from dualcodec_jax.train.metrics import CodebookUse, codebook_use, codebook_values, count_codes

logger = logging.getLogger(__name__)

MIN_SECONDS = 0.5
"""Shortest clip: the measures need some frames, and a shorter one tells nothing."""

Params = dict[str, Any]
Values = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Clip:
    """A held-out recording.

    Attributes:
        name: of its files; letters, digits, ``_`` and ``-``.
        samples: float32 ``[N]`` at the codec's sample rate.
    """

    name: str
    samples: np.ndarray


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        step: of the parameters.
        folder: with audio, pictures and ``metrics.json``.
        values: means for the log: ``eval/mel``, ``eval/stoi``, ``eval/pesq``, each also as
            ``…_rvq1``, and ``eval/usage/Q``, ``eval/perplexity/Q`` of every quantizer Q.
        clips: the same (codebooks left out) for each clip, without ``eval/``.
        codebooks: use of the codebooks over all clips.
    """

    step: int
    folder: Path
    values: Values
    clips: dict[str, Values]
    codebooks: list[CodebookUse]


def load_clips(
    inputs: Sequence[str | Path] | str | Path,
    sample_rate: int,
    *,
    limit: int | None = None,
    max_seconds: float = 10.0,
) -> list[Clip]:
    """Read held-out clips from files, folders or glob patterns.

    Args:
        inputs: as for :func:`dualcodec_jax.paths.find_audio_files`.
        sample_rate: to resample to, in Hz.
        limit: use only so many, in order.
        max_seconds: longer clips are cut to so many seconds.

    Raises:
        AudioError: a file cannot be used.
    """
    clips: dict[str, Clip] = {}
    for path, relative in find_audio_files(inputs)[:limit]:
        samples = load_audio(path, sample_rate).samples[: round(max_seconds * sample_rate)]
        name = re.sub(r"[^\w-]+", "_", str(relative.with_suffix("")), flags=re.ASCII)
        if name in clips:  # what told them apart has become "_"
            name = f"{name}_{len(clips)}"
        clips[name] = Clip(name, samples)
    return list(clips.values())


class Evaluator:
    """Reconstructs clips and measures what is lost.

    STOI and PESQ need the packages ``pystoi`` and ``pesq``, pictures need ``matplotlib``: what
    is missing is left out, and said once. What has been compiled is used again at the next
    evaluation, since the clips, hence all shapes, are the same.

    Args:
        config: model; its precision is that of the evaluation.
        clips: held-out recordings.
        batch_size: clips at a time. Each gets the codes that it gets alone.
        mel: of the mel distance.
        saved_clips: of how many, the first ones, to write audio and pictures; None: of all.

    Raises:
        InputError: no clips, or unusable ones.
    """

    def __init__(
        self,
        config: Config,
        clips: Sequence[Clip],
        *,
        batch_size: int = 4,
        mel: MelLossConfig | None = None,
        saved_clips: int | None = None,
    ) -> None:
        _check_clips(clips, config.codec.sample_rate)
        self.config = config
        self._saved = {clip.name for clip in clips[:saved_clips]}
        # By length, so that a batch has little padding.
        self.clips = sorted(clips, key=lambda clip: (clip.samples.size, clip.name))
        self._batch_size = batch_size
        mel_distance = MelDistance(mel, config.codec.sample_rate)
        self._measures: dict[str, Measure] = {"mel": mel_distance.measure} | _measures()
        self._pictures = _available("matplotlib", "spectrogram pictures")

    def __call__(self, params: Params, step: int, run_folder: str | Path) -> Evaluation:
        """Evaluate ``params`` and write ``eval/step_…`` below ``run_folder``.

        Args:
            params: ``codec`` (as trained), and with a semantic stream ``semantic`` and
                ``statistics``; all of them on this
                process's devices or on the host: with several processes, gather what is sharded
                over them, and evaluate in one.
            step: steps taken.
            run_folder: of the run. An earlier evaluation of this step is replaced.

        Raises:
            InputError: the folder cannot be written, or a clip is too short for the model.
        """
        root = Path(run_folder) / EVAL_FOLDER
        self._write_originals(root / ORIGINAL_FOLDER)
        folder = root / f"step_{step:08d}"
        results: dict[str, Values] = {}
        counts = np.zeros((self.config.codec.n_quantizers, max(self.config.codec.codebook_sizes)))
        with replacing(folder, overwrite=True, folder=True) as temporary:
            for clip, full, rvq1 in self._reconstructions(params, counts):
                results[clip.name] = self._measure(clip, full, rvq1)
                if clip.name in self._saved:
                    self._write_clip(temporary, clip, full, rvq1)
            uses = codebook_use(counts, self.config.codec.codebook_sizes)
            values = _means(list(results.values())) | codebook_values(uses)
            _write_metrics(temporary / EVAL_METRICS_FILE, step, values, results)
        values = {f"eval/{name}": value for name, value in values.items()}
        return Evaluation(step, folder, values, results, uses)

    def _reconstructions(
        self, params: Params, counts: np.ndarray
    ) -> Iterator[tuple[Clip, np.ndarray, np.ndarray]]:
        """Yield (clip, from all codes, from the semantic ones) and add codes to ``counts``."""
        config = self.config
        inference = Inference(
            DualCodecModel(config.model_id, config.codec, params["codec"]),
            precision=config.precision,
            semantic=(config.semantic, params.get("semantic"), params.get("statistics")),
        )
        for start in range(0, len(self.clips), self._batch_size):
            clips = self.clips[start : start + self._batch_size]
            lengths = np.array([clip.samples.size for clip in clips], np.int32)
            batch = np.zeros((len(clips), 1, lengths.max()), np.float32)
            for row, clip in zip(batch, clips, strict=True):
                row[0, : clip.samples.size] = clip.samples
            # With pad_end, the reconstruction reaches to the end of the clip.
            semantic, acoustic, frames = inference.encode(  # type: ignore[misc]
                batch, None, lengths=lengths, pad_end=True
            )
            codes = semantic if acoustic is None else np.concatenate([semantic, acoustic], axis=1)
            counts += count_codes(codes, frames, counts.shape[1])
            decoded = [
                np.asarray(inference.decode(semantic, rows, frames, num_samples=lengths)[0])
                for rows in (acoustic, None)
            ]
            for index, clip in enumerate(clips):
                full, rvq1 = (_finite(audio[index, 0, : lengths[index]]) for audio in decoded)
                yield clip, full, rvq1

    def _measure(self, clip: Clip, full: np.ndarray, rvq1: np.ndarray) -> Values:
        values = {}
        for name, measure in self._measures.items():
            for suffix, audio in (("", full), (f"_{RVQ1}", rvq1)):
                value = measure(clip.samples, audio, self.config.codec.sample_rate)
                if value is not None:
                    values[name + suffix] = value
        return values

    def _write_clip(self, folder: Path, clip: Clip, full: np.ndarray, rvq1: np.ndarray) -> None:
        rate = self.config.codec.sample_rate
        write_audio(folder / f"{clip.name}.wav", full, rate)
        write_audio(folder / f"{clip.name}.{RVQ1}.wav", rvq1, rate)
        if self._pictures:
            signals = {
                f"{clip.name}: original": clip.samples,
                f"all {self.config.codec.n_quantizers} codes": full,
                "semantic code alone (RVQ-1)": rvq1,
            }
            plots.write_png(plots.draw_spectrograms(signals, rate), folder / f"{clip.name}.png")

    def _write_originals(self, folder: Path) -> None:
        for clip in self.clips:
            path = folder / f"{clip.name}.wav"
            if clip.name in self._saved and not path.exists():
                write_audio(path, clip.samples, self.config.codec.sample_rate)


def _write_metrics(path: Path, step: int, values: Values, clips: dict[str, Values]) -> None:
    content = {"step": step, "values": values, "clips": clips}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _means(clips: Sequence[Values]) -> Values:
    """Means over the clips that have the value."""
    names = dict.fromkeys(name for values in clips for name in values)
    of_name = {name: [values[name] for values in clips if name in values] for name in names}
    return {name: math.fsum(values) / len(values) for name, values in of_name.items()}


def _check_clips(clips: Sequence[Clip], sample_rate: int) -> None:
    if not clips:
        raise InputError("evaluation needs at least one clip")
    names = [clip.name for clip in clips]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"several clips have the name {doubled[0]!r}; give each its own")
    for clip in clips:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", clip.name):
            raise InputError(f"clip name {clip.name!r}: use letters, digits, _ and - only")
        if clip.samples.ndim != 1:
            shape = list(clip.samples.shape)
            raise InputError(f"clip {clip.name}: samples must have shape [N]; got {shape}")
        if clip.samples.size < MIN_SECONDS * sample_rate:
            raise InputError(
                f"clip {clip.name}: {clip.samples.size / sample_rate:.3f} s is too short to "
                f"evaluate; use clips of at least {MIN_SECONDS} s"
            )


def _finite(audio: np.ndarray) -> np.ndarray:
    """A diverged model must not stop the run here; its metrics tell."""
    return np.nan_to_num(audio, nan=0.0, posinf=1.0, neginf=-1.0)


# Measures -----------------------------------------------------------------------------------

Measure = Callable[[np.ndarray, np.ndarray, int], float | None]
"""(original ``[N]``, reconstruction ``[N]``, sample rate) → value; None where it has none."""


def _measures() -> dict[str, Measure]:
    """The measures whose packages are installed."""
    measures: dict[str, Measure] = {}
    if _available("pystoi", "STOI"):
        measures["stoi"] = _stoi
    if _available("pesq", "PESQ"):
        measures["pesq"] = _pesq
    return measures


def _available(package: str, what: str) -> bool:
    available = importlib.util.find_spec(package) is not None
    if not available:
        logger.warning(
            "evaluation leaves out %s: the package %s is not installed (pip install %s)",
            what,
            package,
            package,
        )
    return available


def _stoi(original: np.ndarray, output: np.ndarray, sample_rate: int) -> float | None:
    """Short-time objective intelligibility, 0…1; None where there is too little speech."""
    return _measured(_metric("stoi"), original, output, sample_rate)


def _pesq(original: np.ndarray, output: np.ndarray, sample_rate: int) -> float | None:
    """Wide-band PESQ (MOS-LQO, 1…4.64) at 16 kHz; None where there is no speech."""
    return _measured(_metric("pesq_wb"), original, output, sample_rate)


_metric = functools.cache(open_metric)


def _measured(
    metric: Metric, original: np.ndarray, output: np.ndarray, sample_rate: int
) -> float | None:
    """A clip that a package cannot do must not stop the run."""
    try:
        return metric.measure(original, output, sample_rate)
    except MetricFailure as error:
        logger.warning("evaluation leaves out a value: %s", error)
        return None
