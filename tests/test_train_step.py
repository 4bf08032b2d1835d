"""One training step of a small model: what it updates, draws, skips and counts."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("optax")

import jax
import jax.numpy as jnp
from micro import OBJECTIVE, QUICK

from dualcodec_jax import losses, random_semantic
from dualcodec_jax.errors import ConfigError
from dualcodec_jax.train import step as train
from dualcodec_jax.train.config import (
    CodebookConfig,
    MelLossConfig,
    ScheduleConfig,
)
from dualcodec_jax.train.objective import Reconstruction, generator_objective, reach
from dualcodec_jax.train.optimizer import (
    ACOUSTIC,
    ALWAYS,
    clip_by_norm,
    groups,
    learning_rate,
)
from dualcodec_jax.train.state import TrainState, new_state, state_shapes

BATCH, SAMPLES, FRAMES, DIM = 4, 4800, 9, OBJECTIVE.model.codec.semantic_dim

Step = Callable[..., Any]


def speech_batch(speech: np.ndarray, start: int = 30_000) -> dict[str, Any]:
    rows = [speech[start + 9000 * k :][:SAMPLES] for k in range(BATCH)]
    return {"audio": jnp.asarray(np.stack(rows))}


@pytest.fixture(scope="module")
def frozen() -> dict[str, Any]:
    params, statistics = random_semantic(OBJECTIVE.model.semantic)
    return jax.tree.map(jnp.asarray, {"semantic": params, "statistics": statistics})


@pytest.fixture(scope="module")
def state() -> TrainState:
    return new_state(OBJECTIVE)


@pytest.fixture(scope="module")
def steps(state: TrainState, frozen: dict[str, Any], speech: np.ndarray) -> dict[bool, Step]:
    """The compiled step, without and with bypass."""
    compiled = {}
    for bypass in (False, True):
        function = jax.jit(functools.partial(train.train_step, OBJECTIVE, bypass=bypass))
        lowered = function.lower(state, frozen, speech_batch(speech))
        compiled[bypass] = lowered.compile(compiler_options=QUICK)
    return compiled


def leaves(tree: Any) -> dict[str, np.ndarray]:
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in flat}


def changed(before: Any, after: Any) -> set[str]:
    pairs = leaves(before), leaves(after)
    return {name for name in pairs[0] if not np.array_equal(pairs[0][name], pairs[1][name])}


@pytest.mark.slow
def test_a_step_updates_everything(
    steps: dict[bool, Step], state: TrainState, frozen: Any, speech: np.ndarray
) -> None:
    after, terms = steps[False](state, frozen, speech_batch(speech))
    assert int(after.step) == 1
    assert changed(state.discriminator, after.discriminator) == set(leaves(state.discriminator))
    # A bias ahead of nothing but its own zero gradient would stay; there is none.
    assert changed(state.generator, after.generator) == set(leaves(state.generator))
    assert all(np.isfinite(value) for value in terms.values())
    weights = OBJECTIVE.losses
    expected = sum(getattr(weights, name) * terms[name] for name in terms if hasattr(weights, name))
    np.testing.assert_allclose(terms["total"], expected, rtol=1e-5)
    assert "semantic_mel" not in terms


@pytest.mark.slow
def test_a_bypass_step_leaves_the_acoustic_part_alone(
    steps: dict[bool, Step], state: TrainState, frozen: Any, speech: np.ndarray
) -> None:
    before, _ = steps[False](state, frozen, speech_batch(speech))
    after, terms = steps[True](before, frozen, speech_batch(speech))
    acoustic = {
        name for name, group in leaves(groups(before.generator)).items() if group == ACOUSTIC
    }
    assert 0 < len(acoustic) < len(leaves(before.generator))
    assert changed(before.generator, after.generator) == set(leaves(before.generator)) - acoustic
    optimizers = before.generator_optimizer.inner_states, after.generator_optimizer.inner_states
    assert changed(optimizers[0][ACOUSTIC], optimizers[1][ACOUSTIC]) == set()
    assert len(changed(optimizers[0][ALWAYS], optimizers[1][ALWAYS])) > 100
    assert terms["commitment"] == terms["codebook"] == 0
    assert terms["semantic_mel"] > 0
    # The semantic row goes on, the others keep what they had.
    rows = [
        np.array_equal(a, b)
        for a, b in zip(before.code_frequency, after.code_frequency, strict=True)
    ]
    assert rows == [False, True, True, True]


@pytest.mark.slow
def test_codes_can_be_kept(state: TrainState, frozen: Any, speech: np.ndarray) -> None:
    """Even where codebooks move by themselves; all of the decoder still learns."""
    config = dataclasses.replace(
        OBJECTIVE, codebooks=CodebookConfig(rate=0.1, restart=0.1), keep_codes=True
    )
    batch = speech_batch(speech)
    function = jax.jit(functools.partial(train.train_step, config, bypass=False))
    step = function.lower(state, frozen, batch).compile(compiler_options=QUICK)
    before, _ = step(state, frozen, batch)
    after, _ = step(before, frozen, batch)
    decoder = {name for name in leaves(state.generator) if name.startswith("dac/decoder/")}
    assert decoder
    assert changed(before.generator, after.generator) == decoder


@pytest.mark.slow
def test_a_bad_step_is_skipped_and_counted(
    steps: dict[bool, Step], state: TrainState, frozen: Any, speech: np.ndarray
) -> None:
    batch = speech_batch(speech)
    bad = {"audio": batch["audio"].at[1, 100].set(jnp.nan)}
    after, terms = steps[False](state, frozen, bad)
    assert not np.isfinite(terms["total"])
    assert changed(state, after) == {"step", "bad_steps", "bad_steps_in_a_row"}
    again, _ = steps[False](after, frozen, bad)
    assert [int(again.bad_steps), int(again.bad_steps_in_a_row), int(again.step)] == [2, 2, 2]
    good, _ = steps[False](again, frozen, batch)
    assert [int(good.bad_steps), int(good.bad_steps_in_a_row), int(good.step)] == [2, 0, 3]
    assert len(changed(again.generator, good.generator)) == len(leaves(state.generator))


@pytest.mark.slow
def test_a_step_is_deterministic_and_depends_on_its_number(
    steps: dict[bool, Step], state: TrainState, frozen: Any, speech: np.ndarray
) -> None:
    batch = speech_batch(speech)
    first, second = (steps[False](state, frozen, batch)[0] for _ in range(2))
    assert changed(first, second) == set()
    other = dataclasses.replace(state, step=state.step + 1)
    assert "generator/dac/encoder/conv_in/weight_v" in changed(
        first, steps[False](other, frozen, batch)[0]
    )


def test_bypass_is_drawn_at_its_rate_from_seed_and_step() -> None:
    draws = [train.draw_bypass(OBJECTIVE, step) for step in range(4000)]
    assert draws == [train.draw_bypass(OBJECTIVE, step) for step in range(4000)]
    assert 0.105 < np.mean(draws) < 0.145
    other = dataclasses.replace(OBJECTIVE, seed=1)
    assert draws != [train.draw_bypass(other, step) for step in range(4000)]
    never = dataclasses.replace(OBJECTIVE, bypass_rate=0.0)
    always = dataclasses.replace(OBJECTIVE, bypass_rate=1.0)
    assert not any(train.draw_bypass(never, step) for step in range(100))
    assert all(train.draw_bypass(always, step) for step in range(100))


@pytest.mark.parametrize(("share", "dropped"), [(1.0, 300), (0.5, 150), (0.0, 0)])
def test_quantizer_dropout(share: float, dropped: int) -> None:
    codec = dataclasses.replace(OBJECTIVE.model.codec, quantizer_dropout=share)
    config = dataclasses.replace(OBJECTIVE, model=dataclasses.replace(OBJECTIVE.model, codec=codec))
    active = np.asarray(train._draw_active(config, jnp.asarray(7), 300))
    assert (active[dropped:] == codec.n_codebooks).all()
    if dropped:
        values, counts = np.unique(active[:dropped], return_counts=True)
        assert values.tolist() == [1, 2, 3]
        assert counts.min() > dropped / 5


def test_code_frequency_is_a_moving_average() -> None:
    codes = jnp.asarray([[[0, 0, 1, 2], [3, 3, 3, 3]]])
    first = train._code_frequency(jnp.zeros((3, 4)), codes)
    np.testing.assert_allclose(first, [[0.5, 0.25, 0.25, 0], [0, 0, 0, 1], [0, 0, 0, 0]])
    second = train._code_frequency(first, jnp.zeros((1, 1, 4), jnp.int32))
    np.testing.assert_allclose(second[0], [0.505, 0.2475, 0.2475, 0], rtol=1e-6)
    np.testing.assert_array_equal(second[1:], first[1:])


def test_clipping() -> None:
    gradients = {"a": jnp.full((4,), 3.0), "b": jnp.full((4,), 4.0)}
    clipped, norm = clip_by_norm(gradients, 1.0)
    assert float(norm) == 10.0
    np.testing.assert_allclose(clipped["a"], 0.3, rtol=1e-6)
    kept, _ = clip_by_norm(gradients, 11.0)
    np.testing.assert_array_equal(kept["b"], gradients["b"])


def test_learning_rates() -> None:
    config = ScheduleConfig(lr=1.0, min_lr=0.5, warmup_steps=10, total_steps=110)
    rates = [float(learning_rate(config, jnp.asarray(s))) for s in (0, 5, 10, 60, 110, 999)]
    np.testing.assert_allclose(rates, [0, 0.5, 1, 0.75, 0.5, 0.5], rtol=1e-6)
    constant = ScheduleConfig(lr=2.0, constant=True)
    assert float(learning_rate(constant, jnp.asarray(0))) == 2.0
    with pytest.raises(ConfigError, match="would rise"):
        ScheduleConfig(lr=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bypass_rate": 1.5}, "bypass_rate"),
        ({"accumulate": 0}, "accumulate"),
    ],
)
def test_impossible_objectives(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(OBJECTIVE, **change)
    with pytest.raises(ConfigError, match="2 window lengths but 1"):
        MelLossConfig(window_lengths=(256, 512), n_mels=(40,))


def test_shapes_of_a_state(state: TrainState) -> None:
    shapes = state_shapes(OBJECTIVE)
    described = {name: (x.shape, x.dtype) for name, x in leaves(shapes).items()}
    assert described == {name: (x.shape, x.dtype) for name, x in leaves(state).items()}


# Objective ----------------------------------------------------------------------------------


def reconstruction(audio: np.ndarray) -> Reconstruction:
    names = ("commitment", "codebook", "semantic_commitment", "semantic_codebook")
    quantization = {name: jnp.ones(()) for name in names}
    return Reconstruction(jnp.asarray(audio), jnp.zeros((BATCH, FRAMES, DIM)), quantization, None)


def test_weights_of_zero_leave_terms_out(state: TrainState, speech: np.ndarray) -> None:
    audio = speech_batch(speech)["audio"]
    weights = dataclasses.replace(
        OBJECTIVE.losses, mel=0.0, adversarial=0.0, feature_matching=0.0, semantic_mel=0.0
    )
    config = dataclasses.replace(OBJECTIVE, losses=weights)
    total, terms = generator_objective(
        config,
        state.discriminator,
        reconstruction(audio),
        audio,
        jnp.ones((BATCH, FRAMES, DIM)),
        bypass=True,
    )
    assert set(terms) == {
        "commitment",
        "codebook",
        "reconstruction",
        "semantic_commitment",
        "semantic_codebook",
    }
    assert float(total) == 0.25 + 1 + 15 + 0.25 + 1


@pytest.mark.slow
def test_crop_tail_ignores_what_the_decoder_does_not_reach(
    state: TrainState, speech: np.ndarray
) -> None:
    audio = np.asarray(speech_batch(speech)["audio"])
    end = reach(OBJECTIVE, SAMPLES)
    assert 0 < end < SAMPLES
    output = 0.5 * audio
    output[:, end:] = 7
    weights = dataclasses.replace(OBJECTIVE.losses, adversarial=0.0, feature_matching=0.0)

    def mel(crop: bool, output: np.ndarray) -> float:
        config = dataclasses.replace(OBJECTIVE, losses=dataclasses.replace(weights, crop_tail=crop))
        features = jnp.zeros((BATCH, FRAMES, DIM))
        _, terms = generator_objective(
            config, {}, reconstruction(output), audio, features, bypass=False
        )
        return float(terms["mel"])

    silent_end = np.where(np.arange(SAMPLES) < end, output, 0)
    assert mel(True, output) == mel(True, silent_end)
    assert mel(False, output) > mel(False, silent_end)


@pytest.mark.slow
def test_checkpointed_discriminators_give_the_same_gradients(
    state: TrainState, speech: np.ndarray
) -> None:
    """In float64: in float32, rounding decides the slope of activations beside a kink."""
    weights = dataclasses.replace(OBJECTIVE.losses, mel=0.0)
    audio = np.asarray(speech_batch(speech)["audio"], np.float64)
    # Unlike the input in more than level, which the discriminators do not see.
    output = np.tanh(3 * audio) + 0.1 * np.roll(audio, 100, axis=1)
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), state.discriminator)

    def gradient(remat: bool) -> Any:
        config = dataclasses.replace(OBJECTIVE, losses=weights, checkpoint_discriminators=remat)

        def loss(output: Any) -> Any:
            result = dataclasses.replace(reconstruction(audio), audio=output)
            features = jnp.zeros((BATCH, FRAMES, DIM))
            return generator_objective(config, params, result, audio, features, bypass=False)[0]

        return jax.jit(jax.grad(loss)).lower(output).compile(compiler_options=QUICK)(output)

    with jax.enable_x64(True):
        plain, remat = gradient(False), gradient(True)
    assert plain.dtype == np.float64
    assert np.abs(plain).max() > 1e-4
    np.testing.assert_allclose(remat, plain, rtol=0, atol=1e-12 * np.abs(plain).max())


# Losses -------------------------------------------------------------------------------------


def test_mel_distance_by_hand(speech: np.ndarray) -> None:
    target, output = speech[None, :4000], 0.5 * speech[None, :4000]
    distance = losses.mel_distance(
        target, output, sample_rate=24000, window_lengths=(512,), n_mels=(80,)
    )
    mel = np.asarray(losses.mel_spectrogram(jnp.asarray(target), 512, 80, 24000))
    logarithms = 2 * np.log10(np.maximum(mel, 1e-5)) - 2 * np.log10(np.maximum(mel / 2, 1e-5))
    expected = np.abs(logarithms).mean() + np.abs(mel / 2).mean()
    np.testing.assert_allclose(distance, expected, rtol=1e-4)


def test_mel_spectrogram_is_librosas(speech: np.ndarray) -> None:
    librosa = pytest.importorskip("librosa")
    spectrum = librosa.stft(speech[:9000], n_fft=512, hop_length=128, pad_mode="reflect")
    expected = librosa.filters.mel(sr=24000, n_fft=512, n_mels=80) @ np.abs(spectrum)
    actual = losses.mel_spectrogram(jnp.asarray(speech[None, :9000]), 512, 80, 24000)[0].T
    np.testing.assert_allclose(actual, expected, atol=1e-4 * expected.max())


def test_gradient_at_silence_is_finite() -> None:
    gradient = jax.grad(
        lambda y: losses.mel_distance(
            jnp.zeros((1, 2000)), y, sample_rate=24000, window_lengths=(256,), n_mels=(40,)
        )
    )(jnp.zeros((1, 2000)))
    assert np.isfinite(gradient).all()
