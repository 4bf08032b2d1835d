"""Every block of the generator alone: outputs, codes, losses and gradients against upstream."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import torch
import upstream
from upstream import channels_last, compare_codes

from dualcodec_jax.config import PRESETS, DualCodecConfig
from dualcodec_jax.convert import engine
from dualcodec_jax.convert.codec import codec_rules
from dualcodec_jax.nn.convnext import ConvNeXtBlock
from dualcodec_jax.nn.dac import DILATIONS, DecoderBlock, EncoderBlock, ResidualUnit
from dualcodec_jax.nn.layers import Snake, WNConv1d, WNConvTranspose1d, fold_weight_norm
from dualcodec_jax.nn.quantize import ResidualVectorQuantize, VectorQuantize

BLOCKS = 1e-5
GRADIENTS = 1e-5
SEMANTIC = "semantic_vq.quantizers.0"


def noise(*shape: int, scale: float = 1.0) -> np.ndarray:
    """Normal noise ``[B, T, C]``, the same for the same shape."""
    return np.float32(scale) * np.random.default_rng(shape).standard_normal(shape, np.float32)


def channels_first(x: np.ndarray) -> Any:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


def tensors(module: Any) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy().copy() for name, value in module.named_parameters()}


class Twin:
    """A block of upstream's, ours beside it, and the table between their parameters.

    ``rules`` name tensors relative to ``module`` and lead to paths below ``("block",)``.
    """

    def __init__(self, module: Any, block: Any, rules: list[engine.Rule], x: np.ndarray) -> None:
        self.module, self.block, self.rules, self.x = module, block, rules, x
        shapes = jax.eval_shape(block.init, jax.random.key(0), x)["params"]
        converted = engine.to_jax(tensors(module), rules, {"block": shapes}, what="a block")
        self.params = converted["block"]

    def run(self, params: Any) -> jax.Array:
        return jax.jit(self.block.apply)({"params": params}, self.x)

    def check(self, report: Any, what: str) -> None:
        """Output, folded output, and gradients with respect to the input and every parameter."""
        source = channels_first(self.x).requires_grad_()
        self.module.zero_grad()
        expected = self.module(source)
        slope = noise(*channels_last(expected).shape)
        (expected * channels_first(slope)).sum().backward()

        @jax.jit
        def forward_and_back(params: Any, x: jax.Array) -> Any:
            output, pull = jax.vjp(lambda p, x: self.block.apply({"params": p}, x), params, x)
            return output, pull(slope)

        output, (by_params, by_input) = forward_and_back(self.params, self.x)
        report.error(what, output, channels_last(expected), BLOCKS)
        report.error(f"{what}, gradient by input", by_input, channels_last(source.grad), GRADIENTS)
        gradients = engine.to_torch({"block": by_params}, self.rules, what="the gradients")
        for name, parameter in self.module.named_parameters():
            report.error(
                f"{what}, gradient by parameters", gradients[name], parameter.grad, GRADIENTS
            )
        self.check_folded(report, what, channels_last(expected))

    def check_folded(self, report: Any, what: str, expected: np.ndarray) -> None:
        folded = fold_weight_norm(self.params)
        report.error(f"{what}, folded", self.run(folded), expected, BLOCKS)

    def check_output(self, report: Any, what: str) -> None:
        with torch.no_grad():
            expected = channels_last(self.module(channels_first(self.x)))
        report.error(what, self.run(self.params), expected, BLOCKS)
        self.check_folded(report, what, expected)


def randomized(module: Any) -> Any:
    """An upstream module with every parameter away from its initial value."""
    wrapped = torch.nn.ModuleDict({"layer": module})
    upstream.randomize_codec(wrapped, seed=1)
    return module


def single(rules: list[engine.Rule], prefix: str = "layer.") -> list[engine.Rule]:
    """Rules with keys relative to a module; the paths already start with ``block``."""
    return [engine.Rule(r.torch_key.removeprefix(prefix), r.path, r.transform) for r in rules]


def part_of(model: Any, config: DualCodecConfig, name: str, path: str) -> Any:
    """Submodule ``name`` of upstream's generator and its rules, for the parameters at ``path``."""
    target = tuple(path.split("/"))
    rules = [
        engine.Rule(
            rule.torch_key.removeprefix(f"{name}."),
            ("block", *rule.path[len(target) :]),
            rule.transform,
        )
        for rule in codec_rules(config)
        if rule.path[: len(target)] == target
    ]
    return model.get_submodule(name), rules


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "padding"),
    [
        (7, 1, 1, 3),
        (7, 1, 3, 9),
        (7, 1, 9, 27),
        (1, 1, 1, 0),
        (3, 1, 1, 1),
        (4, 2, 1, 1),
        (8, 4, 1, 2),
        (10, 5, 1, 3),
        (12, 6, 1, 3),
        (16, 8, 1, 4),
        (5, 3, 2, 0),
    ],
)
def test_convolution(report: Any, kernel: int, stride: int, dilation: int, padding: int) -> None:
    options = {"stride": stride, "dilation": dilation, "padding": padding}
    module = randomized(oracle.dac_layers.WNConv1d(24, 40, kernel, **options))
    block = WNConv1d(40, kernel_size=kernel, **options)
    rules = single(engine.weight_norm_rules("layer", ("block",)))
    Twin(module, block, rules, noise(2, 61, 24)).check(report, "WNConv1d")


