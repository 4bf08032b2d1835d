"""Convert PyTorch DualCodec weights to JAX checkpoints, or back: see ``--help``.

The same as ``dualcodec-jax convert``; the library function is
``dualcodec_jax.convert_file``.
"""

import typer

from dualcodec_jax.cli.convert import convert

if __name__ == "__main__":
    typer.run(convert)
