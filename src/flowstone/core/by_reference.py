"""Inputs by reference: parameters that receive a scan of what is stored, in place of the value.

A scan is what a library of tables calls a table that it has not read yet. Which parameters receive one is said by
their annotations; nothing is imported to find out.
"""

from __future__ import annotations

import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from enum import StrEnum
from typing import Any


class ScanKind(StrEnum):
    """The types that read a stored table as they need it."""

    POLARS = "polars.LazyFrame"
    PYARROW = "pyarrow.dataset.Dataset"
    DUCKDB = "duckdb.DuckDBPyRelation"


_BY_CLASS = {
    ("polars", "LazyFrame"): ScanKind.POLARS,
    ("pyarrow", "Dataset"): ScanKind.PYARROW,
    ("duckdb", "DuckDBPyRelation"): ScanKind.DUCKDB,
}
_NAMED = re.compile(
    r"(?<![\w.])(?:(?P<polars>(?:pl\.|polars\.)?LazyFrame)"
    r"|(?P<pyarrow>(?:ds|dataset|pads|pa\.dataset|pyarrow\.dataset)\.Dataset)"
    r"|(?P<duckdb>(?:\w+\.)*DuckDBPyRelation))(?!\w)"
)
"""An annotation as text, whose names are imported for type checkers only."""
_NAMES = ("LazyFrame", "Dataset", "DuckDBPyRelation")


def kind_of_type(kind: type) -> ScanKind | None:
    """Return which scan a class is of; None when it is of none.

    Example:
        >>> kind_of_type(dict) is None
        True
    """
    for one in kind.__mro__:
        found = _BY_CLASS.get((one.__module__.partition(".")[0].lstrip("_"), one.__name__))
        if found is not None:
            return found
    return None


def scan_kinds(function: Callable[..., Any], parameters: Collection[str]) -> Mapping[str, ScanKind]:
    """Return the parameters that receive a scan, by their annotations.

    A scan may be an item of a dict, for a parameter that receives several partitions, and optional.

    Args:
        function: of an asset.
        parameters: those that receive inputs; `"return"` stands for what it returns.

    Example:
        >>> def total(orders: "pl.LazyFrame", days): ...
        >>> scan_kinds(total, ["orders", "days"])
        {'orders': <ScanKind.POLARS: 'polars.LazyFrame'>}
    """
    found: dict[str, ScanKind] = {}
    if not parameters:
        return found
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return found
    for name in parameters:
        parameter = signature.parameters.get(name)
        annotation = inspect.Parameter.empty if parameter is None else parameter.annotation
        if name == "return":
            annotation = signature.return_annotation
        if isinstance(annotation, str):
            if not any(one in annotation for one in _NAMES):
                continue
            annotation = _resolved(annotation, function)
        kind = _kind_in(annotation)
        if kind is not None:
            found[name] = kind
    return found


def sent_as(kind: ScanKind, name: str) -> str | None:
    """Return what to do about a scan that cannot be sent to another process; None for one that can.

    Args:
        kind: of the scan.
        name: of the parameter, or `"return"`.

    Example:
        >>> sent_as(ScanKind.DUCKDB, "orders")
        'Annotate it pyarrow.dataset.Dataset; duckdb.from_arrow(orders) makes a relation of it there.'
    """
    if kind is not ScanKind.DUCKDB:
        return None
    if name == "return":
        return "Return a LazyFrame, a Dataset, or the rows of the relation: relation.to_arrow_table()."
    return f"Annotate it {ScanKind.PYARROW}; duckdb.from_arrow({name}) makes a relation of it there."


def _resolved(text: str, function: Callable[..., Any]) -> object:
    """Return what an annotation stands for; the text itself when its names are known to type checkers only."""
    inner: Any = function
    while True:
        if isinstance(inner, functools.partial):
            inner = inner.func
        elif hasattr(inner, "__wrapped__"):
            inner = inner.__wrapped__
        else:
            break
    alone = types.SimpleNamespace(__annotations__={"it": text})
    names = dict(getattr(inner, "__globals__", {}))
    with suppress(Exception):  # an annotation may be anything
        return typing.get_type_hints(alone, globalns=names, include_extras=True)["it"]
    return text


def _kind_in(annotation: object) -> ScanKind | None:
    """Return the scan that an annotation names, alone or in a union or a dict."""
    if isinstance(annotation, str):
        found = _NAMED.search(annotation)
        return None if found is None else _BY_GROUP[found.lastgroup or ""]
    if isinstance(annotation, typing.TypeAliasType):
        return _kind_in(annotation.__value__)
    if isinstance(annotation, typing.ForwardRef):
        return _kind_in(annotation.__forward_arg__)
    if typing.get_origin(annotation) is not None:
        return next(filter(None, map(_kind_in, typing.get_args(annotation))), None)
    return kind_of_type(annotation) if isinstance(annotation, type) else None


_BY_GROUP = {"polars": ScanKind.POLARS, "pyarrow": ScanKind.PYARROW, "duckdb": ScanKind.DUCKDB}
