"""What a training run is: frozen dataclasses, the released recipe as defaults.

:mod:`dualcodec_jax.train.options` builds them from the command line. They are saved with every
checkpoint, and a run is only resumed with those that must not change unchanged.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from dualcodec_jax.config import Config, DiscriminatorConfig, Precision, check_precision
from dualcodec_jax.errors import ConfigError
from dualcodec_jax.losses import Distance


@dataclasses.dataclass(frozen=True, kw_only=True)
class MelLossConfig:
    """Scales of a mel distance, see :func:`dualcodec_jax.losses.mel_distance`."""

    window_lengths: tuple[int, ...] = (256, 512, 1024, 2048)
    n_mels: tuple[int, ...] = (40, 80, 160, 320)
    lowest: float = 1.0
    distance: Distance = "absolute"

    def __post_init__(self) -> None:
        if len(self.window_lengths) != len(self.n_mels):
            raise ConfigError(
                f"mel loss: {len(self.window_lengths)} window lengths but {len(self.n_mels)} "
                "numbers of mel bins"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the loss terms, and their settings. A weight of 0 leaves the term out.

    Attributes:
        mel: weight of the mel distance.
        adversarial: weight of the generator's adversarial loss.
        feature_matching: weight of the discriminator's feature distance.
        commitment: weight of the acoustic commitment loss.
        codebook: weight of the acoustic codebook loss.
        reconstruction: weight of the reconstruction of the semantic features, or of their
            prediction in a distilled DAC (upstream ``lambda_distill_loss`` in both).
        semantic_commitment: weight of the semantic commitment loss.
        semantic_codebook: weight of the semantic codebook loss.
        semantic_mel: weight of the low-band mel distance on bypass steps (upstream
            ``add_semantic_spec_loss``).
        pitch: weight of the divergence of the pitch that the first acoustic code says, see
            :func:`dualcodec_jax.losses.pitch_divergence`; not upstream's.
        gan: least squares, or the hinge variant that upstream has but does not use.
        mel_scales: of ``mel``.
        semantic_mel_scales: of ``semantic_mel``.
        crop_tail: compare waveforms only as far as the decoder reaches. Upstream (False) also
            compares the zeros that pad its output to the segment's length.
    """

    mel: float = 15.0
    adversarial: float = 1.0
    feature_matching: float = 2.0
    commitment: float = 0.25
    codebook: float = 1.0
    reconstruction: float = 15.0
    semantic_commitment: float = 0.25
    semantic_codebook: float = 1.0
    semantic_mel: float = 15.0
    pitch: float = 0.0
    gan: Literal["least_squares", "hinge"] = "least_squares"
    mel_scales: MelLossConfig = MelLossConfig()
    semantic_mel_scales: MelLossConfig = MelLossConfig(
        window_lengths=(512, 1024, 2048), n_mels=(80, 160, 320), lowest=0.1, distance="squared"
    )
    crop_tail: bool = False

    def __post_init__(self) -> None:
        if self.gan not in ("least_squares", "hinge"):
            raise ConfigError(f"gan must be least_squares or hinge; got {self.gan!r}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Learning rate over steps: linear from 0, then half a cosine, then constant.

    ``constant`` keeps ``lr`` from the first step on: upstream's discriminator.
    """

    lr: float = 1e-4
    min_lr: float = 5e-5
    warmup_steps: int = 5000
    total_steps: int = 1_000_000
    constant: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.warmup_steps < self.total_steps:
            raise ConfigError(
                f"warmup_steps {self.warmup_steps} must lie below total_steps {self.total_steps}"
            )
        if not self.constant and self.min_lr > self.lr:
            raise ConfigError(
                f"min_lr {self.min_lr:g} exceeds lr {self.lr:g}: the rate would rise over the run"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamWConfig:
    """AdamW, and the bound on the norm of its gradients."""

    betas: tuple[float, float] = (0.8, 0.9)
    eps: float = 1e-8
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodebookConfig:
    """How codebooks move besides by gradient, see :mod:`dualcodec_jax.train.codebooks`.

    Attributes:
        rate: share by which one latent moves the row that it is assigned to; 0: not at all, as
            upstream. The codebook losses had better have no weight then.
        restart: rows used less than this share of the average get a new place; 0: none.
    """

    rate: float = 0.0
    restart: float = 0.0

    def __post_init__(self) -> None:
        for name in ("rate", "restart"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"codebooks: {name} must lie in 0…1; got {getattr(self, name)}")

    @property
    def moving(self) -> bool:
        """Whether anything but the gradient moves codebooks."""
        return bool(self.rate or self.restart)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """All that the training step needs to know; hashable and static under ``jit``.

    Attributes:
        model: generator, semantic model and compute precision.
        discriminator: sizes.
        losses: weights.
        adamw: of both networks.
        codebooks: how they move besides by gradient.
        generator_schedule: learning rate of the generator.
        discriminator_schedule: learning rate of the discriminator.
        bypass_rate: share of the steps that decode from the semantic latent alone.
        accumulate: micro-batches per step.
        keep_codes: train the decoder alone, so that the same audio keeps its codes.
        checkpoint_discriminators: recompute their activations in the backward pass, which saves
            memory and takes time.
        seed: from which, with the step's number, every random draw follows.
        max_bad_steps: consecutive steps with losses or gradients that are not finite before the
            run stops; each is skipped and counted.
    """

    model: Config
    discriminator: DiscriminatorConfig = dataclasses.field(default_factory=DiscriminatorConfig)
    losses: LossConfig = LossConfig()
    adamw: AdamWConfig = AdamWConfig()
    codebooks: CodebookConfig = CodebookConfig()
    generator_schedule: ScheduleConfig = ScheduleConfig()
    discriminator_schedule: ScheduleConfig = ScheduleConfig(constant=True)
    bypass_rate: float = 0.125
    accumulate: int = 1
    keep_codes: bool = False
    checkpoint_discriminators: bool = False
    seed: int = 43
    max_bad_steps: int = 20

    def __post_init__(self) -> None:
        if not 0 <= self.bypass_rate <= 1:
            raise ConfigError(f"bypass_rate must lie in 0…1; got {self.bypass_rate}")
        if self.accumulate < 1:
            raise ConfigError(f"accumulate must be at least 1; got {self.accumulate}")
        if self.bypass_rate and not self.model.codec.is_dual:
            raise ConfigError(
                f"bypass_rate must be 0 with encoding {self.model.codec.encoding}: there is no "
                "semantic stream to decode from alone"
            )

    @property
    def needs_features(self) -> bool:
        """Whether training reads semantic features."""
        return self.model.codec.encoding != "dac"

    @property
    def adversarial(self) -> bool:
        """Whether the discriminators take part; without, they are not trained either."""
        return bool(self.losses.adversarial or self.losses.feature_matching)

    @property
    def precision(self) -> Precision:
        """Compute precision of the networks."""
        check_precision(self.model.precision)
        return self.model.precision
