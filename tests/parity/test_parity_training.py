"""Losses, gradients and whole training steps against upstream's own trainer."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import numpy as np
import optax
import oracle
import pytest
import torch
import upstream
import upstream_trainer
from upstream_trainer import DoubleSignal, StepRecord, Trainer, upstream_loss

from dualcodec_jax import losses
from dualcodec_jax.config import PRESETS, Config, DiscriminatorConfig, DualCodecConfig
from dualcodec_jax.convert.codec import codec_rules
from dualcodec_jax.convert.discriminator import discriminator_rules
from dualcodec_jax.convert.engine import to_jax, to_torch
from dualcodec_jax.convert.files import codec_shapes, discriminator_shapes
from dualcodec_jax.lengths import code_length
from dualcodec_jax.train import step as train
from dualcodec_jax.train.config import LossConfig, ObjectiveConfig, ScheduleConfig
from dualcodec_jax.train.objective import (
    discriminator_objective,
    generator_objective,
    reconstruct,
)
from dualcodec_jax.train.optimizer import ACOUSTIC, ALWAYS, learning_rate
from dualcodec_jax.train.state import TrainState, new_state

FLOAT32 = 1e-4
FLOAT64 = 1e-5
ANY = math.inf
UPSTREAM_METRICS = {
    "mel": "spec_loss",
    "adversarial": "adv_g_loss",
    "feature_matching": "feat_loss",
    "commitment": "commitment_loss",
    "reconstruction": "semantic/semantic_distill_loss",
    "semantic_commitment": "semantic/semantic_commitment_loss",
    "semantic_codebook": "semantic/semantic_codebook_loss",
    "discriminator": "disc_loss",
}

# The structure of 12hz_v1 with both strides odd and even, at a width that float64 can afford.
SMALL = DualCodecConfig(
    encoder_dim=32,
    encoder_rates=(4, 5, 6, 8, 2),
    decoder_dim=64,
    decoder_rates=(2, 8, 6, 5, 4),
    n_codebooks=3,
    codebook_size=64,
    semantic_codebook_size=256,
    semantic_downsample_factor=4,
    convnext_dim=64,
    convnext_layers=1,
)
# Upstream fixes the network that predicts the features, and gives all codebooks one size.
DISTILLED = dataclasses.replace(
    SMALL,
    encoding="dac_distilled",
    semantic_codebook_size=SMALL.codebook_size,
    convnext_layers=5,
    is_causal=False,
)
FEWER = DiscriminatorConfig(periods=(11,), fft_sizes=(512,))
OBJECTIVE = ObjectiveConfig(model=Config(model_id="small", codec=SMALL), discriminator=FEWER)
DISTILLATION = dataclasses.replace(
    OBJECTIVE, model=Config(model_id="small", codec=DISTILLED), bypass_rate=0.0
)
BATCH, SAMPLES, FRAMES = 2, 2 * 1920 + 300, 2


def speech_and_noise(
    batch: int, num_samples: int, start: int = 9000
) -> tuple[np.ndarray, np.ndarray]:
    """Speech, and a distorted copy that ends in zeros as a decoded segment does; ``[B, N]``."""
    names = list(upstream.speech())[:batch]
    target = np.concatenate([upstream.clip(name, num_samples, start)[0] for name in names])
    noise = np.random.default_rng(0).standard_normal(target.shape, np.float32)
    output = np.tanh(1.3 * target + 0.02 * noise)
    output[:, -1200:] = 0
    return target, output


def relative(actual: Any, expected: Any) -> float:
    return abs(float(actual) / float(expected) - 1)


# Losses alone -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mel", "semantic_mel"])
def test_mel_distance(report: Any, name: str) -> None:
    """Value and gradient, with a tail of exact zeros."""
    target, output = speech_and_noise(2, 24000)
    config = LossConfig()
    scales = config.mel_scales if name == "mel" else config.semantic_mel_scales

    def ours(output: jax.Array) -> jax.Array:
        return losses.mel_distance(
            target,
            output,
            sample_rate=24000,
            window_lengths=scales.window_lengths,
            n_mels=scales.n_mels,
            lowest=scales.lowest,
            distance=scales.distance,
        )

    trainer = Trainer(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1))._trainer
    module = trainer.spec_loss if name == "mel" else trainer.semantic_spec_loss
    y = torch.tensor(output[:, None], requires_grad=True)
    signals = (oracle.AudioSignal(x, 24000) for x in (torch.tensor(target[:, None]), y))
    expected = module(*signals)
    expected.backward()
    value, gradient = jax.jit(jax.value_and_grad(ours))(output)
    assert np.isfinite(gradient).all()
    report.value(f"loss: {name}", relative(value, expected.item()), FLOAT32)
    report.error(f"loss: {name}, gradient", gradient, y.grad.numpy()[:, 0], FLOAT32)


def test_adversarial_losses(report: Any) -> None:
    """On given scores and activations of five sub-discriminators."""
    rng = np.random.default_rng(0)

    def maps() -> list[list[np.ndarray]]:
        sizes = [(2, 7 + d, 3, 5) for d in range(5)]
        return [[rng.standard_normal(s, np.float32) for _ in range(4)] for s in sizes]

    real, fake = maps(), maps()
    outputs = iter([fake, real] * 4)
    gan = upstream_loss.GANLoss(lambda _: [[torch.tensor(x) for x in d] for d in next(outputs)])
    nothing = torch.zeros(1)
    scores = [[d[-1] for d in side] for side in (real, fake)]
    features = [[d[:-1] for d in side] for side in (real, fake)]
    matching = losses.feature_matching_loss(*features)
    adversarial, expected_matching = gan.generator_loss(nothing, nothing)
    hinge_adversarial, hinge_matching = gan.generator_hinge_loss(nothing, nothing)
    pairs = {
        "discriminator": (
            losses.least_squares_discriminator_loss(*scores),
            gan.discriminator_loss(nothing, nothing),
        ),
        "adversarial": (losses.least_squares_adversarial_loss(scores[1]), adversarial),
        "feature matching": (matching, expected_matching),
        "discriminator, hinge": (
            losses.hinge_discriminator_loss(*scores),
            gan.discriminator_hinge_loss(nothing, nothing),
        ),
        "adversarial, hinge": (losses.hinge_adversarial_loss(scores[1]), hinge_adversarial),
        "feature matching, hinge": (matching / 5, hinge_matching),
    }
    for name, (actual, expected) in pairs.items():
        report.value(f"loss: {name}", relative(actual, expected), FLOAT32)


def test_learning_rate() -> None:
    trainer = Trainer(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1))
    config = ScheduleConfig()
    for step in (0, 1, 2500, 4999, 5000, 5001, 300_000, 999_999, 1_000_000, 1_000_001, 2_000_000):
        actual = learning_rate(config, np.int32(step))
        np.testing.assert_allclose(actual, trainer.rate(step), rtol=1e-6)


# A whole step -------------------------------------------------------------------------------


def small_networks(seed: int, codec: DualCodecConfig) -> tuple[Any, Any]:
    """Upstream's classes at the small size; codes are diverse, activations of ordinary size."""
    torch.manual_seed(seed)
    generator = (
        upstream.bare_dac(codec)
        if not codec.is_dual
        else oracle.DualCodec(
            encoder_dim=codec.encoder_dim,
            encoder_rates=list(codec.encoder_rates),
            decoder_dim=codec.decoder_dim,
            decoder_rates=list(codec.decoder_rates),
            n_codebooks=codec.n_codebooks,
            codebook_size=codec.codebook_size,
            semantic_codebook_size=codec.semantic_codebook_size,
            convnext_dim=codec.convnext_dim,
            convnext_layers=codec.convnext_layers,
            quantizer_dropout=codec.quantizer_dropout,
            sample_rate=codec.sample_rate,
            is_causal=codec.is_causal,
            semantic_downsample_factor=codec.semantic_downsample_factor,
        )
    )
    upstream.randomize_codec(generator, seed)
    discriminator = oracle.Discriminator(
        periods=FEWER.periods, fft_sizes=FEWER.fft_sizes, sample_rate=SMALL.sample_rate
    )
    with torch.no_grad():
        for name, parameter in discriminator.named_parameters():
            if name.endswith("weight_g"):
                parameter.mul_(6**0.5 * (0.5 + torch.rand_like(parameter)))
    return generator, discriminator


