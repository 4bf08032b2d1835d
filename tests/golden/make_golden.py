"""Write tiny.npz: what the PyTorch originals make of a clip, at the tiny size.

Needs the parity environment (`make golden`). Upstream hard-codes the widths of its semantic
branch, so the tiny generator is assembled from upstream's own modules; `encode` and
`decode_from_codes` are upstream's, and so is the whole `Inference`.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "parity"), str(HERE.parent), str(HERE)]

import oracle  # noqa: E402
import recipe  # noqa: E402
from calibration import calibrate_codec  # noqa: E402
from transformers import (  # noqa: E402
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
)

from dualcodec_jax.convert.codec import codec_rules  # noqa: E402
from dualcodec_jax.convert.engine import flatten, to_torch  # noqa: E402
from dualcodec_jax.convert.w2v_bert import w2v_bert_rules  # noqa: E402

torch = oracle.torch
CODEC, SEMANTIC = recipe.CONFIG.codec, recipe.CONFIG.semantic
SMALLEST_GAP = 2e-4
"""Between the best and the second best code everywhere: no machine's rounding can bridge it."""


class TinyDualCodec(oracle.DualCodec):
    """Upstream's generator with other widths than those that its constructor insists on."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.semantic_downsample_factor = CODEC.semantic_downsample_factor
        self.decode_semantic_for_codec = CODEC.decode_semantic_for_codec
        self.dac = oracle.dac_model.DAC(
            encoder_dim=CODEC.encoder_dim,
            encoder_rates=list(CODEC.encoder_rates),
            decoder_dim=CODEC.decoder_dim,
            decoder_rates=list(CODEC.decoder_rates),
            n_codebooks=CODEC.n_codebooks,
            codebook_size=CODEC.codebook_size,
            codebook_dim=CODEC.codebook_dim,
            quantizer_dropout=CODEC.quantizer_dropout,
            sample_rate=CODEC.sample_rate,
        )
        project = oracle.dac_layers.WNConv1d
        self.convnext_encoder = torch.nn.Sequential(
            project(CODEC.semantic_dim, CODEC.convnext_dim, kernel_size=1), *self._blocks()
        )
        self.semantic_vq = oracle.dac_quantize.ResidualVectorQuantize(
            CODEC.convnext_dim,
            n_codebooks=1,
            codebook_size=CODEC.semantic_codebook_size,
            codebook_dim=CODEC.semantic_codebook_dim,
        )
        self.convnext_decoder = torch.nn.Sequential(
            *self._blocks(), project(CODEC.convnext_dim, CODEC.semantic_dim, kernel_size=1)
        )

    def _blocks(self) -> list[Any]:
        return [
            oracle.cnn.ConvNeXtBlock(
                dim=CODEC.convnext_dim,
                intermediate_dim=CODEC.convnext_hidden_dim,
                is_causal=CODEC.is_causal,
            )
            for _ in range(CODEC.convnext_layers)
        ]


def load(module: Any, params: Any, rules: Any) -> Any:
    tensors = to_torch(params, rules, what=type(module).__name__)
    module.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})
    return module.eval()


def tiny_w2v_bert(params: Any) -> Any:
    settings = Wav2Vec2BertConfig(
        vocab_size=None,
        feature_projection_input_dim=SEMANTIC.input_dim,
        hidden_size=SEMANTIC.hidden_size,
        num_hidden_layers=SEMANTIC.num_layers,
        num_attention_heads=SEMANTIC.num_heads,
        intermediate_size=SEMANTIC.intermediate_size,
        conv_depthwise_kernel_size=SEMANTIC.conv_kernel_size,
        left_max_position_embeddings=SEMANTIC.left_max_position,
        right_max_position_embeddings=SEMANTIC.right_max_position,
        layer_norm_eps=SEMANTIC.layer_norm_eps,
        mask_time_prob=0.0,  # Else there is an embedding for masked time steps.
    )
    return load(Wav2Vec2BertModel(settings), params, w2v_bert_rules(SEMANTIC))


def upstream_inference(generator: Any, semantic: Any, mean: Any, std: Any) -> Any:
    """Upstream's class around models in memory; its constructor takes only paths."""
    inference = object.__new__(oracle.Inference)
    inference.model, inference.device, inference.autocast = generator, "cpu", False
    inference.semantic_cfg = oracle.edict(
        semantic_model=semantic,
        output_idx=SEMANTIC.num_layers,
        mean=mean,
        std=std,
        feature_extractor=SeamlessM4TFeatureExtractor(
            feature_size=80, num_mel_bins=80, sampling_rate=16000, stride=2, padding_value=1.0
        ),
    )
    return inference


