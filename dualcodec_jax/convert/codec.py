"""Tables of the generators' tensors (``state_dict()`` of upstream's ``DualCodec`` and ``DAC``)."""

from __future__ import annotations

from dualcodec_jax.config import DualCodecConfig
from dualcodec_jax.convert.engine import (
    CHANNELS,
    CONV_TRANSPOSE1D,
    DEPTHWISE,
    GAIN_TRANSPOSE1D,
    LINEAR,
    Path,
    Rule,
    weight_norm_rules,
)
from dualcodec_jax.nn.dac import DILATIONS


def codec_rules(config: DualCodecConfig) -> list[Rule]:
    """One rule per tensor of the generator: 420 for 12hz_v1, 392 for 25hz_v1."""
    prefix = "dac." if config.is_dual else ""
    dac = [
        *_encoder(f"{prefix}encoder.block", config),
        *_quantizers(f"{prefix}quantizer", ("dac", "quantizer"), len(config.dac_codebook_sizes)),
        *_decoder(f"{prefix}decoder.model", config),
    ]
    if config.is_dual:
        return dac + _semantic(config)
    if config.encoding == "dac_distilled":
        projection = weight_norm_rules("distill_projection", ("distill_projection",))
        return dac + projection + _convnext_decoder("convnext", config)
    return dac


def _semantic(config: DualCodecConfig) -> list[Rule]:
    return [
        *weight_norm_rules("convnext_encoder.0", ("convnext_encoder", "proj")),
        *_convnext("convnext_encoder", ("convnext_encoder",), 1, config.convnext_layers),
        *_quantizers("semantic_vq", ("semantic_vq",), 1),
        *_convnext_decoder("convnext_decoder", config),
    ]


def _convnext_decoder(torch_prefix: str, config: DualCodecConfig) -> list[Rule]:
    path, layers = ("convnext_decoder",), config.convnext_layers
    blocks = _convnext(torch_prefix, path, 0, layers)
    return blocks + weight_norm_rules(f"{torch_prefix}.{layers}", (*path, "proj"))


def _snake(torch_prefix: str, path: Path) -> Rule:
    return Rule(f"{torch_prefix}.alpha", (*path, "alpha"), CHANNELS)


def _residual_unit(torch_prefix: str, path: Path) -> list[Rule]:
    return [
        _snake(f"{torch_prefix}.block.0", (*path, "snake_0")),
        *weight_norm_rules(f"{torch_prefix}.block.1", (*path, "conv_0")),
        _snake(f"{torch_prefix}.block.2", (*path, "snake_1")),
        *weight_norm_rules(f"{torch_prefix}.block.3", (*path, "conv_1")),
    ]


def _encoder(source: str, config: DualCodecConfig) -> list[Rule]:
    target = ("dac", "encoder")
    units, last = len(DILATIONS), len(config.encoder_rates) + 1
    rules = weight_norm_rules(f"{source}.0", (*target, "conv_in"))
    for index in range(len(config.encoder_rates)):
        block, path = f"{source}.{index + 1}.block", (*target, f"block_{index}")
        for unit in range(units):
            rules += _residual_unit(f"{block}.{unit}", (*path, f"res_{unit}"))
        rules.append(_snake(f"{block}.{units}", (*path, "snake")))
        rules += weight_norm_rules(f"{block}.{units + 1}", (*path, "conv"))
    rules.append(_snake(f"{source}.{last}", (*target, "snake_out")))
    return rules + weight_norm_rules(f"{source}.{last + 1}", (*target, "conv_out"))


def _decoder(source: str, config: DualCodecConfig) -> list[Rule]:
    target = ("dac", "decoder")
    last = len(config.decoder_rates) + 1
    rules = weight_norm_rules(f"{source}.0", (*target, "conv_in"))
    for index in range(len(config.decoder_rates)):
        block, path = f"{source}.{index + 1}.block", (*target, f"block_{index}")
        rules.append(_snake(f"{block}.0", (*path, "snake")))
        rules += weight_norm_rules(
            f"{block}.1", (*path, "upsample"), CONV_TRANSPOSE1D, GAIN_TRANSPOSE1D
        )
        for unit in range(len(DILATIONS)):
            rules += _residual_unit(f"{block}.{unit + 2}", (*path, f"res_{unit}"))
    rules.append(_snake(f"{source}.{last}", (*target, "snake_out")))
    return rules + weight_norm_rules(f"{source}.{last + 1}", (*target, "conv_out"))


def _quantizers(torch_prefix: str, path: Path, count: int) -> list[Rule]:
    rules: list[Rule] = []
    for index in range(count):
        source, target = f"{torch_prefix}.quantizers.{index}", (*path, f"quantizer_{index}")
        rules += weight_norm_rules(f"{source}.in_proj", (*target, "in_proj"))
        rules += weight_norm_rules(f"{source}.out_proj", (*target, "out_proj"))
        rules.append(Rule(f"{source}.codebook.weight", (*target, "codebook")))
    return rules


def _convnext(torch_prefix: str, target: Path, first: int, layers: int) -> list[Rule]:
    rules: list[Rule] = []
    for index in range(layers):
        source, path = f"{torch_prefix}.{first + index}", (*target, f"block_{index}")
        rules += [
            Rule(f"{source}.dwconv.weight", (*path, "dwconv", "kernel"), DEPTHWISE),
            Rule(f"{source}.dwconv.bias", (*path, "dwconv", "bias")),
            Rule(f"{source}.norm.weight", (*path, "norm", "scale")),
            Rule(f"{source}.norm.bias", (*path, "norm", "bias")),
        ]
        for layer in ("pwconv1", "pwconv2"):
            rules += [
                Rule(f"{source}.{layer}.weight", (*path, layer, "kernel"), LINEAR),
                Rule(f"{source}.{layer}.bias", (*path, layer, "bias")),
            ]
    return rules
