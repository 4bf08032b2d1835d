"""The generator's stacks, its training pass, its sizes and its frame counts against upstream."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import oracle
import pytest
import torch
import upstream
from upstream import SAMPLE_RATE, channels_last, compare_codes

from dualcodec_jax.config import PRESETS, DualCodecConfig
from dualcodec_jax.convert.engine import flatten
from dualcodec_jax.lengths import (
    acoustic_frames,
    code_length,
    decoded_samples,
    min_samples,
    samples_for_codes,
)
from dualcodec_jax.nn.codec import DualCodec

STACKS = 1e-5
TRAINING = 1e-4
FRAMES = 12


def noise(*shape: int, scale: float = 1.0) -> np.ndarray:
    return np.float32(scale) * np.random.default_rng(shape).standard_normal(shape, np.float32)


def channels_first(x: np.ndarray) -> Any:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


# Sizes --------------------------------------------------------------------------------------

SIZES = {
    "12hz_v1": {
        "dac.encoder": (147, 16_238_144),
        "dac.quantizer": (49, 358_512),
        "dac.decoder": (147, 40_446_770),
        "convnext_encoder": (35, 13_412_864),
        "semantic_vq": (7, 144_912),
        "convnext_decoder": (35, 13_413_376),
    },
    "25hz_v1": {
        "dac.encoder": (119, 21_881_984),
        "dac.quantizer": (77, 293_040),
        "dac.decoder": (119, 53_145_698),
        "convnext_encoder": (35, 13_412_864),
        "semantic_vq": (7, 144_912),
        "convnext_decoder": (35, 13_413_376),
    },
}
TOTALS = {"12hz_v1": (420, 84_014_578), "25hz_v1": (392, 102_291_874)}


def test_configuration(original: Any, model_id: str) -> None:
    """Our presets say what upstream's configuration files and classes say."""
    model, config = original.model, PRESETS[model_id].codec
    assert config.hop_length == model.dac.hop_length
    assert config.latent_dim == model.dac.latent_dim
    assert list(config.encoder_rates) == model.dac.encoder_rates
    assert list(config.decoder_rates) == model.dac.decoder_rates
    assert config.sample_rate == model.dac.sample_rate
    assert config.quantizer_dropout == model.dac.quantizer.quantizer_dropout
    assert config.semantic_downsample_factor == model.semantic_downsample_factor
    assert config.decode_semantic_for_codec == model.decode_semantic_for_codec
    assert config.is_causal == model.convnext_encoder[1].is_causal
    books = [*model.semantic_vq.quantizers, *model.dac.quantizer.quantizers]
    assert config.codebook_sizes == tuple(book.codebook_size for book in books)


def test_parameter_counts(original: Any, generator: Any, model_id: str) -> None:
    theirs = {name: tuple(p.shape) for name, p in original.model.named_parameters()}
    ours = {".".join(path): leaf for path, leaf in flatten(generator.params).items()}
    assert (len(theirs), original_size(theirs)) == TOTALS[model_id]
    assert (len(ours), generator.num_parameters) == TOTALS[model_id]
    for part, expected in SIZES[model_id].items():
        own = {name: leaf.shape for name, leaf in ours.items() if name.startswith(f"{part}.")}
        upstreams = {name: s for name, s in theirs.items() if name.startswith(f"{part}.")}
        assert (len(own), original_size(own)) == expected
        assert (len(upstreams), original_size(upstreams)) == expected


def original_size(shapes: dict[str, tuple[int, ...]]) -> int:
    return sum(int(np.prod(shape)) for shape in shapes.values())


# Stacks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "part", ["DAC encoder", "DAC decoder", "ConvNeXt encoder", "ConvNeXt decoder"]
)
def test_stack(report: Any, original: Any, generator: Any, part: str) -> None:
    """As trained; ``test_parity_inference.py`` runs the folded form."""
    config, model = generator.config, original.model
    size = {
        "DAC encoder": (FRAMES * config.hop_length, 1),
        "DAC decoder": (FRAMES, config.latent_dim),
        "ConvNeXt encoder": (5 * FRAMES, config.semantic_dim),
        "ConvNeXt decoder": (5 * FRAMES, config.convnext_dim),
    }[part]
    modules = {
        "DAC encoder": (model.dac.encoder, lambda m, x: m.dac.encoder(x)),
        "DAC decoder": (model.dac.decoder, lambda m, x: m.dac.decoder(x)),
        "ConvNeXt encoder": (model.convnext_encoder, lambda m, x: m.convnext_encoder(x)),
        "ConvNeXt decoder": (model.convnext_decoder, lambda m, x: m.convnext_decoder(x)),
    }
    x = noise(2, *size, scale=0.1 if part == "DAC encoder" else 1.0)
    module, method = modules[part]
    with torch.no_grad():
        expected = channels_last(module(channels_first(x)))
    assert expected.std() > 0.05
    apply = jax.jit(lambda params, x: DualCodec(config).apply(params, x, method=method))
    report.error(part, apply({"params": generator.params}, x), expected, STACKS)


# Training pass ------------------------------------------------------------------------------


