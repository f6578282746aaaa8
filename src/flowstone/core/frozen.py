"""Functions that make objects of dataclasses in a third of the time: for those of which every step makes some.

To make an object by its class, Python looks up `__new__` and `__init__`, puts keywords into a dict and takes them
out again; a frozen dataclass then writes each field through `object.__setattr__`. A function is called without all
that, and writes the fields while the object is of a class with the same slots that is not frozen.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable
from typing import Any, cast


def maker[**P, R](cls: Callable[P, R]) -> Callable[P, R]:
    """Return a function that makes what a dataclass with slots makes, of the same arguments.

    Raises:
        TypeError: the class is none, or its base classes have fields.

    Example:
        >>> @dataclasses.dataclass(frozen=True, slots=True)
        ... class Point:
        ...     x: int
        ...     y: int = 0
        >>> make_point = maker(Point)
        >>> make_point(1, y=2) == Point(1, 2)
        True
    """
    made: Any = cls
    fields = dataclasses.fields(made) if dataclasses.is_dataclass(made) else ()
    slots = vars(made).get("__slots__", ())
    if not fields or tuple(slots) != tuple(one.name for one in fields):
        raise TypeError(f"{made.__qualname__} is no dataclass with slots, all of whose fields are its own.")
    is_frozen = made.__dataclass_params__.frozen
    names: dict[str, Any] = {
        "_cls": made,
        "_new": object.__new__,
        "_open": types.new_class(
            made.__name__, types.get_original_bases(made), exec_body=lambda body: body.update(__slots__=slots)
        ),
        "_missing": dataclasses.MISSING,
    }
    exec(_source(fields, names, is_frozen, hasattr(made, "__post_init__")), names)  # noqa: S102 - as dataclasses do
    return cast("Callable[P, R]", names["make"])


_LITERALS: dict[Any, str] = {dict: "{}", list: "[]"}


def _source(
    fields: tuple[dataclasses.Field[Any], ...], names: dict[str, Any], is_frozen: bool, checks: bool
) -> str:
    """Return the source of the function, and put what it refers to into its names."""
    taken = [_parameter(one, names) for one in fields if one.init and not one.kw_only]
    keywords = [_parameter(one, names) for one in fields if one.init and one.kw_only]
    # of a class that only takes keywords the function takes them by position too, which is quicker to call
    taken += ["*", *keywords] if taken and keywords else keywords
    lines = [f"def make({', '.join(taken)}):", "    self = _open()" if is_frozen else "    self = _new(_cls)"]
    for one in fields:
        value = one.name if one.init else f"_default_{one.name}"
        if one.default_factory is not dataclasses.MISSING:
            names[f"_make_{one.name}"] = one.default_factory
            made = _LITERALS.get(one.default_factory, f"_make_{one.name}()")
            value = f"{made} if {one.name} is _missing else {one.name}" if one.init else made
        elif not one.init:
            names[value] = one.default
        lines.append(f"    self.{one.name} = {value}")
    if is_frozen:
        lines.append("    self.__class__ = _cls")
    if checks:
        lines.append("    self.__post_init__()")
    lines.append("    return self")
    return "\n".join(lines) + "\n"


def _parameter(one: dataclasses.Field[Any], names: dict[str, Any]) -> str:
    if one.default is not dataclasses.MISSING:
        names[f"_default_{one.name}"] = one.default
        return f"{one.name}=_default_{one.name}"
    return f"{one.name}=_missing" if one.default_factory is not dataclasses.MISSING else one.name
