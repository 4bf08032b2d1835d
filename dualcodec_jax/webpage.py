"""Reports as single HTML files: nothing is fetched, all pictures and sounds are inside."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1400px; padding: 0 1rem;
       color: #222; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem;
     border-bottom: 1px solid #ccc; }
h3 { font-size: 1rem; margin: 1.5rem 0 .3rem; }
img { max-width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .87rem; }
td, th { padding: .2rem .5rem; text-align: right; }
th { border-bottom: 1px solid #999; vertical-align: bottom; }
td:first-child, th:first-child { text-align: left; white-space: nowrap; position: sticky; left: 0;
     background: #fff; }
tr:nth-child(even) td { background: #f4f4f4; } tr.marked td { background: #eaf1f8; color: #345; }
ul.notes { font-size: .85rem; color: #555; padding-left: 1.2rem; }
figure { margin: 1.2rem 0; } figcaption { font-weight: 600; }
.players { display: flex; flex-wrap: wrap; gap: 1rem; } .players label { font-size: .85rem; }
audio { display: block; width: 320px; }
""".strip()
# Belt and braces: should a reference slip in, a browser does not follow it.
POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"


class Budget:
    """Bytes that may still go into a page."""

    def __init__(self, size: int) -> None:
        self.left = size

    def take(self, size: int) -> bool:
        """Take ``size`` bytes, if so many are left."""
        if size > self.left:
            return False
        self.left -= size
        return True


def page(title: str, body: Sequence[str]) -> str:
    """The document; ``body`` is HTML, ``title`` text."""
    head = (
        f'<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<title>{escaped(title)}</title>\n<style>\n{STYLE}\n</style>"
    )
    content = f"<head>\n{head}\n</head>\n<body>\n" + "\n".join(body) + "\n</body>"
    return f'<!doctype html>\n<html lang="en">\n{content}\n</html>\n'


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], marked: frozenset[int] = frozenset()
) -> str:
    """A table of texts; rows at the indices ``marked`` stand out."""
    lines = [_row(header, "th")]
    for index, row in enumerate(rows):
        lines.append(_row(row, "td", "marked" if index in marked else ""))
    return '<div class="wide"><table>\n' + "\n".join(lines) + "\n</table></div>"


def notes(lines: Sequence[str]) -> str:
    """Small print, a line an item."""
    items = "\n".join(f"<li>{escaped(line)}</li>" for line in lines)
    return f'<ul class="notes">\n{items}\n</ul>' if lines else ""


def image(content: bytes, text: str) -> str:
    """A PNG picture with its description."""
    return f'<img alt="{escaped(text)}" src="{_data_uri(content, "image/png")}">'


def player(label: str, content: bytes, kind: str = "audio/flac") -> str:
    """An audio player."""
    source = _data_uri(content, kind)
    audio = f'<audio controls preload="metadata" src="{source}"></audio>'
    return f"<label>{escaped(label)}{audio}</label>"


def escaped(text: str) -> str:
    """Text as HTML."""
    return html.escape(text, quote=True)


def _row(cells: Sequence[str], tag: str, name: str = "") -> str:
    columns = "".join(f"<{tag}>{escaped(cell)}</{tag}>" for cell in cells)
    return f'<tr class="{name}">{columns}</tr>' if name else f"<tr>{columns}</tr>"


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
