"""Pages of a long list: the items, where the next page begins, and how many there are in all.

Pages are found by key, not by number: a cursor says after which item the next page begins, so that items that come
or go meanwhile neither repeat nor hide others.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from flowstone.errors import OptionsError

DEFAULT_LIMIT = 50
MAX_LIMIT = 500
_MAX_CURSOR = 4_000


@dataclass(frozen=True, slots=True)
class Page[T]:
    """Some items of a list.

    Args:
        items: the items, in the order of the list.
        next: the cursor of the page behind them; None when this is the last one.
        total: how many items the whole list has, where that is known.
        total_is_at_least: whether counting stopped there: there are more.

    Example:
        >>> Page(("a", "b"), next="x", total=10_000, total_is_at_least=True).summary
        'first 2 of more than 10,000'
    """

    items: tuple[T, ...]
    next: str | None = None
    total: int | None = None
    total_is_at_least: bool = False

    @property
    def summary(self) -> str:
        """How much of the list this is, in words; empty when it is all of it."""
        if self.next is None and (self.total is None or self.total <= len(self.items)):
            return ""
        if self.total is None:
            return f"first {len(self.items):,}"
        than = "more than " if self.total_is_at_least else ""
        return f"first {len(self.items):,} of {than}{self.total:,}"

    def map[O](self, change: Callable[[T], O]) -> Page[O]:
        """Return the page with other items in place of these.

        Example:
            >>> Page(("a", "b"), next="x").map(str.upper).items
            ('A', 'B')
        """
        return Page(tuple(map(change, self.items)), self.next, self.total, self.total_is_at_least)


def page_of[T](
    rows: Sequence[T],
    limit: int,
    key: Callable[[T], Sequence[object]],
    *,
    total: int | None = None,
    total_is_at_least: bool = False,
) -> Page[T]:
    """Make a page of rows that were read with one more than fits, which says whether there is a next page.

    Args:
        rows: up to `limit + 1` rows in the order of the list.
        limit: how many rows a page has.
        key: returns what the order goes by, as plain JSON values.
        total: see `Page`.
        total_is_at_least: see `Page`.

    Example:
        >>> page = page_of([1, 2, 3], 2, lambda row: (row,))
        >>> page.items, decode_cursor(page.next, int)
        ((1, 2), (2,))
    """
    items = tuple(rows[:limit])
    following = encode_cursor(*key(items[-1])) if len(rows) > limit and items else None
    return Page(items, following, total, total_is_at_least)


def clamp_limit(limit: object, *, default: int = DEFAULT_LIMIT, maximum: int = MAX_LIMIT) -> int:
    """Return a number of items for a page within bounds, whatever it was given.

    Example:
        >>> clamp_limit(7), clamp_limit(10**9), clamp_limit(-1), clamp_limit(None), clamp_limit("7")
        (7, 500, 1, 50, 50)
    """
    if not isinstance(limit, int) or isinstance(limit, bool):
        return default
    return max(1, min(limit, maximum))


def encode_cursor(*key: object) -> str:
    """Return the text that stands for a place in a list.

    Args:
        *key: what the list is ordered by, at that place: texts, numbers, None.
    """
    text = json.dumps(key, separators=(",", ":"), allow_nan=False)
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def decode_cursor(cursor: str | None, *types: type) -> tuple[Any, ...] | None:
    """Return the place in a list that a cursor stands for; None for its beginning.

    Args:
        cursor: what `encode_cursor` made, or what came in its place through a URL.
        *types: the types of the values that it must have.

    Raises:
        OptionsError: it is none of ours.

    Example:
        >>> decode_cursor(encode_cursor("a", 3), str, int)
        ('a', 3)
    """
    given: object = cursor
    if given is None or (isinstance(given, str) and not given):
        return None
    if isinstance(given, str) and len(given) <= _MAX_CURSOR:
        try:
            found = json.loads(base64.urlsafe_b64decode(given.encode() + b"=" * (-len(given) % 4)))
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, list) and len(found) == len(types):
            fitting = all(type(value) is kind for value, kind in zip(found, types, strict=True))
            if fitting and not any(isinstance(value, str) and "\x00" in value for value in found):
                return tuple(found)
    raise OptionsError(
        f"cursor={str(cursor)[:60]!r} is no place in this list: give the `next` of an earlier page, or none."
    )
