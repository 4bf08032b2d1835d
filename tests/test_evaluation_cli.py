"""``dualcodec-jax evaluate``: which systems it takes, what it writes, its exit status."""

from __future__ import annotations

import inspect
import json
import pickle
import re
from pathlib import Path

import pytest
from evaluation_standins import StandInCodec, StandInMetric, StandInRecogniser, make_items
from typer.testing import CliRunner

from dualcodec_jax.audio.reader import DEFAULT_MAX_SECONDS
from dualcodec_jax.cli import evaluate as command
from dualcodec_jax.cli.main import app
from dualcodec_jax.errors import ConfigError, InputError
from dualcodec_jax.evaluation import codecs, metrics, recognisers, report, runner
from dualcodec_jax.evaluation.codecs import Codec, CodecAbsent
from dualcodec_jax.evaluation.presets import PRESETS
from dualcodec_jax.evaluation.recognisers import RecogniserAbsent

FILES = {"table.md", "table.csv", "results.json", "report.html"}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand-ins for all codecs but ``mimi``; the specs that were opened."""
    specs: list[str] = []

    def open_codec(spec: str) -> Codec:
        specs.append(spec)
        if spec.startswith("mimi"):
            raise CodecAbsent("no weights of mimi; get them")
        if spec.startswith("wavtokenizer"):
            raise pickle.UnpicklingError("damaged")
        if re.fullmatch(r"(encodec:1\.5|opus:6)@.*|encodec@[13]|dualcodec:demo@[3-9]", spec):
            raise InputError(f"{spec}: no such number")
        return StandInCodec(
            f"{spec}@2" if spec.startswith("dualcodec") and "@" not in spec else spec
        )

    monkeypatch.setattr(codecs, "open_codec", open_codec)
    monkeypatch.setattr(runner, "open_codec", open_codec)
    monkeypatch.setattr(metrics, "METRICS", {"gain": StandInMetric})
    monkeypatch.setattr(report, "check_available", _no_pictures)
    monkeypatch.delenv("DUALCODEC_WEIGHTS", raising=False)
    return specs


def _no_pictures() -> None:
    """As if matplotlib was missing: test_evaluation_report.py draws."""
    raise ConfigError("no pictures here")


def call(tmp_path: Path, *arguments: str) -> tuple[int, str]:
    if not (tmp_path / "in").exists():
        make_items(tmp_path / "in", (0.2, 0.4))
    result = CliRunner().invoke(
        app, ["evaluate", str(tmp_path / "in"), "-o", str(tmp_path / "out"), *arguments]
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def systems(tmp_path: Path) -> list[str]:
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    return [system["name"] for system in content["systems"]]


@pytest.mark.usefixtures("opened")
def test_files_and_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/somewhere/dualcodec-jax", "evaluate", "my clips"])
    status, output = call(tmp_path, "--codec", "dualcodec:demo", "--metrics", "gain")
    assert status == 0
    assert {path.name for path in (tmp_path / "out").iterdir() if path.is_file()} == FILES
    assert "dualcodec:demo@2" in output
    assert systems(tmp_path) == ["original", "dualcodec:demo@2"]
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    assert content["environment"]["command"] == "dualcodec-jax evaluate 'my clips'"
    assert (tmp_path / "out/audio/original/clip0.flac").is_file()
    assert call(tmp_path, "--codec", "dualcodec:demo", "--metrics", "gain")[0] == 0


@pytest.mark.usefixtures("opened")
def test_default_is_the_demo_with_all_its_counts(tmp_path: Path) -> None:
    status, output = call(tmp_path, "--metrics", "gain")
    assert status == 0
    assert systems(tmp_path) == ["original", "dualcodec:demo@1", "dualcodec:demo@2"]
    assert "not the DualCodec release" in output


@pytest.mark.usefixtures("opened")
def test_all_metrics_by_default(tmp_path: Path) -> None:
    """A recogniser that is not installed is no failure when nobody asked for it."""
    assert call(tmp_path, "-c", "opus:6", "--no-audio")[0] == 0
    assert "Gain" in (tmp_path / "out" / "table.md").read_text()
    assert not (tmp_path / "out" / "audio").exists()


@pytest.mark.usefixtures("opened")
def test_systems_to_evaluate(monkeypatch: pytest.MonkeyPatch) -> None:
    choose = command.choose_systems
    given = ["dualcodec:demo", "dualcodec:demo@2", "opus:6", "upstream:12hz_v1"]
    assert choose(given, [1, 2], None) == [
        "dualcodec:demo@1",
        "dualcodec:demo@2",
        "opus:6",
        "upstream:12hz_v1@1",
        "upstream:12hz_v1@2",
    ]
    assert choose(given, None, None) == given
    assert choose(None, [1], None) == ["dualcodec:demo@1"]
    table = PRESETS["table2"]
    assert choose(None, None, table) == [*table.codecs, "dualcodec:demo@1"]
    assert choose(None, [2], table) == [*table.codecs, "dualcodec:demo@2"]
    given = ["mimi", "speechtokenizer", "wavtokenizer", "opus:6"]
    assert choose(given, None, table) == ["mimi", "speechtokenizer@1", *given[2:]]
    # A number that the argument fixes stays; the nearest one that the model has.
    assert choose(["encodec:1.5", "encodec"], None, table) == ["encodec:1.5", "encodec@2"]
    # The paper's own row has two quantizers.
    assert choose(["encodec:1.5"], None, PRESETS["table3"]) == ["encodec:1.5"]
    monkeypatch.setenv("DUALCODEC_WEIGHTS", "somewhere")
    assert choose(None, None, table) == list(table.codecs)
    assert choose(None, None, None) == ["dualcodec:12hz_v1@1", "dualcodec:12hz_v1@2"]
    assert choose(None, [2], table) == [*table.codecs, "dualcodec:12hz_v1@2"]
    with pytest.raises(InputError, match="-n 20: dualcodec:12hz_v1 has 1 to 2 quantizers"):
        choose(None, [1, 20], None)
    with pytest.raises(InputError, match="unknown codec"):
        choose(["nonsense"], None, None)


@pytest.mark.usefixtures("opened")
def test_preset(tmp_path: Path) -> None:
    status, _ = call(tmp_path, "--preset", "table5", "--limit", "1")
    assert status == 0  # what the preset alone asks for may be absent
    text = (tmp_path / "out" / "table.md").read_text()
    assert "Beside the paper's Table 5" in text
    assert "codec mimi@6: no weights of mimi; get them" in text
    assert "encodec:1.5" in systems(tmp_path)
    assert "1 recordings" in text


@pytest.mark.usefixtures("opened")
def test_absent_codec_that_was_asked_for(tmp_path: Path) -> None:
    status, output = call(tmp_path, "-c", "mimi:8", "-c", "opus:6", "--metrics", "gain")
    assert status == 1
    assert "no weights of mimi" in output
    assert systems(tmp_path) == ["original", "opus:6"]


@pytest.mark.usefixtures("opened")
def test_number_of_quantizers_that_was_asked_for(tmp_path: Path) -> None:
    """More than the model has, beside the codecs of a protocol."""
    arguments = "--metrics", "gain", "--preset", "table2", "--limit", "1"
    assert call(tmp_path, *arguments, "-n", "1")[0] == 0
    status, output = call(tmp_path, *arguments, "-n", "1", "-n", "9")
    assert status == 1
    assert "codec dualcodec:demo@9 not run" in output


@pytest.mark.usefixtures("opened")
def test_one_codec_by_two_names(tmp_path: Path) -> None:
    make_items(tmp_path / "in", (0.2,))
    status, output = call(tmp_path, "-c", "original:24000", "-c", "original", "--metrics", "gain")
    assert status == 0
    assert systems(tmp_path) == ["original", "original:24000"]
    names = "-c", "dualcodec:demo", "-c", "dualcodec:demo@2"
    status, output = call(tmp_path, *names, "--metrics", "gain")
    assert status == 0
    assert "duplicate dualcodec:demo@2 not run: it is dualcodec:demo, which" in output


@pytest.mark.usefixtures("opened")
@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("--metrics", "gain,wer"), 1),
        (("--recogniser", "faster-whisper", "--metrics", "gain"), 1),
        (("--metrics", "gain"), 0),
        (("--preset", "table2", "-c", "opus:6"), 0),
    ],
)
def test_words_that_cannot_be_recognised(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    status: int,
) -> None:
    """Found out only on the way, under the recogniser's own name."""

    def absent(*_: object) -> str:
        raise RecogniserAbsent("no weights")

    monkeypatch.setattr(StandInRecogniser, "transcribe", absent)
    monkeypatch.setattr(recognisers, "open_recogniser", lambda _: StandInRecogniser())
    assert call(tmp_path, "-c", "opus:6", "--limit", "1", *arguments)[0] == status


