"""Put the tables of benchmarks/results/*.json into docs/performance.md.

    python benchmarks/report.py

A table stands between the lines ``<!-- NAME -->`` and ``<!-- end -->``, NAME being that of the file
without its suffix.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
DOCUMENT = ROOT.parent / "docs" / "performance.md"


def main() -> None:
    """Rewrite the document."""
    text = DOCUMENT.read_text()
    for path in sorted((ROOT / "results").glob("*.json")):
        results = json.loads(path.read_text())
        text, count = re.subn(
            rf"(<!-- {path.stem} -->\n).*?(<!-- end -->)",
            lambda match, results=results: match[1] + table(results) + match[2],
            text,
            flags=re.DOTALL,
        )
        print(f"{path.name}: {'written' if count else 'no place in the document'}")
    DOCUMENT.write_text(text)


def table(results: dict[str, Any]) -> str:
    """What was measured, and on what."""
    rows, machine = results["rows"], results["machine"]
    sides = [side for side in rows[0]["median_s"] if side != "jax"]
    several = len({row["batch"] for row in rows}) > 1
    head = ["model", "part", *["clips at once"] * several, "ours, ms"]
    head += [f"torch {side}, ms" for side in sides]
    head += ["ratio to the best"] * bool(sides)
    head += ["× real time", "share of matmul peak", "first call, s"]
    lines = [_line(head), _line(["---"] * len(head))]
    for row in rows:
        ours = row["median_s"]["jax"]
        cells = [row["model"], row["part"], *[str(row["batch"])] * several]
        cells.append(_milliseconds(row, "jax"))
        cells += [_milliseconds(row, side) for side in sides]
        cells += [f"{row['ratio']:.2f}"] if sides else []
        cells += [f"{ours / row['audio_seconds']:.4f}", f"{row['share_of_matmul']:.0%}"]
        lines.append(_line([*cells, f"{row['first_call_s']['jax']:.1f}"]))
    first = rows[0]
    lengths = ", of unequal lengths" if first["unequal"] else ""
    equal = {row["model"]: row["equal_codes"] for row in rows if row["equal_codes"] is not None}
    said = "; ".join(f"{model}: {share:.2%} of codes equal" for model, share in equal.items())
    theirs = machine.get("torch_matmul_gflops")
    clips = " and ".join(str(batch) for batch in sorted({row["batch"] for row in rows}))
    lines += [
        "",
        f"{machine['device']}, {machine['cpu_cores']} CPU cores, {machine['date']}; jax "
        f"{machine['jax']}, torch {machine['torch']}; {first['precision']}, "
        f"{clips} clips of {first['clip_seconds']:g} s{lengths}; medians of {first['repeats']} "
        f"(smallest to largest); matrix products reach {machine['matmul_gflops']:.0f} GFLOP/s"
        f"{f' ({theirs:.0f} in torch)' if theirs else ''}; "
        f"peak memory of it all {machine['peak_memory_gb']:.1f} GB{'; ' * bool(said)}{said}.",
        "",
    ]
    return "\n".join(lines)


def _milliseconds(row: dict[str, Any], side: str) -> str:
    low, high = (1e3 * value for value in row["spread_s"][side])
    return f"{1e3 * row['median_s'][side]:.0f} ({low:.0f} to {high:.0f})"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
