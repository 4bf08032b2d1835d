"""Tokenising in process: codes, broken files, resuming, and the command line."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import soundfile
from micro import CODEC, W2V_BERT
from typer.testing import CliRunner, Result

pytest.importorskip("array_record")

from dualcodec_jax.audio.load import load_audio
from dualcodec_jax.cli.main import app
from dualcodec_jax.convert.files import codec_shapes
from dualcodec_jax.data.errors import BrokenDataError, DataError
from dualcodec_jax.errors import InputError
from dualcodec_jax.files import encode_file, encode_samples
from dualcodec_jax.inference import Inference
from dualcodec_jax.model import DualCodecModel, random_semantic
from dualcodec_jax.nn.random import random_params
from dualcodec_jax.tokens import pipeline, run
from dualcodec_jax.tokens.corpus import open_corpus
from dualcodec_jax.tokens.detokenize import detokenize
from dualcodec_jax.tokens.reading import on_host
from dualcodec_jax.tokens.records import TokenRecord
from dualcodec_jax.tokens.run import Outcome, tokenize
from dualcodec_jax.tokens.settings import Settings
from dualcodec_jax.tokens.source import TokenSource
from dualcodec_jax.tokens.verify import verify

RATE = CODEC.sample_rate
WEIGHTS = "w" * 64
SECONDS = (0.9, 1.7, 0.02, 1.1, 0.5, 1.93, 1.3, 0.77)
SETTINGS: dict[str, Any] = {"shard_size": 3, "batch_seconds": 5.0, "readers": 2}


pytestmark = pytest.mark.usefixtures("quick_programs")


@pytest.fixture(scope="module")
def inference() -> Inference:
    """A model that compiles in seconds."""
    model = DualCodecModel("micro", CODEC, random_params(codec_shapes(CODEC), 0))
    return Inference(model, semantic=(W2V_BERT, *random_semantic(W2V_BERT)))


def save(path: Path, seconds: float, seed: int, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = 0.1 * np.random.default_rng(seed).standard_normal(max(1, round(seconds * rate)))
    soundfile.write(path, noise, rate)
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight clips below 2 s, so that one program encodes them all."""
    folder = tmp_path_factory.mktemp("clips")
    for number, seconds in enumerate(SECONDS):
        save(folder / "s" / f"{number}.wav", seconds, number, 16000 if number == 3 else RATE)
    (folder / "s" / "1.txt").write_text("Grüße", encoding="utf-8")
    return folder


@pytest.fixture
def go(inference: Inference, clips: Path, tmp_path: Path) -> Callable[..., Outcome]:
    """Tokenise ``clips`` into ``tmp_path / "out"``, with other settings or sources if given."""

    def run_it(source: Any = clips, output: Path = tmp_path / "out", **options: Any) -> Outcome:
        names = set(Settings.__dataclass_fields__) & set(options)
        settings = Settings(**{**SETTINGS, **{name: options.pop(name) for name in names}})
        return tokenize(open_corpus(source), output, inference, WEIGHTS, settings, **options)

    return run_it


@pytest.fixture(scope="module")
def finished(
    inference: Inference, clips: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Outcome]:
    """A finished run on ``clips``; not to be changed."""
    folder = tmp_path_factory.mktemp("finished") / "out"
    settings = Settings(**SETTINGS)
    return folder, tokenize(open_corpus(clips), folder, inference, WEIGHTS, settings)


@pytest.fixture
def copied(finished: tuple[Path, Outcome], tmp_path: Path) -> Path:
    """A copy of it, where ``go`` writes."""
    shutil.copytree(finished[0], tmp_path / "out")
    return tmp_path / "out"


def records(folder: Path) -> list[TokenRecord]:
    return list(TokenSource(folder))


def test_codes_are_those_of_each_recording_alone(
    finished: tuple[Path, Outcome], inference: Inference, clips: Path
) -> None:
    folder, outcome = finished
    made = records(folder)
    assert [record.id for record in made] == [f"s/{number}" for number in range(8)]
    for number in (1, 2, 3):  # each length compiles a program of its own
        samples = load_audio(clips / "s" / f"{number}.wav", RATE).samples
        assert made[number].file == encode_samples(inference, samples)
    assert made[1].text == "Grüße"
    assert made[0].weights == WEIGHTS[:16]
    assert outcome.manifest is not None
    assert outcome.manifest["records"] == outcome.status.done == 8
    assert outcome.manifest["hours"] * 3600 == pytest.approx(sum(SECONDS), abs=1e-3)
    assert outcome.status.audio_seconds == pytest.approx(sum(SECONDS), abs=1e-3)
    assert len(outcome.manifest["shards"]) == 3
    assert verify(folder).problems == []


