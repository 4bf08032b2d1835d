"""A reduced model learns eight clips of speech by heart, with every part of the recipe on."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("grain")
pytest.importorskip("hydra")
pytest.importorskip("orbax.checkpoint")

from dualcodec_jax.audio.load import load_audio
from dualcodec_jax.audio.writer import write_audio
from dualcodec_jax.train.logs import read_records
from dualcodec_jax.train.loop import train
from dualcodec_jax.train.options import compose

RECORDINGS = sorted((Path(__file__).parent / "data").glob("*.flac"))
SAMPLES = 14400
STEPS = 240
OPTIONS = (
    "model=tiny",
    "model.model.encoder_dim=8",
    "model.model.semantic_dim=256",
    "model.model.decoder_dim=192",
    "model.semantic.hidden_size=256",
    "model.discriminator.spectral_channels=4",
    "machine.w2v_path=random",
    "data=audio_folder",
    f"data.segment_speech.segment_length={SAMPLES}",
    "trainer.batch_size=8",
    "trainer.cfg.train.adamw.lr=1e-3",
    "trainer.cfg.train.optimizer.lr=1e-3",
    "trainer.cfg.train.scheduler.warmup_steps=20",
    "trainer.cfg.train.scheduler.constant=true",
    f"trainer.cfg.train.max_steps={STEPS}",
    f"trainer.cfg.train.eval_every={STEPS}",
    "trainer.cfg.train.log_every=1",
    "trainer.cfg.train.tracker=null",
)


@pytest.mark.slow
def test_eight_clips_are_learnt(tmp_path: Path) -> None:
    pytest.importorskip("pystoi")
    clips = tmp_path / "clips"
    clips.mkdir()
    for recording in RECORDINGS:
        samples = load_audio(recording).samples
        for name, clip in (("start", samples[:SAMPLES]), ("end", samples[-SAMPLES:])):
            write_audio(clips / f"{recording.stem}_{name}.wav", clip, 24000)
    where = (f"data.locations={clips}", f"data.evaluation.locations={clips}")
    run = compose("dualcodec_train", [*OPTIONS, *where, f"machine.log_dir={tmp_path}"])
    assert train(run) == STEPS

    *records, evaluation = read_records(run.output / "metrics.jsonl")
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    mel = [record["loss/mel"] for record in records]
    fall = 1 - np.mean(mel[-10:]) / mel[0]
    semantic = [record["loss/reconstruction"] for record in records]
    sizes = run.objective.model.codec.codebook_sizes
    perplexity = [records[-1][f"perplexity/{quantizer}"] for quantizer in range(len(sizes))]
    logging.getLogger(__name__).info(
        "mel loss %.2f, fallen by %.1f %%; STOI %.3f, of the first codes alone %.3f; perplexity %s",
        mel[-1],
        100 * fall,
        evaluation["eval/stoi"],
        evaluation["eval/stoi_rvq1"],
        perplexity,
    )
    assert fall > 0.6
    assert np.mean(semantic[-10:]) < 0.5 * semantic[0]
    assert records[-1]["steps/skipped"] == 0
    assert min(perplexity) > 16  # of 60 frames
    assert evaluation["eval/stoi"] > 0.65
    audio = [load_audio(path).samples for path in run.output.glob("eval/step_*/*.wav")]
    assert audio
    assert all(np.isfinite(samples).all() for samples in audio)