@pytest.mark.parametrize("stride", [2, 3, 4, 5, 6, 7, 8])
def test_transposed_convolution(report: Any, stride: int) -> None:
    module = randomized(
        oracle.dac_layers.WNConvTranspose1d(
            24, 40, 2 * stride, stride=stride, padding=math.ceil(stride / 2)
        )
    )
    rules = engine.weight_norm_rules(
        "layer", ("block",), engine.CONV_TRANSPOSE1D, engine.GAIN_TRANSPOSE1D
    )
    block = WNConvTranspose1d(40, stride)
    Twin(module, block, single(rules), noise(2, 13, 24)).check(report, "WNConvTranspose1d")


@pytest.mark.parametrize("scale", [0.01, 1, 30])
def test_snake(report: Any, scale: float) -> None:
    module = randomized(oracle.dac_layers.Snake1d(48))
    rules = [engine.Rule("alpha", ("block", "alpha"), engine.CHANNELS)]
    Twin(module, Snake(), rules, noise(2, 50, 48, scale=scale)).check(report, "Snake")


@pytest.mark.parametrize("is_causal", [True, False])
def test_convnext_block(report: Any, is_causal: bool) -> None:
    module = randomized(oracle.cnn.ConvNeXtBlock(768, 2048, is_causal=is_causal))
    prefix = "convnext_decoder.0."
    rules = [
        engine.Rule(r.torch_key.removeprefix(prefix), ("block", *r.path[2:]), r.transform)
        for r in codec_rules(PRESETS["12hz_v1"].codec)
        if r.torch_key.startswith(prefix)
    ]
    block = ConvNeXtBlock(768, 2048, is_causal)
    what = "ConvNeXtBlock, causal" if is_causal else "ConvNeXtBlock, symmetric"
    Twin(module, block, rules, noise(2, 23, 768)).check(report, what)


@pytest.mark.parametrize("unit", range(3))
def test_residual_unit(report: Any, original: Any, generator: Any, unit: int) -> None:
    name, path = f"dac.encoder.block.2.block.{unit}", f"dac/encoder/block_1/res_{unit}"
    module, rules = part_of(original.model, generator.config, name, path)
    dim = 2 * generator.config.encoder_dim
    block = ResidualUnit(dim, DILATIONS[unit])
    Twin(module, block, rules, noise(2, 70, dim)).check(report, "ResidualUnit")


@pytest.mark.parametrize("index", range(5))
def test_encoder_block(report: Any, original: Any, generator: Any, index: int) -> None:
    config = generator.config
    if index >= len(config.encoder_rates):
        pytest.skip("this model has four blocks")
    stride, dim = config.encoder_rates[index], config.encoder_dim * 2**index
    name, path = f"dac.encoder.block.{index + 1}", f"dac/encoder/block_{index}"
    module, rules = part_of(original.model, config, name, path)
    twin = Twin(module, EncoderBlock(dim, stride), rules, noise(2, 9 * stride, dim))
    twin.check_output(report, f"EncoderBlock, stride {stride}")