def test_a_run_tells_how_far_it_is_and_where_its_time_went(
    go: Callable[..., Outcome],
) -> None:
    seen: list[tuple[int, float]] = []
    outcome = go(on_progress=lambda status: seen.append((status.done, status.audio_seconds)))
    assert [done for done, _ in seen] == list(range(1, 9))
    assert seen[-1][1] == pytest.approx(sum(SECONDS), abs=1e-3)
    status = outcome.status
    assert 0 < status.waited_for_readers < status.elapsed
    assert min(status.read, status.write, status.elapsed) > 0


@pytest.mark.slow
def test_long_recordings_go_through_windows(
    go: Callable[..., Outcome], inference: Inference, tmp_path: Path
) -> None:
    long = save(tmp_path / "in" / "long.wav", 2.6, 9)
    short = save(tmp_path / "in" / "short.wav", 1.0, 10)
    windows = {"whole_seconds": 2.0, "window_seconds": 1.2, "overlap_seconds": 0.4}
    go(tmp_path / "in", **windows)
    first, second = records(tmp_path / "out")
    assert first.file == encode_file(inference, long, **windows)[0]
    assert second.file == encode_samples(inference, load_audio(short, RATE).samples)
    assert verify(tmp_path / "out").problems == []


def test_fewer_quantizers(
    go: Callable[..., Outcome], finished: tuple[Path, Outcome], tmp_path: Path
) -> None:
    go(n_quantizers=2)
    for fewer, all_of_them in zip(records(tmp_path / "out"), records(finished[0]), strict=True):
        np.testing.assert_array_equal(fewer.codes, all_of_them.codes[:2])
    assert verify(tmp_path / "out").problems == []


# Sources ------------------------------------------------------------------------------------


def test_listings_and_tar_shards_give_the_same_codes(
    go: Callable[..., Outcome], finished: tuple[Path, Outcome], clips: Path, tmp_path: Path
) -> None:
    expected = [record.file for record in records(finished[0])]
    listing = tmp_path / "list.jsonl"
    rows = [{"path": str(path), "id": path.stem} for path in sorted((clips / "s").glob("*.wav"))]
    listing.write_text("".join(json.dumps(row) + "\n" for row in rows))
    go(listing, tmp_path / "a")
    made = records(tmp_path / "a")
    assert [record.id for record in made] == [str(number) for number in range(8)]
    assert [record.file for record in made] == expected
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for number in range(8):
            archive.add(clips / "s" / f"{number}.wav", f"{number}.wav")
    go(tmp_path / "x.tar", tmp_path / "b")
    made = records(tmp_path / "b")
    assert [record.id for record in made] == [f"x.tar/{number}" for number in range(8)]
    assert [record.file for record in made] == expected


