"""A training run from beginning to end, or from where it was left."""

from __future__ import annotations

import logging
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from dualcodec_jax.checkpoint import CheckpointError, Checkpoints
from dualcodec_jax.compilation import huge_pages_hint
from dualcodec_jax.data.pipeline import Batches, open_batches
from dualcodec_jax.errors import ConfigError, DualCodecError
from dualcodec_jax.lengths import code_length
from dualcodec_jax.sharding import global_batch, make_mesh, place, shards
from dualcodec_jax.train.distributed import StopRequest, join_processes, stop_requests
from dualcodec_jax.train.evaluate import Clip, Evaluator
from dualcodec_jax.train.export import CHECKPOINTS, placed_shapes
from dualcodec_jax.train.initial import initial_state, load_frozen
from dualcodec_jax.train.logs import RunLog
from dualcodec_jax.train.metrics import (
    CollapseWatch,
    Means,
    SpeedMeter,
    codebook_use,
    codebook_values,
)
from dualcodec_jax.train.run_config import EvaluationConfig, RunConfig, differences, to_dict
from dualcodec_jax.train.state import TrainState, state_shapes
from dualcodec_jax.train.step import draw_bypass, jit_step

logger = logging.getLogger(__name__)


class TrainingError(DualCodecError, RuntimeError):
    """Training cannot go on."""


def train(run: RunConfig) -> int:
    """Train until the run is complete or the process is asked to stop.

    Returns:
        The steps that the run has taken. The state at that step is saved.

    Raises:
        TrainingError: if too many steps in a row gave values that are not finite.
        ConfigError: if the configuration does not fit the devices, or the run that it resumes.
        CheckpointError, DataError, HubError, WeightsError: if what the run reads is unusable.
    """
    logging.basicConfig(level=run.logging.level)
    join_processes(run.distributed)
    if run.debug_nans:
        jax.config.update("jax_debug_nans", True)
    with Checkpoints(
        run.output / CHECKPOINTS, keep_last=run.keep_last, keep_every=run.keep_every
    ) as checkpoints:
        return _Run(run, checkpoints).go()


