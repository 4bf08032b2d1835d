"""Both implementations with the same random weights, each as a set of timed parts.

:class:`Ours` and :class:`Original` have a method per part that runs it once and waits for the
device. Random weights: speed does not depend on their values.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "parity"))
warnings.simplefilter("ignore")

import jax
import jax.numpy as jnp
import numpy as np
import oracle
from oracle import torch
from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2BertConfig, Wav2Vec2BertModel
from upstream import bare_codec

import dualcodec_jax
from dualcodec_jax import functional
from dualcodec_jax.audio.fbank import semantic_input
from dualcodec_jax.convert.engine import to_torch
from dualcodec_jax.convert.files import rules_of
from dualcodec_jax.inference import Inference
from dualcodec_jax.lengths import resampled_length
from dualcodec_jax.nn.codec import make_codec
from dualcodec_jax.nn.w2v_bert import W2vBert

RELEASED_LAYERS = 24
"""Of w2v-BERT. The original runs all of them, and uses the output of the seventeenth."""
PARTS = ("encode", "front end", "w2v-BERT", "ConvNeXt and VQ", "DAC encoder", "decode")
TORCH_SETTINGS = ("float32", "bfloat16", "tf32", "float16", "compile", "compile-bfloat16")
Part = Callable[[], Any]


class Ours:
    """This package, jitted, on the default device; audio ``[B, 1, N]`` with true lengths."""

    def __init__(self, inference: Inference, audio: np.ndarray, lengths: np.ndarray) -> None:
        """Put everything on the device; nothing is compiled yet."""
        self._params, config = inference.params, inference.config
        codec, dtype = config.codec, jnp.dtype(config.precision)
        module, count = make_codec(codec, dtype), codec.n_quantizers
        self._audio, self._lengths = jnp.asarray(audio), jnp.asarray(lengths, jnp.int32)
        self._channels_last = self._audio.swapaxes(1, 2)
        variables = {"params": self._params["codec"]}
        network = W2vBert(config.semantic, dtype)

        def front_end(audio: Any, lengths: Any) -> Any:
            audio_16k = dualcodec_jax.resample(audio, 24000, 16000)
            inputs = semantic_input(audio_16k, resampled_length(lengths, 24000, 16000))
            return inputs.features, inputs.mask

        inputs = jax.jit(front_end)(self._audio[:, 0], self._lengths)
        programs: dict[str, tuple[Any, tuple[Any, ...]]] = {
            "encode": (
                lambda p, a, n: functional.encode(p, config, a, n, count).codes,
                (self._params, self._audio, self._lengths),
            ),
            "front end": (front_end, (self._audio[:, 0], self._lengths)),
            "w2v-BERT": (
                lambda p, x, mask: network.apply({"params": p}, x, mask),
                (self._params["semantic"], *inputs),
            ),
            "DAC encoder": (
                lambda v, a: module.apply(v, a, method="encode_acoustic"),
                (variables, self._channels_last),
            ),
        }
        features, frames = jax.jit(lambda p, a, n: functional.semantic_features(p, config, a, n))(
            self._params, self._audio[:, 0], self._lengths
        )
        programs["ConvNeXt and VQ"] = (
            lambda v, x, n: module.apply(v, x, n, method="encode_semantic")[0],
            (variables, features, frames),
        )
        self.codes = jax.jit(programs["encode"][0])(*programs["encode"][1])
        programs["decode"] = (
            lambda p, c, n: functional.decode(p, config, c, n).audio,
            (self._params, self.codes, frames),
        )
        self._programs = {name: (jax.jit(f), x) for name, (f, x) in programs.items()}

    def part(self, name: str) -> Part:
        """A function that runs a part once."""
        program, arguments = self._programs[name]
        return lambda: jax.block_until_ready(program(*arguments))

    def gflop(self, name: str) -> float:
        """Of one run of a part, as XLA counts them; 0 if it does not."""
        program, arguments = self._programs[name]
        cost = program.lower(*arguments).compile().cost_analysis() or {}
        return float(cost.get("flops", 0.0)) / 1e9


class Original:
    """The PyTorch original on the same device, with a setting of :data:`TORCH_SETTINGS`.

    ``bfloat16`` and ``float16`` are its autocast, ``tf32`` allows TensorFloat-32 products,
    ``compile`` is ``torch.compile`` of its networks. Lengths play no part: it has no masks.
    """

    def __init__(self, inference: Inference, audio: np.ndarray, setting: str) -> None:
        """Build it with the weights of ``inference``."""
        self.setting = setting
        self._device = "cuda" if jax.default_backend() == "gpu" else "cpu"
        config = inference.config.codec
        self._codec = _upstream_codec(inference, config).to(self._device)
        self._semantic = _upstream_semantic(inference).to(self._device)
        self._extractor = SeamlessM4TFeatureExtractor(padding_value=1.0)
        self._audio = torch.from_numpy(audio).to(self._device)
        self._factor, self._count = config.semantic_downsample_factor, config.n_quantizers
        if setting.startswith("compile"):
            self._semantic = torch.compile(self._semantic)
            self._codec.dac.encoder = torch.compile(self._codec.dac.encoder)
            self._codec.dac.decoder = torch.compile(self._codec.dac.decoder)
        with self._setting():
            self._inputs = self._front_end()
            self._features = self._semantic_features()
            self.codes = self._whole()
        self._parts: dict[str, Part] = {
            "encode": self._whole,
            "front end": self._front_end,
            "w2v-BERT": self._semantic_features,
            "ConvNeXt and VQ": self._convnext,
            "DAC encoder": lambda: self._codec.dac.encoder(
                self._codec.dac.preprocess(self._audio, 24000)
            ),
            "decode": lambda: self._codec.decode_from_codes(*self.codes),
        }

    def part(self, name: str) -> Part:
        """A function that runs a part once."""
        run = self._parts[name]

        def timed() -> Any:
            with self._setting():
                result = run()
                if self._device == "cuda":
                    torch.cuda.synchronize()
                return result

        return timed

    @contextlib.contextmanager
    def _setting(self) -> Iterator[None]:
        torch.set_float32_matmul_precision("high" if self.setting == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = self.setting == "tf32"
        kind = self.setting.removeprefix("compile").removeprefix("-")
        dtype = getattr(torch, kind, None) if kind in ("bfloat16", "float16") else None
        with torch.no_grad(), torch.autocast(self._device, dtype, enabled=dtype is not None):
            yield

    def _front_end(self) -> Any:
        audio = oracle.resample(self._audio[:, 0], 24000, 16000).float().cpu()
        inputs = self._extractor(list(audio.numpy()), sampling_rate=16000, return_tensors="pt")
        return {name: value.to(self._device) for name, value in inputs.items()}

    def _semantic_features(self) -> Any:
        hidden = self._semantic(**self._inputs, output_hidden_states=True).hidden_states[17]
        pooled = torch.nn.functional.avg_pool1d(hidden.transpose(1, 2), self._factor, self._factor)
        return pooled.float()

    def _convnext(self) -> Any:
        codec = self._codec
        quantized = codec.semantic_vq(codec.convnext_encoder(self._features))[0]
        return codec.convnext_decoder(quantized)

    def _whole(self) -> Any:
        self._inputs = self._front_end()
        return self._codec.encode(
            self._audio,
            num_quantizers=self._count,
            semantic_repr=self._semantic_features(),
        )[:2]


def random_inference(model_id: str, precision: Any) -> Inference:
    """A model of a released size with random weights."""
    model = dualcodec_jax.random_model(model_id)
    return Inference(model, semantic=_random_semantic(), precision=precision)


@functools.cache
def _random_semantic() -> tuple[Any, Any, Any]:
    config = dualcodec_jax.W2vBertConfig()
    return (config, *dualcodec_jax.random_semantic(config))


def _upstream_semantic(inference: Inference) -> Any:
    model = Wav2Vec2BertModel(Wav2Vec2BertConfig(num_hidden_layers=RELEASED_LAYERS))
    params = jax.tree.map(np.asarray, inference.params["semantic"])
    state = to_torch(params, rules_of("w2v_bert", inference.config.semantic), what="w2v-BERT")
    tensors = {name: torch.from_numpy(value) for name, value in state.items()}
    model.load_state_dict(tensors, strict=False)
    return model.eval()


def _upstream_codec(inference: Inference, config: Any) -> Any:
    model_id = inference.config.model_id
    generator = bare_codec(model_id)
    params = dualcodec_jax.random_model(model_id).params
    state = to_torch(params, rules_of("codec", config), what=model_id)
    generator.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    return generator
