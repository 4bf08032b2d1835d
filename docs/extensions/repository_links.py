"""Pages whose text lies elsewhere in the repository, and links to that text.

On a code host, a link such as ``../CHANGELOG.md`` leads to the file; here, to the page.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

PAGES = {
    "../CHANGELOG.md": "changelog.md",
    "../demo/README.md": "demo_corpus.md",
    "../examples/README.md": "examples.md",
}
"""File, seen from ``docs``, and the page that includes it."""


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("source-read", _link)
    app.connect("include-read", _link_included)
    return {"parallel_read_safe": True}


def _link(_: Sphinx, __: str, source: list[str]) -> None:
    for file, page in PAGES.items():
        source[0] = source[0].replace(f"]({file}", f"]({page}")


def _link_included(_: Sphinx, __: Path, ___: str, source: list[str]) -> None:
    source[0] = source[0].replace("](../docs/", "](").replace("](docs/", "](")
