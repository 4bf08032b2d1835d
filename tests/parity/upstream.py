"""The PyTorch originals with weights to compare against, and the rules of comparison.

There are no trained weights here, so the released architectures get random ones at their
full size: seeded, with biases, snake and layer-norm parameters away from their initial values,
and calibrated on speech so that codes are diverse and nothing saturates. They are written to
files laid out like the releases, which is where both implementations load them from.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import safetensors.torch
import torch
import yaml
from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2BertConfig, Wav2Vec2BertModel

import dualcodec_jax
from dualcodec_jax.audio.reader import read_audio
from dualcodec_jax.config import DualCodecConfig
from dualcodec_jax.convert.files import GENERATOR_FILES, STATISTICS_FILE

MODEL_IDS = ("12hz_v1", "25hz_v1")
SAMPLE_RATE = 24000
W2V_BERT_FOLDER = "w2v-bert-2.0"
CODEC_SEEDS = {"12hz_v1": 12, "25hz_v1": 25}
W2V_BERT_SEED = 2
NORMS = ("norm", "layer_norm")

UPSTREAM_INFERENCE = sys.modules[oracle.Inference.__module__]
DISCRIMINATOR_MODULE = sys.modules[oracle.Discriminator.__module__]


# Speech -------------------------------------------------------------------------------------


@functools.cache
def speech() -> dict[str, np.ndarray]:
    """Five clips of read speech at 24 kHz, float32 ``[N]``, resampled by upstream's resampler."""
    folder = Path(dualcodec_jax.__file__).parent
    files = [folder / "assets" / "librivox.flac"]
    files += sorted((Path(__file__).parents[1] / "data").glob("librivox_*.flac"))
    clips = {}
    for file in files:
        audio = read_audio(file)
        samples = torch.tensor(np.asarray(audio.samples).reshape(1, -1))
        clips[file.stem] = oracle.resample(samples, audio.sample_rate, SAMPLE_RATE)[0].numpy()
    return clips


def clip(name: str, num_samples: int, start: int = 0) -> np.ndarray:
    """A cut of a clip, ``[1, 1, num_samples]``."""
    samples = speech()[name][start : start + num_samples]
    assert samples.size == num_samples, f"{name} is too short"
    return samples[None, None]


# Weights ------------------------------------------------------------------------------------


def codec_arguments(model_id: str) -> dict[str, Any]:
    """Constructor arguments in upstream's own configuration file of a released model."""
    from dualcodec.infer.dualcodec.get_model import model_id_to_cfgname

    package = Path(UPSTREAM_INFERENCE.__file__).parents[2]
    config = yaml.safe_load((package / "conf/model" / model_id_to_cfgname[model_id]).read_text())
    arguments = dict(config["model"])
    assert arguments.pop("_target_") == "dualcodec.model_codec.DualCodec"
    assert arguments["sample_rate"] == "${..SAMPLE_RATE}"
    return {**arguments, "sample_rate": config["SAMPLE_RATE"]}


def bare_codec(model_id: str) -> Any:
    """Upstream's generator at a released size, in evaluation mode."""
    return oracle.DualCodec(**codec_arguments(model_id)).eval()


def bare_dac(codec: DualCodecConfig) -> Any:
    """Upstream's DAC at the sizes of a configuration without a semantic stream.

    It gives all codebooks one size; the first is replaced by one of its own size.
    """
    sizes = codec.codebook_sizes
    dac = oracle.DAC(
        encoder_dim=codec.encoder_dim,
        encoder_rates=list(codec.encoder_rates),
        decoder_dim=codec.decoder_dim,
        decoder_rates=list(codec.decoder_rates),
        n_codebooks=len(sizes),
        codebook_size=sizes[-1],
        codebook_dim=codec.codebook_dim,
        quantizer_dropout=codec.quantizer_dropout,
        sample_rate=codec.sample_rate,
        distill=codec.encoding == "dac_distilled",
        distill_projection_out_dim=codec.convnext_dim,
        is_causal=codec.is_causal,
    )
    first = oracle.dac_quantize.VectorQuantize(codec.latent_dim, sizes[0], codec.codebook_dim)
    first.apply(oracle.dac_model.init_weights)
    dac.quantizer.quantizers[0] = first
    return dac


def draw(rng: np.random.Generator, parameter: Any, low: float, high: float) -> None:
    """Fill a parameter from U(low, high)."""
    values = rng.random(tuple(parameter.shape), np.float32) * np.float32(high - low)
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(values + np.float32(low)))