def numpy_state(module: Any) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy().copy() for name, value in module.state_dict().items()}


def converted(generator: Any, discriminator: Any, codec: DualCodecConfig) -> tuple[Any, Any]:
    return (
        to_jax(
            numpy_state(generator), codec_rules(codec), codec_shapes(codec), what="the generator"
        ),
        to_jax(
            numpy_state(discriminator),
            discriminator_rules(FEWER),
            discriminator_shapes(FEWER),
            what="the discriminator",
        ),
    )


def norm_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """‖a − b‖ / ‖b‖ of one tensor."""
    difference = np.linalg.norm(np.asarray(actual, np.float64) - expected)
    return float(difference / max(np.linalg.norm(expected), 1e-300))


@functools.partial(jax.jit, static_argnames=("config", "bypass"))
def our_step(config: ObjectiveConfig, state: TrainState, batch: Any, bypass: bool) -> Any:
    """The next state, the terms, and the codes that the step saw."""
    active = train._draw_active(config, state.step, BATCH)
    _, found = reconstruct(config, state.generator, **batch, active=active, bypass=bypass)
    return *train.train_step(config, state, {}, batch, bypass=bypass), found.codes


def moments(optimizer: Any) -> Any:
    """AdamW's first moments of all parameters, as one tree."""
    trees = [optimizer.inner_states[group].inner_state[0].mu for group in (ALWAYS, ACOUSTIC)]
    is_masked = lambda leaf: isinstance(leaf, optax.MaskedNode)  # noqa: E731
    return jax.tree.map(
        lambda a, b: np.asarray(b if is_masked(a) else a), *trees, is_leaf=is_masked
    )


