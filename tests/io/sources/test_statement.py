"""The text of statements in every style of parameters."""

from __future__ import annotations

import pytest

from flowstone.io.sources.rows import Source, Statement
from flowstone.io.sources.watermark import Watermark

SOURCE = Source(("at", "id", "100%"), table=("my", "t"))


@pytest.mark.parametrize(
    ("style", "where", "parameters"),
    [
        ("qmark", '"at" > ? OR ("at" = ? AND "id" > ?)', [7, 7, "a"]),
        ("numeric", '"at" > :1 OR ("at" = :2 AND "id" > :3)', [7, 7, "a"]),
        ("named", '"at" > :p1 OR ("at" = :p2 AND "id" > :p3)', {"p1": 7, "p2": 7, "p3": "a"}),
        ("format", '"at" > %s OR ("at" = %s AND "id" > %s)', [7, 7, "a"]),
        ("pyformat", '"at" > %(p1)s OR ("at" = %(p2)s AND "id" > %(p3)s)', {"p1": 7, "p2": 7, "p3": "a"}),
    ],
)
def test_values_are_bound(style: str, where: str, parameters: object) -> None:
    made = Statement.after(SOURCE, Watermark(7, "a", None), limit=3, style=style)
    column = '"100%%"' if "format" in style else '"100%"'
    expected = f'SELECT "at", "id", {column} FROM "my"."t" WHERE {where} ORDER BY "at", "id" LIMIT 3'
    assert (made.text, made.parameters) == (expected, parameters)


def test_the_first_look_and_one_that_remembers() -> None:
    first = Statement.after(SOURCE, None, limit=3, style="qmark")
    assert ' WHERE "at" IS NOT NULL ORDER' in first.text
    again = Statement.after(SOURCE, Watermark(7, "a", frozenset()), limit=3, style="qmark")
    assert ' WHERE "at" >= ? ORDER' in again.text
    assert again.parameters == [7]


def test_names_cannot_break_out_of_their_quotes() -> None:
    evil = Source(('a"; DROP TABLE x; --', "b`"), table=("t",))
    assert '"a""; DROP TABLE x; --"' in Statement.after(evil, None, limit=1, style="qmark").text
    backquoted = Source(("a", "b`"), table=("t",), quote="`")
    assert "SELECT `a`, `b``` FROM `t`" in Statement.after(backquoted, None, limit=1, style="qmark").text
