"""The protocols of the paper's tables, and its figures."""

from __future__ import annotations

import pytest

from dualcodec_jax.evaluation.codecs.base import CodecInfo
from dualcodec_jax.evaluation.codecs.registry import parse_spec
from dualcodec_jax.evaluation.paper import PaperRow
from dualcodec_jax.evaluation.presets import PRESETS


def info(frame_rate: float, n_quantizers: int) -> CodecInfo:
    return CodecInfo(
        name="x",
        sample_rate=24000,
        version="1",
        tokens_per_second=frame_rate * n_quantizers,
        n_quantizers=n_quantizers,
    )


@pytest.mark.parametrize(
    ("frame_rate", "available", "expected"),
    [
        (12.5, 8, 6),  # DualCodec 12hz_v1, Mimi
        (25, 12, 3),  # DualCodec 25hz_v1
        (50, 8, 2),  # SpeechTokenizer: 100 is as near to 75 as 50, and round goes to even
        (75, 32, 1),
        (12.5, 4, 4),  # not enough of them
        (100, 8, 1),  # at least one
    ],
)
def test_75_tokens_per_second(frame_rate: float, available: int, expected: int) -> None:
    for name in ("table3", "table5"):
        assert PRESETS[name].quantizers_for(info(frame_rate, available)) == expected


def test_the_first_code_alone() -> None:
    assert PRESETS["table2"].quantizers_for(info(12.5, 8)) == 1
    waveform = CodecInfo(name="opus:6", sample_rate=48000, version="1")
    assert all(preset.quantizers_for(waveform) is None for preset in PRESETS.values())


def by_id(name: str) -> dict[str, PaperRow]:
    return {row.id or row.system: row for row in PRESETS[name].rows}


def test_figures_of_the_paper() -> None:
    """Spot checks at the ends of each table, and what must hold for all rows."""
    table2, table3, table5 = (by_id(name) for name in ("table2", "table3", "table5"))
    assert (len(table2), len(table3), len(table5)) == (9, 12, 9)
    assert table2["A1"].values == {"wer_en": 2.13, "wer_zh": 1.25}
    assert table2["D1"].values == {"frame_rate": 12.5, "wer_en": 6.94, "wer_zh": 6.36}
    assert table3["E1"].values["mcd"] == 6.0
    assert table3["G5"].values == {
        "millions": 95,
        "kbit_s": 0.93,
        "tokens_s": 75,
        "n_quantizers": 6,
        "pesq_nb": 3.11,
        "pesq_wb": 2.54,
        "stoi": 0.92,
        "mcd": 3.33,
        "utmos": 4.11,
        "mushra": 88.2,
    }
    assert table5["DualCodec 12.5 Hz"].values["encode_millions"] == 622
    assert table5["DualCodec 12.5 Hz"].values["decode_rtf"] == 0.003


@pytest.mark.parametrize("name", list(PRESETS))
def test_tables_are_consistent(name: str) -> None:
    preset = PRESETS[name]
    assert preset.name == name
    for row in preset.rows:
        assert set(row.values) <= set(preset.columns)
    for spec in preset.codecs:
        parse_spec(spec)
        row = preset.row_for(spec)
        assert row is not None
        assert row.codec == spec
    assert preset.row_for("opus:6") is None
    assert {f"dualcodec:{model}" for model in ("12hz_v1", "25hz_v1")} <= {
        spec.partition("@")[0] for spec in preset.codecs
    }


def test_bitrates_of_table_3_follow_from_its_codebooks() -> None:
    """Frame rate · (bits of RVQ-1 + bits of the others), to the paper's two digits."""
    rows = by_id("table3")
    for name, rate, first, rest in (
        ("G1", 25, 10, 10),
        ("G2", 25, 14, 10),
        ("G3", 12.5, 10, 10),
        ("G4", 12.5, 14, 10),
        ("G5", 12.5, 14, 12),
    ):
        values = rows[name].values
        bits = first + rest * (values["n_quantizers"] - 1)
        assert rate * bits / 1000 == pytest.approx(values["kbit_s"], abs=0.0051)
        assert rate * values["n_quantizers"] == values["tokens_s"]