class _Run:
    """One process's part of a run."""

    def __init__(self, run: RunConfig, checkpoints: Checkpoints) -> None:
        self.run, self.checkpoints = run, checkpoints
        self.codec = run.objective.model.codec
        self.mesh = make_mesh(run.mesh)
        self.values = to_dict(run)
        total = run.batch_size * shards(self.mesh)
        if total % jax.process_count():
            raise ConfigError(
                f"a batch of {total} clips cannot be shared by {jax.process_count()} processes; "
                "change batch_size or the mesh"
            )
        self.total_clips, self.local_clips = total, total // jax.process_count()

    def go(self) -> int:
        self.state, data_state = self._start()
        self.step = int(self.state.step)
        self.frozen = self._frozen()
        self.train_step = jit_step(self.run.objective, self.mesh, self.state)
        self.compiled: set[bool] = set()
        with (
            self._open_data() as self.batches,
            RunLog(
                self.run.output,
                start_step=self.step,
                total_steps=self.run.max_steps,
                tensorboard=self.run.logging.tensorboard,
                wandb=self.run.logging.wandb,
                config=self.values,
                name=self.run.name,
            ) as self.log,
            stop_requests() as request,
        ):
            if data_state is not None:
                self.batches.set_state(data_state)
            self.evaluator = self._evaluator()
            if self.step:
                self.log.say(f"resumed at step {self.step}")
            if hint := huge_pages_hint(jax.default_backend()):
                self.log.say(hint)
            self._steps(request)
        return self.step

    # Start ----------------------------------------------------------------------------------

    def _start(self) -> tuple[TrainState, Any]:
        """State on the mesh and position of the data: saved ones, or new."""
        run, steps = self.run, self.checkpoints.steps()
        if steps and not run.resume:
            raise ConfigError(
                f"{run.output} already has checkpoints, up to step {steps[-1]}: pass "
                "trainer.args.resume=true to go on from there, or choose another "
                "trainer.exp_name"
            )
        saved = self.checkpoints.config()
        if saved is None:
            return place(initial_state(run), self.mesh), None
        if lines := differences(saved, self.values):
            raise ConfigError(
                f"the run in {run.output} was configured otherwise; restore these settings, or "
                "start a new run:\n  " + "\n  ".join(lines)
            )
        target = placed_shapes(state_shapes(run.objective), self.mesh)
        restored = self.checkpoints.restore(target)
        if restored is None:
            raise CheckpointError(f"{run.output}: no checkpoint that can be read")
        if len(restored.data_states) != jax.process_count():
            raise ConfigError(
                f"the run in {run.output} was saved by {len(restored.data_states)} processes, and "
                f"there are {jax.process_count()} now: each process's place in the data is its "
                "own. Use as many, or start a new run from an export of the checkpoint"
            )
        return restored.state, restored.data_states[jax.process_index()]

    def _frozen(self) -> dict[str, Any]:
        if self.run.features == "cache" or not self.run.objective.needs_features:
            return {}
        frozen = load_frozen(self.run.semantic, self.run.objective.model.semantic)
        return place(frozen, self.mesh)

    def _open_data(self) -> Batches:
        return open_batches(
            self.run.data,
            self.local_clips,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            codec=self.codec if self.run.features == "cache" else None,
        )

    def _evaluator(self) -> Evaluator | None:
        """In process 0 only; the others wait for it at their next step."""
        config = self.run.evaluation
        if config is None or jax.process_index() != 0:
            return None
        model = self.run.objective.model
        # Training on cached features needs no semantic model, but encoding whole clips does.
        cached = self.run.features == "cache" and self.codec.is_dual
        self.judging = load_frozen(self.run.semantic, model.semantic) if cached else {}
        return Evaluator(model, held_out_clips(config), saved_clips=config.saved_clips)

    # Steps ----------------------------------------------------------------------------------

    def _steps(self, request: StopRequest) -> None:
        run, codec = self.run, self.codec
        seconds = run.data.segment_length / codec.sample_rate
        frames = int(code_length(run.data.segment_length, codec))
        self.means = Means()
        self.speed = SpeedMeter(seconds * self.total_clips, run.max_steps)
        self.watch = CollapseWatch(
            codec.codebook_sizes,
            self.total_clips * frames,
            run.objective.generator_schedule.warmup_steps,
        )
        stopped: str | None = None
        done = self._complete()
        while not done:
            with self.speed.waiting():
                batch = next(self.batches, None)
            if batch is None:
                break
            self._one(batch)
            stopped = self._stop_reason(request)
            done = stopped is not None or self._complete()
            if self.step % run.log_every == 0 or done:
                self._write_log()
            if self.step % min(run.log_every, run.objective.max_bad_steps) == 0 or done:
                self._check_bad_steps()
            if self.step % run.save_every == 0 or done:
                self._save()
            if run.evaluation is not None and (self.step % run.evaluation.every == 0):
                self._evaluate()
        self._save()
        if stopped is not None:
            self.log.say(f"stopped by {stopped} at step {self.step}, which is saved", warning=True)

    def _one(self, batch: dict[str, np.ndarray]) -> None:
        inputs = {name: value for name, value in batch.items() if name != "num_samples"}
        bypass = draw_bypass(self.run.objective, self.step)
        arrays = global_batch(inputs, self.mesh)
        if bypass in self.compiled:
            self.state, terms = self.train_step(self.state, self.frozen, arrays, bypass=bypass)
        else:
            self.log.say(f"compiling the training step{' with bypass' if bypass else ''} …")
            with self.speed.paused():
                self.state, terms = self.train_step(self.state, self.frozen, arrays, bypass=bypass)
            self.compiled.add(bypass)
        self.step += 1
        self.means.add(terms, bypass=bypass)
        self.speed.count()
        self.log.advance(self.step)

    def _complete(self) -> bool:
        return self.step >= self.run.max_steps or self._passes_done()

    def _passes_done(self) -> bool:
        """Whether every process has gone through its share ``max_epoch`` times.

        Filters reject more in some shares than in others, so several processes have to ask each
        other. They wait for that, and so do it only at the steps that wait for the log anyway.
        """
        epoch, limit = self.batches.report.epoch, self.run.max_epoch
        if limit is None:
            return False
        done = epoch is not None and epoch >= limit
        if jax.process_count() == 1:
            return done
        if self.step % self.run.log_every:
            return False
        return bool(multihost_utils.process_allgather(np.asarray(done)).all())

    def _stop_reason(self, request: StopRequest) -> str | None:
        if self.checkpoints.reached_preemption(self.step):
            return request.received or "SIGTERM"
        return request.received if jax.process_count() == 1 else None

    def _write_log(self) -> None:
        values = self.means.take()
        values |= self.speed.measure(self.step)
        uses = codebook_use(self.state.code_frequency, self.codec.codebook_sizes)
        values |= codebook_values(uses)
        values["data/rejected"] = sum(self.batches.report.rejected.values())
        values["steps/skipped"] = int(self.state.bad_steps)
        self.log.write(self.step, values)
        for message in self.watch.check(self.step, uses):
            self.log.say(message, warning=True)

    def _check_bad_steps(self) -> None:
        limit, count = self.run.objective.max_bad_steps, int(self.state.bad_steps_in_a_row)
        if count >= limit:
            saved = self.checkpoints.steps()
            raise TrainingError(
                f"{count} steps in a row, up to step {self.step}, gave losses or gradients that "
                "are not finite and were skipped. Look for broken audio, lower the learning rate, "
                "or use precision=float32; debug_nans=true names the operation. The newest "
                f"checkpoint is {saved[-1] if saved else 'none'}"
            )

    def _save(self) -> None:
        with self.speed.paused("save"):
            self.checkpoints.save(self.step, self.state, self.batches.get_state(), self.values)

    def _evaluate(self) -> None:
        with self.speed.paused("evaluation"):
            generator = _on_host(self.state.generator)
            frozen = _on_host(self.frozen)
            if self.evaluator is not None:
                params = {"codec": generator, **frozen, **self.judging}
                result = self.evaluator(params, self.step, self.run.output)
                self.log.write(self.step, result.values)


def held_out_clips(config: EvaluationConfig) -> list[Clip]:
    """The first clips of the evaluation data, without their padding."""
    clips: list[Clip] = []
    with open_batches(config.data.for_evaluation(), 1) as batches:
        for batch in batches:
            samples = batch["audio"][0, : batch["num_samples"][0]]
            if samples.size:
                clips.append(Clip(f"clip_{len(clips):02}", samples))
            if len(clips) == config.clips:
                break
    return clips


def _on_host(tree: Any) -> Any:
    """Whole numpy arrays of a tree that may be split over processes."""
    if jax.process_count() > 1:
        return multihost_utils.process_allgather(tree, tiled=True)
    return jax.tree.map(np.asarray, tree)
