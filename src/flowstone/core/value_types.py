"""Objects of classes that assets declare: taken apart to plain data, and built again without calling their code.

A dataclass, enum, named tuple or pydantic model is kept under the name of its class. Only a class that an asset of
the app names in its return annotation is ever stored or built again: nothing in storage decides what is imported.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
import threading
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from contextvars import ContextVar
from enum import Enum
from importlib import import_module
from typing import Any

_MAX_TYPES = 10_000


class ValueTypes:
    """The classes that the return annotations of functions name, with those of their fields.

    Annotations are looked at when the first object of a class of the user is met.

    Args:
        functions: of assets.

    Example:
        >>> class Colour(Enum):
        ...     RED = 1
        >>> def best():
        ...     return [Colour.RED]
        >>> best.__annotations__["return"] = list[Colour]
        >>> kinds = ValueTypes([best])
        >>> kinds.name_of(Colour) is not None, kinds.name_of(int) is None
        (True, True)
    """

    def __init__(self, functions: Iterable[Callable[..., object]]) -> None:
        self._functions = tuple(functions)
        self._lock = threading.Lock()
        self._by_name: dict[str, type] | None = None

    def name_of(self, kind: type) -> str | None:
        """Return the name under which objects of a class are kept; None when no asset declares it."""
        name = f"{kind.__module__}:{kind.__qualname__}"
        return name if self._known().get(name) is kind else None

    def find(self, name: str) -> type | None:
        """Return the class that is known under a name.

        A main script has another module name in its workers, so a class of one is found by what follows.
        """
        known = self._known()
        found = known.get(name)
        if found is not None:
            return found
        module, _, rest = name.partition(":")
        same = [
            kind
            for other, kind in known.items()
            if other.partition(":")[2] == rest and (module in _MAIN or kind.__module__ in _MAIN)
        ]
        return same[0] if len(same) == 1 else None

    @property
    def names(self) -> frozenset[str]:
        """Names of all classes that assets declare."""
        return frozenset(self._known())

    def _known(self) -> dict[str, type]:
        if self._by_name is None:
            with self._lock:
                found: dict[str, type] = {}
                for function in self._functions:
                    for kind in _classes(*_returned(function)):
                        # two classes with one name, as in functions, cannot be distinguished
                        found.setdefault(f"{kind.__module__}:{kind.__qualname__}", kind)
                self._by_name = found
        return self._by_name


class NamedTypes(ValueTypes):
    """The classes that assets declare, by name, where the assets themselves are not at hand.

    Args:
        names: of the classes; no others are imported.
    """

    def __init__(self, names: frozenset[str]) -> None:
        super().__init__(())
        self._names = names

    def name_of(self, kind: type) -> str | None:
        """Return the name under which objects of a class are kept."""
        modules = _MAIN if kind.__module__ in _MAIN else (kind.__module__,)
        return next(
            (name for name in (f"{one}:{kind.__qualname__}" for one in modules) if name in self._names), None
        )

    def find(self, name: str) -> type | None:
        """Return the class that is known under a name."""
        if name not in self._names:
            return None
        module, _, path = name.partition(":")
        try:
            found: Any = functools.reduce(getattr, path.split("."), import_module(module))
        except (ImportError, AttributeError):
            return None
        return found if isinstance(found, type) else None


_MAIN = ("__main__", "__mp_main__")

value_types: ContextVar[ValueTypes | None] = ContextVar("flowstone_value_types", default=None)
"""The classes of the app whose values are stored or loaded now."""


def is_typed(value: object) -> bool:
    """Return whether a value is an object that can be kept when its class is declared.

    Example:
        >>> from http import HTTPStatus
        >>> is_typed(1), is_typed(HTTPStatus.OK)
        (False, True)
    """
    kind: Any = type(value)
    return _form(kind) is not None


def is_declared(value: object) -> bool:
    """Return whether a value is an object of a class that an asset of the app declares."""
    kinds = value_types.get()
    return kinds is not None and is_typed(value) and kinds.name_of(type(value)) is not None


def take_apart(value: object) -> tuple[str, object]:
    """Return the form of an object, and the plain data that it consists of.

    Raises:
        TypeError: it holds more than its declared fields.
    """
    kind: Any = type(value)
    match _form(kind):
        case "enum":
            assert isinstance(value, Enum)
            known = kind.__members__.get(value.name or "")
            return "enum", value.name if known is value else [value.value]
        case "namedtuple":
            items: Any = value
            return "namedtuple", list(items)
        case "dataclass":
            return "dataclass", _dataclass_fields(value)
        case "pydantic":
            state: Any = value.__getstate__()
            return "pydantic", _filled(state)
    raise TypeError(f"{kind.__qualname__} is none of these")


def build(kind: Any, form: str, content: Any) -> object:
    """Return the object that `take_apart` took apart, without calling its `__init__`.

    Raises:
        TypeError: the class has changed since.
    """
    if _form(kind) != form:
        raise TypeError(f"{kind.__qualname__} was a {form} when the value was stored")
    if form == "enum":
        return kind[content] if isinstance(content, str) else kind(content[0])
    if form == "namedtuple":
        if len(content) != len(kind._fields):
            raise TypeError(f"{kind.__qualname__} had {len(content)} fields when the value was stored")
        return kind._make(content)
    made = kind.__new__(kind)
    if form == "pydantic":
        _check_names(kind, set(kind.model_fields), content["__dict__"])
        made.__setstate__({"__pydantic_extra__": None, "__pydantic_private__": None} | content)
        return made
    declared = {field.name: field for field in dataclasses.fields(kind)}
    given = dict(content)
    for name, field in declared.items():
        if name not in given and field.default is not dataclasses.MISSING:
            given[name] = field.default
        elif name not in given and field.default_factory is not dataclasses.MISSING:
            given[name] = field.default_factory()
    _check_names(kind, set(declared), given)
    for name, item in given.items():
        object.__setattr__(made, name, item)
    return made


def _check_names(kind: type, declared: set[str], given: Mapping[str, object]) -> None:
    if declared != set(given):
        changed = ", ".join(sorted(declared ^ set(given)))
        raise TypeError(f"{kind.__qualname__} has other fields than when the value was stored: {changed}")


@functools.lru_cache(maxsize=1000)
def _form(kind: Any) -> str | None:
    if issubclass(kind, Enum):
        return "enum"
    if issubclass(kind, tuple):
        return "namedtuple" if hasattr(kind, "_fields") and hasattr(kind, "_make") else None
    if issubclass(kind, str | bytes | int | float | complex | list | dict | set | frozenset):
        return None  # its own content would be lost
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and issubclass(kind, pydantic.BaseModel):
        return "pydantic"
    return "dataclass" if dataclasses.is_dataclass(kind) else None


def _dataclass_fields(value: Any) -> dict[str, object]:
    names = [field.name for field in dataclasses.fields(value)]
    fields = {name: getattr(value, name) for name in names if _is_set(value, name)}
    for name in getattr(value, "__dict__", {}):
        if name not in fields and not isinstance(getattr(type(value), name, None), functools.cached_property):
            raise TypeError(f"it has the attribute {name!r}, which is no field")
    return fields


def _is_set(value: object, name: str) -> bool:
    try:
        getattr(value, name)
    except AttributeError:
        return False
    return True


def _filled(state: Mapping[str, object]) -> dict[str, object]:
    """Return the state of a model without what it does not use."""
    return {name: item for name, item in state.items() if item is not None}


def _returned(function: Callable[..., object]) -> tuple[object, Mapping[str, Any]]:
    """Return the annotation of what a function returns, and the names known there.

    The annotation is None when there is none, or it cannot be resolved.
    """
    inner: Any = function
    while True:
        if isinstance(inner, functools.partial):
            inner = inner.func
        elif hasattr(inner, "__wrapped__"):
            inner = inner.__wrapped__
        elif not inspect.isroutine(inner) and callable(inner) and not isinstance(inner, type):
            inner = type(inner).__call__
        else:
            break
    names: Mapping[str, Any] = getattr(inner, "__globals__", {})
    with suppress(Exception):  # an annotation may be anything; perhaps that of a parameter is at fault
        return typing.get_type_hints(inner, include_extras=True).get("return"), names
    hint = getattr(inner, "__annotations__", {}).get("return")
    if not isinstance(hint, str):
        return hint, names
    alone = types.SimpleNamespace(__annotations__={"return": hint})
    with suppress(Exception):
        return typing.get_type_hints(alone, globalns=dict(names), include_extras=True)["return"], names
    return None, names


def _classes(annotation: object, names: Mapping[str, Any]) -> Iterator[type]:
    """Return the classes of users that an annotation names, in any depth."""
    seen: set[int] = set()
    kept: list[object] = []  # what was made on the way lives on, so that no other object gets its identity
    waiting: list[object] = [annotation]
    while waiting and len(seen) < _MAX_TYPES:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        kept.append(one)
        if isinstance(one, typing.TypeAliasType):
            waiting.append(one.__value__)
        waiting += typing.get_args(one) if typing.get_origin(one) is not typing.Literal else ()
        origin = typing.get_origin(one)
        if origin is not None:
            waiting.append(origin)
        supertype = getattr(one, "__supertype__", None)  # of a NewType
        if supertype is not None:
            waiting.append(supertype)
        if isinstance(one, typing.TypeVar):
            waiting += [bound for bound in (one.__bound__, *one.__constraints__) if bound is not None]
        if isinstance(one, type):
            if _form(one) is not None:
                yield one
            if _form(one) is not None or typing.is_typeddict(one):
                waiting += _field_types(one, names)


def _field_types(kind: type, names: Mapping[str, Any]) -> list[object]:
    model_fields = getattr(kind, "model_fields", None)
    found: list[object] = []
    if isinstance(model_fields, Mapping):
        found = [field.annotation for field in model_fields.values()]
    # the names of the function come second, as a module of models may use the same ones for others
    for known in (None, dict(names)):
        with suppress(Exception):  # what cannot be resolved hides the types of that class's fields
            return [*found, *typing.get_type_hints(kind, localns=known, include_extras=True).values()]
    return found
