"""Python in Markdown pages, run by Sphinx's doctest builder in the order of the page.

Pages keep plain fences, ``python`` or ``pycon``. Around them, HTML comments, which no reader sees:

* ``<!-- run`` and code up to ``-->``: what the snippets below need to be there;
* ``<!-- not run: REASON -->``: the next snippet is shown only. ``tests/test_docs.py`` still
  compiles it and looks its names up.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

HIDDEN, NOT_RUN = "<!-- run\n", "<!-- not run:"
KINDS = {"python": "testcode", "pycon": "doctest"}


class MarkSnippets(SphinxTransform):
    """Mark fences and hidden code as tests."""

    default_priority = 400

    def apply(self, **_: Any) -> None:
        """Go through the page once."""
        skipped = False
        for node in list(self.document.findall(nodes.Element)):
            text = node.astext()
            if isinstance(node, nodes.raw) and text.startswith("<!--"):
                skipped = text.startswith(NOT_RUN)
                if text.startswith(HIDDEN):
                    node.replace_self(_hidden(node, text))
            elif isinstance(node, nodes.literal_block) and node.get("language") in KINDS:
                if not skipped:
                    node["testnodetype"] = KINDS[node["language"]]
                skipped = False


def _hidden(node: nodes.raw, text: str) -> nodes.comment:
    code = text.removeprefix(HIDDEN).partition("-->")[0]
    comment = nodes.comment(code, code, testnodetype="testcode")
    comment.source, comment.line = node.source, node.line
    return comment


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.add_transform(MarkSnippets)
    return {"parallel_read_safe": True}
