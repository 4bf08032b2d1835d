"""Table of w2v-BERT 2.0's tensors (``transformers.Wav2Vec2BertModel.state_dict()``)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dualcodec_jax.config import W2vBertConfig
from dualcodec_jax.convert.engine import DEPTHWISE, LINEAR, POINTWISE, Path, Rule

_UNUSED = "masked_spec_embed"
_LAYER = re.compile(r"(?:.*\.)?encoder\.layers\.(\d+)\.")


def w2v_bert_rules(config: W2vBertConfig) -> list[Rule]:
    """One rule per tensor of the first ``num_layers`` layers: 548 for 17."""
    rules = [
        *_norm("feature_projection.layer_norm", ("feature_projection", "layer_norm")),
        *_linear("feature_projection.projection", ("feature_projection", "projection")),
    ]
    for index in range(config.num_layers):
        rules += _layer(f"encoder.layers.{index}", (f"layer_{index}",))
    return rules


def is_unused(key: str, config: W2vBertConfig) -> bool:
    """Whether DualCodec never reads this tensor of a w2v-BERT checkpoint.

    These are the layers above ``num_layers`` and the SpecAugment embedding, which only
    training uses; nothing else may be left out.
    """
    layer = _LAYER.match(key)
    if layer:
        return int(layer.group(1)) >= config.num_layers
    return key == _UNUSED or key.endswith(f".{_UNUSED}")


def used_keys(keys: Iterable[str], config: W2vBertConfig) -> list[str]:
    """The keys that conversion has to account for."""
    return [key for key in keys if not is_unused(key, config)]


def _norm(torch_prefix: str, path: Path) -> list[Rule]:
    return [
        Rule(f"{torch_prefix}.weight", (*path, "scale")),
        Rule(f"{torch_prefix}.bias", (*path, "bias")),
    ]


def _linear(torch_prefix: str, path: Path) -> list[Rule]:
    return [
        Rule(f"{torch_prefix}.weight", (*path, "kernel"), LINEAR),
        Rule(f"{torch_prefix}.bias", (*path, "bias")),
    ]


def _layer(source: str, target: Path) -> list[Rule]:
    rules: list[Rule] = []
    for name in ("ffn1_layer_norm", "self_attn_layer_norm", "ffn2_layer_norm", "final_layer_norm"):
        rules += _norm(f"{source}.{name}", (*target, name))
    for ffn in ("ffn1", "ffn2"):
        for dense in ("intermediate_dense", "output_dense"):
            rules += _linear(f"{source}.{ffn}.{dense}", (*target, ffn, dense))
    attention = (*target, "self_attn")
    for name in ("linear_q", "linear_k", "linear_v", "linear_out"):
        rules += _linear(f"{source}.self_attn.{name}", (*attention, name))
    rules.append(
        Rule(f"{source}.self_attn.distance_embedding.weight", (*attention, "distance_embedding"))
    )
    conv, path = f"{source}.conv_module", (*target, "conv_module")
    for name in ("layer_norm", "depthwise_layer_norm"):
        rules += _norm(f"{conv}.{name}", (*path, name))
    for name in ("pointwise_conv1", "pointwise_conv2"):
        rules.append(Rule(f"{conv}.{name}.weight", (*path, name, "kernel"), POINTWISE))
    rules.append(
        Rule(f"{conv}.depthwise_conv.weight", (*path, "depthwise_conv", "kernel"), DEPTHWISE)
    )
    return rules
