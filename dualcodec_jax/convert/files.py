"""Weight files of the PyTorch originals, in and out.

Source layouts: ``amphion/dualcodec`` (generators, discriminators, statistics),
``facebook/w2v-bert-2.0``, and Whisper checkpoints of ``transformers`` or CTranslate2.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dualcodec_jax.config import (
    PRESETS,
    DiscriminatorConfig,
    DualCodecConfig,
    SemanticConfig,
    W2vBertConfig,
    WhisperConfig,
)
from dualcodec_jax.convert import whisper
from dualcodec_jax.convert.codec import codec_rules
from dualcodec_jax.convert.ctranslate2 import read_whisper_encoder
from dualcodec_jax.convert.discriminator import discriminator_rules
from dualcodec_jax.convert.engine import Params, Rule, normalize_names, to_jax, to_torch
from dualcodec_jax.convert.stats import read_statistics
from dualcodec_jax.convert.w2v_bert import used_keys, w2v_bert_rules
from dualcodec_jax.errors import ConfigError, WeightsError
from dualcodec_jax.nn.codec import make_codec
from dualcodec_jax.nn.discriminator import Discriminator
from dualcodec_jax.paths import replacing
from dualcodec_jax.semantic import semantic_model
from dualcodec_jax.weights import (
    Kind,
    Weights,
    read_tensors,
    save_weights,
    tensor_names,
    write_tensors,
)

GENERATOR_FILES = {
    "12hz_v1": "dualcodec_12hz_16384_4096.safetensors",
    "25hz_v1": "dualcodec_25hz_16384_1024.safetensors",
}
STATISTICS_FILE = "w2vbert2_mean_var_stats_emilia.pt"
DISCRIMINATOR_PREFIX = "discriminator_"
W2V_BERT_FILE = "model.safetensors"
SEMANTIC_LAYERS = 17
W2V_BERT_SIZES = {
    "input_dim": "feature_projection_input_dim",
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "conv_kernel_size": "conv_depthwise_kernel_size",
    "left_max_position": "left_max_position_embeddings",
    "right_max_position": "right_max_position_embeddings",
    "layer_norm_eps": "layer_norm_eps",
}
"""Fields of :class:`W2vBertConfig` and their names in ``config.json`` of ``transformers``."""
WHISPER_SIZES = {
    "num_mels": "num_mel_bins",
    "hidden_size": "d_model",
    "num_layers": "encoder_layers",
    "num_heads": "encoder_attention_heads",
    "intermediate_size": "encoder_ffn_dim",
    "max_frames": "max_source_positions",
}
"""The same of :class:`WhisperConfig`."""


def convert_file(
    source: str | Path,
    destination: str | Path,
    *,
    kind: Kind | None = None,
    model_id: str | None = None,
    overwrite: bool = False,
    quantized: bool = False,
) -> Weights:
    """Convert one file of the PyTorch original to a checkpoint folder, verified by re-reading.

    Args:
        source: safetensors (generator, discriminator, w2v-BERT, Whisper), ``.pt`` (statistics)
            or ``.bin`` (Whisper in CTranslate2's form).
        destination: folder to write.
        kind: what the file holds; found out from its tensors by default.
        model_id: which model it must be; found out by default.
        overwrite: replace an existing folder.
        quantized: round kernels to 8 bits.

    Raises:
        WeightsError: if the file is damaged or does not fit, listing every tensor at fault.
    """
    weights = read_file(source, kind=kind, model_id=model_id)
    save_weights(weights, destination, overwrite=overwrite, quantized=quantized)
    return weights


def read_file(
    source: str | Path, *, kind: Kind | None = None, model_id: str | None = None
) -> Weights:
    """Read one file of the PyTorch original; arguments and errors as :func:`convert_file`."""
    path = Path(source)
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    kind = kind or detect_kind(path)
    notes = {"file": path.name, "bytes": path.stat().st_size}
    if kind == "statistics":
        return Weights(kind, "statistics", None, dict(read_statistics(path)), notes)
    if kind == "w2v_bert":
        return _read_w2v_bert(path, notes)
    if kind == "whisper":
        return _read_whisper(path, model_id, notes)
    if kind == "discriminator":
        config = DiscriminatorConfig()
        params = to_jax(
            read_tensors(path),
            discriminator_rules(config),
            discriminator_shapes(config),
            what="the discriminator",
        )
        return Weights(kind, model_id or "discriminator", config, params, notes)
    return _read_codec(path, model_id, notes)


def export_torch(weights: Weights, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a safetensors file that the PyTorch original loads strictly.

    The tensors are those that were converted, bit for bit; of w2v-BERT only the layers that
    DualCodec reads.

    Raises:
        InputError: if the file exists and ``overwrite`` is not set.
        WeightsError: if the parameters are folded or otherwise incomplete.
    """
    rules = rules_of(weights.kind, weights.config)
    tensors = to_torch(weights.params, rules, what=f"the PyTorch {weights.kind}")
    path = Path(path)
    with replacing(path, overwrite=overwrite) as temporary:
        write_tensors(tensors, temporary)
    return path


def rules_of(kind: Kind, config: Any) -> list[Rule]:
    """The conversion table of a kind of model."""
    match kind:
        case "codec":
            return codec_rules(config)
        case "discriminator":
            return discriminator_rules(config)
        case "w2v_bert":
            return w2v_bert_rules(config)
        case "whisper":
            return whisper.whisper_rules(config)
    raise WeightsError(f"{kind} weights have no PyTorch safetensors form")


def detect_kind(path: Path) -> Kind:
    """What a weight file holds, judged by its suffix and tensor names.

    Raises:
        WeightsError: if it is none of the files of DualCodec.
    """
    if path.suffix in (".pt", ".npz"):
        return "statistics"
    if path.suffix == ".bin":
        return "whisper"
    names = tensor_names(path)
    if set(names) == {"mean", "var"}:
        return "statistics"
    signatures: dict[Kind, str] = {
        "codec": "dac.encoder.",
        "discriminator": "discriminators.",
        "whisper": "encoder.conv1.",
        "w2v_bert": "encoder.layers.",
    }
    for kind, signature in signatures.items():
        if any(signature in name for name in names):
            return kind
    shown = ", ".join(sorted(names)[:3])
    raise WeightsError(
        f"{path}: not a DualCodec generator or discriminator, w2v-BERT, Whisper or statistics file "
        f"(tensors: {shown} …)"
    )


@functools.lru_cache
def codec_shapes(config: DualCodecConfig) -> Params:
    """Shapes of the generator's parameters, without computing them."""
    audio = jnp.zeros((1, 2 * config.hop_length, 1))
    features = jnp.zeros((1, 2, config.semantic_dim))
    init = functools.partial(make_codec(config).init, jax.random.key(0))
    return jax.eval_shape(init, audio, features)["params"]


@functools.lru_cache
def discriminator_shapes(config: DiscriminatorConfig) -> Params:
    """Shapes of the discriminator's parameters, without computing them."""
    audio = jnp.zeros((1, 8192, 1))
    return jax.eval_shape(Discriminator(config).init, jax.random.key(0), audio)["params"]


@functools.lru_cache
def semantic_shapes(config: SemanticConfig) -> Params:
    """Shapes of a semantic model's parameters, without computing them."""
    model = semantic_model(config)
    init = functools.partial(model.network(config, jnp.float32).init, jax.random.key(0))
    return jax.eval_shape(init, *model.example(config))["params"]


def _read_codec(path: Path, model_id: str | None, notes: dict[str, Any]) -> Weights:
    tensors = read_tensors(path)
    found = _guess_model_id(tensors)
    if model_id and found and found != model_id:
        raise WeightsError(
            f"{path}: these are weights of {found}, not {model_id}; ask for {found}, or name "
            f"the file of {model_id}"
        )
    model_id = model_id or found
    if model_id is None:
        raise WeightsError(
            f"{path}: the tensors fit none of {', '.join(PRESETS)}; name the model to see how "
            "they differ"
        )
    if model_id not in PRESETS:
        raise ConfigError(f"unknown model id {model_id!r}; known: {', '.join(PRESETS)}")
    config = PRESETS[model_id].codec
    what = f"the DualCodec generator {model_id}"
    params = to_jax(tensors, codec_rules(config), codec_shapes(config), what=what)
    return Weights("codec", model_id, config, params, notes)


def _guess_model_id(tensors: dict[str, np.ndarray]) -> str | None:
    """The preset whose tensor names are present with the right number of codes and channels."""
    for model_id, preset in PRESETS.items():
        config = preset.codec
        keys = {rule.torch_key for rule in codec_rules(config)}
        named = normalize_names(tensors, keys)
        first = named.get("dac.encoder.block.0.weight_v")
        books = sum(
            1 for key in named if key.startswith("dac.") and key.endswith("codebook.weight")
        )
        sizes = None if first is None else (first.shape[:1], books)
        if sizes == ((config.encoder_dim,), config.n_codebooks):
            return model_id
    return None


def _read_w2v_bert(path: Path, notes: dict[str, Any]) -> Weights:
    """Sizes are those of the ``config.json`` beside the weights, or the released ones without."""
    config = W2vBertConfig()
    sizes = _sizes_beside(path, W2V_BERT_SIZES, config, "w2v-BERT 2.0")
    if (layers := sizes.pop("num_layers", SEMANTIC_LAYERS)) < SEMANTIC_LAYERS:
        raise WeightsError(
            f"{path.parent / 'config.json'}: {layers} layers, but DualCodec reads the output of "
            f"layer {SEMANTIC_LAYERS}"
        )
    config = _resized(config, sizes, path.parent / "config.json")
    tensors = read_tensors(path, used_keys(tensor_names(path), config))
    rules, shapes = w2v_bert_rules(config), semantic_shapes(config)
    params = to_jax(tensors, rules, shapes, what="w2v-BERT 2.0")
    return Weights("w2v_bert", "w2v-bert-2.0", config, params, notes)


def _read_whisper(path: Path, model_id: str | None, notes: dict[str, Any]) -> Weights:
    if path.suffix == ".bin":
        tensors, heads = read_whisper_encoder(path)
        sizes = _whisper_sizes(tensors, path) | {"num_heads": heads}
        config = _resized(WhisperConfig(), sizes, path)
    else:
        tensors = read_tensors(path, whisper.used_keys(tensor_names(path)))
        sizes = _sizes_beside(path, WHISPER_SIZES, WhisperConfig(), "Whisper")
        config = _resized(WhisperConfig(), sizes, path.parent / "config.json")
    rules, shapes = whisper.whisper_rules(config), semantic_shapes(config)
    params = to_jax(tensors, rules, shapes, what="the encoder of Whisper")
    return Weights("whisper", model_id or "whisper", config, params, notes)


def _whisper_sizes(tensors: dict[str, np.ndarray], path: Path) -> dict[str, int]:
    if tensors["encoder.conv1.weight"].ndim != 3:
        raise WeightsError(f"{path}: encoder/conv1/weight has not three axes")
    layers = {key.split(".")[2] for key in tensors if key.startswith("encoder.layers.")}
    hidden, mels, _ = tensors["encoder.conv1.weight"].shape
    # Without it, what is missing is listed by the conversion.
    feed_forward = tensors.get("encoder.layers.0.fc1.bias", np.zeros(1)).size
    return {
        "num_mels": mels,
        "hidden_size": hidden,
        "num_layers": len(layers),
        "intermediate_size": feed_forward,
    }


def _sizes_beside(path: Path, names: dict[str, str], default: Any, what: str) -> dict[str, Any]:
    """Sizes that the ``config.json`` beside a weight file gives, if there is one."""
    beside = path.parent / "config.json"
    if not beside.is_file():
        return {}
    try:
        values = json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{beside}: not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise WeightsError(f"{beside}: not a configuration of {what}")
    sizes: dict[str, Any] = {name: values[key] for name, key in names.items() if key in values}
    for name, size in sizes.items():
        if not isinstance(size, type(getattr(default, name))) or not size > 0:
            raise WeightsError(f"{beside}: {names[name]} must be positive; got {size!r}")
    return sizes


def _resized(config: Any, sizes: dict[str, Any], source: Path) -> Any:
    try:
        return dataclasses.replace(config, **sizes)
    except ConfigError as error:
        raise WeightsError(f"{source}: {error}") from error
