"""The root of the error tree, and how messages list and suggest names, and write commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from difflib import get_close_matches

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]*")
_WORDS = ("and", "or", "not")


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
    close = get_close_matches(str(name), list(known), n=1, cutoff=0.6)
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


def selected(name: str, *, upstream: bool = False) -> str:
    """Return the selection of one asset, with what is upstream of it if wanted; `select` reads it back.

    Example:
        >>> selected("orders", upstream=True), selected("my orders", upstream=True), selected("a+1")
        ('+orders', '+"my orders"', '"a+1"')
    """
    plain = _PLAIN_NAME.fullmatch(name) and name.lower() not in _WORDS
    quoted = name if plain else '"{}"'.format(name.replace('"', '""'))
    return f"+{quoted}" if upstream else quoted


def command(verb: str, *words: str, **options: str | bool | None) -> str:
    """Return a command of ours that works when it is pasted into a shell.

    Args:
        verb: the command.
        *words: its arguments, as they are meant: they are quoted here.
        **options: its options; None or False leaves one out.

    Example:
        >>> command("backfill", "orders", partitions="us west", force=True)
        "flowstone backfill orders --partitions 'us west' --force"
        >>> command("retry", "-x"), command("why", "orders", partition="-x")
        ('flowstone retry -- -x', 'flowstone why orders --partition=-x')
    """
    parts = ["flowstone", *verb.split()]
    given: list[str] = []
    for name, value in options.items():
        option = "--" + name.replace("_", "-")
        if isinstance(value, str):
            quoted = shlex.quote(value)
            given.append(f"{option}={quoted}" if value.startswith("-") else f"{option} {quoted}")
        elif value:
            given.append(option)
    quoted_words = list(map(shlex.quote, words))
    if any(word.startswith("-") for word in words):
        return " ".join([*parts, *given, "--", *quoted_words])
    return " ".join([*parts, *quoted_words, *given])
