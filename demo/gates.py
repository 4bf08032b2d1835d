"""Judge the demo model on held-out speech beside Opus and Codec 2, against its gates.

python demo/gates.py build/corpus -o results/gates

Needs the packages of the extras ``eval`` and ``eval-torch``, and Debian's opus-tools and codec2.
Tables and report are those of ``dualcodec-jax evaluate``; run it again to go on.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from rich.console import Console
from rich.progress import Progress

from dualcodec_jax.compilation import enable_cache
from dualcodec_jax.errors import DualCodecError, InputError
from dualcodec_jax.evaluation.datasets import Item, load_items
from dualcodec_jax.evaluation.plots import draw_rates
from dualcodec_jax.evaluation.report import write_results
from dualcodec_jax.evaluation.results import Results
from dualcodec_jax.evaluation.runner import evaluate, spread
from dualcodec_jax.evaluation.summary import Summary, summarise
from dualcodec_jax.paths import replacing

RIVAL = "codec2:3200"
STRETCH = "opus:6"
OTHERS = (RIVAL, STRETCH, "codec2:1200", "opus:12", "opus:24")
# Not MCD: at two seconds a second of speech it would take longer than all the rest.
METRICS = ("pesq_nb", "pesq_wb", "stoi", "estoi", "mel", "distillmos", "dnsmos", "speaker", "wer")
BETTER_THAN_RIVAL = ("pesq_wb", "estoi", "distillmos", "speaker")

MOST_KBIT_S = 1.3
"""Nominal; clips measure a little more, as their length is rounded up to whole frames."""
MOST_ADDED_WER = 5.0
MOST_RVQ1_WER = 40.0
LEAST_WORDS = 5
PER_SOURCE = 60
FRENCH = 24


@dataclasses.dataclass(frozen=True)
class Gate:
    """One condition.

    Attributes:
        what: in words.
        value: of the demo model.
        limit: what it has to reach.
        passed: whether it does.
    """

    what: str
    value: float
    limit: float
    passed: bool


def chosen(items: Sequence[Item]) -> list[Item]:
    """English utterances of five words or more, at most 60 a source, and 24 French ones.

    Evenly spread over each source's names.
    """
    sources: dict[str, list[Item]] = {}
    for item in items:
        sources.setdefault(item.path.parent.name, []).append(item)
    result: list[Item] = []
    for _, members in sorted(sources.items()):
        spoken = [item for item in members if len((item.text or "").split()) >= LEAST_WORDS]
        result += spread(spoken, PER_SOURCE) if spoken else spread(members, FRENCH)
    return result


def gates(summary: Summary, ours: str) -> list[Gate]:
    """The demo's gates, from a table with rows ``ours``, ``ours@1``, Codec 2 and the original.

    Raises:
        InputError: a figure is missing.
    """
    rows = {row.system.name: row for row in summary.rows}

    def figure(name: str, column: str) -> float:
        if name not in rows or column not in rows[name].cells:
            raise InputError(f"the table has no {column} of {name}: install what is missing")
        return rows[name].cells[column].value

    whole = max(name for name in rows if name.startswith(ours))
    found = []
    for metric in BETTER_THAN_RIVAL:
        value, rival = figure(whole, metric), figure(RIVAL, metric)
        found.append(Gate(f"{metric}, better than {RIVAL}", value, rival, value > rival))
    rate = rows[whole].system.info["bitrate"] / 1000
    found.append(Gate("kbit/s", rate, MOST_KBIT_S, rate <= MOST_KBIT_S))
    limit, errors = figure("original", "wer") + MOST_ADDED_WER, figure(whole, "wer")
    found.append(Gate("WER, original's + 5 points", errors, limit, errors <= limit))
    errors = figure(f"{ours}@1", "wer")
    found.append(Gate("WER of RVQ-1 alone", errors, MOST_RVQ1_WER, errors < MOST_RVQ1_WER))
    for column in summary.columns:
        if column.is_metric:
            value, rival = figure(whole, column.key), figure(STRETCH, column.key)
            passed = value > rival if column.higher_is_better else value < rival
            found.append(
                Gate(f"stretch: {column.key}, better than {STRETCH}", value, rival, passed)
            )
    return found


def write_picture(summary: Summary, path: Path) -> None:
    """Quality by bit rate as SVG, a panel for every metric; the same table gives the same file."""
    style = {"svg.hashsalt": "dualcodec_jax"}
    with replacing(path, overwrite=True) as temporary, mpl.rc_context(style):
        draw_rates(summary).savefig(temporary, format="svg", metadata={"Date": None})


def main() -> int:
    """Evaluate, write the report, and print the gates; status 1 if one is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path, help="folder that build_corpus.py made")
    parser.add_argument("-o", "--output", type=Path, default=Path("results/gates"))
    parser.add_argument("--model", default="demo", help="model id, folder of weights, or run")
    parser.add_argument("--recogniser", default="faster-whisper")
    parser.add_argument("--metrics", default=",".join(METRICS))
    parser.add_argument("--picture", type=Path, help="also draw quality by bit rate, as SVG")
    options = parser.parse_args()
    console = Console(soft_wrap=True)
    enable_cache()
    ours = f"dualcodec:{options.model}"
    try:
        results = _results(options, ours)
        write_results(results, options.output)
        summary = summarise(results)
        if options.picture is not None:
            write_picture(summary, options.picture)
        found = gates(summary, ours)
    except DualCodecError as error:
        console.print(f"[red]error:[/] {error}")
        return 2
    for gate in found:
        mark = "passed" if gate.passed else "missed"
        console.print(f"{mark}  {gate.what}: {gate.value:.3f} (limit {gate.limit:.3f})")
    required = [gate for gate in found if not gate.what.startswith("stretch")]
    return 0 if all(gate.passed for gate in required) else 1


def _results(options: argparse.Namespace, ours: str) -> Results:
    from dualcodec_jax.evaluation.codecs import open_codec

    count = open_codec(ours).info.n_quantizers or 1
    systems = [*(f"{ours}@{number}" for number in range(1, count + 1)), *OTHERS]
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("opening", total=None)
        return evaluate(
            systems,
            chosen(load_items(options.corpus / "heldout")),
            metrics=options.metrics.split(","),
            recogniser=options.recogniser if "wer" in options.metrics else None,
            output=options.output,
            progress=lambda done, total, what: progress.update(
                task, completed=done, total=total, description=what
            ),
        )


if __name__ == "__main__":
    sys.exit(main())
