"""From clips to one row a system: means, ratios, confidence intervals."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from dualcodec_jax.evaluation.collect import TEXT
from dualcodec_jax.evaluation.intervals import mean_interval, ratio_interval
from dualcodec_jax.evaluation.results import ClipResult, Results, SystemResult

WER = "wer"
BEFORE_WER = ("pesq_nb", "pesq_wb", "stoi", "estoi", "mcd", "mel")
AFTER_WER = ("speaker",)
"""Order of metrics in tables; those in neither list stand between, as they come."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % confidence interval over clips.

    Attributes:
        value: a mean or ratio.
        low: end of the interval; None if there is none.
        high: other end.
        count: clips that it comes from.
    """

    value: float
    low: float | None = None
    high: float | None = None
    count: int | None = None


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        key: in CSV and JSON.
        title: for people, with the unit.
        decimals: to show.
        higher_is_better: None where neither is.
        is_metric: whether it measures quality, clip by clip.
    """

    key: str
    title: str
    decimals: int
    higher_is_better: bool | None = None
    is_metric: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
    """A system's row.

    Attributes:
        system: the system.
        cells: by column key; a cell that is empty is not there.
    """

    system: SystemResult
    cells: Mapping[str, Estimate]

    @property
    def label(self) -> str:
        """Name for tables."""
        trained = self.system.info.get("trained", True)
        return self.system.name if trained else f"{self.system.name} (random weights)"


@dataclasses.dataclass(frozen=True)
class Summary:
    """The table.

    Attributes:
        columns: in order, without that of the names.
        rows: in order.
    """

    columns: Sequence[Column]
    rows: Sequence[Row]


def summarise(results: Results) -> Summary:
    """The table of an evaluation; metrics that no system has are left out."""
    columns = [
        Column("params_m", "params, M", 1),
        Column("kbit_s", "kbit/s", 2),
        Column("tokens_s", "tokens/s", 1),
        Column("n_quantizers", "#VQ", 0),
        *_metric_columns(results),
        Column("encode_rtf", "encode RTF", 4, False),
        Column("decode_rtf", "decode RTF", 4, False),
    ]
    rows = [Row(system, _cells(system, results.metrics)) for system in results.systems]
    return Summary(columns, rows)


def word_errors(clips: Sequence[ClipResult]) -> Estimate | None:
    """Errors in percent of the reference's words, of all clips together."""
    counted = [(c.errors, c.words) for c in clips if c.errors is not None and c.words]
    if not counted:
        return None
    errors, words = [errors for errors, _ in counted], [words for _, words in counted]
    interval = ratio_interval(errors, words)
    value = 100 * sum(errors) / sum(words)
    return _estimate(value, 100 * interval.low, 100 * interval.high, len(counted))


def clip_value(clip: ClipResult, column: Column) -> float | None:
    """A clip's value of a metric; word errors in percent of the clip's words."""
    if column.key != WER:
        return clip.values.get(column.key)
    return None if clip.errors is None or not clip.words else 100 * clip.errors / clip.words


def _metric_columns(results: Results) -> list[Column]:
    present = {
        name
        for system in results.systems
        for clip in system.clips
        for name, value in clip.values.items()
        if value is not None
    }
    names = [name for name in results.metrics if name in present]
    between = [name for name in names if name not in (*BEFORE_WER, *AFTER_WER)]
    first = [name for name in (*BEFORE_WER, *between) if name in names]
    columns = [_metric_column(name, results.metrics[name]) for name in first]
    if title := _wer_title(results):
        columns.append(Column(WER, title, 1, False, is_metric=True))
    last = [name for name in AFTER_WER if name in names]
    return [*columns, *(_metric_column(name, results.metrics[name]) for name in last)]


def _metric_column(name: str, info: Mapping[str, Any]) -> Column:
    low, high = info.get("range") or (None, None)
    narrow = low is not None and high is not None and high - low <= 2
    unit = info.get("unit") or ""
    unit = f", {unit}" if unit and not unit.startswith("MOS") else ""  # the title says that
    better = bool(info["higher_is_better"])
    return Column(name, f"{info['title']}{unit}", 3 if narrow else 2, better, is_metric=True)


def _wer_title(results: Results) -> str:
    """Heading of word or character errors; empty if there are none."""
    clips = [clip for system in results.systems for clip in system.clips if clip.words]
    if not clips:
        return ""
    kinds = {"CER" if clip.counts_characters else "WER" for clip in clips}
    references = {clip.reference for clip in clips}
    if references == {TEXT}:
        against = ""
    elif TEXT in references:
        against = " partly vs. original"
    else:
        against = " vs. original"
    return f"{'/'.join(sorted(kinds, reverse=True))}{against}, %"


def _cells(system: SystemResult, metrics: Mapping[str, Any]) -> dict[str, Estimate]:
    info, clips = system.info, [clip for clip in system.clips if clip.bits is not None]
    cells: dict[str, Estimate | None] = {
        "params_m": _fact(info.get("parameters"), 1e-6),
        "tokens_s": _fact(info.get("tokens_per_second")),
        "n_quantizers": _fact(info.get("n_quantizers")),
        "kbit_s": _ratio([clip.bits for clip in clips], clips, 1e-3),
        WER: word_errors(clips),
    }
    if not system.is_original:
        cells["encode_rtf"] = _ratio([clip.encode_seconds for clip in clips], clips)
        cells["decode_rtf"] = _ratio([clip.decode_seconds for clip in clips], clips)
    for name in metrics:
        cells[name] = _mean(
            [value for clip in clips if (value := clip.values.get(name)) is not None]
        )
    return {key: cell for key, cell in cells.items() if cell is not None}


def _fact(value: float | None, scale: float = 1.0) -> Estimate | None:
    return None if value is None else Estimate(value * scale)


def _ratio(
    values: Sequence[float | None], clips: Sequence[ClipResult], scale: float = 1.0
) -> Estimate | None:
    """Sum of the values by the seconds of all clips."""
    seconds = math.fsum(clip.seconds or 0.0 for clip in clips)
    if not seconds:
        return None
    total = math.fsum(value or 0.0 for value in values)
    return Estimate(scale * total / seconds, count=len(clips))


def _mean(values: Sequence[float]) -> Estimate | None:
    if not values:
        return None
    interval = mean_interval(values)
    return _estimate(math.fsum(values) / len(values), interval.low, interval.high, len(values))


def _estimate(value: float, low: float | None, high: float | None, count: int) -> Estimate:
    """Without the interval where there is none."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return Estimate(value, count=count)
    return Estimate(value, low, high, count)
