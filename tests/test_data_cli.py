"""``dualcodec-jax data``, run in process on small files and the tiny model."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner, Result

pytest.importorskip("tensorflow_datasets")
pytest.importorskip("grain")

from dualcodec_jax.cli.main import app
from dualcodec_jax.config import TINY
from dualcodec_jax.convert.stats import read_statistics
from dualcodec_jax.data.errors import DataError
from dualcodec_jax.data.folder import FolderSource
from dualcodec_jax.data.records import Record
from dualcodec_jax.data.tfds_source import TfdsSource, splits
from dualcodec_jax.lengths import code_length

RATE = 24000
MODEL = ("--model", "tiny", "--weights", "random")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("DUALCODEC_JAX_CACHE", str(cache))
    monkeypatch.setattr("dualcodec_jax.compilation.enable_cache", lambda: cache)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    for seed, (name, rate) in enumerate((("a.wav", RATE), ("b.flac", 16000), ("c.ogg", RATE))):
        noise = 0.1 * np.random.default_rng(seed).standard_normal(rate)
        soundfile.write(folder / name, noise, rate)
    (folder / "a.txt").write_text("hello")
    return folder


@pytest.fixture
def broken(clips: Path) -> Path:
    (clips / "x.wav").write_text("text, renamed")
    return clips


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["data", *(str(argument) for argument in arguments)])


def succeeds(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def fails(status: int, *arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    assert "error: " in result.stderr
    return " ".join(result.stderr.split())


def test_prepare_then_use(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "3 clips in train" in succeeds("prepare", "audio_folder", clips, "-o", out)
    assert splits(out) == {"train": 3}
    assert "3 of 3 records decoded: 0 damaged" in succeeds("verify", out)
    assert "exists already" in fails(2, "prepare", "audio_folder", clips, "-o", out)
    succeeds("prepare", "audio_folder", clips, "-o", out, "--overwrite")


def test_prepare_reports_damaged_files(broken: Path, tmp_path: Path) -> None:
    text = fails(1, "prepare", "audio_folder", broken, "-o", tmp_path / "out")
    assert "x.wav: is not an audio file" in text
    assert "1 of 4 records are damaged" in text
    assert splits(tmp_path / "out") == {"train": 3}
    assert "no LibriSpeech here" in fails(
        2, "prepare", "librispeech", broken, "-o", tmp_path / "out2"
    )
    assert "no files with suffix .tar" in fails(
        2, "prepare", "emilia", broken, "-o", tmp_path / "out2"
    )
    assert "no such file" in fails(2, "prepare", "audio_folder", "none", "-o", tmp_path / "out2")
    assert not (tmp_path / "out2").exists()


def test_inspect_folder_tar_and_data_set(clips: Path, tmp_path: Path) -> None:
    shard = tmp_path / "shards" / "a.tar"
    shard.parent.mkdir()
    with tarfile.open(shard, "w") as archive:
        for path in sorted(clips.iterdir()):
            archive.add(path, path.name)
        metadata = json.dumps({"language": "en", "dnsmos": 3.1}).encode()
        member = tarfile.TarInfo("a.json")
        member.size = len(metadata)
        archive.addfile(member, io.BytesIO(metadata))
    succeeds("prepare", "emilia", shard, "-o", tmp_path / "out")
    for source, languages in (
        (clips, {"unknown": 3}),
        (shard, {"unknown": 2, "en": 1}),
        (shard.parent, {"unknown": 2, "en": 1}),
        (tmp_path / "out", {"unknown": 2, "en": 1}),
    ):
        result = run("inspect", source, "--json")
        assert result.exit_code == 0, result.output
        facts = json.loads(result.stdout)
        assert facts["clips"] == 3
        assert facts["hours"] == pytest.approx(3 / 3600)
        assert facts["sample_rates"] == {"24000": 2, "16000": 1}
        assert facts["languages"] == languages
    text = succeeds("inspect", clips)
    assert "24000: 2, 16000: 1" in text
    assert "█" in text
    assert json.loads(run("inspect", clips, "--json", "--sample", 2).stdout)["clips"] == 2


def test_inspect_and_verify_list_damage(broken: Path) -> None:
    assert "x.wav: is not an audio file" in fails(1, "inspect", broken)
    assert "1 damaged" in fails(1, "verify", broken)
    # A truncated file has a good header... of a FLAC: only decoding shows it.
    (broken / "x.wav").unlink()
    flac = broken / "b.flac"
    flac.write_bytes(flac.read_bytes()[:9000])
    assert "b.flac: damaged or truncated" in fails(1, "verify", broken)
    assert "no such file" in fails(2, "verify", "none.wav")
    assert "kind" in run("verify", broken, "--kind", "zip").stderr


def test_verify_knows_nothing_of_filters_unless_asked(clips: Path) -> None:
    assert "0 damaged, 0 outside" in succeeds("verify", clips)
    assert "0 damaged, 3 outside" in succeeds("verify", clips, "--max-seconds", "0.5")


def test_records_that_the_source_cannot_give_are_damaged(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = FolderSource.__getitem__

    def failing(self: FolderSource, index: int) -> Record:
        if index == 1:
            raise DataError("the disk is gone")
        return get(self, index)

    monkeypatch.setattr(FolderSource, "__getitem__", failing)
    for command in (
        ("inspect", clips),
        ("verify", clips),
        ("stats", clips, "-o", tmp_path / "s.safetensors", *MODEL),
        ("features", clips, "-o", tmp_path / "out", *MODEL),
    ):
        text = fails(1, *command)
        assert "record 1: the disk is gone" in text
        assert "1 of 3 records are damaged" in text


def test_plot(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    target = tmp_path / "plot.png"
    assert "pip install matplotlib" in fails(2, "inspect", clips, "--plot", target)
    assert not target.exists()


def test_statistics_of_shards_merge_to_the_whole(clips: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "all.safetensors", []
    succeeds("stats", clips, "-o", whole, *MODEL)
    for number in range(2):
        parts.append(tmp_path / f"{number}.safetensors")
        succeeds("stats", clips, "-o", parts[-1], "--shard", f"{number}/2", *MODEL)
    merged = tmp_path / "merged.safetensors"
    assert "frames of 2 files" in succeeds("stats", "--merge", *parts, "-o", merged)
    for name, values in read_statistics(whole).items():
        assert values.shape == (64,)
        np.testing.assert_allclose(read_statistics(merged)[name], values, rtol=1e-6, atol=1e-8)
    assert "exists" in fails(2, "stats", clips, "-o", whole, *MODEL)


def test_statistics_unhappy_paths(broken: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.safetensors"
    assert "must end in .safetensors" in fails(2, "stats", broken, "-o", tmp_path / "s.pt")
    for shard in ("2/2", "1", "0/0"):
        text = fails(2, "stats", broken, "-o", out, "--shard", shard, *MODEL)
        assert "--shard must be I/N" in text
    assert "use a smaller N" in fails(2, "stats", broken, "-o", out, "--shard", "7/9", *MODEL)
    assert "not a readable" in fails(2, "stats", "--merge", broken / "x.wav", "-o", out)
    text = fails(2, "stats", broken, "-o", out, "--max-seconds", "0.1", *MODEL)
    assert "variance of nothing" in text
    assert not out.exists()
    assert "1 of 4 records are damaged" in fails(1, "stats", broken, "-o", out, *MODEL)
    assert out.exists()  # of the other three


def test_features(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    text = succeeds("features", clips, "-o", out, "--dtype", "float32", *MODEL)
    assert "3 clips with features" in text
    source = TfdsSource(out)
    assert source.features is not None
    assert source.features.dtype == "float32"
    features = source[0].features
    assert features is not None
    assert features.shape == (code_length(RATE, TINY), 64)
    assert "exists" in fails(2, "features", clips, "-o", out, *MODEL)
    text = succeeds(
        "features", clips, "-o", out, "--overwrite", "--shard", "1/2", "--min-seconds", 0.5, *MODEL
    )
    assert "1 clips with features" in text
    assert "no records to write" in fails(
        2, "features", clips, "-o", tmp_path / "none", "--language", "en", *MODEL
    )
    assert not (tmp_path / "none").exists()


def test_features_without_weights(clips: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    fails(2, "features", clips, "-o", tmp_path / "out", "--weights", empty, "--w2v", empty)
    fails(2, "stats", clips, "-o", tmp_path / "s.safetensors", "--w2v", empty)


def test_help_lists_the_commands() -> None:
    text = succeeds("--help")
    for name in ("prepare", "inspect", "verify", "stats", "features"):
        assert name in text


def test_two_data_sets_in_one_folder_are_named(clips: Path, tmp_path: Path) -> None:
    succeeds("prepare", "audio_folder", clips, "-o", tmp_path / "both" / "one")
    shutil.copytree(tmp_path / "both" / "one", tmp_path / "both" / "two")
    assert "name one of them" in fails(2, "inspect", tmp_path / "both")
