"""What values an option can take."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Kind:
    """What values an option takes.

    Attributes:
        what: in words, for messages.
        read: value of YAML's types → value; raises ValueError if it is of another kind.
        choices: all values, if they can be listed.
        is_text: whether a value may be any text.
    """

    what: str
    read: Callable[[Any], Any]
    choices: tuple[str, ...] = ()
    is_text: bool = False


def _exactly(*types: type) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if type(value) not in types:
            raise ValueError
        return value

    return read


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError
    return float(value)


def optional(kind: Kind) -> Kind:
    """A kind, or null."""

    def read(value: Any) -> Any:
        return None if value is None else kind.read(value)

    return dataclasses.replace(kind, what=f"{kind.what} or null", read=read)


def several(kind: Kind, what: str, *, or_one: bool = False, count: int | None = None) -> Kind:
    """A list of a kind; with ``or_one``, a single value stands for a list of one."""

    def read(value: Any) -> tuple[Any, ...]:
        values = [value] if or_one and not isinstance(value, list) else value
        if not isinstance(values, list) or count not in (None, len(values)):
            raise ValueError
        return tuple(kind.read(item) for item in values)

    return Kind(what, read, kind.choices, kind.is_text)


def one_of(*choices: str) -> Kind:
    """One of several words."""

    def read(value: Any) -> str:
        if value not in choices:
            raise ValueError
        return value

    return Kind(" or ".join(choices), read, choices)


INTEGER = Kind("an integer", _exactly(int))
NUMBER = Kind("a number", _number)
FLAG = Kind("true or false", _exactly(bool))
TEXT = Kind("text", _exactly(str), is_text=True)
INTEGERS = several(INTEGER, "a list of integers")
PAIR = several(NUMBER, "a pair of numbers", count=2)
PAIRS = several(PAIR, "a list of pairs of numbers")
TEXTS = several(TEXT, "text or a list of texts", or_one=True)
ONE_INTEGER = several(INTEGER, "an integer or a list of one", or_one=True, count=1)