@contextlib.contextmanager
def without_autocast() -> Iterator[None]:
    """Upstream runs its semantic model in float16 whatever it is told; parity is in float32."""
    with mock.patch.object(torch, "autocast", return_value=contextlib.nullcontext()):
        yield


def encode(inference: Any, audio: Any) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """(codes ``[n, T]``, pooled features ``[T, D]``, latents ``[T, d]`` of every quantizer)."""
    model, seen = inference.model, {}
    projections = [
        q.in_proj for q in (*model.semantic_vq.quantizers, *model.dac.quantizer.quantizers)
    ]

    def note(module: Any, inputs: Any, output: Any) -> None:
        seen[module] = (inputs[0] if module is model.convnext_encoder else output)[0].T.numpy()

    hooks = [m.register_forward_hook(note) for m in (model.convnext_encoder, *projections)]
    with without_autocast():
        rows = inference.encode(audio, n_quantizers=None)
    for hook in hooks:
        hook.remove()
    codes = np.concatenate([row[0].numpy() for row in rows])
    return codes, seen[model.convnext_encoder], [seen[layer] for layer in projections]


def decode(inference: Any, codes: np.ndarray) -> np.ndarray:
    """Audio ``[N]`` of ``codes [n, T]``."""
    rows = torch.from_numpy(codes)[None]
    return inference.decode(rows[:, :1], rows[:, 1:] if len(codes) > 1 else None)[0, 0].numpy()


def make_audible(layer: dict[str, np.ndarray], audio: np.ndarray) -> None:
    """Change the decoder's last layer so that ``audio`` has no offset and its tanh bends."""
    response = np.arctanh(audio.astype(np.float64))
    gain = 0.4 / response.std()
    layer["weight_g"] = layer["weight_g"] * np.float32(gain)
    layer["bias"] = np.float32(gain) * (layer["bias"] - np.float32(response.mean()))


def smallest_gap(latents: list[np.ndarray], books: list[np.ndarray]) -> float:
    """Least distance between the best and the second best code."""
    gaps = []
    for z, book in zip(latents, books, strict=True):
        unit = [v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (z, book)]
        distances = np.sort(-2 * unit[0].astype(np.float64) @ unit[1].T.astype(np.float64), axis=-1)
        gaps.append(np.min(distances[:, 1] - distances[:, 0]))
    return float(min(gaps))


@torch.no_grad()
def main() -> None:
    jax.config.update("jax_platforms", "cpu")
    audio = torch.from_numpy(recipe.clip())
    semantic_params, params = recipe.semantic_params(), recipe.codec_params()
    semantic = tiny_w2v_bert(semantic_params)

    generator = load(TinyDualCodec(), params, codec_rules(CODEC))
    _, raw, _ = encode(upstream_inference(generator, semantic, 0.0, 1.0), audio)
    mean, var = raw.mean(axis=0), raw.var(axis=0)
    features = ((raw - mean) / np.sqrt(var))[None]
    adjusted = calibrate_codec(recipe.CONFIG, params, recipe.clip().swapaxes(1, 2), features)
    generator = load(generator, adjusted, codec_rules(CODEC))
    deviation = torch.sqrt(torch.from_numpy(var))
    inference = upstream_inference(generator, semantic, torch.from_numpy(mean), deviation)
    codes, _, _ = encode(inference, audio)
    make_audible(adjusted["dac"]["decoder"]["conv_out"], decode(inference, codes))

    before = flatten(params)
    calibration = {
        "/".join(path): np.asarray(value, np.float32)
        for path, value in flatten(adjusted).items()
        if not np.array_equal(value, before[path])
    }
    params = recipe.codec_params(calibration)
    load(generator, params, codec_rules(CODEC))
    codes, features, latents = encode(inference, audio)
    quantizers = (*generator.semantic_vq.quantizers, *generator.dac.quantizer.quantizers)
    gap = smallest_gap(latents, [q.codebook.weight.numpy() for q in quantizers])
    assert gap > SMALLEST_GAP, f"a near tie: the smallest gap is {gap:.1e}"
    assert codes.shape == (CODEC.n_quantizers, recipe.FRAMES)
    np.savez_compressed(
        recipe.FILE,
        codes=codes.astype(np.int16),
        features=features,
        audio=decode(inference, codes),
        semantic_audio=decode(inference, codes[:1])[: recipe.SEMANTIC_ONLY],
        mean=mean,
        var=var,
        weights=recipe.checksum(params, semantic_params),
        **{f"calibration/{name}": value for name, value in calibration.items()},
    )


if __name__ == "__main__":
    main()
