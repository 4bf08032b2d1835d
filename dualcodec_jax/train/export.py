"""From a training checkpoint to weights: the inference format, and the original's files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np

from dualcodec_jax.checkpoint import CheckpointError, Checkpoints
from dualcodec_jax.convert.files import GENERATOR_FILES, export_torch
from dualcodec_jax.paths import replacing
from dualcodec_jax.sharding import make_mesh, tree_shardings
from dualcodec_jax.train.run_config import RunConfig, from_dict
from dualcodec_jax.train.state import TrainState, state_shapes
from dualcodec_jax.weights import Weights, save_weights

CHECKPOINTS = "checkpoints"
GENERATOR, DISCRIMINATOR = "generator", "discriminator"


def placed_shapes(tree: Any, mesh: jax.sharding.Mesh) -> Any:
    """Shapes of ``tree`` with the shardings of ``mesh``, as a target to restore to."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
        tree_shardings(tree, mesh),
    )


def load_run(folder: str | Path, step: int | None = None) -> tuple[RunConfig, TrainState]:
    """Configuration and state of a run's newest whole checkpoint, or the one at ``step``.

    Raises:
        CheckpointError: if the folder holds no checkpoint, or none that can be read.
    """
    path = Path(folder)
    if not (path / CHECKPOINTS).is_dir():
        raise CheckpointError(f"{path}: not the folder of a run: it has no folder {CHECKPOINTS}")
    with Checkpoints(path / CHECKPOINTS) as checkpoints:
        steps = checkpoints.steps()
        if step is not None and step not in steps:
            raise CheckpointError(f"{path}: no checkpoint at step {step}; there are {steps}")
        values = checkpoints.config(step)
        if values is None:
            raise CheckpointError(f"{path}: no checkpoint that can be read")
        run = from_dict(values)
        target = placed_shapes(state_shapes(run.objective), make_mesh(devices=jax.devices()[:1]))
        restored = checkpoints.restore(target, step)
    if restored is None:
        raise CheckpointError(f"{path}: no checkpoint that can be read")
    return run, restored.state


def export_run(
    folder: str | Path,
    output: str | Path,
    *,
    step: int | None = None,
    torch: bool = True,
    quantized: bool = False,
    overwrite: bool = False,
) -> dict[str, Path]:
    """Write the networks of a training checkpoint as weights.

    Args:
        folder: of the run.
        output: folder to write: ``<model_id>`` (what ``get_model`` reads), ``generator`` and
            ``discriminator`` (what a further run starts from), and the files of the PyTorch
            original.
        step: which checkpoint; None: the newest whole one.
        torch: whether to write the original's files too.
        quantized: round kernels to 8 bits, for a quarter of the size; not in the original's files.
        overwrite: replace the folder.

    Returns:
        What was written, by name.
    """
    run, state = load_run(folder, step)
    model, at = run.objective.model, int(state.step)
    source = {"run": run.name, "step": at}
    params: Any = jax.tree.map(np.asarray, (state.generator, state.discriminator))
    generator = Weights("codec", model.model_id, model.codec, params[0], source)
    judges = Weights(
        "discriminator", "discriminator", run.objective.discriminator, params[1], source
    )
    output = Path(output)
    with replacing(output, overwrite=overwrite, folder=True) as temporary:
        names = [model.model_id, GENERATOR, DISCRIMINATOR]
        for name, weights in zip(names, (generator, generator, judges), strict=True):
            save_weights(weights, temporary / name, quantized=quantized)
        if torch:
            name = GENERATOR_FILES.get(model.model_id, f"{model.model_id}.safetensors")
            export_torch(generator, temporary / name)
            export_torch(judges, temporary / f"discriminator_{name}")
            names += [name, f"discriminator_{name}"]
    return {name: output / name for name in names}