def randomize_codec(model: Any, seed: int) -> None:
    """Draw every parameter; gains keep activations near 1 through all layers."""
    rng = np.random.default_rng(seed)
    modules = dict(model.named_modules())
    is_dac = isinstance(model, oracle.DAC)
    for name, parameter in model.named_parameters():
        owner, _, kind = name.rpartition(".")
        layer = modules[owner]
        if is_dac and owner.startswith(("encoder", "quantizer", "decoder")):
            owner = f"dac.{owner}"
        if kind == "alpha":
            draw(rng, parameter, 0.5, 1.5)
        elif kind == "bias":
            draw(rng, parameter, -0.2, 0.2)
        elif kind == "weight_v":
            limit = rng.uniform(0.5, 2) / math.sqrt(parameter[0].numel())
            draw(rng, parameter, -limit, limit)
        elif kind == "weight_g":
            gain = 0.6
            if isinstance(layer, torch.nn.ConvTranspose1d):
                gain = 0.6 * math.sqrt(layer.stride[0] / 2)
            elif owner.startswith("dac.encoder") and owner.endswith((".4", ".6", ".7")):
                gain = 0.9
            elif owner == "dac.encoder.block.0":
                gain = 10.0  # Speech is quiet.
            elif owner.startswith("dac") and ".block." in owner and owner.endswith(".block.3"):
                gain = 0.3  # End of a residual unit.
            draw(rng, parameter, 0.7 * gain, 1.3 * gain)
        elif isinstance(layer, torch.nn.LayerNorm):
            draw(rng, parameter, 0.5, 1.5)
        elif isinstance(layer, torch.nn.Embedding):
            draw(rng, parameter, -math.sqrt(3), math.sqrt(3))
        else:
            limit = math.sqrt(3 / parameter[0].numel())
            draw(rng, parameter, -limit, limit)


def bare_w2v_bert(num_layers: int, intermediate_size: int) -> Any:
    """The released w2v-BERT 2.0, but for depth and feed-forward width, in evaluation mode."""
    config = Wav2Vec2BertConfig(
        num_hidden_layers=num_layers, intermediate_size=intermediate_size, vocab_size=None
    )
    return Wav2Vec2BertModel(config).eval()


def randomize_w2v_bert(model: Any, seed: int) -> None:
    """Draw every parameter; attention is far from uniform."""
    rng = np.random.default_rng(seed)
    modules = dict(model.named_modules())
    for name, parameter in model.named_parameters():
        owner, _, kind = name.rpartition(".")
        layer = modules[owner]
        if isinstance(layer, torch.nn.LayerNorm) and kind == "weight":
            draw(rng, parameter, 0.5, 1.5)
        elif kind == "bias":
            draw(rng, parameter, -0.2, 0.2)
        elif isinstance(layer, torch.nn.Embedding):
            draw(rng, parameter, -1, 1)
        else:
            gain = {"linear_q": 1.3, "linear_k": 1.3, "linear_out": 0.5}.get(
                owner.split(".")[-1], 1.0
            )
            limit = gain * math.sqrt(3 / parameter[0].numel())
            draw(rng, parameter, -limit, limit)


def calibrate_codec(model: Any, audio: Any, features: Any) -> None:
    """:func:`calibrate` a ``DualCodec`` on its input."""
    quantizers = [*model.semantic_vq.quantizers, *model.dac.quantizer.quantizers]
    calibrate(quantizers, model.dac, lambda: model(audio, semantic_repr=features))


@torch.no_grad()
def calibrate(quantizers: list[Any], dac: Any, run: Callable[[], Any]) -> None:
    """Centre what every quantizer sees on speech, and keep the decoder out of saturation."""
    rng = np.random.default_rng(0)

    def centre(layer: Any, _: Any, output: Any) -> Any:
        shift = output.mean((0, 2))
        shift += torch.tensor(rng.uniform(-0.2, 0.2, len(shift)), dtype=shift.dtype) * output.std()
        layer.bias -= shift
        return output - shift[None, :, None]

    def rescale(layer: Any, _: Any, output: Any) -> Any:
        bias = layer.bias[None, :, None]
        scale = 0.3 / (output - bias).std()
        layer.weight_g *= scale
        return (output - bias) * scale + bias

    hooks = [quantizer.in_proj.register_forward_hook(centre) for quantizer in quantizers]
    hooks.append(dac.decoder.model[-2].register_forward_hook(rescale))
    run()
    for hook in hooks:
        hook.remove()


@dataclasses.dataclass(frozen=True)
class Release:
    """Folders laid out like ``amphion/dualcodec`` and ``facebook/w2v-bert-2.0``."""

    dualcodec: Path
    w2v_bert: Path

    def generator(self, model_id: str) -> Path:
        return self.dualcodec / GENERATOR_FILES[model_id]