@pytest.mark.parametrize("index", range(5))
def test_decoder_block(report: Any, original: Any, generator: Any, index: int) -> None:
    config = generator.config
    if index >= len(config.decoder_rates):
        pytest.skip("this model has four blocks")
    stride, dim = config.decoder_rates[index], config.decoder_dim // 2**index
    name, path = f"dac.decoder.model.{index + 1}", f"dac/decoder/block_{index}"
    module, rules = part_of(original.model, config, name, path)
    twin = Twin(module, DecoderBlock(dim, stride), rules, noise(2, 9, dim))
    twin.check_output(report, f"DecoderBlock, stride {stride}")


def books(config: DualCodecConfig, name: str) -> tuple[int, int, int]:
    """Input size, codebook size and codebook dimension of a quantizer."""
    if name == SEMANTIC:
        return config.convnext_dim, config.semantic_codebook_size, config.semantic_codebook_dim
    return config.latent_dim, config.codebook_size, config.codebook_dim


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (SEMANTIC, "semantic_vq/quantizer_0"),
        ("dac.quantizer.quantizers.0", "dac/quantizer/quantizer_0"),
    ],
)
def test_vector_quantize(
    report: Any, original: Any, generator: Any, model_id: str, name: str, path: str
) -> None:
    """Codes, vectors, losses, and gradients through the straight-through estimator."""
    module, rules = part_of(original.model, generator.config, name, path)
    dim, size, codebook_dim = books(generator.config, name)
    twin = Twin(module, VectorQuantize(dim, size, codebook_dim), rules, noise(3, 200, dim))
    source = channels_first(twin.x).requires_grad_()
    module.zero_grad()
    quantized, commitment, codebook, codes, latents = module(source)
    slope = noise(3, 200, dim, scale=1e-3)
    weights = np.float32([1, 2, 3])
    loss = (quantized * channels_first(slope)).sum()
    (loss + (torch.from_numpy(weights) * (0.25 * commitment + codebook)).sum()).backward()

    @jax.jit
    def forward_and_back(params: Any, x: jax.Array) -> Any:
        def loss(params: Any, x: jax.Array) -> Any:
            output = twin.block.apply({"params": params}, x)
            by_item = 0.25 * output.commitment_loss + output.codebook_loss
            return jnp.sum(output.quantized * slope) + jnp.sum(weights * by_item), output

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x)

    (by_params, by_input), output = forward_and_back(twin.params, twin.x)
    what = "semantic VectorQuantize" if name == SEMANTIC else "acoustic VectorQuantize"
    counts = compare_codes(
        output.codes,
        codes.numpy()[:, None],
        [channels_last(latents)],
        [module.codebook.weight.detach().numpy()],
    )
    report.codes(model_id, what, counts)
    assert counts.equal == counts.total, "a flipped tie: draw another input"
    report.error(what, output.quantized, channels_last(quantized), BLOCKS)
    report.error(what, output.latents[:, 0], channels_last(latents), BLOCKS)
    losses = f"{what}, losses"
    report.error(losses, output.commitment_loss, commitment.detach(), BLOCKS)
    report.error(losses, output.codebook_loss, codebook.detach(), BLOCKS)
    gradients = engine.to_torch({"block": by_params}, rules, what="the gradients")
    for parameter_name, parameter in module.named_parameters():
        report.error(f"{what}, gradients", gradients[parameter_name], parameter.grad, GRADIENTS)
    report.error(f"{what}, gradients", by_input, channels_last(source.grad), GRADIENTS)
    decoded = twin.block.apply({"params": twin.params}, codes.numpy(), method="decode")
    with torch.no_grad():
        expected = module.out_proj(module.decode_code(codes))
    report.error(f"{what}, from codes", decoded, channels_last(expected), BLOCKS)


def rvq_twin(original: Any, config: DualCodecConfig, x: np.ndarray) -> Twin:
    module, rules = part_of(original.model, config, "dac.quantizer", "dac/quantizer")
    block = ResidualVectorQuantize(
        config.latent_dim, config.dac_codebook_sizes, config.codebook_dim
    )
    return Twin(module, block, rules, x)


