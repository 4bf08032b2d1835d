"""Tables and the report: figures, intervals, the paper's rows, a page that stands alone."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from evaluation_standins import (
    StandInCodec,
    StandInMetric,
    StandInRecogniser,
    count_errors,
    make_items,
)

from dualcodec_jax import webpage
from dualcodec_jax.errors import ConfigError, InputError
from dualcodec_jax.evaluation import recognisers, report
from dualcodec_jax.evaluation.presets import PRESETS
from dualcodec_jax.evaluation.report import html_page, picks, rankable, write_results
from dualcodec_jax.evaluation.results import (
    ClipResult,
    CodesCompared,
    Results,
    SystemResult,
    from_json,
    read_results,
)
from dualcodec_jax.evaluation.runner import evaluate
from dualcodec_jax.evaluation.summary import Estimate, summarise
from dualcodec_jax.evaluation.tables import markdown, paper_table, shown, table_csv

METRIC = {
    "name": "pesq_wb",
    "title": "PESQ_wb",
    "unit": "",
    "higher_is_better": True,
    "range": [1.0, 4.64],
    "version": "1",
}


def system(name: str, values: list[float | None], spec: str | None = None) -> SystemResult:
    """Clips of 2 s, 2000 bits, coded in 0.1 and 0.05 s; the first one has 2 errors in 10 words."""
    clips = [
        ClipResult(
            id=f"c{index}",
            seconds=2.0,
            bits=2000,
            encode_seconds=0.1,
            decode_seconds=0.05,
            values={"pesq_wb": value},
            transcript="so so",
            errors=0 if index else 2,
            words=30 if index else 10,
            reference="text",
        )
        for index, value in enumerate(values)
    ]
    info = {
        "version": "1",
        "parameters": 95_300_000,
        "encode_parameters": 600_000_000,
        "decode_parameters": 53_000_000,
        "tokens_per_second": 75.0,
        "n_quantizers": 6,
        "trained": name != "random:1",
    }
    return SystemResult(name=name, spec=spec or name, folder=name, info=info, clips=tuple(clips))


def results(*systems: SystemResult) -> Results:
    return Results(systems=systems, metrics={"pesq_wb": METRIC}, environment={"hardware": "abacus"})


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Path]:
    """A run with audio; one clip failed, and a clip has an unkind name."""
    folder = tmp_path_factory.mktemp("evaluated")
    items = make_items(folder / "in")
    items[3] = dataclasses.replace(items[3], text="<b>bold</b> & four")
    codecs = [StandInCodec("x:1@2"), StandInCodec("x:<script>@2", gain=0.25, fails=[26400])]
    metrics = [StandInMetric("gain"), StandInMetric("peak", intrusive=False)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recognisers, "count_errors", count_errors)
        found = evaluate(
            codecs, items, metrics=metrics, recogniser=StandInRecogniser(), output=folder / "out"
        )
    return found, folder / "out"


def test_cells() -> None:
    summary = summarise(results(system("original", [None, None]), system("a:1", [1.0, 3.0, None])))
    original, row = summary.rows
    cells = row.cells
    assert cells["params_m"] == Estimate(95.3)
    assert cells["kbit_s"].value == pytest.approx(1.0)  # 6000 bits in 6 s
    assert cells["tokens_s"].value == 75
    assert cells["encode_rtf"].value == pytest.approx(0.05)
    assert cells["decode_rtf"].value == pytest.approx(0.025)
    assert (cells["pesq_wb"].value, cells["pesq_wb"].count) == (2.0, 2)
    assert cells["wer"].value == pytest.approx(100 * 2 / 70)  # not the mean of 20 %, 0 % and 0 %
    assert "encode_rtf" not in original.cells
    assert "pesq_wb" not in original.cells


def test_interval_of_a_mean() -> None:
    """Of many normal values, 1.96 standard errors to either side."""
    values = np.random.default_rng(0).normal(3, 0.5, 400).tolist()
    cell = summarise(results(system("a:1", values))).rows[0].cells["pesq_wb"]
    assert cell.low is not None
    assert cell.high is not None
    half = 1.96 * np.std(values) / math.sqrt(400)
    assert cell.high - cell.value == pytest.approx(half, rel=0.1)
    assert cell.value - cell.low == pytest.approx(half, rel=0.1)


def test_rates_may_tie(evaluated: tuple[Results, Path], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found, _ = evaluated
    same = [dataclasses.replace(found.systems[-1], name=name) for name in ("mine:b", "mine:a")]
    tied = dataclasses.replace(found, systems=[*found.systems, *same])
    assert "Rate and quality" in html_page(tied, tmp_path)


def test_one_clip_has_no_interval() -> None:
    cell = summarise(results(system("a:1", [2.0]))).rows[0].cells["pesq_wb"]
    assert (cell.value, cell.low, cell.high) == (2.0, None, None)


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (None, "–"),
        (Estimate(2.3149), "2.31"),
        (Estimate(2.31, 2.26, 2.36), "2.31 ± 0.05"),
        (Estimate(9.8, 7.1, 15.0), "9.80 [7.10, 15.00]"),
        (Estimate(384.0), "384.0"),
        (Estimate(0.0, 0.0, 0.0), "0.00 ± 0.00"),
    ],
)
def test_shown(estimate: Estimate | None, text: str) -> None:
    assert shown(estimate, 2) == text


def test_markdown() -> None:
    found = dataclasses.replace(
        results(system("a:1", [1.0, 3.0]), system("random:1", [1.0, 1.0])),
        absent={"codec b|c": "get <it>"},
        compared=[
            CodesCompared(first="a", second="b", clips=2, equal=[9, 5], total=[10, 10]),
        ],
    )
    text = markdown(found)
    rows = [re.split(r"(?<!\\)\|", line) for line in text.splitlines() if line.startswith("|")]
    assert {len(row) for row in rows[:4]} == {len(rows[0])}
    assert [cell.strip() for cell in rows[2][1:5]] == ["a:1", "95.3", "1.00", "75.0"]
    assert "random:1 (random weights)" in text
    assert r"codec b\|c: get \<it\>" in text
    assert "| a = b | 2 | 70.000 | 90.000 | 50.000 |" in text
    assert "abacus" in text


def test_wer_title_names_the_reference() -> None:
    def title(*changes: dict[str, str]) -> str:
        clips = [
            dataclasses.replace(clip, **change)
            for clip, change in zip(system("a:1", [1.0, 1.0]).clips, changes, strict=True)
        ]
        changed = dataclasses.replace(system("a:1", []), clips=clips)
        return next(c.title for c in summarise(results(changed)).columns if c.key == "wer")

    assert title({}, {}) == "WER, %"
    assert title({"reference": "original"}, {"reference": "original"}) == "WER vs. original, %"
    assert title({}, {"reference": "original"}) == "WER partly vs. original, %"
    assert title({"language": "zh-CN"}, {"language": "zh"}) == "CER, %"
    assert title({"language": "zh"}, {"language": "en"}) == "WER/CER, %"


def test_the_language_of_counting_is_that_of_the_heading() -> None:
    """Also in results that were written before it was kept."""
    ours = system("dualcodec:12hz_v1@1", [1.0])
    data = results(ours).to_json()
    del data["systems"][0]["clips"][0]["counted_in"]
    assert "| WER, % |" in markdown(from_json(data))
    data["systems"][0]["clips"][0]["counted_in"] = "zh"
    found = from_json(data)
    assert "| CER, % |" in markdown(found)
    table = paper_table(summarise(found), PRESETS["table2"])
    assert ["dualcodec:12hz_v1@1", "12.50", "–", "20.00"] in table.rows


def test_machines_of_real_time_factors() -> None:
    def note(*machines: str | None) -> str:
        systems = [
            dataclasses.replace(found, clips=[dataclasses.replace(c, hardware=machine)])
            for name, machine in zip("abc", machines, strict=False)
            for found in [system(name, [1.0])]
            for c in found.clips
        ]
        text = markdown(results(system("original", [None]), *systems))
        return next(line for line in text.splitlines() if "Real-time factors" in line)

    assert note("loom").endswith("one clip at a time, on loom.")
    assert note(None).endswith("on an unknown machine.")
    several = "several machines, so they do not compare: loom (a, c); an unknown machine (b)."
    assert note("loom", None, "loom").endswith(several)
    assert "Real-time factors" not in markdown(results(system("original", [None])))


def test_clips_without_a_value_are_listed(tmp_path: Path) -> None:
    found = results(system("a:1", [1.0, None, None]))
    line = "a:1: PESQ_wb is not defined for 2 of 3 clips (silence, mostly)"
    escaped = line.replace("_", r"\_")
    assert f"## Without a value\n\n- {escaped}\n" in markdown(found)
    assert line in html_page(found, tmp_path)
    assert "Without a value" not in markdown(results(system("a:1", [1.0])))


def test_csv_round_trip(evaluated: tuple[Results, Path]) -> None:
    found, _ = evaluated
    rows = list(csv.DictReader(io.StringIO(table_csv(found))))
    summary = summarise(found)
    assert [row["system"] for row in rows] == [system.name for system in found.systems]
    for row, line in zip(summary.rows, rows, strict=True):
        for column in summary.columns:
            cell = row.cells.get(column.key)
            assert line[column.key] == ("" if cell is None else str(cell.value))
            if column.is_metric and cell is not None and cell.low is not None:
                assert float(line[f"{column.key}_low"]) == cell.low
                assert line[f"{column.key}_clips"] == str(cell.count)
    assert [row["clips"] for row in rows] == ["4", "4", "3"]


@pytest.mark.usefixtures("no_pictures")
def test_json_round_trip(evaluated: tuple[Results, Path]) -> None:
    found, folder = evaluated
    write_results(found, folder)
    again = read_results(folder)
    assert json.dumps(again.to_json()) == json.dumps(found.to_json())
    assert markdown(again) == markdown(found)
    assert again.system("x:1@2").clips == found.system("x:1@2").clips
    with pytest.raises(InputError, match="no system"):
        again.system("y")


@pytest.mark.parametrize(
    "content", ["", "{}", '{"format": 1}', '{"format": 99}', '{"format": 1, "systems": [{}]}']
)
def test_damaged_results(tmp_path: Path, content: str) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(InputError):
        read_results(tmp_path)
    with pytest.raises(InputError):
        from_json({"format": 1, "systems": 3, "compared": []})


def test_paper_rows_stand_above_ours() -> None:
    ours = system("encodec:1.5", [2.0, 3.0]), system("dualcodec:demo@6", [1.0, 2.0])
    table = paper_table(summarise(results(*ours)), PRESETS["table3"])
    names = [row[0] for row in table.rows]
    index = names.index("paper E2: EnCodec 75 Hz")
    assert names[index + 1] == "encodec:1.5"
    assert names[-1] == "dualcodec:demo@6"
    columns = dict(zip(table.header, range(len(table.header)), strict=True))
    assert table.rows[index][columns["PESQ_wb"]] == "1.54"
    assert table.rows[index][columns["MUSHRA"]] == "36.2"
    assert table.rows[index + 1][columns["PESQ_wb"]].startswith("2.50")
    assert table.rows[index + 1][columns["params, M"]] == "95.30"
    assert table.rows[index + 1][columns["MUSHRA"]] == "–"
    assert index in table.marked
    assert index + 1 not in table.marked
    assert "Beside the paper's Table 3" in markdown(results(*ours), PRESETS["table3"])


def test_paper_table_2_has_errors_by_language() -> None:
    ours = system("dualcodec:12hz_v1@1", [1.0, 1.0])
    clips = [
        dataclasses.replace(clip, language=language)
        for clip, language in zip(ours.clips, ("zh", "en"), strict=True)
    ]
    found = results(dataclasses.replace(ours, clips=clips))
    table = paper_table(summarise(found), PRESETS["table2"])
    row = next(row for row in table.rows if row[0] == "dualcodec:12hz_v1@1")
    assert row[1:] == ["12.50", "0.00", "20.00"]
    table = paper_table(summarise(found), PRESETS["table5"])
    row = next(row for row in table.rows if row[0] == "dualcodec:12hz_v1@1")
    assert row[1:] == ["600.0", "0.050", "53.00", "0.025"]


def test_picks() -> None:
    column = next(c for c in summarise(results(system("a:1", [1.0]))).columns if c.key == "pesq_wb")
    chosen = picks(system("a:1", [3.0, 1.0, None, 2.0, 4.0]), column)
    assert {kind: clip.id for kind, clip in chosen.items()} == {
        "best": "c4",
        "median": "c0",
        "worst": "c1",
    }
    lower = dataclasses.replace(column, higher_is_better=False)
    assert picks(system("a:1", [3.0, 1.0, 2.0]), lower)["best"].id == "c1"
    assert list(picks(system("a:1", [3.0]), column)) == ["best"]
    assert picks(system("a:1", [None]), column) == {}
    errors = next(c for c in summarise(results(system("a:1", [1.0]))).columns if c.key == "wer")
    assert picks(system("a:1", [None, None]), errors)["worst"].id == "c0"


class _Page(HTMLParser):
    """Collects tags and where they point."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.targets: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.targets += [value or "" for name, value in attrs if name in ("src", "href")]


