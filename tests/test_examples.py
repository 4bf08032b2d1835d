"""The launch scripts, with commands in place of the cluster's that write down what they get."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("hydra")

from dualcodec_jax.train.options import compose
from dualcodec_jax.train.run_config import RunConfig

ROOT = Path(__file__).parent.parent
RECORD = '#!/bin/sh\nprintf "%s\\n" "$@" > "$0.arguments"\n'
# What a user adds; a TPU pod's shell reads it twice.
MINE = ("data=audio_folder", "data.locations=/my data")


def launch(
    script: str, stubs: Path, *stubbed: str, **extra: str
) -> subprocess.CompletedProcess[str]:
    for name in stubbed:
        (stubs / name).write_text(RECORD, encoding="utf-8")
        (stubs / name).chmod(0o755)
    return subprocess.run(
        ["bash", str(ROOT / "examples" / script), *MINE],
        env=os.environ | {"PATH": f"{stubs}:{os.environ['PATH']}"} | extra,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def arguments(stubs: Path, name: str) -> list[str]:
    return (stubs / f"{name}.arguments").read_text(encoding="utf-8").splitlines()


def composed(words: list[str]) -> RunConfig:
    """The run that the words after ``python train_jax.py`` ask for."""
    config, *options = words
    assert config == "--config-name=dualcodec_train"
    run = compose("dualcodec_train", options)
    assert run.distributed
    assert run.resume
    assert run.objective.precision == "bfloat16"
    assert run.data.locations == ("/my data",)
    return run


def test_slurm(tmp_path: Path) -> None:
    result = launch("train_slurm.sh", tmp_path, "srun")
    assert result.returncode == 0, result.stderr
    words = arguments(tmp_path, "srun")
    start = words.index("train_jax.py")
    assert words[:start] == ["--kill-on-bad-exit=1", "python"]
    assert composed(words[start + 1 :]).save_every == 5000


def test_tpu_pod(tmp_path: Path) -> None:
    result = launch(
        "train_tpu_pod.sh", tmp_path, "gcloud", TPU="my-pod", ZONE="my-zone", RUNS="/my runs"
    )
    assert result.returncode == 0, result.stderr
    words = arguments(tmp_path, "gcloud")
    assert words[:6] == ["compute", "tpus", "tpu-vm", "ssh", "my-pod", "--zone"]
    assert words[6:9] == ["my-zone", "--worker=all", "--command"]
    # As every host's shell runs it.
    home = tmp_path / "home"
    (home / "dualcodec_jax").mkdir(parents=True)
    python = tmp_path / "python"
    python.write_text(RECORD, encoding="utf-8")
    python.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run(["bash", "-c", words[9]], env={"PATH": path}, cwd=home, check=True)
    host = arguments(tmp_path, "python")
    assert host[0] == "train_jax.py"
    assert composed(host[1:]).output == Path("/my runs/dualcodec_12hz")


@pytest.mark.parametrize("missing", ["TPU", "ZONE", "RUNS"])
def test_a_pod_without_a_name(tmp_path: Path, missing: str) -> None:
    given = {"TPU": "a", "ZONE": "b", "RUNS": "c"} | {missing: ""}
    result = launch("train_tpu_pod.sh", tmp_path, "gcloud", **given)
    assert result.returncode == 1
    assert missing in result.stderr
    assert not (tmp_path / "gcloud.arguments").exists()
