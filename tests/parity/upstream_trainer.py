"""Upstream's own training step, ``Trainer._train_step``, made runnable.

The published package cannot import it (``from dualcodec import BaseTrainer`` fails in 0.4.2), and
its base class builds an ``accelerate`` environment. Here the missing name is put in place and
what the step reads of that environment is supplied; the step, the losses, the models and the
optimisers are upstream's and torch's.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import dualcodec
import numpy as np
import oracle
import torch

base_trainer = oracle.import_with_placeholders(
    "base_trainer", Path(dualcodec.__file__).parent / "utils" / "base_trainer.py"
)
dualcodec.BaseTrainer = base_trainer.BaseTrainer
from dualcodec.model_codec import loss as upstream_loss  # noqa: E402
from dualcodec.model_codec import trainer as upstream_trainer  # noqa: E402


class DoubleSignal(oracle.AudioSignal):
    """An AudioSignal that leaves float64 audio alone."""

    def load_from_array(self, audio_array: Any, sample_rate: int, device: str = "cpu") -> Any:
        self.audio_data, self.sample_rate = audio_array, sample_rate
        self.original_signal_length = self.signal_length
        return self

    @staticmethod
    def get_window(*arguments: Any) -> Any:
        # Past its cache, which single precision shares; rounded as there.
        window = oracle.AudioSignal.get_window.__wrapped__(*arguments)
        return window.to(torch.float32).double()

    @staticmethod
    def get_mel_filters(**arguments: Any) -> Any:
        return oracle.AudioSignal.get_mel_filters(**arguments).astype(np.float64)


@dataclasses.dataclass
class StepRecord:
    """What one call of the step showed.

    Attributes:
        metrics: upstream's, as numbers.
        codes: semantic and acoustic codes int64 ``[B, n, T]``; the semantic row alone on bypass.
        generator_gradients: by parameter name, clipped; None where there was none.
        discriminator_gradients: the same.
        norms: of all gradients before clipping, of the discriminators and of the generator.
    """

    metrics: dict[str, float]
    codes: np.ndarray
    generator_gradients: dict[str, np.ndarray | None]
    discriminator_gradients: dict[str, np.ndarray | None]
    norms: list[float]


class Trainer:
    """Upstream's trainer around given models, in their dtype, on given features and draws.

    ``distill`` trains a ``DAC`` and not a ``DualCodec``; upstream has the code, and nothing that
    turns it on. ``factor`` is the downsampling factor of the semantic features.
    """

    def __init__(
        self,
        generator: Any,
        discriminator: Any,
        lr: float = 1e-4,
        *,
        distill: bool = False,
        factor: int = 1,
    ) -> None:
        self.generator, self.discriminator = generator.train(), discriminator.train()
        trainer = upstream_trainer.Trainer.__new__(upstream_trainer.Trainer)
        self._trainer = trainer
        trainer.cfg = oracle.edict(
            semantic_vq=not distill,
            lambda_semantic_commitment_loss=0.25,
            lambda_semantic_codebook_loss=1.0,
            lambda_distill_loss=15.0,
            add_semantic_spec_loss=True,
            train=dict(
                adamw=dict(lr=lr),
                scheduler=dict(warmup_steps=5000, total_steps=1_000_000, min_lr=5e-5),
            ),
        )
        self.cfg = trainer.cfg
        trainer.model = trainer.model_module = generator
        trainer.discriminator = discriminator
        trainer.distill, self._factor = distill, factor
        trainer.semantic_downsample_factor = factor
        trainer.accelerator = oracle.edict(device="cpu", backward=lambda loss: loss.backward())
        trainer.gan_loss = upstream_loss.GANLoss(discriminator)
        trainer.spec_loss = upstream_loss.MelSpectrogramLoss(
            pow=2,
            mag_weight=1,
            log_weight=1,
            n_mels=[40, 80, 160, 320],
            window_lengths=[256, 512, 1024, 2048],
        )
        trainer.semantic_spec_loss = upstream_loss.MultibandMelSpectrogramLoss(
            bands=[(0.0, 0.1)],
            band_weights=[1.0],
            loss_fn=torch.nn.MSELoss(),
            pow=2,
            mag_weight=1,
            log_weight=1,
            n_mels=[80, 160, 320],
            window_lengths=[512, 1024, 2048],
        )
        trainer.optimizer, trainer.optimizer_d = (
            torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.8, 0.9))
            for model in (generator, discriminator)
        )

    def rate(self, step: int) -> float:
        """The generator's learning rate, ``BaseTrainer.get_lr``."""
        return base_trainer.BaseTrainer.get_lr(self._trainer, step)

    def step(
        self,
        monkeypatch: Any,
        step: int,
        audio: np.ndarray,
        features: np.ndarray,
        active: np.ndarray,
        bypass: bool,
    ) -> StepRecord:
        """Train on ``audio [B, N]`` with hidden states whose pooled form is ``features``.

        Args:
            monkeypatch: pytest's; fixes the draws and keeps the gradients.
            step: sets the generator's learning rate, as upstream's loop does.
            audio: ``[B, N]``.
            features: pooled ``[B, T, semantic_dim]``.
            active: quantizer dropout ``[B]``.
            bypass: what the draw of the bypass says.
        """
        trainer, seen, gradients, norms = self._trainer, {}, [], []
        hidden = torch.from_numpy(np.repeat(features, self._factor, axis=1))
        for group in trainer.optimizer.param_groups:
            group["lr"] = self.rate(step)

        def keep_gradients(parameters: Any, max_norm: float) -> None:
            parameters = list(parameters)
            norms.append(float(clip(parameters, max_norm)))
            gradients.append([None if p.grad is None else p.grad.clone() for p in parameters])

        clip = torch.nn.utils.clip_grad_norm_
        with monkeypatch.context() as patch:
            patch.setattr(torch.nn.utils, "clip_grad_norm_", keep_gradients)
            patch.setattr(torch, "randint", lambda *_: torch.from_numpy(np.array(active)))
            patch.setattr("random.random", lambda: 0.0 if bypass else 1.0)
            patch.setattr(trainer, "_extract_semantic_code", lambda *_: hidden, raising=False)
            if audio.dtype == np.float64:
                # The step casts its input to float32.
                patch.setattr(torch.Tensor, "float", lambda x: x)
            hook = self.generator.register_forward_hook(
                lambda module, inputs, output: seen.update(output=output)
            )
            batch = {
                "speech": torch.from_numpy(audio),
                "speech_lens": None,
                "input_features": None,
                "attention_mask": None,
            }
            _, metrics = trainer._train_step(batch)
            hook.remove()
        output = seen["output"]
        parts = output[::-1] if isinstance(output, tuple) else (output,)
        rows = [part.codes for part in parts if part.codes is not None]
        of_discriminator, of_generator = gradients
        return StepRecord(
            metrics={
                name: float(torch.as_tensor(value).detach()) for name, value in metrics.items()
            },
            codes=np.concatenate([row.numpy() for row in rows], axis=1),
            generator_gradients=_named(self.generator, of_generator),
            discriminator_gradients=_named(self.discriminator, of_discriminator),
            norms=norms,
        )


def _number(value: Any) -> float:
    return float(torch.as_tensor(value).detach())


def _named(module: Any, gradients: list[Any]) -> dict[str, np.ndarray | None]:
    names = [name for name, _ in module.named_parameters()]
    pairs = zip(names, gradients, strict=True)
    return {name: None if value is None else value.numpy() for name, value in pairs}