def test_page_stands_alone(evaluated: tuple[Results, Path]) -> None:
    pytest.importorskip("matplotlib")
    found, folder = evaluated
    write_results(found, folder)
    text = (folder / "report.html").read_text("utf-8")
    page = _Page(text)
    assert not {"script", "link", "iframe", "b"} & set(page.tags)
    assert all(target.startswith("data:") for target in page.targets)
    # Two systems with best, median and worst; the original beside each.
    assert page.tags.count("audio") == 2 * 3 * 2
    assert page.tags.count("img") == 2 + 2 * 3
    assert "x:&lt;script&gt;@2" in text
    assert "clip1: codec: too loud" in text
    assert "Codebook usage" in text


@pytest.mark.usefixtures("no_pictures")
def test_page_escapes_names(tmp_path: Path) -> None:
    wild = dataclasses.replace(system("a:<i>", [1.0, 2.0]), folder="a")
    clips = [dataclasses.replace(clip, id="<b>", problems={"x": "<u>"}) for clip in wild.clips]
    found = dataclasses.replace(
        results(dataclasses.replace(wild, clips=clips)), absent={"<s>": '"><s>'}
    )
    page = _Page(html_page(found, tmp_path))
    assert not {"b", "i", "u", "s"} & set(page.tags)


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if matplotlib was missing, and quicker."""

    def unavailable() -> None:
        raise ConfigError("pictures need matplotlib")

    monkeypatch.setattr(report, "check_available", unavailable)


@pytest.mark.usefixtures("no_pictures")
def test_page_is_bounded(evaluated: tuple[Results, Path]) -> None:
    found, folder = evaluated
    text = html_page(found, folder, max_media_bytes=30_000)
    page = _Page(text)
    assert 0 < page.tags.count("audio") < 12
    assert "left out to keep the page small" in text
    nothing = html_page(found, folder, max_media_bytes=0)
    assert "left out to keep the page small" in nothing
    assert "No audio was kept" not in nothing


@pytest.mark.usefixtures("no_pictures")
def test_page_without_audio_says_so(evaluated: tuple[Results, Path], tmp_path: Path) -> None:
    assert "No audio was kept" in html_page(evaluated[0], tmp_path)


@pytest.mark.usefixtures("no_pictures")
def test_page_without_matplotlib(evaluated: tuple[Results, Path]) -> None:
    found, folder = evaluated
    text = html_page(found, folder)
    page = _Page(text)
    assert "No pictures: pictures need matplotlib" in text
    assert "img" not in page.tags
    assert page.tags.count("audio") == 12


@pytest.mark.usefixtures("no_pictures")
def test_ranking(evaluated: tuple[Results, Path]) -> None:
    found, folder = evaluated
    assert "worst by Peak" in html_page(found, folder, rank_by="peak")
    assert "worst by WER partly vs. original, %" in html_page(found, folder, rank_by="wer")
    assert rankable(found) == ["gain", "peak", "wer"]
    with pytest.raises(InputError, match="ranked by 'mcd'"):
        html_page(found, folder, rank_by="mcd")


@pytest.mark.usefixtures("no_pictures")
def test_results_without_metrics(tmp_path: Path) -> None:
    bare = dataclasses.replace(
        system("a:1", [None]), clips=[ClipResult(id="c", problems={"codec": "x"})]
    )
    found = Results(systems=[bare], metrics={})
    paths = write_results(found, tmp_path, PRESETS["table3"])
    assert [path.name for path in paths] == ["table.md", "table.csv", "results.json", "report.html"]
    assert "0 of 1" in (tmp_path / "table.md").read_text()


def test_budget() -> None:
    budget = webpage.Budget(10)
    assert [budget.take(size) for size in (6, 5, 4, 1)] == [True, False, True, False]
