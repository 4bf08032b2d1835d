"""The discriminator against upstream's, with random weights at the released size.

Activations are compared in float32. Gradients are compared twice, because the slope of a
leaky ReLU jumps at 0: among a million activations some lie so near to it that float32
rounding decides the slope, and one such element moves the gradient of a small tensor by up
to 1 % (upstream's own float32 gradients are as far from its float64 ones). So there is one
comparison in float32, of all tensors, with biases that keep every activation away from 0,
and one in float64, of fewer sub-discriminators, with activations on both sides.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from dualcodec_jax.audio import spectral
from dualcodec_jax.config import DiscriminatorConfig
from dualcodec_jax.convert import engine
from dualcodec_jax.convert.discriminator import discriminator_rules
from dualcodec_jax.nn import discriminator
from dualcodec_jax.nn.discriminator import (
    Discriminator,
    PeriodDiscriminator,
    SpectralDiscriminator,
    WNConv2d,
)

torch = oracle.torch
UPSTREAM = sys.modules[oracle.Discriminator.__module__]
CONFIG = DiscriminatorConfig()
FEWER = DiscriminatorConfig(periods=(2, 11), fft_sizes=(512,))
RULES = discriminator_rules(CONFIG)
SAMPLE_RATE = 24000
ACTIVATIONS = 1e-5
GRADIENTS = 1e-4
# Multiples of all periods, of all hops, and of none of them.
ALL_PERIODS, ALL_HOPS, NEITHER = 4620, 4608, 5003


def noise(num_samples: int, batch: int = 2) -> Any:
    """Noise with an offset, ``[B, N]``."""
    x = np.random.default_rng(num_samples).standard_normal((batch, num_samples))
    return (0.1 * x + 0.03).astype(np.float32)


def error(actual: Any, expected: Any) -> float:
    """Greatest difference, relative to the greatest expected magnitude."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    return float(np.max(np.abs(actual - expected)) / np.max(np.abs(expected)))


def channels_last(x: Any) -> np.ndarray:
    return np.moveaxis(x.detach().numpy(), 1, -1)


def tensors(module: Any) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in module.state_dict().items()}


def seeded(build: Any, gain: float = 6**0.5) -> Any:
    """An upstream module with random gains: unlike ‖v‖, and so large that signals survive."""
    torch.manual_seed(0)
    module = build()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith("weight_g"):
                parameter.mul_(gain * (0.5 + torch.rand_like(parameter)))
    return module


def steady() -> Any:
    """Upstream's discriminator with biases that outweigh every convolution's response."""
    module = seeded(lambda: oracle.Discriminator(sample_rate=SAMPLE_RATE), gain=0.3)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith("bias"):
                parameter.copy_(2 * torch.sign(parameter))
            elif "band_convs" in name and name.endswith(".0.0.weight_g"):
                parameter.mul_(0.02)  # Spectra are large.
    return module


def parameter_shapes(config: DiscriminatorConfig) -> Any:
    model, audio = Discriminator(config), jnp.zeros((1, NEITHER, 1))
    return jax.eval_shape(model.init, jax.random.key(0), audio)["params"]


def converted(module: Any, config: DiscriminatorConfig = CONFIG) -> Any:
    rules, shapes = discriminator_rules(config), parameter_shapes(config)
    return engine.to_jax(tensors(module), rules, shapes, what="the discriminator")


def converted_part(module: Any, prefix: str, path: str) -> Any:
    """Parameters of one sub-discriminator, by its part of the table."""
    rules = [
        engine.Rule(rule.torch_key.removeprefix(prefix), rule.path, rule.transform)
        for rule in RULES
        if rule.torch_key.startswith(prefix)
    ]
    shapes = {path: parameter_shapes(CONFIG)[path]}
    return engine.to_jax(tensors(module), rules, shapes, what=path)[path]


def lsgan_generator_loss(scores: list[Any]) -> Any:
    return sum(((1 - score) ** 2).mean() for score in scores)


@functools.partial(jax.jit, static_argnums=0)
def outputs_and_gradients(config: DiscriminatorConfig, params: Any, audio: jax.Array) -> Any:
    """Outputs, and gradients of the loss with respect to parameters and audio."""

    def loss(params: Any, audio: jax.Array) -> Any:
        outputs: Any = Discriminator(config).apply({"params": params}, audio)
        return lsgan_generator_loss([output.score for output in outputs]), outputs

    gradients, outputs = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, audio)
    return outputs, *gradients


