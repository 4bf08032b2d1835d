"""Encode and decode time beside the PyTorch original, in one process, on the same weights.

    make bench                                        # both models, 10 s, this machine's CPU
    .venv-parity/bin/python benchmarks/codec_speed.py --model 12hz_v1 --seconds 5 --repeats 5

The two sides take turns, so that a machine that slows down slows both; medians and ratios are
printed, compilation apart. The baseline is the original's own code in float32 without autocast
(its default, float16 autocast, is slower on a CPU). Weights are random: speed does not depend on
their values.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "parity"))
warnings.simplefilter("ignore")

import jax
import numpy as np
import oracle
from oracle import torch
from transformers import (
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
)

import dualcodec_jax
from dualcodec_jax.convert.engine import to_torch
from dualcodec_jax.convert.files import rules_of
from dualcodec_jax.functional import semantic_features
from dualcodec_jax.nn.codec import DualCodec

RELEASED_LAYERS = 24


def main() -> None:
    """Measure, print a table, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=["12hz_v1", "25hz_v1"], action="append")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    semantic = _semantic_pair()
    rows = []
    for model_id in options.model or ["12hz_v1", "25hz_v1"]:
        rows += _measure_model(model_id, semantic, options.seconds, options.repeats)
    _print_table(rows)
    if options.json:
        options.json.write_text(json.dumps({"machine": _machine(), "rows": rows}, indent=2) + "\n")


def _semantic_pair() -> tuple[tuple[Any, Any, Any], Any]:
    """The same random w2v-BERT on both sides; the original runs all 24 layers."""
    config = dualcodec_jax.W2vBertConfig()
    params, stats = dualcodec_jax.random_semantic(config)
    torch_model = Wav2Vec2BertModel(Wav2Vec2BertConfig(num_hidden_layers=RELEASED_LAYERS))
    state = to_torch(params, rules_of("w2v_bert", config), what="w2v-BERT")
    tensors = {name: torch.from_numpy(value) for name, value in state.items()}
    torch_model.load_state_dict(tensors, strict=False)
    return (config, params, stats), torch_model.eval()


def _measure_model(
    model_id: str, semantic: tuple[tuple[Any, Any, Any], Any], seconds: float, repeats: int
) -> list[dict[str, Any]]:
    ours, original = semantic
    model = dualcodec_jax.random_model(model_id)
    inference = dualcodec_jax.Inference(model, semantic=ours)
    upstream = _upstream(model, original)
    config = inference.config
    rng = np.random.default_rng(0)
    samples = (0.1 * rng.standard_normal((1, 1, round(seconds * 24000)))).astype(np.float32)
    tensor = torch.from_numpy(samples)
    semantic_codes, acoustic_codes = (np.asarray(c) for c in inference.encode(samples, None))
    torch_codes = upstream.encode(tensor, None)
    equal = np.mean(
        np.concatenate([semantic_codes, acoustic_codes], 1)
        == np.concatenate([c.numpy() for c in torch_codes], 1)
    )
    print(f"{model_id}: {equal:.2%} of {semantic_codes.shape[2]} frames' codes equal", flush=True)

    def apply(method: str) -> Callable[..., Any]:
        module = DualCodec(config.codec)
        return jax.jit(lambda p, *a: module.apply({"params": p}, *a, method=method))

    params, codec = inference.params, inference.params["codec"]
    features_of = jax.jit(lambda p, a: semantic_features(p, config, a)[0])
    features = features_of(params, samples[:, 0])
    encoder, semantic_encoder = apply("encode_acoustic"), apply("encode_semantic")
    torch_features = torch.from_numpy(np.asarray(features)).transpose(1, 2)
    dac = upstream.model.dac
    pairs: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "encode": (
            lambda: inference.encode(samples, None),
            lambda: upstream.encode(tensor, None),
        ),
        "· semantic features": (
            lambda: features_of(params, samples[:, 0]),
            lambda: _torch_features(upstream, tensor),
        ),
        "· DAC encoder": (
            lambda: encoder(codec, samples.swapaxes(1, 2)),
            lambda: dac.encoder(dac.preprocess(tensor, 24000)),
        ),
        "· ConvNeXt and semantic VQ": (
            lambda: semantic_encoder(codec, features)[0],
            lambda: upstream.model.convnext_decoder(
                upstream.model.semantic_vq(upstream.model.convnext_encoder(torch_features))[0]
            ),
        ),
        "decode": (
            lambda: inference.decode(semantic_codes, acoustic_codes),
            lambda: upstream.decode(*torch_codes),
        ),
    }
    rows = []
    for part, (jax_side, torch_side) in pairs.items():
        row = _measure(jax_side, torch_side, repeats)
        rows.append({"model": model_id, "part": part, "seconds_of_audio": seconds, **row})
        print(f"  {part}: {row['jax_ms']:.0f} ms against {row['torch_ms']:.0f} ms", flush=True)
    return rows


