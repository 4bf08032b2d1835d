"""Names and types of options: what is wrong with them, and what may have been meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dualcodec_jax.train.options.schema import FIXED, GROUPS, MISSING, OPTIONS, REPLACED


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Options by their dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def problems(values: Mapping[str, Any]) -> Iterator[str]:
    """Everything that is wrong with names and types."""
    for name, value in flatten(values).items():
        problem = name_problem(name)
        if problem and value == {} and _is_section(name):
            continue
        yield from [problem] if problem else _value_problems(name, value)


def _value_problems(name: str, value: Any) -> Iterator[str]:
    kind = OPTIONS[name]
    if value == MISSING:
        return
    try:
        kind.read(value)
    except ValueError:
        close = difflib.get_close_matches(str(value), kind.choices, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        if kind.is_text and type(value) in (int, float, bool):
            hint = f"; in quotes: {name}='\"{value}\"'"
        yield f"{name} must be {kind.what}; got {value!r}{hint}"
        return
    if name in FIXED and value != FIXED[name][0]:
        yield f"{name} cannot be {str(value).lower()}: {FIXED[name][1]}"


def name_problem(name: str) -> str | None:
    """What is wrong with the name of an option; None if there is such an option."""
    if name in OPTIONS:
        return None
    parts = name.split(".")
    if any(part.startswith("_") and part.endswith("_") for part in parts):
        return f"{name}: configurations cannot name code to run here; remove it"
    for end in range(len(parts), 0, -1):
        if (instead := REPLACED.get(".".join(parts[:end]))) is not None:
            return f"{name} has no meaning here: {instead}"
    if _is_section(name):
        inside = ", ".join(_names_below(name))
        return f"{name} is a section, not an option; it has {inside}"
    suggestions = _suggestions(parts)
    if suggestions:
        return f"unknown option {name}; did you mean {' or '.join(suggestions)}?"
    parent = next(
        (
            ".".join(parts[:end])
            for end in range(len(parts) - 1, 0, -1)
            if _names_below(parts[:end])
        ),
        "",
    )
    where = f"{parent} has" if parent else "there are"
    return f"unknown option {name}; {where} {', '.join(_names_below(parent))}"


def _is_section(name: str) -> bool:
    return bool(_names_below(name))


def _names_below(section: str | Sequence[str]) -> list[str]:
    """Names one level below a section, in order; of '' the groups."""
    text = section if isinstance(section, str) else ".".join(section)
    prefix = f"{text}." if text else ""
    inside = (name.removeprefix(prefix) for name in OPTIONS if name.startswith(prefix))
    return list(dict.fromkeys(name.split(".")[0] for name in inside))


def _suggestions(parts: Sequence[str]) -> list[str]:
    """Options that may have been meant: misspelt on the way, else of the same last name."""
    corrected = _corrected(parts)
    if corrected:
        return [corrected]
    by_last: dict[str, list[str]] = {}
    for option in OPTIONS:
        by_last.setdefault(option.split(".")[-1], []).append(option)
    close = difflib.get_close_matches(parts[-1], by_last, n=1, cutoff=0.8)
    return by_last[close[0]][:3] if close else []


def _corrected(parts: Sequence[str]) -> str | None:
    """The path with every name replaced by the nearest one at its level."""
    path: list[str] = []
    for part in parts:
        names = _names_below(path)
        close = [part] if part in names else difflib.get_close_matches(part, names, n=1)
        if not close:
            return None
        path.append(close[0])
    name = ".".join(path)
    return name if name in OPTIONS or name in GROUPS else None
