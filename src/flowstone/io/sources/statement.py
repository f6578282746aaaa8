"""The statement that reads new rows: names quoted, values bound."""

from __future__ import annotations

from dataclasses import dataclass, field

from flowstone.io.sources.exact import CursorValue
from flowstone.io.sources.watermark import Watermark


@dataclass(frozen=True, slots=True)
class Source:
    """What is read.

    Args:
        columns: columns to read; the first is the watermark, the second distinguishes rows of one watermark.
        table: parts of the table's name, such as `("sales", "orders")`; they are quoted one by one.
        query: in its place, a query that gives such rows; the table is its name then.
        quote: character around names: `"` as the standard says, or a backquote for MySQL.
    """

    columns: tuple[str, ...]
    table: tuple[str, ...] = ()
    query: str | None = None
    quote: str = '"'


@dataclass(slots=True)
class Statement:
    """A statement with its parameters, in the style of a driver.

    Example:
        >>> source = Source(("at", "id"), table=("orders",))
        >>> made = Statement.after(source, Watermark(7, 1, None), limit=10, style="qmark")
        >>> made.text.split("WHERE ")[1]
        '"at" > ? OR ("at" = ? AND "id" > ?) ORDER BY "at", "id" LIMIT 10'
        >>> made.parameters
        [7, 7, 1]
    """

    style: str
    text: str = ""
    _values: list[CursorValue] = field(default_factory=list)

    @classmethod
    def after(cls, source: Source, mark: Watermark | None, *, limit: int, style: str) -> Statement:
        """Return the statement for the first rows on or after a watermark, in their order."""
        made = cls(style)
        columns = [made._name(source, column) for column in source.columns]
        by, tie = columns[0], columns[1]
        words = ["SELECT", ", ".join(columns), "FROM", made._origin(source), "WHERE", made._where(by, tie, mark)]
        made.text = " ".join([*words, "ORDER BY", f"{by}, {tie}", "LIMIT", str(limit)])
        return made

    @property
    def parameters(self) -> object:
        """The values, as the style wants them."""
        if self.style in ("named", "pyformat"):
            return {f"p{number}": value for number, value in enumerate(self._values, 1)}
        return self._values

    def _where(self, by: str, tie: str, mark: Watermark | None) -> str:
        if mark is None:
            return f"{by} IS NOT NULL"
        if mark.seen is not None:
            return f"{by} >= {self._bind(mark.at)}"
        later = f"{by} > {self._bind(mark.at)}"
        return f"{later} OR ({by} = {self._bind(mark.at)} AND {tie} > {self._bind(mark.after)})"

    def _origin(self, source: Source) -> str:
        if source.query is not None:
            return f"({self._plain(source.query.strip().rstrip(';'))}\n) AS {self._name(source, source.table[-1])}"
        return ".".join([self._name(source, part) for part in source.table])

    def _name(self, source: Source, name: str) -> str:
        return self._plain(f"{source.quote}{name.replace(source.quote, source.quote * 2)}{source.quote}")

    def _plain(self, text: str) -> str:
        """Return text in which nothing is a parameter."""
        return text.replace("%", "%%") if self.style in ("format", "pyformat") else text

    def _bind(self, value: CursorValue) -> str:
        self._values.append(value)
        number = len(self._values)
        marks = {"qmark": "?", "numeric": f":{number}", "named": f":p{number}", "format": "%s"}
        return marks.get(self.style, f"%(p{number})s")
