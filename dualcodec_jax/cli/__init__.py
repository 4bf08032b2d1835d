"""The command line, ``dualcodec-jax``."""
