"""The README and the pages in ``docs``: what they name exists, and what they show is current.

``make docs`` builds the pages and runs their snippets; what is here needs no Sphinx.
"""

from __future__ import annotations

import ast
import functools
import importlib
import re
import shlex
import sys
import unicodedata
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.main import get_command

import dualcodec_jax
from dualcodec_jax.cli.main import app
from dualcodec_jax.inference import Inference
from dualcodec_jax.train.options import config_names, group_choices
from dualcodec_jax.train.options.schema import GROUPS, OPTIONS, REPLACED, SECTIONS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("*/README.md")), *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)
HIDDEN = re.compile(r"<!-- run\n(.*?)-->", re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CLIP = 72000
"""Samples that are encoded here: one length, so that there is one program to compile."""

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def prose(page: Path) -> str:
    """A page without fences and comments."""
    return re.sub(r"<!--.*?-->", "", FENCE.sub("", page.read_text("utf-8")), flags=re.DOTALL)


def fences(page: Path, *languages: str) -> list[str]:
    return [code for name, code in FENCE.findall(page.read_text("utf-8")) if name in languages]


def anchors(page: Path) -> set[str]:
    """Of the headings, as code hosts and MyST make them."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        text = re.sub(r"[`*_]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        kept = (c for c in text if c in " -_" or unicodedata.category(c)[0] in "LN")
        found.add("".join(kept).replace(" ", "-"))
    return found


@every_page
def test_links_and_images_lead_somewhere(page: Path) -> None:
    wrong = []
    for target in LINK.findall(prose(page)):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            wrong.append(target)
    assert not wrong


@every_page
def test_images_are_local(page: Path) -> None:
    for target in re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", page.read_text("utf-8")):
        assert (page.parent / target).is_file(), target


def test_every_page_is_in_a_table_of_contents() -> None:
    listed = set()
    for page in DOCS.rglob("index.md"):
        for block in fences(page, "{toctree}"):
            names = [line for line in block.splitlines() if line and not line.startswith(":")]
            listed |= {page.parent / f"{name}.md" for name in names}
    assert listed == {*DOCS.rglob("*.md")} - {DOCS / "index.md"}


# Commands ---------------------------------------------------------------------------------------


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every command in code of a page."""
    for block in fences(page, "", "bash", "console", "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            yield shlex.split(line.removeprefix("$ ").replace("'\\''", ""), comments=True)
    for span in SPAN.findall(prose(page)):
        if span.startswith(("dualcodec-jax ", "python train_jax.py ", "make ")):
            yield span.split()


@every_page
def test_commands_and_options_exist(page: Path) -> None:
    for words in commands(page):
        if "dualcodec-jax" in words:
            check_command(words[words.index("dualcodec-jax") + 1 :])
        if "train_jax.py" in words:
            check_training(words[words.index("train_jax.py") + 1 :])
        if words[:1] == ["make"]:
            targets = [word for word in words[1:] if re.fullmatch("[a-z-]+", word)]
            assert set(targets) <= makefile_targets(), words


def makefile_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def check_command(words: list[str]) -> None:
    command: Any = get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    if hasattr(command, "commands"):
        assert words in ([], ["--version"], ["--help"], ["COMMAND", "--help"]), words
        return
    options = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    for word in words:
        if re.fullmatch(r"--?[a-z][-a-z0-9]*(=.*)?", word):
            assert word.partition("=")[0] in {*options, "--help"}, (command.name, word)


def check_training(words: list[str]) -> None:
    for word in words:
        name, _, value = word.partition("=")
        if name == "--config-name":
            assert value in config_names(), word
        elif name in GROUPS:
            assert value in group_choices(name), word
        elif "=" in word and not word.startswith("-"):
            assert name in OPTIONS, word


@every_page
def test_options_of_training_exist(page: Path) -> None:
    groups = r"trainer|data|machine|semantic|model\.(model|discriminator|semantic)"
    for span in SPAN.findall(prose(page)):
        if re.fullmatch(rf"({groups})(\.\w+)+(=\S*)?", span) and not span.endswith(".py"):
            name = span.partition("=")[0]
            assert name in OPTIONS.keys() | SECTIONS.keys() | REPLACED.keys(), span


@every_page
def test_tests_and_files_that_are_named_exist(page: Path) -> None:
    tests = {path.name for path in (ROOT / "tests").rglob("*.py")}
    for span in SPAN.findall(prose(page)):
        if re.fullmatch(r"test_\w+\.py", span):
            assert span in tests, span
        if re.fullmatch(r"(dualcodec_jax|benchmarks|configs|examples|tests|demo)/[\w/.-]+", span):
            assert (ROOT / span).exists(), span


def test_the_list_of_commands_has_every_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS / "extensions")
    module = importlib.import_module("cli_reference")
    assert module.MARKER in (DOCS / "cli.md").read_text("utf-8")
    sections = re.split(r"^## ", "\n".join(module.reference()), flags=re.MULTILINE)
    text_of = {section.partition("\n")[0]: section for section in sections[1:]}
    assert set(text_of) == set(leaves(get_command(app)))
    for name, command in leaves(get_command(app)).items():
        for each in command.params:
            for option in each.opts if each.param_type_name == "option" else ():
                assert option in text_of[name], (name, option)


def leaves(command: Any, prefix: str = "") -> dict[str, Any]:
    """Commands and groups below ``command``, by their words."""
    found: dict[str, Any] = {}
    for name, child in getattr(command, "commands", {}).items():
        found |= {f"{prefix}{name}": child} | leaves(child, f"{prefix}{name} ")
    return found


# Python -----------------------------------------------------------------------------------------


@every_page
def test_snippets_compile_and_their_names_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    blocks = [*HIDDEN.findall(text), *fences(page, "python")]
    blocks += ["\n".join(pycon(block)) for block in fences(page, "pycon")]
    trees = [ast.parse(block) for block in blocks]
    aliases = {
        name.asname or name.name
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for name in node.names
        if name.name == "dualcodec_jax"
    }
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dualcodec_jax"):
            for name in node.names:
                resolve(f"{node.module}.{name.name}")
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in aliases
        ):
            resolve(f"dualcodec_jax.{node.attr}")


