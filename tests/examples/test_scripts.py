"""The example scripts in their short form, as a user runs them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("grain")
pytest.importorskip("hydra")
pytest.importorskip("orbax.checkpoint")

from dualcodec_jax import Inference, read_audio
from dualcodec_jax.tokens.source import TokenSource

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
# Programs run a few times: optimising them would take longer than that.
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def run(script: str, *options: str, cwd: Path) -> str:
    """What a script prints; it has to succeed, without a network."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DUALCODEC_")}
    result = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *options],
        cwd=cwd,
        env=kept | {"XLA_FLAGS": QUICK, "JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_script(script: Path) -> None:
    """Is listed, and tested below."""
    assert f"`{script.name}`" in (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert f'"{script.name}", "--short"' in Path(__file__).read_text(encoding="utf-8")


def test_tokenize(tmp_path: Path) -> None:
    text = run("tokenize_folder.py", "--short", "-o", "tokens", cwd=tmp_path)
    assert "encoded 1 recordings" in text
    assert text.count("batch: codes (2, 2, 64)") == 2
    (record,) = TokenSource(tmp_path / "tokens")
    decoded = read_audio(tmp_path / "tokens" / "first.wav")
    assert decoded.samples.size == record.num_samples
    again = run("tokenize_folder.py", "--short", "-o", "tokens", cwd=tmp_path)
    assert "1 were there" in again


def test_jit_and_mesh(tmp_path: Path) -> None:
    text = run("jit_and_mesh.py", "--short", cwd=tmp_path)
    assert "8 devices, step 1: loss" in text
    share = re.search(r"codes on the mesh equal those of one device: ([\d.]+)%", text)
    assert share is not None
    assert float(share.group(1)) > 99
    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+),", text)]
    assert losses[:2] == pytest.approx(losses[2:], abs=1e-3)
    assert losses[1] < losses[0]


def test_nnx(tmp_path: Path) -> None:
    text = run("flax_nnx.py", "--short", cwd=tmp_path)
    assert "the same codes as before: True" in text
    before, after = (float(value) for value in re.findall(r"(?:before|after): ([\d.]+)", text))
    assert after < before


def test_finetune(tmp_path: Path) -> None:
    text = run("finetune_your_voice.py", "--short", "-o", "voice", cwd=tmp_path)
    assert "3 steps are in voice/run" in text
    assert re.search(r"before: mel distance [\d.]+ on 1 recordings\nafter: mel distance", text)
    folder = tmp_path / "voice"
    clips = [folder / name / "librivox_0880.wav" for name in ("original", "before", "after")]
    original, before, after = (read_audio(path).samples for path in clips)
    assert original.size == before.size == after.size
    assert (before != after).any()
    trained = Inference.from_pretrained(folder / "model")
    assert trained.model.source == {"run": "run", "step": 3}
