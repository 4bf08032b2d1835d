"""DualCodec in JAX/Flax."""
