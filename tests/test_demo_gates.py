"""Which clips the demo model is judged on, and its gates, on tables made by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dualcodec_jax.errors import InputError
from dualcodec_jax.evaluation.datasets import Item
from dualcodec_jax.evaluation.results import SystemResult
from dualcodec_jax.evaluation.summary import Column, Estimate, Row, Summary

sys.path.append(str(Path(__file__).resolve().parent.parent / "demo"))

import gates

METRICS = ("pesq_wb", "estoi", "distillmos", "speaker", "wer")


def test_chosen_clips_have_words_or_are_french() -> None:
    def item(source: str, number: int, text: str | None) -> Item:
        return Item(f"{source}{number:03}", Path(source) / f"{number:03}.flac", text)

    items = [
        item("asterisk-en", n, "one two three four five"[: 8 if n % 2 else 30]) for n in range(300)
    ]
    items += [item("asterisk-fr", n, None) for n in range(100)]
    items += [item("librivox", n, "a b c d e f") for n in range(5)]
    found = [item.id for item in gates.chosen(items)]
    assert sum(name.startswith("asterisk-en") for name in found) == 60
    assert sum(name.startswith("asterisk-fr") for name in found) == 24
    assert found[-5:] == [f"librivox{n:03}" for n in range(5)]
    assert all(int(name[-3:]) % 2 == 0 for name in found if name.startswith("asterisk-en"))
    assert found == [item.id for item in gates.chosen(items)]


def table(**changes: dict[str, float]) -> Summary:
    """All gates passed but the stretch, with ``changes`` of the whole model."""
    figures = {
        "original": (4.6, 1.0, 4.5, 1.0, 5.0),
        "dualcodec:demo@1": (1.1, 0.4, 2.0, 0.5, 39.9),
        "dualcodec:demo@5": (2.0, 0.8, 3.0, 0.8, 10.0),
        "codec2:3200": (1.8, 0.77, 2.0, 0.6, 12.0),
        "opus:6": (2.0, 0.9, 2.5, 0.9, 5.5),
    }
    rows = []
    for name, values in figures.items():
        cells = {key: Estimate(value) for key, value in zip(METRICS, values, strict=True)}
        cells["kbit_s"] = Estimate(1.3)
        if name == "dualcodec:demo@5":
            cells |= {key: Estimate(value) for key, value in changes.get("ours", {}).items()}
        info = {"bitrate": 1300.0}
        system = SystemResult(name=name, spec=name, folder=name, info=info, clips=[])
        rows.append(Row(system, cells))
    columns = [Column(name, name, 2, name != "wer", is_metric=True) for name in METRICS]
    return Summary(columns, rows)


def missed(summary: Summary) -> list[str]:
    found = gates.gates(summary, "dualcodec:demo")
    return [gate.what for gate in found if not gate.passed]


def test_gates() -> None:
    stretch = ["stretch: pesq_wb", "stretch: estoi", "stretch: speaker", "stretch: wer"]
    names = [f"{name}, better than opus:6" for name in stretch]
    assert missed(table()) == names
    assert missed(table(ours={"wer": 10.01})) == ["WER, original's + 5 points", *names]
    assert missed(table(ours={"estoi": 0.77})) == ["estoi, better than codec2:3200", *names]


def test_a_missing_figure_is_no_pass() -> None:
    summary = table()
    summary.rows[3].cells.pop("speaker")  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"no speaker of codec2:3200"):
        gates.gates(summary, "dualcodec:demo")


def test_the_same_table_gives_the_same_picture(tmp_path: Path) -> None:
    paths = tmp_path / "a.svg", tmp_path / "b.svg"
    for path in paths:
        gates.write_picture(table(), path)
    contents = {path.read_text() for path in paths}
    assert len(contents) == 1
    assert contents.pop().count('<g id="axes_') == 6  # a panel for each metric, and an empty one