STATISTICS_CLIPS = ("librivox", "librivox_0880")
CALIBRATION_CLIP = "librivox_0880"


def write_release(folder: Path, num_layers: int = 18, intermediate_size: int = 256) -> Release:
    """Write random, calibrated weights of all models, as upstream's packages write them.

    Of w2v-BERT's layers DualCodec reads 17; the release has 24 with a feed-forward of 4096.
    """
    release = Release(folder / "dualcodec", folder / W2V_BERT_FOLDER)
    release.dualcodec.mkdir(parents=True)
    semantic = bare_w2v_bert(num_layers, intermediate_size)
    randomize_w2v_bert(semantic, W2V_BERT_SEED)
    semantic.save_pretrained(release.w2v_bert)
    extractor = feature_extractor()
    extractor.save_pretrained(release.w2v_bert)
    hidden = {
        name: semantic_hidden(semantic, extractor, torch.from_numpy(speech()[name])[None])
        for name in STATISTICS_CLIPS
    }
    frames = torch.cat(list(hidden.values()), dim=1)[0]
    statistics = {"mean": frames.mean(0), "var": frames.var(0)}
    torch.save(statistics, release.dualcodec / STATISTICS_FILE)
    del semantic
    audio = torch.from_numpy(speech()[CALIBRATION_CLIP])[None, None]
    features = (hidden[CALIBRATION_CLIP] - statistics["mean"]) / statistics["var"].sqrt()
    for model_id in MODEL_IDS:
        codec = bare_codec(model_id)
        randomize_codec(codec, CODEC_SEEDS[model_id])
        factor = codec.semantic_downsample_factor
        pooled = torch.nn.functional.avg_pool1d(features.transpose(1, 2), factor, factor)
        calibrate_codec(codec, audio, pooled)
        safetensors.torch.save_file(codec.state_dict(), release.generator(model_id))
    gc.collect()
    return release


def feature_extractor() -> Any:
    """The released preprocessor."""
    return SeamlessM4TFeatureExtractor(
        feature_size=80, num_mel_bins=80, sampling_rate=16000, stride=2, padding_value=1.0
    )


@torch.no_grad()
def semantic_hidden(model: Any, extractor: Any, samples: Any) -> Any:
    """Output of the layer that DualCodec reads, ``[1, S, 1024]``, of 24 kHz samples ``[1, N]``."""
    samples = oracle.resample(samples, SAMPLE_RATE, 16000)
    inputs = extractor(samples, sampling_rate=16000, return_tensors="pt")
    return model(**inputs, output_hidden_states=True).hidden_states[17]


# Upstream's inference -----------------------------------------------------------------------


@dataclasses.dataclass
class Encoding:
    """What upstream computes on the way to its codes, channels last.

    ``latents`` holds one ``[B, T, d]`` for each row of ``codes [B, n, T]``: what its codebook
    is searched for.
    """

    codes: np.ndarray
    latents: list[np.ndarray]
    hidden: np.ndarray
    pooled: np.ndarray
    semantic_latent: np.ndarray
    acoustic: np.ndarray | None


