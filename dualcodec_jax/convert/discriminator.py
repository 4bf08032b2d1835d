"""Table of the discriminator's tensors (upstream ``Discriminator.state_dict()``)."""

from __future__ import annotations

from dualcodec_jax.config import DiscriminatorConfig
from dualcodec_jax.convert.engine import CONV2D, Path, Rule, weight_norm_rules
from dualcodec_jax.nn.discriminator import BAND_CONVS


def discriminator_rules(config: DiscriminatorConfig) -> list[Rule]:
    """One rule per tensor: 324 for the released sizes."""
    rules: list[Rule] = []
    for index in range(len(config.periods)):
        source, path = f"discriminators.{index}", (f"period_{index}",)
        rules += _convs(f"{source}.convs", path, len(config.period_channels))
        rules += weight_norm_rules(f"{source}.conv_post", (*path, "conv_post"), CONV2D)
    for index in range(len(config.fft_sizes)):
        source, path = f"discriminators.{len(config.periods) + index}", (f"spectral_{index}",)
        for band in range(len(config.bands)):
            stack = (*path, f"band_{band}")
            rules += _convs(f"{source}.band_convs.{band}", stack, len(BAND_CONVS))
        rules += weight_norm_rules(f"{source}.conv_post", (*path, "conv_post"), CONV2D)
    return rules


def _convs(torch_prefix: str, path: Path, count: int) -> list[Rule]:
    """Rules of a list of (convolution, activation) pairs."""
    rules: list[Rule] = []
    for index in range(count):
        rules += weight_norm_rules(f"{torch_prefix}.{index}.0", (*path, f"conv_{index}"), CONV2D)
    return rules
