"""JSON with tags: plain data stays readable JSON, and what comes back equals what was stored, type by type."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, BinaryIO, NoReturn

from flowstone.core.output import JsonValue, type_name
from flowstone.core.value_types import is_declared, take_apart, value_types
from flowstone.errors import SerializationError
from flowstone.io.json_remedies import remedy_for
from flowstone.io.json_tags import (
    LEAVES,
    PLAIN_INT_LIMIT,
    TAGS,
    UnencodableError,
    encode_numpy_scalar,
    is_plain_text,
)

MAX_DEPTH = 200
"""Containers within containers that are written; far beyond data, far below Python's own limit."""

_MAX_PATH = 200


class JsonSerializer:
    """Writes values as JSON with an exact round trip.

    None, bool, int, float, str, list and dict with text keys are ordinary JSON. Everything else is a tag, an
    object whose only key starts with `$`: bytes, tuple, set, frozenset, dict with other keys, date, datetime
    and time with their zone, timedelta, Decimal, UUID, complex, non-finite floats, very long integers, text
    with lone surrogates, NumPy scalars; and dataclasses, enums, named tuples and pydantic models whose class an
    asset names in its return annotation. A dict that looks like a tag is escaped. Subclasses of these types are
    refused, because they would come back as something else. Equal values give equal bytes, except that dicts
    keep their order.

    Example:
        >>> import io
        >>> file = io.BytesIO()
        >>> JsonSerializer().write({"rows": [1, 2.5, (3,)]}, file)
        >>> file.getvalue()
        b'{"rows": [1, 2.5, {"$tuple": [3]}]}'
        >>> JsonSerializer().read(io.BytesIO(file.getvalue()))
        {'rows': [1, 2.5, (3,)]}
    """

    @property
    def name(self) -> str:
        """`"json"`."""
        return "json"

    @property
    def extension(self) -> str:
        """`".json"`."""
        return ".json"

    def accepts(self, value: object) -> bool:
        """Return whether the value itself is of a type that JSON with tags knows; its parts are not searched."""
        kind = type(value)
        return kind in LEAVES or kind in _CONTAINERS or encode_numpy_scalar(value) is not None

    def write(self, value: object, file: BinaryIO) -> None:
        """Write the value as UTF-8.

        Raises:
            SerializationError: a part has no exact JSON form; names its path, type and a remedy.
        """
        file.write(self.dumps(value))

    def dumps(self, value: object) -> bytes:
        """Return what `write` writes.

        Raises:
            SerializationError: see `write`.

        Example:
            >>> JsonSerializer().dumps((1, None))
            b'{"$tuple": [1, null]}'
        """
        try:
            text = _ENCODER.encode(_Walker().encode(value, 0))
        except UnencodableError as error:
            raise SerializationError(
                error.problem, path=_path(error.steps), type_name=type_name(error.value), remedy=error.remedy
            ) from None
        except RecursionError:
            raise SerializationError(
                "The call stack is too deep already to walk through this value",
                path="$",
                type_name=type_name(value),
                remedy="Return flatter data, or store it from a shallower call.",
            ) from None
        return text.encode()

    def read(self, file: BinaryIO) -> object:
        """Read back what `write` wrote.

        Raises:
            ValueError: this is not what `write` writes.
        """
        text = str(file.read(), "utf-8")
        value: object = json.loads(text, object_hook=_untag, parse_constant=_refuse_constant)
        return value


# made once: json.dumps with options makes one for each call
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


def _path(steps: list[str]) -> str:
    path = "$" + "".join(reversed(steps)).replace('["__dict__"]', "")
    if len(path) <= _MAX_PATH:
        return path
    return f"{path[: _MAX_PATH // 2]} ... {path[-_MAX_PATH // 2 :]}"


def _step(key: object) -> str:
    if type(key) is str:
        return f"[{json.dumps(key if len(key) <= 60 else key[:60] + '...')}]"
    return f"[{reprlib.repr(key)}]"


def _is_tag(document: Mapping[str, object]) -> bool:
    return len(document) == 1 and next(iter(document)).startswith("$")


