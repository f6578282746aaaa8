"""Frozen dataclasses that are made as quickly as others: for those of which every step makes some.

The `__init__` of a frozen dataclass writes each field through `object.__setattr__`, which costs as much as a call
of a function. The one made here lets the new object be of a class with the same slots that is not frozen while its
fields are written, which is a third of the cost; afterwards it is as frozen as ever.
"""

from __future__ import annotations

import dataclasses
import types
from functools import partial, wraps
from typing import Any


def quickly_made[C: type](cls: C) -> C:
    """Return a frozen dataclass with slots whose objects are made more quickly; nothing else about it changes.

    Raises:
        TypeError: the class is none, or its base classes have fields.

    Example:
        >>> @quickly_made
        ... @dataclasses.dataclass(frozen=True, slots=True)
        ... class Point:
        ...     x: int
        ...     y: int = 0
        >>> Point(1)
        Point(x=1, y=0)
        >>> Point(1).x = 2
        Traceback (most recent call last):
        ...
        dataclasses.FrozenInstanceError: cannot assign to field 'x'
    """
    made: Any = cls
    parameters: Any = getattr(made, "__dataclass_params__", None)
    fields = dataclasses.fields(made) if parameters is not None else ()
    slots = cls.__dict__.get("__slots__", ())
    if not fields or not parameters.frozen or tuple(slots) != tuple(one.name for one in fields):
        raise TypeError(f"{cls.__qualname__} is no frozen dataclass with slots, all of whose fields are its own.")
    original = made.__init__
    unfrozen = types.new_class(cls.__name__, types.get_original_bases(cls), exec_body=partial(_take_slots, cls))
    names: dict[str, Any] = {
        "_frozen": cls,
        "_unfrozen": unfrozen,
        "_set": object.__setattr__,
        "_original": original,
        "_missing": dataclasses.MISSING,
    }
    exec(_source(fields, names, has_post_init=hasattr(cls, "__post_init__")), names)  # noqa: S102 - as dataclasses do
    made.__init__ = wraps(original)(names["__init__"])
    return cls


def _take_slots(cls: type, namespace: dict[str, Any]) -> None:
    namespace |= {"__slots__": cls.__dict__["__slots__"], "__module__": cls.__module__}


def _source(fields: tuple[dataclasses.Field[Any], ...], names: dict[str, Any], *, has_post_init: bool) -> str:
    """Return the source of an `__init__`, and put what it refers to into its names."""
    places = [one for one in fields if one.init and not one.kw_only]
    keywords = [one for one in fields if one.init and one.kw_only]
    taken = ["self", *(_parameter(one, names) for one in places)]
    if keywords:
        taken += ["*", *(_parameter(one, names) for one in keywords)]
    given = ", ".join(["self", *(one.name for one in places), *(f"{one.name}={one.name}" for one in keywords)])
    lines = [
        f"def __init__({', '.join(taken)}):",
        "    if type(self) is not _frozen:",  # of a subclass, which may have slots of its own
        f"        return _original({given})",
        "    _set(self, '__class__', _unfrozen)",
    ]
    for one in fields:
        value = one.name if one.init else f"_default_{one.name}"
        if one.default_factory is not dataclasses.MISSING:
            names[f"_make_{one.name}"] = one.default_factory
            made = f"_make_{one.name}()"
            value = f"{made} if {one.name} is _missing else {one.name}" if one.init else made
        elif not one.init:
            names[value] = one.default
        lines.append(f"    self.{one.name} = {value}")
    lines.append("    self.__class__ = _frozen")
    if has_post_init:
        lines.append("    self.__post_init__()")
    return "\n".join(lines) + "\n"


def _parameter(one: dataclasses.Field[Any], names: dict[str, Any]) -> str:
    if one.default is not dataclasses.MISSING:
        names[f"_default_{one.name}"] = one.default
        return f"{one.name}=_default_{one.name}"
    return f"{one.name}=_missing" if one.default_factory is not dataclasses.MISSING else one.name