def pycon(block: str) -> Iterator[str]:
    """The input lines of a session."""
    for line in block.splitlines():
        if line.startswith((">>> ", "... ")):
            yield line[4:]


def resolve(name: str) -> Any:
    """The object of a dotted name."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        return functools.reduce(getattr, parts[end:], found)
    raise AssertionError(f"{name} does not exist")


def test_the_reference_names_what_exists_and_all_that_is_public() -> None:
    named = set()
    for page in (DOCS / "reference").glob("*.md"):
        for block in fences(page, "{eval-rst}"):
            for name, members in re.findall(
                r"^\.\. auto\w+:: ([\w.]+)(?:\n   :members: ([\w, ]+))?", block, re.MULTILINE
            ):
                resolve(name)
                named |= {name} | {f"{name}.{part}" for part in members.split(", ") if part}
    for name in named:
        resolve(name)
    errors = {name for name in dualcodec_jax.__all__ if name.endswith(("Error", "Warning"))}
    public = set(dualcodec_jax.__all__) - errors - {"__version__"}
    assert public <= {name.removeprefix("dualcodec_jax.") for name in named}
    assert "dualcodec_jax.errors" in named


# Pictures ---------------------------------------------------------------------------------------


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(DOCS)
    module = importlib.import_module("pictures")
    yield module
    sys.modules.pop("pictures")


@pytest.mark.slow
def test_pictures_are_drawn(
    pictures: Any,
    tiny_inference: Inference,
    speech: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pictures, "demo", lambda: tiny_inference)
    two = functools.partial(pictures.encode_samples, n_quantizers=2)  # fewer programs to compile
    monkeypatch.setattr(pictures, "encode_samples", two)
    monkeypatch.setattr(pictures, "speech", lambda: speech[:CLIP])
    for path in pictures.write_pictures(tmp_path):
        assert (DOCS / "images" / path.name).is_file()
        drawing = ElementTree.parse(path).getroot()
        assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
        assert len(drawing.findall(".//{http://www.w3.org/2000/svg}path")) > 10


def test_pictures_are_small_and_of_the_weights_that_ship(pictures: Any) -> None:
    for name in pictures.PICTURES:
        path = DOCS / "images" / f"{name}.svg"
        assert path.stat().st_size < 100_000
        assert pictures.weights_note() in path.read_text("utf-8"), "run python docs/pictures.py"
