"""The selection language: `a`, `+a`, `a+`, `2+a+1`, `tag:x`, `group:x`, `*`, `and`, `or`, `not`, brackets.

A name with other characters stands between double quotes, `+"my orders"`; a quote within it is written twice. The
`+` notation is the one that dbt and Dagster users know.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from flowstone.core.asset import Asset
from flowstone.core.declaring import shown
from flowstone.core.graph import AssetGraph
from flowstone.errors import SelectionError, did_you_mean

type Selection = str | Asset | Iterable[str | Asset]

_TOKEN = re.compile(
    r'\s*(?:(?P<bracket>[()])|(?P<quoted>(?:\d{0,6}\+)?"(?:[^"]|"")*"(?:\+\d{0,6})?)|(?P<word>[^\s()"]+))'
)
_TERM = re.compile(r"(?P<up>(?:\d{0,6}\+)?)(?P<body>.+?)(?P<down>(?:\+\d{0,6})?)", re.DOTALL)
_DEEPEST = 50


def select(graph: AssetGraph, selection: Selection) -> tuple[str, ...]:
    """Resolve a selection to asset names, upstream first.

    Args:
        graph: the assets to choose from.
        selection: an expression, an asset, or several of these (their union).

    Returns:
        The selected names in an order in which they can run.

    Raises:
        SelectionError: the expression is malformed, names an unknown asset, or selects nothing.

    Example:
        >>> from flowstone.core.asset import asset
        >>> @asset
        ... def a(): ...
        >>> @asset(tags=["daily"])
        ... def b(a): ...
        >>> select(AssetGraph([a, b]), "+tag:daily"), select(AssetGraph([a, b]), "* and not b")
        (('a', 'b'), ('a',))
    """
    chosen: set[str] = set()
    given: object = (selection,) if isinstance(selection, str | Asset) else selection
    if isinstance(given, Mapping) or not isinstance(given, Iterable):
        raise SelectionError(shown(given), "give a name, an expression, an asset, or a list of these.")
    for item in given:
        if isinstance(item, Asset):
            chosen.add(graph.own(item).name)
        elif isinstance(item, str):
            chosen |= _Parser(graph, item).parse()
        else:
            raise SelectionError(shown(item), "give a name, an expression or an asset.")
    hidden = {name for name in chosen if graph[name].hidden}
    chosen -= hidden
    if hidden and not chosen:
        raise SelectionError(str(selection), f"{', '.join(sorted(hidden))} is run by the asset that scatters it.")
    if not chosen:
        raise SelectionError(str(selection), "it selects no asset.")
    return tuple(name for name in graph.order if name in chosen)


class _Parser:
    """Recursive descent over `or` < `and` < `not` < term."""

    def __init__(self, graph: AssetGraph, expression: str) -> None:
        self._graph = graph
        self._open_brackets = 0
        self._expression = expression
        self._tokens = self._split(expression)
        self._next = 0

    def parse(self) -> set[str]:
        if self._expression in self._graph:  # a name is a name, whatever characters it has
            return {self._expression}
        if not self._tokens:
            raise self._error("it is empty.")
        chosen = self._either()
        if self._next < len(self._tokens):
            raise self._error(f"{self._tokens[self._next][1]!r} was not expected; join with 'and' or 'or'.")
        return chosen

    def _split(self, expression: str) -> list[tuple[str, str]]:
        tokens, at = [], 0
        text = expression.rstrip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise self._error(f"there is an unclosed quote at character {at + 1}.")
            tokens.append((match.lastgroup or "", match[match.lastgroup or 0]))
            at = match.end()
        return tokens

    def _error(self, problem: str) -> SelectionError:
        return SelectionError(self._expression, problem)

    def _take(self, *words: str) -> bool:
        if self._next < len(self._tokens):
            kind, text = self._tokens[self._next]
            if kind != "quoted" and text.lower() in words:
                self._next += 1
                return True
        return False

    def _either(self) -> set[str]:
        chosen = self._both()
        while self._take("or"):
            chosen = chosen | self._both()
        return chosen

    def _both(self) -> set[str]:
        chosen = self._negated()
        while self._take("and"):
            chosen = chosen & self._negated()
        return chosen

    def _negated(self) -> set[str]:
        negations = 0
        while self._take("not"):
            negations += 1
        chosen = self._term()
        return set(self._graph.order) - chosen if negations % 2 else chosen

    def _term(self) -> set[str]:
        if self._take("("):
            self._open_brackets += 1
            if self._open_brackets > _DEEPEST:
                raise SelectionError(self._expression[:100], f"brackets are nested more than {_DEEPEST} deep.")
            chosen = self._either()
            if not self._take(")"):
                raise self._error("a bracket is not closed.")
            self._open_brackets -= 1
            return chosen
        if self._next >= len(self._tokens):
            raise self._error("it ends where a term was expected.")
        kind, text = self._tokens[self._next]
        self._next += 1
        if kind == "bracket" or (kind == "word" and text.lower() in ("and", "or")):
            raise self._error(f"a term was expected before {text!r}.")
        return self._atom(text)

    def _atom(self, text: str) -> set[str]:
        match = _TERM.fullmatch(text)
        assert match is not None
        body = match["body"]
        roots = self._named(body[1:-1].replace('""', '"') if body.startswith('"') else body)
        chosen = set(roots)
        for name in roots:
            if match["up"]:
                chosen |= self._graph.upstream(name, depth=_depth(match["up"]))
            if match["down"]:
                chosen |= self._graph.downstream(name, depth=_depth(match["down"]))
        return chosen

    def _named(self, text: str) -> set[str]:
        if text in self._graph:
            return {text}
        prefix, _, value = text.partition(":")
        if prefix == "tag":
            return {one.name for one in self._graph if value in one.tags}
        if prefix == "group":
            return {one.name for one in self._graph if one.group == value}
        if any(wild in text for wild in "*?["):
            return {name for name in self._graph.order if fnmatchcase(name, text)}
        raise self._error(f"there is no asset named {text!r}.{did_you_mean(text, self._graph.order)}")


def _depth(sign: str) -> int | None:
    digits = sign.strip("+")
    return int(digits) if digits else None
