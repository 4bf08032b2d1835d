"""Table of a Whisper encoder's tensors (``transformers.WhisperModel.state_dict()``)."""

from __future__ import annotations

from collections.abc import Iterable

from dualcodec_jax.config import WhisperConfig
from dualcodec_jax.convert.engine import CONV1D, IDENTITY, LINEAR, Path, Rule, Transform


def whisper_rules(config: WhisperConfig) -> list[Rule]:
    """One rule per tensor of the encoder: 66 for ``tiny.en``."""
    rules = [
        *_pair("encoder.conv1", ("conv1",), "kernel", CONV1D),
        *_pair("encoder.conv2", ("conv2",), "kernel", CONV1D),
        *_pair("encoder.layer_norm", ("layer_norm",), "scale"),
    ]
    for index in range(config.num_layers):
        rules += _layer(f"encoder.layers.{index}", (f"layer_{index}",))
    return rules


def used_keys(keys: Iterable[str]) -> list[str]:
    """The keys of a Whisper checkpoint that conversion has to account for.

    The decoder is left out, and the encoder's positions, which are sinusoids.
    """
    return [key for key in keys if "encoder." in key and "embed_positions" not in key]


def _pair(source: str, path: Path, weight: str, transform: Transform = IDENTITY) -> list[Rule]:
    return [
        Rule(f"{source}.weight", (*path, weight), transform),
        Rule(f"{source}.bias", (*path, "bias")),
    ]


def _layer(source: str, target: Path) -> list[Rule]:
    rules: list[Rule] = []
    for name in ("self_attn_layer_norm", "final_layer_norm"):
        rules += _pair(f"{source}.{name}", (*target, name), "scale")
    for name in ("fc1", "fc2"):
        rules += _pair(f"{source}.{name}", (*target, name), "kernel", LINEAR)
    attention = (*target, "self_attn")
    for theirs, ours in (("q_proj", "query"), ("v_proj", "value"), ("out_proj", "out")):
        rules += _pair(f"{source}.self_attn.{theirs}", (*attention, ours), "kernel", LINEAR)
    rules.append(Rule(f"{source}.self_attn.k_proj.weight", (*attention, "key", "kernel"), LINEAR))
    return rules