def upstream_gradients(module: Any, audio: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    x: Any = torch.tensor(audio[:, None], requires_grad=True)
    module.zero_grad()
    lsgan_generator_loss([features[-1] for features in module(x)]).backward()
    named = {name: value.grad.numpy().copy() for name, value in module.named_parameters()}
    return named, x.grad.numpy()[:, 0]


def assert_gradients(
    module: Any, config: DiscriminatorConfig, params: Any, audio: np.ndarray, limit: float
) -> None:
    """Gradients with respect to every parameter and the audio, each relative to its maximum."""
    _, by_params, by_audio = outputs_and_gradients(config, params, audio[..., None])
    assert by_audio.dtype == audio.dtype
    actual = engine.to_torch(by_params, discriminator_rules(config), what="the gradients")
    expected, expected_audio = upstream_gradients(module, audio)
    errors = {name: error(actual[name], expected[name]) for name in expected}
    errors["audio"] = error(np.asarray(by_audio)[..., 0], expected_audio)
    assert {name: value for name, value in errors.items() if not value <= limit} == {}


def assert_outputs(outputs: Any, expected: list[list[Any]]) -> None:
    """Every feature map and score of every sub-discriminator."""
    assert len(outputs) == len(expected)
    for output, features in zip(outputs, expected, strict=True):
        own = [*output.features, output.score]
        for a, b in zip(own, features, strict=True):
            assert error(a, channels_last(b)) <= ACTIVATIONS


@pytest.fixture(scope="module")
def upstream() -> Any:
    return seeded(lambda: oracle.Discriminator(sample_rate=SAMPLE_RATE))


@pytest.fixture(scope="module")
def params(upstream: Any) -> Any:
    return converted(upstream)


def test_conversion_is_total_and_exact(upstream: Any, params: Any) -> None:
    state = tensors(upstream)
    assert len(state) == len(RULES) == 324
    assert sum(value.size for value in state.values()) == 46_698_544
    back = engine.to_torch(params, RULES, what="the discriminator")
    assert back.keys() == state.keys()
    assert all(np.array_equal(back[key], value) for key, value in state.items())


def test_all_activations(upstream: Any, params: Any) -> None:
    audio = noise(NEITHER)
    outputs, _, _ = outputs_and_gradients(CONFIG, params, audio[..., None])
    with torch.no_grad():
        assert_outputs(outputs, upstream(torch.tensor(audio[:, None])))


@pytest.mark.parametrize("num_samples", [ALL_PERIODS, ALL_HOPS])
def test_all_activations_at_whole_periods_and_hops(
    upstream: Any, params: Any, num_samples: int
) -> None:
    audio = noise(num_samples)
    outputs = jax.jit(Discriminator(CONFIG).apply)({"params": params}, audio[..., None])
    with torch.no_grad():
        assert_outputs(outputs, upstream(torch.tensor(audio[:, None])))


def test_gradients_away_from_kinks() -> None:
    module = steady()
    assert_gradients(module, CONFIG, converted(module), noise(NEITHER), GRADIENTS)


class DoubleSignal(oracle.AudioSignal):
    """An AudioSignal that leaves float64 audio alone."""

    def load_from_array(self, audio_array: Any, sample_rate: int, device: str = "cpu") -> Any:
        self.audio_data, self.sample_rate = audio_array, sample_rate
        self.original_signal_length = self.signal_length
        return self

    @staticmethod
    def get_window(*arguments: Any) -> Any:
        return oracle.AudioSignal.get_window(*arguments).double()


def test_gradients_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UPSTREAM, "AudioSignal", DoubleSignal)
    module = seeded(
        lambda: oracle.Discriminator(
            periods=FEWER.periods, fft_sizes=FEWER.fft_sizes, sample_rate=SAMPLE_RATE
        )
    )
    params = jax.tree.map(lambda leaf: leaf.astype(np.float64), converted(module, FEWER))
    with jax.enable_x64(True):
        audio = noise(1601).astype(np.float64)
        assert_gradients(module.double(), FEWER, params, audio, 1e-10)