class Upstream:
    """Upstream's own ``Inference`` on files, in float32: its forced autocast does nothing."""

    def __init__(self, release: Release, model_id: str) -> None:
        model = bare_codec(model_id)
        safetensors.torch.load_model(model, release.generator(model_id))
        self.inference = oracle.Inference(
            model, str(release.dualcodec), str(release.w2v_bert), device="cpu", autocast=False
        )
        self.model = model
        quantizers = [*model.semantic_vq.quantizers, *model.dac.quantizer.quantizers]
        self.codebooks = [q.codebook.weight.detach().numpy() for q in quantizers]
        self._in_proj = [q.in_proj for q in quantizers]

    def encode(self, audio: np.ndarray, n_quantizers: int | None = None) -> Encoding:
        """Run ``Inference.encode`` on ``audio [B, 1, N]`` and note what its modules return."""
        seen: dict[Any, Any] = {}
        semantic = self.inference.semantic_cfg.semantic_model
        model = self.model
        watched = [semantic, model.convnext_encoder, model.convnext_decoder, model.dac.encoder]

        def note(module: Any, inputs: Any, output: Any) -> None:
            seen[module] = inputs, output

        hooks = [module.register_forward_hook(note) for module in [*watched, *self._in_proj]]
        try:
            with without_autocast():
                rows = self.inference.encode(torch.from_numpy(audio), n_quantizers)
        finally:
            for hook in hooks:
                hook.remove()
        codes = np.concatenate([row.numpy() for row in rows if row is not None], axis=1)
        encoder = seen.get(model.dac.encoder)
        return Encoding(
            codes=codes,
            latents=[channels_last(seen[layer][1]) for layer in self._in_proj[: codes.shape[1]]],
            hidden=seen[semantic][1].hidden_states[17].numpy(),
            pooled=channels_last(seen[model.convnext_encoder][0][0]),
            semantic_latent=channels_last(seen[model.convnext_decoder][1]),
            acoustic=None if encoder is None else channels_last(encoder[1]),
        )

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Run ``Inference.decode`` on ``codes [B, n, T]``, any prefix n ≥ 1."""
        rows = torch.from_numpy(np.array(codes, np.int64))
        acoustic = rows[:, 1:] if rows.shape[1] > 1 else None
        return self.inference.decode(rows[:, :1], acoustic).numpy()


@contextlib.contextmanager
def without_autocast() -> Iterator[None]:
    """Let ``torch.autocast`` do nothing: upstream runs its semantic model under it, always."""
    original = torch.autocast
    torch.autocast = lambda *_, **__: contextlib.nullcontext()
    try:
        yield
    finally:
        torch.autocast = original


# Comparison ---------------------------------------------------------------------------------


def channels_last(x: Any) -> np.ndarray:
    """``[B, C, T]`` tensor → ``[B, T, C]`` array."""
    return np.moveaxis(x.detach().numpy(), 1, -1)


def relative_error(actual: Any, expected: Any) -> float:
    """Greatest difference, relative to the greatest expected magnitude."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{actual.shape} is not {expected.shape}"
    return float(np.max(np.abs(actual - expected)) / np.max(np.abs(expected)))


TIE = 5e-5
"""Distances of unit vectors that differ by so little are equal in float32."""
REACH = 24
"""Frames that a semantic code influences beyond its own: four causal blocks of kernel 7."""
EXCUSED = 1e-3
"""Greatest share of codes that may follow from flipped ties."""


@dataclasses.dataclass(frozen=True)
class CodeCounts:
    """Agreement of codes. ``total = equal + ties + excused``."""

    frames: int = 0
    total: int = 0
    equal: int = 0
    ties: int = 0
    excused: int = 0

    def __add__(self, other: CodeCounts) -> CodeCounts:
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return CodeCounts(*(a + b for a, b in pairs))


def compare_codes(
    actual: Any, expected: np.ndarray, latents: list[np.ndarray], codebooks: list[np.ndarray]
) -> CodeCounts:
    """Compare codes ``[B, n, T]`` with upstream's; differences must come from float ties.

    A tie is a code whose distance exceeds the least one by at most :data:`TIE`, by upstream's
    formula at upstream's residual. Where a tie flips, later layers of that frame see another
    residual and are excused; a semantic code also changes the latent of the frames after it.

    Raises:
        AssertionError: on any other difference.
    """
    actual = np.asarray(actual)
    assert actual.shape == expected.shape, f"{actual.shape} is not {expected.shape}"
    excuse = np.zeros(actual.shape, bool)
    ties = 0
    for row in range(actual.shape[1]):
        wrong = (actual[:, row] != expected[:, row]) & ~excuse[:, row]
        for item, frame in np.argwhere(wrong):
            distances = upstream_distances(latents[row][item, frame], codebooks[row])
            gap = distances[actual[item, row, frame]] - distances.min()
            assert gap <= TIE, (
                f"item {item}, row {row}, frame {frame}: code {actual[item, row, frame]} instead "
                f"of {expected[item, row, frame]} is farther by {gap:.2e}"
            )
            ties += 1
            reach = REACH if row == 0 else 0
            excuse[item, row + 1 :, frame : frame + 1 + reach] = True
    equal = int(np.sum(actual == expected))
    return CodeCounts(
        frames=actual.shape[0] * actual.shape[2],
        total=actual.size,
        equal=equal,
        ties=ties,
        excused=actual.size - equal - ties,
    )


def upstream_distances(latent: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    """Distances of one latent ``[d]`` to ``codebook [K, d]``, as in ``decode_latents``."""
    encodings = torch.nn.functional.normalize(torch.from_numpy(latent[None].copy()))
    rows = torch.nn.functional.normalize(torch.from_numpy(codebook))
    distances = (
        encodings.pow(2).sum(1, keepdim=True)
        - 2 * encodings @ rows.t()
        + rows.pow(2).sum(1, keepdim=True).t()
    )
    return distances[0].numpy()