def clipped_gradients(before: Any, after: Any) -> Any:
    """From m' = β m + (1 − β) g; zero where the moments did not change."""
    beta = OBJECTIVE.adamw.betas[0]
    return jax.tree.map(
        lambda m, n: (n - beta * m) / (1 - beta) if (m != n).any() else 0 * m,
        moments(before),
        moments(after),
    )


def check_gradients(
    report: Any, what: str, actual: Any, rules: Any, expected: dict[str, Any], limit: float
) -> None:
    ours = to_torch(actual, rules, what="the gradients")
    errors = []
    for name, value in expected.items():
        if value is None:
            assert not ours[name].any(), name
        else:
            errors.append(norm_error(ours[name], value))
    report.value(f"{what}: worst tensor of {len(errors)}", max(errors), limit)


def check_steps(
    report: Any,
    monkeypatch: pytest.MonkeyPatch,
    dtype: Any,
    name: str,
    limits: dict[str, float],
    config: ObjectiveConfig = OBJECTIVE,
) -> None:
    """Three steps, the second a bypass if there is one; both sides in one dtype."""
    codec = config.model.codec
    generator, discriminator = (module.to(dtype) for module in small_networks(3, codec))
    trainer = Trainer(
        generator,
        discriminator,
        distill=not codec.is_dual,
        factor=codec.semantic_downsample_factor,
    )
    as_numpy = np.float64 if dtype == torch.float64 else np.float32
    networks = jax.tree.map(
        lambda x: np.asarray(x, as_numpy), converted(*small_networks(3, codec), codec)
    )
    # Beyond the warm-up, where a step moves the weights by 1e-4 and not by 2e-8.
    state = dataclasses.replace(new_state(config, *networks), step=np.int32(6000))
    frames = code_length(SAMPLES, codec)
    rng = np.random.default_rng(5)
    for index, bypass in enumerate((False, codec.is_dual, False)):
        target, _ = speech_and_noise(BATCH, SAMPLES, start=9000 + 3000 * index)
        batch = {
            "audio": target.astype(as_numpy),
            "features": rng.standard_normal((BATCH, FRAMES, codec.semantic_dim)).astype(as_numpy),
        }
        active = np.asarray(train._draw_active(config, state.step, BATCH))
        expected = trainer.step(monkeypatch, int(state.step), **batch, active=active, bypass=bypass)
        before = state
        state, terms, codes = our_step(config, state, batch, bypass)
        if dtype == torch.float64:
            assert np.array_equal(codes, expected.codes)
        assert codes.shape == (BATCH, 1 if bypass else codec.n_quantizers, frames)
        check_terms(report, f"{name}: loss terms", terms, expected, bypass, limits["terms"])
        norms = [terms["discriminator_norm"], terms["generator_norm"]]
        for actual, theirs in zip(norms, expected.norms, strict=True):
            report.value(f"{name}: norms", relative(actual, theirs), limits["norms"])
        for network, rules, gradients in (
            ("generator", codec_rules(codec), expected.generator_gradients),
            ("discriminator", discriminator_rules(FEWER), expected.discriminator_gradients),
        ):
            own = clipped_gradients(*(getattr(s, f"{network}_optimizer") for s in (before, state)))
            what = f"{name}: {network} gradients"
            check_gradients(report, what, own, rules, gradients, limits["gradients"])
    what = f"{name}: parameters after three steps"
    check_parameters(report, what, state, trainer, codec, limits)
    check_frozen(generator, trainer, codec)


def check_terms(
    report: Any, what: str, terms: Any, expected: StepRecord, bypass: bool, limit: float
) -> None:
    for term, metric in UPSTREAM_METRICS.items():
        if expected.metrics.get(metric):
            report.value(what, relative(terms[term], expected.metrics[metric]), limit)
    assert ("semantic_mel" in terms) == bypass
    if bypass:
        weighted = 15 * terms["semantic_mel"]
        metric = expected.metrics["semantic/semantic_spec_loss"]
        report.value(what, relative(weighted, metric), limit)
    total = expected.metrics["total_loss"]
    if "semantic_codebook" in terms:
        total -= 1  # Upstream writes `+ λ + loss` for `λ · loss`.
    else:
        distilled = expected.metrics["distill_loss"]
        report.value(what, relative(terms["reconstruction"], distilled), limit)
    report.value(what, relative(terms["total"], total), limit)


