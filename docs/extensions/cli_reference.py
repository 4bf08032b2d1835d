"""The commands of ``dualcodec-jax`` as Markdown, from the help texts that the program itself shows.

A page has them where it says ``<!-- commands -->``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from typer.main import get_command

from dualcodec_jax.cli.main import app as cli

if TYPE_CHECKING:
    from sphinx.application import Sphinx

MARKER = "<!-- commands -->"
PROGRAM = "dualcodec-jax"
ESCAPED_BAR = r"\|"


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("source-read", _insert)
    return {"parallel_read_safe": True}


def _insert(_: Sphinx, __: str, source: list[str]) -> None:
    if MARKER in source[0]:
        source[0] = source[0].replace(MARKER, "\n".join(reference()))


def reference() -> Iterator[str]:
    """Lines of a section for each command, groups before what is in them."""
    yield from _section(get_command(cli), PROGRAM)


def _section(command: Any, name: str) -> Iterator[str]:
    context = command.context_class(command, info_name=name)
    commands = getattr(command, "commands", {})
    if name != PROGRAM:
        yield from (f"## {name.removeprefix(PROGRAM).strip()}", "", command.help, "")
        if not commands:
            usage = " ".join([name, *_usage(command.get_params(context))])
            yield from ("```console", f"$ {usage}", "```", "")
            yield from _parameters(command.get_params(context), context)
    for each, child in commands.items():
        yield from _section(child, f"{name} {each}")


def _usage(parameters: list[Any]) -> Iterator[str]:
    """The arguments and required options of a command line."""
    for parameter in parameters:
        if parameter.param_type_name == "argument":
            yield _argument(parameter) if parameter.required else f"[{_argument(parameter)}]"
        elif parameter.required:
            yield f"{parameter.opts[-1]} {parameter.metavar or parameter.name.upper()}"
    yield "[OPTIONS]"


def _argument(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _parameters(parameters: list[Any], context: Any) -> Iterator[str]:
    """A table of what ``--help`` shows."""
    yield from ("| option | meaning |", "| --- | --- |")
    for parameter in parameters:
        names, meaning = parameter.get_help_record(context)
        if parameter.param_type_name == "argument":
            names = _argument(parameter)
        if names != "--help":
            yield f"| `{names.replace('|', ESCAPED_BAR)}` | {_escaped(meaning)} |"
    yield ""


def _escaped(text: str) -> str:
    """Text for a cell of a table, options in it as code."""
    text = text.replace("|", ESCAPED_BAR).replace("$", r"\$").replace("<", "&lt;")
    return re.sub(r"(?<![\w-])--[a-z][a-z-]*", r"`\g<0>`", text)
