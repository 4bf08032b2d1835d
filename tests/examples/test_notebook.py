"""The notebook as committed, executed on the demo model."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nbclient")

import nbclient
import nbformat

from dualcodec_jax.config import get_config

NOTEBOOK = Path(__file__).parents[2] / "examples" / "quickstart.ipynb"
MAX_BYTES = 50_000
SETTINGS = {
    "DUALCODEC_SHORT": "1",
    "HF_HUB_OFFLINE": "1",
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
}


def test_as_committed() -> None:
    """Valid, small, and without outputs."""
    assert NOTEBOOK.stat().st_size < MAX_BYTES
    notebook = nbformat.read(NOTEBOOK, nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What every cell gives, by the cell's id."""
    notebook = nbformat.read(NOTEBOOK, 4)
    where = tmp_path_factory.mktemp("notebook")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DUALCODEC_")}
    nbclient.NotebookClient(
        notebook, timeout=180, kernel_name="python3", resources={"metadata": {"path": str(where)}}
    ).execute(env=kept | SETTINGS | {"HF_HOME": str(where)})
    return {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}


def printed(outputs: list[Any]) -> str:
    return "".join(output.text for output in outputs if output.output_type == "stream")


def shown(outputs: list[Any]) -> Iterator[str]:
    """Contents of players and pictures."""
    for output in outputs:
        data = output.get("data", {})
        yield from (data[kind] for kind in ("text/html", "image/png") if kind in data)


def test_falls_back_to_the_demo_model(outputs: dict[str, list[Any]]) -> None:
    text = printed(outputs["model"])
    assert "there are no released weights here: cannot download" in text
    assert "demo: 9" in text
    assert str(get_config("demo").codec.codebook_sizes) in text


def test_is_audible(outputs: dict[str, list[Any]]) -> None:
    """The recording, and four numbers of codes."""
    players = [html for html in shown(outputs["decode"]) if "<audio" in html]
    assert len(players) == 5
    assert len({re.search(r"base64,([^\"]+)", html).group(1) for html in players}) == 5  # type: ignore[union-attr]


def test_has_pictures(outputs: dict[str, list[Any]]) -> None:
    for cell in ("recording", "encode", "spectrograms", "distance"):
        assert any(len(content) > 5000 for content in shown(outputs[cell])), cell


def test_codes_in_files_and_batches(outputs: dict[str, list[Any]]) -> None:
    assert "the same codes: True" in printed(outputs["file"])
    assert "second clip as alone: True" in printed(outputs["batch"])
    lines = re.findall(r"([\d.]+) kbit/s: ([\d.]+) dB", printed(outputs["distance"]))
    config = get_config("demo").codec
    rates = [float(rate) for rate, _ in lines]
    assert rates == [round(config.bitrate(n) / 1000, 3) for n in range(1, config.n_quantizers + 1)]