def check_parameters(
    report: Any,
    what: str,
    state: TrainState,
    trainer: Trainer,
    codec: DualCodecConfig,
    limits: dict[str, float],
) -> None:
    ours = to_torch(state.generator, codec_rules(codec), what="the generator")
    ours |= to_torch(state.discriminator, discriminator_rules(FEWER), what="the discriminator")
    theirs = numpy_state(trainer.generator) | numpy_state(trainer.discriminator)
    errors = [norm_error(ours[name], value) for name, value in theirs.items()]
    report.value(f"{what}, worst tensor", max(errors), limits["parameters"])


def check_frozen(generator: Any, trainer: Trainer, codec: DualCodecConfig) -> None:
    """With a bypass, torch counted two steps for the acoustic part and three for the rest."""
    counts = {
        name: int(trainer._trainer.optimizer.state[parameter]["step"])
        for name, parameter in generator.named_parameters()
    }
    for name, count in counts.items():
        acoustic = codec.is_dual and name.startswith(("dac.encoder.", "dac.quantizer."))
        assert count == (2 if acoustic else 3), name


@pytest.mark.slow
@pytest.mark.parametrize(
    "config", [OBJECTIVE, DISTILLATION], ids=["dual encoding", "distilled DAC"]
)
def test_three_steps_in_float64(
    report: Any, monkeypatch: pytest.MonkeyPatch, config: ObjectiveConfig
) -> None:
    for module in (upstream_trainer.upstream_trainer, upstream.DISCRIMINATOR_MODULE):
        monkeypatch.setattr(module, "AudioSignal", DoubleSignal)
    limits = dict.fromkeys(("terms", "norms", "gradients", "parameters"), FLOAT64)
    with jax.enable_x64(True):
        name = f"three steps, float64, {config.model.codec.encoding}"
        check_steps(report, monkeypatch, torch.float64, name, limits, config)


@pytest.mark.slow
def test_three_steps_in_float32(report: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss terms are checked; how far gradients and parameters are apart is reported.

    An activation beside a kink of the leaky ReLU, or a code beside a tie, may fall on either side.
    """
    limits = {"terms": FLOAT32, "norms": ANY, "gradients": ANY, "parameters": ANY}
    check_steps(report, monkeypatch, torch.float32, "three steps, float32", limits)


@pytest.mark.slow
@pytest.mark.parametrize("bypass", [False, True])
def test_every_term_at_full_size(
    report: Any,
    original: Any,
    generator: Any,
    model_id: str,
    monkeypatch: pytest.MonkeyPatch,
    bypass: bool,
) -> None:
    """Both released generators and the released discriminator, one batch of speech."""
    torch.manual_seed(0)
    discriminator = oracle.Discriminator(sample_rate=24000)
    config = ObjectiveConfig(model=PRESETS[model_id])
    samples, codec = 12 * config.model.codec.hop_length + 700, config.model.codec
    audio, _ = speech_and_noise(2, samples)
    frames = code_length(samples, codec)
    features = np.random.default_rng(0).standard_normal((2, frames, 1024), np.float32)
    active = np.array([2, codec.n_codebooks])
    kept = {name: value.clone() for name, value in original.model.state_dict().items()}
    before = discriminator_params(config, discriminator)
    try:
        factor = codec.semantic_downsample_factor
        trainer = Trainer(original.model, discriminator, factor=factor)
        expected = trainer.step(monkeypatch, 0, audio, features, active, bypass)
    finally:
        original.model.load_state_dict(kept)
        original.model.eval()

    @jax.jit
    def terms_of(params: Any, before: Any, updated: Any) -> Any:
        output, found = reconstruct(config, params, audio, features, active, bypass=bypass)
        judged = discriminator_objective(config, before, audio, output.audio)
        # The generator's losses see upstream's discriminator as it is after its step.
        total, terms = generator_objective(config, updated, output, audio, features, bypass=bypass)
        return {**terms, "total": total, "discriminator": judged}, found.codes

    updated = discriminator_params(config, discriminator)
    terms, codes = terms_of(generator.params, before, updated)
    assert np.array_equal(codes, expected.codes)
    check_terms(report, f"full size, {model_id}: loss terms", terms, expected, bypass, FLOAT32)


def discriminator_params(config: ObjectiveConfig, discriminator: Any) -> Any:
    rules = discriminator_rules(config.discriminator)
    shapes = discriminator_shapes(config.discriminator)
    return to_jax(numpy_state(discriminator), rules, shapes, what="the discriminator")
