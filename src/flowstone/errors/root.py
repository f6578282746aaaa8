"""The root of the error tree, and how messages list and suggest names."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class FlowStoneError(Exception):
    """Base of all errors raised by FlowStone.

    Example:
        >>> issubclass(FlowStoneError, Exception)
        True
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest known name, or an empty string.

    Args:
        name: what was written.
        known: the names that exist.

    Example:
        >>> did_you_mean("numbres", ["numbers", "doubled"])
        " Did you mean 'numbers'?"
    """
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


def join_names(items: Iterable[str], *, limit: int = 10) -> str:
    """Return names joined by commas, the first ones when there are many.

    Example:
        >>> join_names("abc", limit=2)
        'a, b and 1 more'
    """
    listed = list(items)
    shown = ", ".join(listed[:limit])
    return shown if len(listed) <= limit else f"{shown} and {len(listed) - limit} more"