def _upstream(model: Any, semantic_model: Any) -> Any:
    """The original's ``Inference``, without its constructor's downloads and without autocast."""
    config = model.config
    generator = oracle.DualCodec(
        encoder_dim=config.encoder_dim,
        encoder_rates=list(config.encoder_rates),
        decoder_dim=config.decoder_dim,
        decoder_rates=list(config.decoder_rates),
        n_codebooks=config.n_codebooks,
        codebook_size=config.codebook_size,
        semantic_codebook_size=config.semantic_codebook_size,
        sample_rate=config.sample_rate,
        is_causal=config.is_causal,
        semantic_downsample_factor=config.semantic_downsample_factor,
    )
    state = to_torch(model.params, rules_of("codec", config), what=model.model_id)
    generator.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    upstream = oracle.Inference.__new__(oracle.Inference)
    upstream.model = generator.eval()
    upstream.device, upstream.autocast = "cpu", False
    upstream.semantic_cfg = oracle.edict(
        semantic_model=semantic_model,
        output_idx=17,
        mean=torch.zeros(1024),
        std=torch.ones(1024),
        feature_extractor=SeamlessM4TFeatureExtractor(padding_value=1.0),
    )
    torch.autocast = lambda *_, **__: contextlib.nullcontext()
    return upstream


def _torch_features(upstream: Any, audio: Any) -> Any:
    audio_16k = oracle.resample(audio, 24000, 16000)
    extractor = upstream.semantic_cfg.feature_extractor
    inputs = extractor(audio_16k, sampling_rate=16000, return_tensors="pt")
    return upstream._extract_semantic_code(
        inputs["input_features"][0][None], inputs["attention_mask"][0][None]
    )


def _measure(
    jax_side: Callable[[], Any], torch_side: Callable[[], Any], repeats: int
) -> dict[str, Any]:
    first = _seconds(jax_side)
    _seconds(torch_side)
    times = [(_seconds(jax_side), _seconds(torch_side)) for _ in range(repeats)]
    ours, theirs = (sorted(side) for side in zip(*times, strict=True))
    return {
        "jax_ms": 1e3 * statistics.median(ours),
        "jax_spread_ms": [1e3 * ours[0], 1e3 * ours[-1]],
        "torch_ms": 1e3 * statistics.median(theirs),
        "torch_spread_ms": [1e3 * theirs[0], 1e3 * theirs[-1]],
        "ratio": statistics.median(a / b for a, b in times),
        "first_call_ms": 1e3 * first,
        "repeats": repeats,
    }


def _seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    with torch.no_grad():
        jax.block_until_ready(function())
    return time.perf_counter() - start


def _machine() -> dict[str, Any]:
    return {
        "device": str(jax.devices()[0]),
        "torch_threads": torch.get_num_threads(),
        "jax": jax.__version__,
        "torch": torch.__version__,
        "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    machine = _machine()
    print(f"\n{machine}\n")
    print("| model | part | JAX ms | torch ms | JAX / torch | × real time | first call s |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        factor = row["jax_ms"] / 1e3 / row["seconds_of_audio"]
        print(
            f"| {row['model']} | {row['part']} | {row['jax_ms']:.0f} | {row['torch_ms']:.0f} "
            f"| {row['ratio']:.2f} | {factor:.3f} | {row['first_call_ms'] / 1e3:.1f} |"
        )


if __name__ == "__main__":
    main()
