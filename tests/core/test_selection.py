from __future__ import annotations

import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from drawn_graphs import Drawn, graphs, make

from flowstone.core.graph import AssetGraph
from flowstone.core.selection import select
from flowstone.errors import SelectionError, UnknownAssetError

TAGS = ("red", "blue")


class Expression:
    """A drawn expression: its text, and what it means in terms of sets."""

    def __init__(self, text: str, meaning) -> None:
        self.text = text
        self.meaning = meaning

    def __repr__(self) -> str:
        return self.text


def everything(drawn: Drawn) -> set[str]:
    return set(drawn.reads)


def atoms() -> st.SearchStrategy[Expression]:
    name = st.sampled_from([f"n{number}" for number in range(9)])
    depth = st.none() | st.integers(0, 3)

    def named(one: str, up, down) -> Expression:
        before = "" if up is False else f"{'' if up is None else up}+"
        after = "" if down is False else f"+{'' if down is None else down}"

        def meaning(drawn: Drawn) -> set[str]:
            if one not in drawn.reads:
                raise LookupError
            found = {one}
            if up is not False:
                found |= drawn.upstream(one, up)
            if down is not False:
                found |= drawn.downstream(one, down)
            return found

        return Expression(before + one + after, meaning)

    def by_tag(tag: str) -> Expression:
        return Expression(f"tag:{tag}", lambda drawn: {one.name for one in drawn.assets if tag in one.tags})

    def by_group(group: str) -> Expression:
        return Expression(f"group:{group}", lambda drawn: {a.name for a in drawn.assets if a.group == group})

    def wild(pattern: str) -> Expression:
        return Expression(pattern, lambda drawn: {one for one in drawn.reads if fnmatchcase(one, pattern)})

    return st.one_of(
        st.builds(named, name, st.just(False) | depth, st.just(False) | depth),
        st.sampled_from(TAGS).map(by_tag),
        st.sampled_from(["g1", "g2"]).map(by_group),
        st.sampled_from(["*", "n?", "n[0-3]", "x*"]).map(wild),
    )


def combined(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    def negated(one: Expression) -> Expression:
        return Expression(f"not ({one.text})", lambda drawn: everything(drawn) - one.meaning(drawn))

    def both(left: Expression, right: Expression) -> Expression:
        return Expression(f"({left}) and ({right})", lambda drawn: left.meaning(drawn) & right.meaning(drawn))

    def either(left: Expression, right: Expression) -> Expression:
        return Expression(f"({left}) OR ({right})", lambda drawn: left.meaning(drawn) | right.meaning(drawn))

    return st.one_of(inner.map(negated), st.builds(both, inner, inner), st.builds(either, inner, inner))


@given(graphs(tags=TAGS), st.recursive(atoms(), combined, max_leaves=5))
def test_expressions_mean_sets(drawn: Drawn, expression: Expression) -> None:
    graph = AssetGraph(drawn.assets)
    try:
        meant = expression.meaning(drawn)
    except LookupError:
        with pytest.raises(SelectionError, match="there is no asset named"):
            select(graph, expression.text)
        return
    if not meant:
        with pytest.raises(SelectionError, match="selects no asset"):
            select(graph, expression.text)
        return
    assert select(graph, expression.text) == tuple(name for name in graph.order if name in meant)


ABC = AssetGraph([make("a", set()), make("b", {"a"}), make("c", {"b"}), make("d", set())])


@pytest.mark.parametrize(
    ("expression", "chosen"),
    [
        ("a or b and not b", "a"),  # and binds closer than or
        ("not a and b", "b"),  # not binds closest
        ("not not a", "a"),
        ("+b", "ab"),
        ("1+c", "bc"),
        ("a+1", "ab"),
        ("0+c", "c"),
        ("+b+", "abc"),
        (" ( a ) ", "a"),
        ('"a" or "d"', "ad"),
        (["a", "d"], "ad"),
        ([], None),
        (ABC["b"], "b"),
        ([ABC["b"], "d"], "bd"),
        ("A", None),
    ],
)
def test_examples(expression, chosen: str | None) -> None:
    if chosen is None:
        with pytest.raises(SelectionError):
            select(ABC, expression)
    else:
        assert set(select(ABC, expression)) == set(chosen)


@pytest.mark.parametrize(
    "expression",
    ["", "  ", "a b", "a and", "and a", "or", "not", "(a", "a)", "()", '"a', "+", "++", "a or or b", "not and a"],
)
def test_malformed_expressions_are_named(expression: str) -> None:
    with pytest.raises(SelectionError) as caught:
        select(ABC, expression)
    assert repr(expression) in str(caught.value)


def test_deep_brackets_are_refused_not_crashed() -> None:
    with pytest.raises(SelectionError, match="nested"):
        select(ABC, "(" * 50_000 + "a" + ")" * 50_000)


def test_endless_depths_are_refused_not_crashed() -> None:
    with pytest.raises(SelectionError):
        select(ABC, "9" * 10_000 + "+a")


def test_a_name_is_a_name_whatever_its_characters() -> None:
    graph = AssetGraph([make("a or b", set()), make("x*", set()), make("+y", set()), make("y", set())])
    for name in ("a or b", "x*", "+y"):
        assert select(graph, name) == (name,)
    assert select(graph, '"a or b" or "+y"') == ("a or b", "+y")


def test_suggestions() -> None:
    graph = AssetGraph([make("orders", set())])
    with pytest.raises(SelectionError, match="Did you mean 'orders'"):
        select(graph, "+ordres")


def test_an_asset_of_another_app_is_unknown() -> None:
    with pytest.raises(UnknownAssetError):
        select(ABC, make("z", set()))
