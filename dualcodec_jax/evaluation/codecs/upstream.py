"""The PyTorch original of DualCodec, on the same weights: to compare codes, audio and speed.

It runs in float32 and on the clip padded at its end as ours is, so that equal codes are to be
expected. ``Inference.encode`` of the original runs the semantic model under float16 autocast,
always; here its steps are called without that.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import warnings
from typing import Any

from dualcodec_jax import hub
from dualcodec_jax.config import PRESETS, DualCodecConfig
from dualcodec_jax.convert.files import GENERATOR_FILES
from dualcodec_jax.errors import InputError, WeightsError
from dualcodec_jax.evaluation.codecs.base import CodecAbsent, CodecInfo
from dualcodec_jax.evaluation.codecs.torch_codec import (
    Tensor,
    TorchCodec,
    count,
    fingerprint,
    missing_packages,
    package_version,
    require_packages,
)
from dualcodec_jax.evaluation.metrics.base import first_line
from dualcodec_jax.lengths import SEMANTIC_SAMPLE_RATE, samples_to_cover

PACKAGES = ("torch", "torchaudio", "dualcodec")
DEFAULT_MODEL = "12hz_v1"


def open_upstream(argument: str | None, n_quantizers: int | None) -> TorchCodec:
    """``upstream:MODEL@N`` or ``upstream:PLACE/MODEL@N``; see :func:`~.registry.open_codec`.

    Weights are those that ``dualcodec:MODEL`` reads: ``$DUALCODEC_WEIGHTS``, or PLACE, and
    ``$DUALCODEC_W2V_BERT``; in the original's form, not converted.
    """
    place, _, model_id = (argument or DEFAULT_MODEL).rpartition("/")
    if model_id not in GENERATOR_FILES:
        raise InputError(f"upstream:{argument}: the original has {', '.join(GENERATOR_FILES)}")
    codec = PRESETS[model_id].codec
    number = codec.n_quantizers if n_quantizers is None else n_quantizers
    if number > codec.n_quantizers:
        raise InputError(f"upstream:{model_id} has 1 to {codec.n_quantizers} quantizers")
    require_packages(*PACKAGES)
    inference, weights = _load(model_id, hub.codec_location(place or None), hub.w2v_bert_location())
    model, semantic = inference.model, inference.semantic_cfg.semantic_model
    steps = _Steps(inference, codec, number)
    dac = model.dac
    shared = [model.semantic_vq, model.convnext_decoder]
    acoustic = [dac.quantizer] if number > 1 else []
    encoding = [semantic, model.convnext_encoder, *shared, *acoustic, dac.encoder]
    info = CodecInfo(
        name=f"upstream:{argument or DEFAULT_MODEL}@{number}",
        sample_rate=codec.sample_rate,
        version=f"{package_version('dualcodec')}, {package_version('torch')}, float32, weights "
        f"{weights}",
        parameters=count([model]),
        encode_parameters=count(encoding),
        decode_parameters=count([*shared, *acoustic, dac.decoder]),
        bitrate=codec.bitrate(number),
        tokens_per_second=codec.frame_rate * number,
        n_quantizers=number,
        codebook_sizes=codec.codebook_sizes[:number],
    )
    return TorchCodec(info, model, steps.encode, steps.decode)


class _Steps:
    """The original's ``Inference.encode`` and ``decode``, without autocast."""

    def __init__(self, inference: Any, config: DualCodecConfig, n_quantizers: int) -> None:
        self._inference, self._config, self._count = inference, config, n_quantizers
        self._torch = importlib.import_module("torch")
        self._resample = importlib.import_module("torchaudio.functional").resample

    def encode(self, wave: Tensor) -> Tensor:
        """Codes ``[n, T]`` of ``wave [1, 1, N]``."""
        inference, torch, rate = self._inference, self._torch, self._config.sample_rate
        covered = samples_to_cover(wave.shape[-1], self._config)
        wave = torch.nn.functional.pad(wave, (0, covered - wave.shape[-1]))
        inputs = inference.semantic_cfg.feature_extractor(
            self._resample(wave, rate, SEMANTIC_SAMPLE_RATE)[0].cpu(),
            sampling_rate=SEMANTIC_SAMPLE_RATE,
            return_tensors="pt",
        ).to(wave.device)
        hidden = inference._extract_semantic_code(inputs.input_features, inputs.attention_mask)
        factor = inference.model.semantic_downsample_factor
        features = torch.nn.functional.avg_pool1d(hidden.transpose(1, 2), factor, factor)
        rows = inference.model.encode(wave, num_quantizers=self._count, semantic_repr=features)
        return torch.cat([row for row in rows if row is not None], dim=1)[0]

    def decode(self, codes: Tensor) -> Tensor:
        """Waveform of ``codes [n, T]``."""
        acoustic = codes[None, 1:] if len(codes) > 1 else None
        return self._inference.decode(codes[None, :1], acoustic)


@functools.lru_cache(maxsize=1)
def _load(model_id: str, dualcodec: str, w2v_bert: str) -> tuple[Any, str]:
    """The original's ``Inference`` and the fingerprint of its weights; the last one is kept."""
    torch = importlib.import_module("torch")
    try:
        package = importlib.import_module("dualcodec")
        # It prints, and warns of each parameter and of a missing GPU.
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = package.get_model(model_id, _original_place(dualcodec))
            inference = package.Inference(
                model,
                dualcodec_path=_original_place(dualcodec),
                w2v_path=_original_place(w2v_bert),
                device="cuda" if torch.cuda.is_available() else "cpu",
                autocast=False,
            )
    except ImportError as error:
        raise CodecAbsent(f"the original cannot be imported: {error}") from error
    except OSError as error:
        raise CodecAbsent(
            f"upstream:{model_id}: {error}; it needs the released {GENERATOR_FILES[model_id]} and "
            f"w2v-BERT 2.0 (see {hub.CODEC_VARIABLE} and {hub.W2V_BERT_VARIABLE})"
        ) from error
    except Exception as error:  # those of pickle and safetensors have no common class
        raise WeightsError(f"upstream:{model_id}: {first_line(error)}") from error
    semantic = inference.semantic_cfg
    statistics = {name: semantic[name] for name in ("mean", "std")}
    return inference, fingerprint(model, semantic.semantic_model, statistics)


def _original_place(location: str) -> str:
    """A location in the original's words, which knows no revisions."""
    return location if hub.is_remote(location) else str(hub.local_path(location))


def absence_of_upstream() -> str | None:
    """What to install, if anything; weights are those of ``dualcodec``."""
    from dualcodec_jax.evaluation.codecs.dualcodec import absence_of_dualcodec

    return missing_packages(*PACKAGES) or absence_of_dualcodec()