@pytest.mark.usefixtures("opened")
def test_words_of_a_language_that_no_recogniser_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recognisers, "open_recogniser", lambda _: StandInRecogniser())
    items = make_items(tmp_path / "in", (0.2,))
    (tmp_path / "list.csv").write_text(f"path,language\n{items[0].path},fr\n")
    arguments = [str(tmp_path / "list.csv"), "-o", str(tmp_path / "out"), "-c", "opus:6"]
    result = CliRunner().invoke(app, ["evaluate", *arguments, "--metrics", "wer"])
    assert result.exit_code == 1
    assert "word errors of fr not run: ears does not know" in result.output


@pytest.mark.usefixtures("opened")
def test_failed_clip(tmp_path: Path) -> None:
    make_items(tmp_path / "in", (0.2, 0.4))
    (tmp_path / "in" / "clip1.wav").write_bytes(b"no audio")
    status, output = call(tmp_path, "-c", "opus:6", "--metrics", "gain")
    assert status == 1
    assert "opus:6, clip1: codec:" in output
    assert "opus:6, clip1" in (tmp_path / "out" / "table.md").read_text()


@pytest.mark.usefixtures("opened")
@pytest.mark.parametrize(
    "arguments", [("-c", "nonsense"), ("--metrics", "nonsense"), ("--recogniser", "nonsense")]
)
def test_usage(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    status, output = call(tmp_path, "-c", "opus:6", *arguments)
    assert status == 2
    assert "unknown" in output
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("opened")
@pytest.mark.parametrize("name", ["mcd", "gain", "wer"])
def test_rank_by_what_has_no_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(metrics, "METRICS", {"gain": lambda: StandInMetric(nothing=True)})
    status, output = call(tmp_path, "-c", "opus:6", "--metrics", "gain", "--rank-by", name)
    assert status == 0
    assert f"not ranked by {name}" in output


@pytest.mark.usefixtures("opened")
def test_long_recordings(tmp_path: Path) -> None:
    parameters = inspect.signature(command.evaluate).parameters
    assert parameters["max_seconds"].default == DEFAULT_MAX_SECONDS
    arguments = "-c", "opus:6", "--metrics", "gain", "--max-seconds"
    status, output = call(tmp_path, *arguments, "1.05")  # of 1.0 and 1.1 s
    assert status == 1
    assert "opus:6, clip1: codec:" in output
    assert "--max-seconds" in output
    assert call(tmp_path, *arguments, "inf")[0] == 0


@pytest.mark.usefixtures("opened")
def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "table.md").write_text("mine")
    status, output = call(tmp_path, "-c", "opus:6", "--metrics", "gain")
    assert status == 2
    assert "holds other files" in output
    assert (tmp_path / "out" / "table.md").read_text() == "mine"
    assert call(tmp_path, "-c", "opus:6", "--metrics", "gain", "--overwrite")[0] == 0