def test_prepared_data_sets_give_the_same_codes(
    go: Callable[..., Outcome], finished: tuple[Path, Outcome], clips: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tensorflow_datasets")
    from dualcodec_jax.data.builders import audio_folder
    from dualcodec_jax.data.builders.base import write_dataset

    splits = audio_folder.read_splits(clips)
    write_dataset(audio_folder.DualcodecAudioFolder, splits, tmp_path / "prepared")
    go(tmp_path / "prepared")
    made = records(tmp_path / "out")
    assert [record.id for record in made] == [f"s/{number}.wav" for number in range(8)]
    assert [record.file for record in made] == [record.file for record in records(finished[0])]
    assert made[1].text == "Grüße"


# Broken recordings --------------------------------------------------------------------------


def with_broken(clips: Path, folder: Path) -> Path:
    shutil.copytree(clips, folder)
    (folder / "s" / "2.wav").write_bytes(b"")
    (folder / "s" / "6.wav").write_text("not audio")
    return folder


def test_broken_recordings_are_listed_and_skipped(
    go: Callable[..., Outcome], clips: Path, tmp_path: Path
) -> None:
    source = with_broken(clips, tmp_path / "in")
    seen: list[str] = []
    outcome = go(source, max_broken_fraction=0.25, on_broken=lambda item: seen.append(item.id))
    assert seen == ["s/2", "s/6"]
    assert outcome.manifest is not None
    assert (outcome.manifest["records"], outcome.manifest["broken"]) == (6, 2)
    lines = [json.loads(x) for x in (tmp_path / "out" / "broken.jsonl").read_text().splitlines()]
    assert [(line["index"], line["id"]) for line in lines] == [(2, "s/2"), (6, "s/6")]
    assert lines[0]["reason"] == "is empty (0 bytes)"
    assert verify(tmp_path / "out").problems == []
    assert [record.index for record in records(tmp_path / "out")] == [0, 1, 3, 4, 5, 7]


def test_a_limit_stops_the_run_and_may_be_raised(
    go: Callable[..., Outcome], clips: Path, tmp_path: Path
) -> None:
    source = with_broken(clips, tmp_path / "in")
    with pytest.raises(BrokenDataError, match="1 broken recordings, more than the 0 allowed of 8"):
        go(source)
    with pytest.raises(BrokenDataError, match="2 broken recordings, more than the 1 allowed"):
        go(source, max_broken=1, max_broken_fraction=None)
    outcome = go(source, max_broken=2, max_broken_fraction=None)
    assert outcome.status.kept > 0
    with pytest.raises(BrokenDataError, match="2 broken recordings"):
        go(source)  # finished, but for another limit


def test_broken_long_recordings_count_too(go: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    noise = np.random.default_rng(0).standard_normal(3 * RATE).astype(np.float32)
    noise[-1] = np.nan
    soundfile.write(tmp_path / "in" / "a.wav", noise, RATE, subtype="FLOAT")
    windows = {"whole_seconds": 2.0, "window_seconds": 1.2, "overlap_seconds": 0.4}
    outcome = go(tmp_path / "in", max_broken_fraction=1.0, **windows)
    assert outcome.status.broken == 1
    assert "NaN" in (tmp_path / "out" / "broken.jsonl").read_text()


def test_a_full_disk_stops_the_run_early(
    go: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    for number in range(20):
        (tmp_path / "in" / f"{number:02}.wav").touch()
    seen: list[str] = []

    def full(*_: Any) -> None:
        raise InputError("make room")

    monkeypatch.setattr(pipeline, "write_shard", full)
    with pytest.raises(InputError, match="make room"):
        go(
            tmp_path / "in",
            shard_size=1,
            max_broken_fraction=1.0,
            on_broken=lambda item: seen.append(item.id),
        )
    assert len(seen) < 6


# Stopping and going on ----------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_stopped_run_goes_on_with_the_shards_that_are_missing(
    go: Callable[..., Outcome],
    finished: tuple[Path, Outcome],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write = pipeline.write_shard

    def stop(folder: Path, plan: Any, shard: int, *rest: Any) -> Any:
        if shard == 1:
            (folder / ".half.tmp").write_text("x")
            os.utime(folder / ".half.tmp", (0, 0))
            raise KeyboardInterrupt
        return write(folder, plan, shard, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "write_shard", stop)
        with pytest.raises(KeyboardInterrupt):
            go()
    before = contents(tmp_path / "out")
    assert "codes-00000-of-00003.json" in before
    assert "manifest.json" not in before
    outcome = go()
    assert outcome.status.kept in (3, 5)  # shard 2 may have been written still
    assert outcome.status.kept + outcome.status.done == 8
    # Byte for byte: batches are those of a run that was not stopped.
    after, expected = contents(tmp_path / "out"), contents(finished[0])
    assert after == expected


def test_a_finished_run_is_left_alone_and_a_damaged_shard_made_again(
    go: Callable[..., Outcome], finished: tuple[Path, Outcome], tmp_path: Path
) -> None:
    shutil.copytree(finished[0], tmp_path / "out")
    assert go().status.kept == 8
    path = tmp_path / "out" / "codes-00001-of-00003.array_record"
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    redone: list[str] = []
    outcome = go(on_redo=redone.append)
    assert (outcome.status.kept, outcome.status.done) == (5, 3)
    assert "another SHA-256" in redone[0]
    assert contents(tmp_path / "out") == contents(finished[0])


def test_a_damaged_sidecar_is_told_of(
    go: Callable[..., Outcome], copied: Path, finished: tuple[Path, Outcome]
) -> None:
    (copied / "codes-00001-of-00003.json").write_text("{")
    redone: list[str] = []
    go(on_redo=redone.append)
    assert redone == ["codes-00001-of-00003.json is damaged"]
    assert contents(copied) == contents(finished[0])


def test_others_see_that_a_shard_is_being_made_again(
    go: Callable[..., Outcome],
    copied: Path,
    finished: tuple[Path, Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (copied / "codes-00001-of-00003.array_record").unlink()

    def stop(self: pipeline.Pipeline, todo: list[int]) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline.Pipeline, "shards", stop)
        with pytest.raises(KeyboardInterrupt):
            go(process_index=1, process_count=3)
    assert go(process_index=0, process_count=3).missing == 1
    assert go(process_index=1, process_count=3).manifest is not None
    assert contents(copied) == contents(finished[0])


def test_a_run_without_its_manifest_is_not_done(
    go: Callable[..., Outcome], copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copied / "manifest.json").unlink()
    monkeypatch.setattr(run, "_MANIFEST_SECONDS", 0.0)
    with pytest.raises(DataError, match="written no manifest; start again"):
        go(process_index=1, process_count=2, wait=True)


def test_another_plan_is_refused(
    go: Callable[..., Outcome], finished: tuple[Path, Outcome], clips: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished[0], tmp_path / "out")
    with pytest.raises(InputError, match="shard_size was 3, is 4"):
        go(shard_size=4)
    with pytest.raises(InputError, match="n_quantizers was 4, is 1"):
        go(n_quantizers=1)
    shutil.copytree(clips, tmp_path / "in")
    save(tmp_path / "in" / "more.wav", 1.0, 0)
    with pytest.raises(InputError, match="items was 8, is 9; digest was"):
        go(tmp_path / "in")
    assert contents(tmp_path / "out") == contents(finished[0])


def test_processes_share_the_shards(
    go: Callable[..., Outcome], finished: tuple[Path, Outcome], tmp_path: Path
) -> None:
    first = go(process_index=1, process_count=2)
    assert (first.manifest, first.missing, first.status.done) == (None, 2, 3)
    last = go(process_index=0, process_count=2)
    assert last.manifest is not None
    assert contents(tmp_path / "out") == contents(finished[0])
    # Without anything to do for a third one.
    assert go(process_index=5, process_count=6).status.done == 0


def test_ids_that_only_the_records_know_may_not_repeat(
    go: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dualcodec_jax.tokens.corpus.Corpus.item_id", lambda self, record: "same")
    with pytest.raises(DataError, match="7 records have the id of another one"):
        go()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shard_size": 0}, "shard_size must be at least 1"),
        ({"n_quantizers": 5}, "n_quantizers must be 1…4"),
        ({"batch_seconds": 0.0}, "batch_seconds must be positive"),
        ({"whole_seconds": 0.0}, "whole_seconds must be positive"),
        ({"overlap_seconds": 20.0}, "cannot overlap"),
        ({"readers": 0}, "readers must be at least 1"),
        ({"max_broken": -1}, "max_broken must not be negative"),
        ({"max_broken_fraction": 2.0}, r"in \[0, 1\]"),
        ({"process_index": 2, "process_count": 2}, "process 2 of 2"),
    ],
)
def test_settings_out_of_range(
    go: Callable[..., Outcome], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        go(**options)
    assert not (tmp_path / "out").exists()


def test_a_device_without_memory_is_named(
    go: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failed:
        def __array__(self, *_: Any, **__: Any) -> Any:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr("dualcodec_jax.tokens.encode.BatchEncoder.start", lambda *_, **__: Failed())
    with pytest.raises(InputError, match="--batch-seconds"):
        go()


def test_resampling_leaves_the_accelerator_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with on_host():
        assert jax.config.jax_default_device.platform == "cpu"
    monkeypatch.setattr(jax, "local_devices", lambda **_: (_ for _ in ()).throw(RuntimeError))
    with on_host():
        assert jax.config.jax_default_device is None


# And back -----------------------------------------------------------------------------------


def test_audio_files_have_the_lengths_of_the_recordings(
    finished: tuple[Path, Outcome], inference: Inference, tmp_path: Path
) -> None:
    out = tmp_path / "audio"
    (out / "s").mkdir(parents=True)
    (out / "s" / "0.flac").write_text("kept")
    status = detokenize(finished[0], out, inference)
    assert (status.done, status.kept, status.failed) == (8, 1, 0)
    assert (out / "s" / "0.flac").read_text() == "kept"
    for number in range(1, 8):
        info = soundfile.info(out / "s" / f"{number}.flac")
        assert (info.frames, info.samplerate) == (round(SECONDS[number] * RATE), RATE)
    assert detokenize(finished[0], out, inference).kept == 8
    for wrong in ({"audio_format": "mp3"}, {"n_quantizers": 0}, {"process_index": 1}):
        with pytest.raises(InputError):
            detokenize(finished[0], out, inference, **wrong)


def test_an_id_that_is_no_file_name_fails_alone(
    go: Callable[..., Outcome], inference: Inference, clips: Path, tmp_path: Path
) -> None:
    listing = tmp_path / "list.csv"
    names = [clips / "s" / f"{number}.wav" for number in (0, 4)]
    listing.write_text(f"id,path\n../x,{names[0]}\ny,{names[1]}\n")
    go(listing)
    failures: list[str] = []
    out = tmp_path / "audio"
    status = detokenize(
        tmp_path / "out", out, inference, on_failure=lambda name, error: failures.append(name)
    )
    assert (status.done, status.failed, failures) == (2, 1, ["../x"])
    assert [path.name for path in out.iterdir()] == ["y.flac"]
    with pytest.raises(InputError, match="not the name of a file"):
        detokenize(tmp_path / "out", out, inference)


# The command line ---------------------------------------------------------------------------


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def fails(status: int, *arguments: object) -> str:
    result = call(*arguments)
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    assert "error: " in result.stderr
    return " ".join(result.stderr.split())


def test_the_commands(
    inference: Inference, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dualcodec_jax.cli.tokens.load_inference", lambda *_, **__: inference)
    out = tmp_path / "out"
    options = ("--model", "tiny", "--weights", "random", "--shard-size", 3, "--batch-seconds", 5)
    result = call("tokenize", clips, "-o", out, *options)
    assert result.exit_code == 0, result.output
    assert "complete: 8 records" in " ".join(result.stderr.split())
    result = call("tokenize", "--verify", "-o", out)
    assert result.exit_code == 0, result.output
    assert "3 of 3 shards, all well" in " ".join(result.stderr.split())
    assert "differs: shard_size" in fails(2, "tokenize", clips, "-o", out, *options[:-3], 4)
    result = call("detokenize", out, "-o", tmp_path / "wav", "--format", "wav")
    assert result.exit_code == 0, result.output
    assert "8 files written, 0 kept" in " ".join(result.stderr.split())
    assert soundfile.info(tmp_path / "wav" / "s" / "1.wav").frames == round(1.7 * RATE)
    (out / "codes-00001-of-00003.json").unlink()
    assert "1 of 3 shards are missing" in fails(1, "tokenize", "--verify", "-o", out)


def test_broken_recordings_show_in_the_exit_status(
    inference: Inference, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dualcodec_jax.cli.tokens.load_inference", lambda *_, **__: inference)
    source = with_broken(clips, tmp_path / "in")
    options = ("--model", "tiny", "--weights", "random", "--batch-seconds", 5)
    arguments = ("tokenize", source, "-o", tmp_path / "out", *options)
    message = fails(2, *arguments)
    assert "s/2: is empty" in message
    assert "--max-broken-fraction" in message
    assert "s/6" in fails(1, *arguments, "--max-broken-fraction", 0.5)
    assert call(*arguments, "--max-broken-fraction", 0.5).exit_code == 0  # nothing new


def test_wrong_usage(clips: Path, tmp_path: Path) -> None:
    assert "no SOURCE" in fails(2, "tokenize", "-o", tmp_path / "out")
    assert "takes no SOURCE" in fails(2, "tokenize", clips, "--verify")
    assert "no plan.json" in fails(2, "tokenize", "--verify", "-o", tmp_path)
    assert "--part must be I/N" in fails(2, "tokenize", clips, "--part", "2/2")
    assert "nowhere" in fails(2, "tokenize", tmp_path / "nowhere", "-o", tmp_path / "out")
    assert "no manifest.json" in fails(2, "detokenize", tmp_path)
    missing = ("--kind", "tar", "--model", "tiny", "--weights", "random")
    assert "tar" in fails(2, "tokenize", clips, *missing, "-o", tmp_path / "out")