@pytest.mark.parametrize(
    ("kernel", "stride"), [((5, 1), (3, 1)), ((3, 9), (1, 2)), ((3, 3), (1, 1))]
)
def test_convolution_alone(kernel: tuple[int, int], stride: tuple[int, int]) -> None:
    padding = (kernel[0] // 2, kernel[1] // 2)
    module = seeded(lambda: UPSTREAM.WNConv2d(6, 10, kernel, stride, padding, act=False))
    rules = engine.weight_norm_rules("conv", ("conv",), engine.CONV2D)
    x = np.random.default_rng(0).standard_normal((2, 23, 31, 6)).astype(np.float32)
    model = WNConv2d(10, kernel, stride)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
    named = {f"conv.{name}": value for name, value in tensors(module).items()}
    params = engine.to_jax(named, rules, {"conv": shapes}, what="a convolution")["conv"]
    source = torch.tensor(np.moveaxis(x, -1, 1), requires_grad=True)
    expected = module(source)
    assert error(model.apply({"params": params}, x), channels_last(expected)) <= 1e-6

    def loss(params: Any, x: jax.Array) -> jax.Array:
        y: Any = model.apply({"params": params}, x)
        return jnp.sum(y**2)

    by_params, by_x = jax.grad(loss, argnums=(0, 1))(params, x)
    (expected**2).sum().backward()
    back = engine.to_torch({"conv": by_params}, rules, what="the gradients")
    for name, parameter in module.named_parameters():
        assert error(back[f"conv.{name}"], parameter.grad) <= 1e-5
    assert error(by_x, channels_last(source.grad)) <= 1e-5


@pytest.mark.parametrize("num_samples", [7 * 100, 701])
def test_period_discriminator_alone(num_samples: int) -> None:
    module = seeded(lambda: UPSTREAM.MPD(7))
    params = converted_part(module, "discriminators.3.", "period_3")
    audio = noise(num_samples)
    model = PeriodDiscriminator(7, CONFIG.period_channels)
    output = jax.jit(model.apply)({"params": params}, audio[..., None])
    with torch.no_grad():
        assert_outputs([output], [module(torch.tensor(audio[:, None]))])


@pytest.mark.parametrize("num_samples", [128 * 8, 128 * 8 + 1])
def test_spectral_discriminator_alone(num_samples: int) -> None:
    module = seeded(lambda: UPSTREAM.MRD(512, sample_rate=SAMPLE_RATE))
    params = converted_part(module, "discriminators.7.", "spectral_2")
    audio = noise(num_samples)
    model = SpectralDiscriminator(512, CONFIG.bands, CONFIG.spectral_channels)
    output = jax.jit(model.apply)({"params": params}, audio[..., None])
    with torch.no_grad():
        assert_outputs([output], [module(torch.tensor(audio[:, None]))])


# In the square wave all samples share the peak; its mean is exactly 0.
SQUARE_WAVE = np.tile(np.array([0.5, 0.5, -0.5, -0.5], np.float32), (2, 100))


@pytest.mark.parametrize("audio", [noise(500), np.zeros((1, 500), np.float32), SQUARE_WAVE])
def test_preprocess_and_its_gradient(audio: np.ndarray) -> None:
    slope = np.random.default_rng(1).standard_normal(audio.shape).astype(np.float32)
    x = torch.tensor(audio[:, None], requires_grad=True)
    expected = UPSTREAM.Discriminator.preprocess(None, x)
    (expected * torch.tensor(slope[:, None])).sum().backward()
    actual, pull = jax.vjp(discriminator.normalize, audio[..., None])
    np.testing.assert_allclose(actual, channels_last(expected), atol=1e-6)
    assert error(pull(slope[..., None])[0], channels_last(x.grad)) <= 1e-5


@pytest.mark.parametrize(("window", "hop"), [(2048, 512), (512, 128), (64, 24), (31, 7)])
@pytest.mark.parametrize("num_samples", [4608, 5003])
@pytest.mark.parametrize("center", [True, False])
def test_stft_alone(window: int, hop: int, num_samples: int, center: bool) -> None:
    audio = noise(num_samples)
    reference = torch.stft(
        torch.tensor(audio),
        window,
        hop,
        window=oracle.AudioSignal.get_window("hann", window, "cpu"),
        center=center,
        return_complex=True,
    )
    expected = reference.transpose(1, 2).numpy()
    assert error(spectral.stft(audio, window, hop, center=center), expected) <= 1e-6


# 12 and 3: for an odd hop audiotools gives one frame fewer.
@pytest.mark.parametrize(("window", "hop"), [(2048, 512), (1024, 256), (512, 128), (12, 3)])
@pytest.mark.parametrize("num_samples", [1153, ALL_HOPS, NEITHER])
def test_stft_with_match_stride_alone(window: int, hop: int, num_samples: int) -> None:
    audio = noise(num_samples)
    params = oracle.STFTParams(window, hop, window_type="hann", match_stride=True)
    signal = oracle.AudioSignal(torch.tensor(audio[:, None]), SAMPLE_RATE, stft_params=params)
    expected = signal.stft()[:, 0].transpose(1, 2).numpy()
    assert error(spectral.stft(audio, window, hop, match_stride=True), expected) <= 1e-6


@pytest.mark.parametrize("length", [2048, 512, 31])
def test_window_is_exact(length: int) -> None:
    expected = oracle.AudioSignal.get_window("hann", length, "cpu").numpy()
    assert np.array_equal(spectral.hann_window(length), expected)


def test_magnitude_and_its_gradient() -> None:
    audio = noise(2000)
    audio[:, 1000:] = 0  # Frames of exact zeros.
    x = torch.tensor(audio, requires_grad=True)
    window = oracle.AudioSignal.get_window("hann", 256, "cpu")
    expected = torch.abs(torch.stft(x, 256, 64, window=window, return_complex=True))
    slope = np.random.default_rng(1).standard_normal(expected.shape).astype(np.float32)
    (expected * torch.tensor(slope)).sum().backward()
    actual, pull = jax.vjp(lambda x: spectral.safe_magnitude(spectral.stft(x, 256, 64)), audio)
    assert error(actual, channels_last(expected)) <= 1e-6
    assert error(pull(np.swapaxes(slope, 1, 2))[0], x.grad) <= 1e-5