@pytest.mark.parametrize("bypass", [False, True])
def test_training_pass(
    report: Any,
    original: Any,
    generator: Any,
    model_id: str,
    monkeypatch: pytest.MonkeyPatch,
    bypass: bool,
) -> None:
    """Upstream's ``forward`` in training, with known draws: audio, latents, codes, losses."""
    config, model, batch = generator.config, original.model, 2
    samples = FRAMES * config.hop_length + 701
    frames = code_length(samples, config)
    clips = [upstream.clip(name, samples, 9000)[0, 0] for name in ("librivox", "librivox_0920")]
    audio, features = np.stack(clips)[..., None], noise(batch, frames, config.semantic_dim)
    active = np.array([2, config.n_codebooks])
    monkeypatch.setattr(torch, "randint", lambda *_: torch.from_numpy(active))
    model.train()
    try:
        with torch.no_grad():
            acoustic, semantic = model(
                channels_first(audio),
                semantic_repr=channels_first(features),
                bypass_quantize_rate=1.0 if bypass else 0.0,
            )
    finally:
        model.eval()
    assert semantic.bypassed_quantize == bypass
    output = jax.jit(lambda params, *x: DualCodec(config).apply(params, *x, bypass=bypass))(
        {"params": generator.params}, audio, features, None, active
    )
    report.error("training pass, audio", output.audio, channels_last(acoustic.x), TRAINING)
    report.error(
        "training pass, semantic latent", output.semantic_latent, channels_last(semantic.x), STACKS
    )
    check_quantizer(report, model_id, model.semantic_vq, output.semantic, semantic)
    if bypass:
        assert output.acoustic is None
        assert acoustic.codes is None
    else:
        check_quantizer(report, model_id, model.dac.quantizer, output.acoustic, acoustic)


def check_quantizer(report: Any, model_id: str, quantizer: Any, output: Any, expected: Any) -> None:
    rows = np.split(channels_last(expected.latents), expected.codes.shape[1], axis=-1)
    tables = [layer.codebook.weight.detach().numpy() for layer in quantizer.quantizers]
    counts = compare_codes(output.codes, expected.codes.numpy(), rows, tables)
    report.codes(model_id, "training pass", counts)
    losses = [output.commitment_loss, output.codebook_loss]
    report.error(
        "training pass, losses",
        np.array(losses),
        np.array([expected.penalty, expected["vq/codebook_loss"]]),
        STACKS,
    )


# Lengths ------------------------------------------------------------------------------------


def class_boundaries(config: DualCodecConfig) -> list[int]:
    """About 40 lengths: around every place where a count changes, short and long."""
    lengths: set[int] = set()
    for frames in (1, 2, 3, 4, 5, 8, 13):
        first = samples_for_codes(frames, config)
        lengths |= {first, first + 1, first + 240}
        if frames > 1:
            lengths.add(first - 1)
    for hops in (2, 3, 7, 12):
        lengths |= {hops * config.hop_length + offset for offset in (-1, 0, 1)}
    lengths |= {24000, 48001, 48130, 72137, 7200}
    shortest = min_samples(config)
    return sorted(n for n in lengths if n >= shortest)


def upstream_code_length(num_samples: int, config: DualCodecConfig) -> int:
    """T by upstream's own resampling, feature extraction and pooling, on noise."""
    audio = np.random.default_rng(0).standard_normal((1, num_samples), np.float32)
    audio = oracle.resample(torch.from_numpy(audio), SAMPLE_RATE, 16000)
    features = upstream.feature_extractor()(audio, sampling_rate=16000, return_tensors="pt")
    factor = config.semantic_downsample_factor
    hidden = features["input_features"].transpose(1, 2)
    return torch.nn.functional.avg_pool1d(hidden, factor, factor).shape[2]


@pytest.mark.parametrize("name", upstream.MODEL_IDS)
def test_code_length(name: str) -> None:
    config = PRESETS[name].codec
    lengths = class_boundaries(config)
    assert len(lengths) >= 38
    for num_samples in lengths:
        frames = upstream_code_length(num_samples, config)
        assert code_length(num_samples, config) == frames, num_samples
        assert acoustic_frames(num_samples, config) - frames in (1, 2)


@pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")
@pytest.mark.parametrize(("name", "shortest"), [("12hz_v1", 2039), ("25hz_v1", 1079)])
def test_shortest_audio(name: str, shortest: int) -> None:
    config = PRESETS[name].codec
    assert min_samples(config) == shortest
    assert upstream_code_length(shortest, config) == 1
    assert code_length(shortest - 1, config) == 0
    with pytest.raises((RuntimeError, ValueError)):
        upstream_code_length(shortest - 1, config)


@pytest.mark.parametrize("name", upstream.MODEL_IDS)
def test_acoustic_frames_and_decoded_samples(name: str) -> None:
    """Lengths do not depend on the width, so a narrow encoder and decoder will do."""
    config = PRESETS[name].codec
    encoder = oracle.dac_model.Encoder(2, config.encoder_rates, 4)
    decoder = oracle.dac_model.Decoder(4, 64, config.decoder_rates)
    dac = oracle.dac_model.DAC(
        2, config.encoder_rates, 4, 64, config.decoder_rates, sample_rate=SAMPLE_RATE
    )
    with torch.no_grad():
        for num_samples in (1, config.hop_length - 1, config.hop_length, 7 * config.hop_length + 1):
            audio = dac.preprocess(torch.zeros(1, 1, num_samples), SAMPLE_RATE)
            assert encoder(audio).shape[2] == acoustic_frames(num_samples, config)
        for frames in (1, 2, 3, 10, 37):
            samples = decoder(torch.zeros(1, 4, frames)).shape[2]
            assert samples == decoded_samples(frames, config) == frames * config.hop_length - 4
