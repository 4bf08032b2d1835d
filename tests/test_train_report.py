"""Pictures and pages of runs, from made-up records."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

pytest.importorskip("matplotlib")

from dualcodec_jax.cli.main import app
from dualcodec_jax.errors import ConfigError, InputError
from dualcodec_jax.train import plots, report
from dualcodec_jax.train.logs import RunLog

RATE = 24000


def make_run(folder: Path, log_points: int = 6, *, quantizers: int = 3) -> Path:
    with RunLog(folder, tensorboard=False, progress=False, primary=True) as log:
        for index in range(1, log_points + 1):
            values = {"loss/mel": 3 / index, "loss/total": 40 / index, "loss/discriminator": 4.0}
            values |= {"loss/commitment": 0.1, "norm/generator": 2.0, "rate/generator": 1e-4}
            values |= {f"perplexity/{q}": 50.0 + q for q in range(quantizers)}
            values |= {f"usage/{q}": 0.5 for q in range(quantizers)}
            values |= {"speed/steps_per_second": 2.0, "speed/eta_seconds": 61.0}
            values |= {"run/bad_steps": 0.0}
            log.write(100 * index, values)
    return folder


def add_evaluation(folder: Path, step: int, clips: Sequence[str] = ("a",)) -> None:
    target = folder / "eval" / f"step_{step:08d}"
    for name in clips:
        for path in (f"{target}/{name}.wav", f"{folder}/eval/original/{name}.wav"):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, np.zeros(RATE // 10), RATE)
    content = {"step": step, "values": {"mel": 1.5, "perplexity/0": 9.0}}
    content["clips"] = {name: {"mel": 1.5} for name in clips}
    (target / "metrics.json").write_text(json.dumps(content))


def titles(runs: Sequence[report.Run]) -> dict[str, plots.Panel]:
    return {panel.title: panel for _, panels in report.sections(runs) for panel in panels}


class Page(HTMLParser):
    """Collects sources, and checks that tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_panels_cover_what_was_logged(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    add_evaluation(folder, 300)
    panels = titles(report.read_runs([folder]))
    for title in (
        "Loss: total",
        "Loss: mel",
        "Loss: commitment",
        "Loss: discriminator",
        "Gradient norm: generator",
        "Learning rate: generator",
        "Speed",
        "Skipped steps",
        "Evaluation: mel distance",
        "Perplexity on the evaluation clips",
    ):
        assert title in panels
    assert "Throughput" not in panels  # not logged here
    assert list(panels)[:2] == ["Loss: total", "Loss: mel"]
    perplexity = panels["Codebook perplexity"]
    assert [curve.label for curve in perplexity.curves] == ["0 semantic", "1", "2"]
    assert panels["Codebook usage"].curves[0].y == [50.0] * 6


def test_quantizers_are_in_numeric_order(tmp_path: Path) -> None:
    runs = report.read_runs([make_run(tmp_path / "run", quantizers=12)])
    labels = [curve.label for curve in titles(runs)["Codebook usage"].curves]
    assert labels[-3:] == ["9", "10", "11"]


def test_evaluations_in_log_and_files_count_once(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    add_evaluation(folder, 300)
    with RunLog(folder, start_step=600, tensorboard=False, progress=False) as log:
        log.write(700, {"eval/mel": 1.25})
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    lines.insert(3, '{"step": 300, "eval/mel": 99}')
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    run = report.read_run(folder)
    assert run.series("eval/mel") == ([300, 700], [1.5, 1.25])


def test_several_runs_have_a_colour_each(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / name / "run") for name in ("a", "b")]
    runs = report.read_runs(folders)
    assert [run.name for run in runs] == [str(folder) for folder in folders]
    panels = titles(runs)
    assert [curve.color for curve in panels["Loss: mel"].curves] == [0, 1]
    perplexity = panels["Codebook perplexity"]
    assert len(perplexity.curves) == 4
    assert perplexity.curves[1].y == [51.5] * 6  # mean of the acoustic ones
    picture = tmp_path / "both.png"
    report.write_report(runs, picture)
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_a_page_needs_no_other_file(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "<run> & co")
    add_evaluation(folder, 300)
    add_evaluation(folder, 600, clips=("new",))
    path = tmp_path / "report.html"
    report.write_report(report.read_runs([folder]), path)
    text = path.read_text()
    sources = Page(text).sources
    assert all(source.startswith("data:") for source in sources)
    assert sum(source.startswith("data:audio/wav") for source in sources) == 2
    assert "http" not in text.replace("http-equiv", "")
    assert "&lt;run&gt; &amp; co" in text
    assert "<figcaption>new</figcaption>" in text  # the newest evaluation only
    assert "<figcaption>a</figcaption>" not in text
    assert "<td>loss/mel</td><td>0.5</td>" in text
    assert "<td>speed/eta_seconds</td><td>00:01:01</td>" in text


def test_clips_beyond_the_budget_are_named(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    add_evaluation(folder, 300, clips=("first", "second"))
    size = (folder / "eval" / "original" / "first.wav").stat().st_size
    text = report.html_page(report.read_runs([folder]), max_media_bytes=3 * size)
    assert "<figcaption>first</figcaption>" in text
    assert "<figcaption>second</figcaption>" not in text
    assert "second</p>" in text


def test_values_that_are_not_finite_leave_gaps(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with RunLog(folder, tensorboard=False, progress=False) as log:
        for step in range(400):
            log.write(step, {"loss/mel": math.nan if step % 7 else 1.0, "loss/total": math.nan})
    report.write_report(report.read_runs([folder]), tmp_path / "x.png")


def test_smoothing_is_a_mean_over_finite_values() -> None:
    noisy = np.sin(np.arange(600) / 100) + np.tile([0.5, -0.5], 300)
    noisy[100:105] = np.nan
    smooth = plots.smoothed(noisy)
    assert np.abs(smooth - np.sin(np.arange(600) / 100)).max() < 0.2
    assert np.isnan(plots.smoothed(np.full(9, np.nan))).all()


def test_a_full_scale_sine_has_0_decibels() -> None:
    samples = np.sin(2 * np.pi * 3000 * np.arange(RATE) / RATE)
    levels = plots.spectrogram(samples)[5:-5]
    assert levels.max() == pytest.approx(0, abs=0.01)
    assert (levels.argmax(axis=1) == 3000 * plots.WINDOW // RATE).all()


def test_spectrograms_of_silence_can_be_drawn() -> None:
    figure = plots.draw_spectrograms({"silent": np.zeros(3000)}, RATE)
    assert plots.png_bytes(figure)[:4] == b"\x89PNG"


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        report.read_run(tmp_path / "none")
    with pytest.raises(InputError, match=r"has no metrics\.jsonl"):
        report.read_run(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(InputError, match="no records yet"):
        report.read_run(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(InputError, match="no values"):
        report.write_report([report.read_run(tmp_path)], tmp_path / "x.png")
    with pytest.raises(InputError, match=r"\.html"):
        report.write_report([report.read_run(tmp_path)], tmp_path / "x.pdf")


def test_missing_matplotlib_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [report.read_run(make_run(tmp_path / "run"))]
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match="pip install matplotlib"):
        report.write_report(runs, tmp_path / "x.png")


@pytest.mark.slow
def test_command(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    for _ in range(2):  # the report in the run's folder is replaced
        result = CliRunner().invoke(app, ["train-report", str(run)])
        assert result.exit_code == 0, result.output
    assert Page((run / "report.html").read_text()).sources
    picture = str(tmp_path / "x.png")
    assert CliRunner().invoke(app, ["train-report", str(run), "-o", picture]).exit_code == 0
    result = CliRunner().invoke(app, ["train-report", str(run), "-o", picture])
    assert result.exit_code == 2
    assert "--overwrite" in result.stderr
    result = CliRunner().invoke(app, ["train-report", str(tmp_path)])
    assert result.exit_code == 2
    assert "metrics.jsonl" in result.stderr
