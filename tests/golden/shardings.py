"""Where the leaves of a full-size training state lie; `python -m golden.shardings` rewrites it."""

from __future__ import annotations

import json
from pathlib import Path

import jax
from jax.sharding import AbstractMesh

from dualcodec_jax.config import PRESETS
from dualcodec_jax.sharding import AXES, partition
from dualcodec_jax.train.config import ObjectiveConfig
from dualcodec_jax.train.state import state_shapes

FILE = Path(__file__).parent / "shardings_12hz_v1.json"
SIZES = (2, 4, 1)


def table() -> dict[str, list[str | None]]:
    """Path → axis of the mesh for each axis of a leaf, of the leaves that are split."""
    mesh = AbstractMesh(SIZES, AXES)
    shapes = state_shapes(ObjectiveConfig(model=PRESETS["12hz_v1"]))
    rows = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(shapes)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if spec := tuple(partition(name, tuple(leaf.shape), mesh)):  # type: ignore[arg-type]
            rows[name] = list(spec)
    return rows


def parameters(rows: dict[str, list[str | None]]) -> dict[str, list[str | None]]:
    """The rows of the networks themselves."""
    return {name: spec for name, spec in rows.items() if "optimizer" not in name}


if __name__ == "__main__":
    lines = [
        f"{json.dumps(name)}: {json.dumps(spec)}" for name, spec in parameters(table()).items()
    ]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
