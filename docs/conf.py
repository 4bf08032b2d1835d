"""How Sphinx turns this folder into the documentation: ``make docs``."""

import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.domains.python import PyObject

import dualcodec_jax

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "dualcodec_jax"
author = "the contributors of dualcodec_jax"
copyright = author
version = release = dualcodec_jax.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
    "cli_reference",
    "repository_links",
    "snippets",
]
exclude_patterns = ["extensions"]
smartquotes_action = "D"  # dashes; quotes are as they are written
myst_heading_anchors = 4  # links to headings, with the names that code hosts give them

# Docstrings have their types in the signature, and attributes in one list.
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 80

# Every page's snippets run in a folder of its own, where they find what they name.
doctest_global_setup = "import playground; playground.enter()"
doctest_global_cleanup = "import playground; playground.leave()"

html_theme = "furo"
pygments_style, pygments_dark_style = "friendly", "github-dark"
html_title = f"dualcodec_jax {release}"
html_static_path = ["static"]
html_css_files = ["pages.css"]
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False


def setup(app: Sphinx) -> None:
    """What no setting does."""
    app.connect("autodoc-process-signature", _signature)
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"


def _signature(*arguments: Any) -> tuple[str | None, str | None]:
    """A signature whose defaults are expressions; those of dataclasses' factories are not."""
    signature, returns = arguments[-2:]
    return signature and signature.replace("<factory>", "..."), returns
