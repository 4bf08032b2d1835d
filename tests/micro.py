"""A model and an objective so small that a training step compiles in seconds; codes at 50 Hz."""

from __future__ import annotations

from dualcodec_jax.config import Config, DiscriminatorConfig, DualCodecConfig, W2vBertConfig
from dualcodec_jax.train.config import ObjectiveConfig, ScheduleConfig

CODEC = DualCodecConfig(
    encoder_dim=8,
    encoder_rates=(20, 24),
    decoder_dim=32,
    decoder_rates=(24, 20),
    n_codebooks=3,
    codebook_size=64,
    semantic_codebook_size=256,
    semantic_dim=32,
    semantic_downsample_factor=1,
    convnext_dim=16,
    convnext_layers=1,
    convnext_hidden_dim=32,
)
W2V_BERT = W2vBertConfig(
    hidden_size=32, num_layers=1, num_heads=4, intermediate_size=64, conv_kernel_size=31
)
DISCRIMINATOR = DiscriminatorConfig(
    periods=(3,), period_channels=(8, 16), fft_sizes=(256,), spectral_channels=8
)
OBJECTIVE = ObjectiveConfig(
    model=Config(model_id="micro", codec=CODEC, semantic=W2V_BERT),
    discriminator=DISCRIMINATOR,
    generator_schedule=ScheduleConfig(constant=True),
)
# The programs are small and run a few times: optimising them would take longer than that.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
