"""What to do instead with a value that JSON cannot hold."""

from __future__ import annotations

import dataclasses
import enum
import inspect
from collections.abc import Callable, Iterator
from pathlib import PurePath

from flowstone.core.value_types import is_typed

_KEEP_ALIVE = "Return plain data instead, or keep the live object within this process with io='memory'."

_BUILTINS = (str, bytes, int, float, complex, dict, list, tuple, frozenset, set)


def _is_named_tuple(value: object) -> bool:
    return isinstance(value, tuple) and hasattr(value, "_fields")


_REMEDIES: tuple[tuple[Callable[[object], bool], str], ...] = (
    (
        lambda value: dataclasses.is_dataclass(value) and not isinstance(value, type),
        "Return dataclasses.asdict(value) and build the object again downstream, or choose "
        "PickleSerializer(key=...).",
    ),
    (_is_named_tuple, "Return value._asdict() or tuple(value) and build the object again downstream."),
    (lambda value: isinstance(value, enum.Enum), "Return value.value or value.name."),
    (lambda value: isinstance(value, PurePath), "Return str(value)."),
    (lambda value: hasattr(value, "model_dump"), "Return value.model_dump()."),
    (inspect.iscoroutine, "Await it before returning."),
    (inspect.isasyncgen, "Collect it first: [item async for item in value]."),
    (lambda value: isinstance(value, Iterator), "Return list(value)."),
    (lambda value: isinstance(value, bytearray | memoryview), "Return bytes(value)."),
)

_LIBRARIES = {
    "numpy": "Return the array as the whole value of its own asset, or value.tolist() inside other data.",
    "pandas": "Return a DataFrame as the whole value of its own asset (value.to_frame() makes one of a "
    "Series), or plain Python data inside other data.",
    "polars": "Return a DataFrame as the whole value of its own asset (collect a LazyFrame first), or "
    "value.to_dicts() inside other data.",
    "pyarrow": "Return a Table as the whole value of its own asset, or value.to_pylist() inside other data.",
}


def remedy_for(value: object) -> str:
    """Return one sentence about what to return instead of `value`.

    Example:
        >>> remedy_for(PurePath("a"))
        'Return str(value).'
    """
    declare = f"Name the class in the return annotation of the asset (-> {type(value).__name__}), or: "
    for applies, remedy in _REMEDIES:
        if applies(value):
            return declare + remedy if is_typed(value) else remedy
    library = type(value).__module__.partition(".")[0]
    if library in _LIBRARIES:
        return _LIBRARIES[library]
    for builtin in _BUILTINS:
        if isinstance(value, builtin):
            return f"Convert it to the plain type: {builtin.__name__}(value)."
    return _KEEP_ALIVE
