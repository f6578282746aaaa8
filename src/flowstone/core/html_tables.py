"""Small HTML tables for notebooks: escaped text and no scripts, whatever names and errors hold.

Results of the core, of the engine and of the app show themselves by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from flowstone.core.clean import clean_text

MAX_ROWS = 200
_MAX_TEXT = 500


def html_table(title: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table as HTML; what does not fit is counted.

    Args:
        title: a line above it.
        head: names of the columns.
        rows: the cells; None is an empty one.

    Example:
        >>> html_table("Assets", ["name"], [["<b>"]]).partition("<tbody>")[2]
        '<tr><td>&lt;b&gt;</td></tr></tbody></table>'
    """
    remaining = iter(rows)
    shown = list(islice(remaining, MAX_ROWS))
    number = len(shown) + sum(1 for _ in remaining)
    header = "".join(f"<th>{_cell(one)}</th>" for one in head)
    lines = ["".join(f"<td>{_cell(one)}</td>" for one in row) for row in shown]
    if number > len(shown):
        lines.append(f'<td colspan="{len(head)}">and {number - len(shown):,} more</td>')
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><caption>{_cell(title)}</caption><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: object) -> str:
    from html import escape  # whose table of entities is of no use anywhere else

    return "" if value is None else escape(clean_text(str(value), limit=_MAX_TEXT))
