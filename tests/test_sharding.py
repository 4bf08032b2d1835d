"""Meshes, and the golden table of where the leaves of a full-size state lie."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("optax")

import jax
from golden import shardings
from jax.sharding import AbstractMesh, PartitionSpec

from dualcodec_jax.errors import ConfigError
from dualcodec_jax.sharding import AXES, MeshConfig, make_mesh, partition, shards


def test_golden_table() -> None:
    """Rewritten by `cd tests && python -m golden.shardings`, if a change is meant."""
    rows = shardings.table()
    golden = json.loads(shardings.FILE.read_text(encoding="utf-8"))
    assert shardings.parameters(rows) == golden
    assert len(golden) > 150


def test_moments_lie_where_their_parameters_lie() -> None:
    rows = shardings.table()
    for network in ("generator", "discriminator"):
        own = {
            name.removeprefix(f"{network}/"): spec
            for name, spec in rows.items()
            if name.startswith(f"{network}/")
        }
        for moment in ("mu", "nu"):
            moments = {
                name.split(f"/{moment}/")[1]: spec
                for name, spec in rows.items()
                if name.startswith(f"{network}_optimizer/") and f"/{moment}/" in name
            }
            assert moments == own


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("generator/dac/decoder/conv_in/weight_v", (7, 1024, 1536), (None, None, "fsdp")),
        ("semantic/layer_0/ffn1/output_dense/kernel", (4096, 1024), ("fsdp",)),
        ("generator/semantic_vq/quantizer_0/codebook", (16384, 8), ()),
        ("generator/dac/encoder/conv_in/weight_v", (7, 1, 32), ()),  # small
        ("generator/x/weight_v", (1023, 1025), ()),  # not divisible
        ("generator/x/bias", (2**20,), ()),
    ],
)
def test_rules(name: str, shape: tuple[int, ...], expected: tuple[str | None, ...]) -> None:
    mesh = AbstractMesh((2, 4, 1), AXES)
    assert partition(name, shape, mesh) == PartitionSpec(*expected)  # type: ignore[arg-type]
    whole = AbstractMesh((8, 1, 1), AXES)
    assert partition(name, shape, whole) == PartitionSpec()  # type: ignore[arg-type]


def test_meshes() -> None:
    one = jax.devices()[:1]
    mesh = make_mesh(MeshConfig(), one)
    assert dict(mesh.shape) == {"data": 1, "fsdp": 1, "tensor": 1}
    assert shards(mesh) == 1
    with pytest.raises(ConfigError, match="data=2, fsdp=1, tensor=1 does not fit 1 devices"):
        make_mesh(MeshConfig(data=2), one)
    with pytest.raises(ConfigError, match="does not fit"):
        make_mesh(MeshConfig(fsdp=2), one)
    with pytest.raises(ConfigError, match="at most one of them -1"):
        make_mesh(MeshConfig(data=-1, fsdp=-1), one)