def _untag(document: dict[str, Any]) -> object:
    if not _is_tag(document):
        return document
    ((tag, content),) = document.items()
    decode = TAGS.get(tag)
    if decode is None:
        raise ValueError(f"unknown tag {tag!r}; a newer version of FlowStone may have written it")
    return decode(content)


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _is_plain_run(values: Collection[object]) -> bool:
    """Whether all values are of one type and stay as they are: the fast path for columns of numbers or text."""
    kinds = set(map(type, values))
    if len(kinds) != 1:
        return False
    (kind,) = kinds
    numbers: Any = values
    if kind is int:
        return bool(min(numbers) > -PLAIN_INT_LIMIT and max(numbers) < PLAIN_INT_LIMIT)
    if kind is float:
        return all(map(math.isfinite, numbers))
    if kind is str:
        return all(map(str.isascii, numbers))
    return kind is bool or kind is type(None)


class _Walker:
    """Turns one value into plain JSON; remembers the containers it is inside of to notice a circle."""

    def __init__(self) -> None:
        self._inside: set[int] = set()

    def encode(self, value: object, depth: int) -> JsonValue:
        kind = type(value)
        leaf = LEAVES.get(kind)
        if leaf is not None:
            return leaf(value)
        container = _CONTAINERS.get(kind)
        if container is None:
            scalar = encode_numpy_scalar(value)
            if scalar is not None:
                return scalar
            if not is_declared(value):
                raise UnencodableError("JSON cannot hold this value", value, remedy_for(value))
            container = _Walker.declared
        identity = id(value)
        if identity in self._inside:
            raise UnencodableError("The value contains itself", value, "Refer to parts by a key instead.")
        if depth >= MAX_DEPTH:
            raise UnencodableError(
                f"The value is nested deeper than {MAX_DEPTH} levels", value, "Return flatter data."
            )
        self._inside.add(identity)
        try:
            return container(self, value, depth + 1)
        finally:
            self._inside.discard(identity)

    def items(self, values: Iterable[object], depth: int) -> list[JsonValue]:
        encoded: list[JsonValue] = []
        index = 0
        try:
            for index, value in enumerate(values):  # noqa: B007 - the error path needs the index
                encoded.append(self.encode(value, depth))
        except UnencodableError as error:
            error.steps.append(f"[{index}]")
            raise
        return encoded

    def sequence(self, values: list[Any], depth: int) -> JsonValue:
        return values if _is_plain_run(values) else self.items(values, depth)

    def declared(self, value: object, depth: int) -> JsonValue:
        kinds = value_types.get()
        assert kinds is not None  # it is declared
        try:
            form, content = take_apart(value)
        except TypeError as error:
            raise UnencodableError(
                f"JSON cannot hold this object, because {error}", value, "Make it a field, or leave it out."
            ) from None
        return {"$object": [kinds.name_of(type(value)), form, self.encode(content, depth)]}

    def unordered(self, values: Collection[object], depth: int) -> JsonValue:
        try:
            encoded = [self.encode(value, depth) for value in values]
        except UnencodableError as error:
            error.steps.append("{element}")
            raise
        # Iteration order of a set differs between processes; sorted, equal sets give equal bytes.
        return sorted(encoded, key=json.dumps)

    def mapping(self, value: dict[Any, object], depth: int) -> JsonValue:
        plain = all(type(key) is str and is_plain_text(key) for key in value)
        if not plain or _is_tag(value):
            return {"$dict": list(self._pairs(value, depth))}
        if _is_plain_run(value.values()):
            return value  # type: ignore[return-value]  # just checked
        return {key: self._item(key, item, depth) for key, item in value.items()}

    def _pairs(self, value: dict[object, object], depth: int) -> Iterable[JsonValue]:
        for index, (key, item) in enumerate(value.items()):
            try:
                encoded_key = self.encode(key, depth)
            except UnencodableError as error:
                error.steps.append(f".keys()[{index}]")
                raise
            yield [encoded_key, self._item(key, item, depth)]

    def _item(self, key: object, item: object, depth: int) -> JsonValue:
        try:
            return self.encode(item, depth)
        except UnencodableError as error:
            error.steps.append(_step(key))
            raise


_CONTAINERS: Mapping[type, Callable[[_Walker, Any, int], JsonValue]] = {
    list: _Walker.sequence,
    dict: _Walker.mapping,
    tuple: lambda walker, value, depth: {"$tuple": walker.sequence(list(value), depth)},
    set: lambda walker, value, depth: {"$set": walker.unordered(value, depth)},
    frozenset: lambda walker, value, depth: {"$frozenset": walker.unordered(value, depth)},
}