def check_rvq(
    report: Any, model_id: str, what: str, twin: Twin, output: Any, expected: Any
) -> None:
    """``expected`` is what upstream's ``ResidualVectorQuantize.forward`` returns."""
    quantized, codes, latents, commitment, codebook, _ = expected
    rows = np.split(channels_last(latents), codes.shape[1], axis=-1)
    tables = [layer.codebook.weight.detach().numpy() for layer in twin.module.quantizers]
    counts = compare_codes(output.codes, codes.numpy(), rows, tables)
    report.codes(model_id, what, counts)
    assert counts.equal == counts.total, "a flipped tie: draw another input"
    report.error(what, output.quantized, channels_last(quantized), BLOCKS)
    report.error(what, np.moveaxis(np.asarray(output.latents), 1, 0), np.stack(rows), BLOCKS)
    report.error(f"{what}, losses", output.commitment_loss, commitment.detach(), BLOCKS)
    report.error(f"{what}, losses", output.codebook_loss, codebook.detach(), BLOCKS)


def test_residual_vector_quantize(
    report: Any, original: Any, generator: Any, model_id: str
) -> None:
    """Every number of layers, and decoding of every prefix."""
    config = generator.config
    twin = rvq_twin(original, config, noise(2, 60, config.latent_dim))
    for count in range(1, config.n_codebooks + 1):
        output = twin.block.apply({"params": twin.params}, twin.x, count)
        with torch.no_grad():
            expected = twin.module(channels_first(twin.x), n_quantizers=count)
            decoded = twin.module.from_codes(expected[1])[0]
        assert expected[1].shape[1] == count
        check_rvq(report, model_id, "ResidualVectorQuantize", twin, output, expected)
        own = twin.block.apply({"params": twin.params}, expected[1].numpy(), method="decode")
        report.error("ResidualVectorQuantize, from codes", own, channels_last(decoded), BLOCKS)


@pytest.mark.parametrize("dropout", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("possibly_none", [False, True])
def test_quantizer_dropout(
    report: Any,
    original: Any,
    generator: Any,
    model_id: str,
    monkeypatch: pytest.MonkeyPatch,
    dropout: float,
    possibly_none: bool,
) -> None:
    """Upstream in training with known draws, and ours with ``active``: values and gradients."""
    config, batch = generator.config, 4
    twin = rvq_twin(original, config, noise(batch, 20, config.latent_dim))
    draws = np.array([0 if possibly_none else 3, config.n_codebooks, 1, 2])
    asked: list[tuple[int, int]] = []

    def known(low: int, high: int, _: Any) -> Any:
        asked.append((low, high))
        return torch.from_numpy(draws)

    active = np.where(np.arange(batch) < int(batch * dropout), draws, config.n_codebooks + 1)
    slope = noise(batch, 20, config.latent_dim, scale=1e-3)
    source = channels_first(twin.x).requires_grad_()
    monkeypatch.setattr(torch, "randint", known)
    monkeypatch.setattr(twin.module, "quantizer_dropout", dropout)
    twin.module.train()
    try:
        expected = twin.module(source, n_quantizers=2, possibly_no_quantizer=possibly_none)
    finally:
        twin.module.eval()
    assert asked == [(0 if possibly_none else 1, config.n_codebooks + 1)]
    loss = (expected[0] * channels_first(slope)).sum()
    (loss + 0.25 * expected[3] + expected[4]).backward()
    output, by_input = dropped(twin, config)(twin.params, twin.x, active, slope)
    what = "ResidualVectorQuantize, dropout"
    check_rvq(report, model_id, what, twin, output, expected)
    report.error(f"{what}, gradient by input", by_input, channels_last(source.grad), GRADIENTS)


_COMPILED: dict[DualCodecConfig, Callable[..., Any]] = {}


def dropped(twin: Twin, config: DualCodecConfig) -> Callable[..., Any]:
    """Our quantizer with ``active``, and the gradient by its input; compiled once a model."""

    @jax.jit
    def forward_and_back(params: Any, x: jax.Array, active: jax.Array, slope: jax.Array) -> Any:
        def loss(x: jax.Array) -> Any:
            output = twin.block.apply({"params": params}, x, None, active)
            regular = 0.25 * output.commitment_loss + output.codebook_loss
            return jnp.sum(output.quantized * slope) + regular, output

        gradient, output = jax.grad(loss, has_aux=True)(x)
        return output, gradient

    return _COMPILED.setdefault(config, forward_and_back)
