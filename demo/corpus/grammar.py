"""Sentences for the synthetic voices, from small grammars written for this purpose."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

_SLOT = re.compile(r"<(\w+)>")


class Grammar:
    """Rules that rewrite symbols until only words are left.

    The alternatives of a symbol are dealt like cards, shuffled anew when all are used, so that
    every word gets its turn.

    Args:
        rules: one rule a line, ``symbol: alternative | alternative``; lines that begin with a
            space go on; ``<symbol>`` in an alternative is replaced. The first is ``text``.
        seed: anything; the same one gives the same texts.
    """

    def __init__(self, rules: str, seed: str) -> None:
        self._rules = parse_rules(rules)
        self._random = random.Random(seed)
        self._decks: dict[str, list[str]] = {}

    def text(self) -> str:
        """The next text: one to a few sentences with punctuation."""
        text = self._expand("text")
        text = re.sub(r"\b([Aa])(?= (?!eu|on[ec]|uni|use|usual|ut)[aeiou])", r"\1n", text)
        return re.sub(r"(^|[.?!] +)(\w)", lambda match: match[1] + match[2].upper(), text)

    def _expand(self, symbol: str) -> str:
        return _SLOT.sub(lambda match: self._expand(match[1]), self._draw(symbol))

    def _draw(self, symbol: str) -> str:
        deck = self._decks.setdefault(symbol, [])
        if not deck:
            deck += self._rules[symbol]
            self._random.shuffle(deck)
        return deck.pop()


def parse_rules(rules: str) -> dict[str, list[str]]:
    """Alternatives by symbol.

    Raises:
        ValueError: a symbol is used and has no rule.
    """
    parsed: dict[str, list[str]] = {}
    for line in re.sub(r"\n +", " ", rules).splitlines():
        symbol, separator, alternatives = line.partition(":")
        if separator:
            parsed[symbol.strip()] = [part.strip() for part in alternatives.split("|")]
    used = {name for parts in parsed.values() for part in parts for name in _SLOT.findall(part)}
    if missing := (used | {"text"}) - set(parsed):
        raise ValueError(f"no rule for {', '.join(sorted(missing))}")
    return parsed


def texts(language: str, seed: str) -> Iterator[str]:
    """An endless supply of texts of 15 to 260 characters in one language, none twice."""
    from corpus.rules import RULES

    grammar = Grammar(RULES[language], seed)
    seen = set()
    while True:
        text = grammar.text()
        if text not in seen and 15 <= len(text) <= 260:
            seen.add(text)
            yield text
