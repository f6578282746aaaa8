"""JSON with tags: plain data stays readable JSON, and what comes back equals what was stored, type by type.

Values that JSON does not know are written as tags such as `{"$date": "2024-01-01"}`; what cannot be held exactly
is refused with the path to it and a remedy. First the tags, then the remedies, then `JsonSerializer` and the walk
over a value.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import inspect
import json
import math
import reprlib
import struct
import sys
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from importlib import import_module
from importlib.util import find_spec
from pathlib import PurePath
from typing import Any, BinaryIO, NamedTuple, NoReturn
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from flowstone.core.output import JsonValue, type_name
from flowstone.core.value_types import build, is_declared, is_typed, take_apart, value_types
from flowstone.errors import SerializationError

_orjson: Any = import_module("orjson") if find_spec("orjson") is not None else None
"""It comes with Oban; without it values are the same, and small ones take longer."""

# Longer integers are written in hexadecimal: Python refuses to parse long decimal ones (the limit can be
# lowered to 640 digits), and their decimal form takes quadratic time.
_MAX_PLAIN_INT_BITS = 2000
PLAIN_INT_LIMIT = 1 << _MAX_PLAIN_INT_BITS
_CANONICAL_NAN = struct.pack(">d", math.nan)


class UnencodableError(Exception):
    """Internal: a part of a value has no JSON form; containers add their step on the way up."""

    def __init__(self, problem: str, value: object, remedy: str) -> None:
        self.problem = problem
        self.value = value
        self.remedy = remedy
        self.steps: list[str] = []
        super().__init__(problem)


def is_plain_text(text: str) -> bool:
    """Return whether `text` can be written as UTF-8, that is, holds no surrogates.

    Example:
        >>> is_plain_text("grün"), is_plain_text(chr(0xD800))
        (True, False)
    """
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _bytes_text(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _encode_int(value: int) -> JsonValue:
    return value if -PLAIN_INT_LIMIT < value < PLAIN_INT_LIMIT else {"$int": hex(value)}


def _encode_float(value: float) -> JsonValue:
    if math.isfinite(value):
        return value
    packed = struct.pack(">d", value)
    # A NaN may carry other bits than the usual one; they are kept.
    plain = not math.isnan(value) or packed == _CANONICAL_NAN
    return {"$float": repr(value) if plain else f"0x{packed.hex()}"}


def _decode_float(text: str) -> float:
    if text.startswith("0x"):
        unpacked: float = struct.unpack(">d", bytes.fromhex(text[2:]))[0]
        return unpacked
    return float(text)


def _encode_str(value: str) -> JsonValue:
    if is_plain_text(value):
        return value
    return {"$str": _bytes_text(value.encode("utf-8", "surrogatepass"))}


def _zone(zone: tzinfo | None, owner: object) -> JsonValue:
    if zone is None:
        return None
    if type(zone) is ZoneInfo and zone.key is not None:
        return zone.key
    if type(zone) is timezone:
        offset = zone.utcoffset(None)
        name = zone.tzname(None)
        usual = timezone(offset).tzname(None) == name
        return [offset.days, offset.seconds, offset.microseconds, None if usual else _encode_str(name)]
    raise UnencodableError(
        f"a time zone of type {type(zone).__module__}.{type(zone).__qualname__} cannot be kept",
        owner,
        "Use zoneinfo.ZoneInfo('Europe/Berlin') or datetime.timezone, for example by value.astimezone(...).",
    )


def _read_zone(document: Any) -> tzinfo | None:
    if document is None:
        return None
    if isinstance(document, str):
        try:
            return ZoneInfo(document)
        except ZoneInfoNotFoundError as error:
            raise ValueError(
                f"the time zone {document!r} is unknown on this machine; pip install tzdata"
            ) from error
    days, seconds, microseconds, name = document
    offset = timedelta(days, seconds, microseconds)
    return timezone(offset) if name is None else timezone(offset, name)


def _encode_moment(tag: str, value: datetime | time) -> JsonValue:
    zone = _zone(value.tzinfo, value)
    if value.fold == 0 and (zone is None or value.tzinfo is UTC):
        return {tag: value.isoformat()}
    return {tag: [value.replace(tzinfo=None).isoformat(), zone, value.fold]}


def _decode_moment[M: (datetime, time)](kind: type[M], document: Any) -> M:
    if isinstance(document, str):
        return kind.fromisoformat(document)
    text, zone, fold = document
    return kind.fromisoformat(text).replace(tzinfo=_read_zone(zone), fold=fold)


def _decode_numpy(document: Any) -> object:
    import numpy

    name, payload = document
    kind = numpy.dtype(name)
    if kind.kind in "Mm":
        return numpy.int64(payload).view(kind)
    return kind.type(payload)


def encode_numpy_scalar(value: object) -> JsonValue:
    """Return the tag of a NumPy number, boolean or instant; None when `value` is something else.

    Example:
        >>> encode_numpy_scalar("not a NumPy value") is None
        True
    """
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.generic):
        return None
    kind = value.dtype
    if kind.kind in "Mm":
        return {"$numpy": [kind.str, int(value.view("i8"))]}
    if kind.kind not in "biufc" or kind.itemsize > (16 if kind.kind == "c" else 8):
        return None
    item = value.item()
    return {"$numpy": [kind.name, LEAVES[type(item)](item)]}


LEAVES: Mapping[type, Callable[[Any], JsonValue]] = {
    type(None): lambda value: None,
    bool: bool,
    int: _encode_int,
    float: _encode_float,
    str: _encode_str,
    bytes: lambda value: {"$bytes": _bytes_text(value)},
    date: lambda value: {"$date": value.isoformat()},
    datetime: lambda value: _encode_moment("$datetime", value),
    time: lambda value: _encode_moment("$time", value),
    timedelta: lambda value: {"$timedelta": [value.days, value.seconds, value.microseconds]},
    Decimal: lambda value: {"$decimal": str(value)},
    uuid.UUID: lambda value: {"$uuid": str(value)},
    complex: lambda value: {"$complex": [_encode_float(value.real), _encode_float(value.imag)]},
}
"""Encoder of each type without parts, by exact type."""


def _decode_object(document: Any) -> object:
    name, form, content = document
    kinds = value_types.get()
    kind = kinds.find(name) if kinds is not None else None
    simple = name.partition(":")[2]
    if kind is None:
        raise SerializationError(
            "The value holds an object of a class that no asset of this app declares, and nothing else is built",
            path="$",
            type_name=name,
            remedy=f"Name the class in the return annotation of its asset: -> {simple}.",
        )
    try:
        return build(kind, form, content)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise SerializationError(
            f"The class of a stored object has changed ({error})",
            path="$",
            type_name=name,
            remedy="Materialize the asset again, or give the new fields defaults.",
        ) from error


TAGS: Mapping[str, Callable[[Any], object]] = {
    "$object": _decode_object,
    "$int": lambda text: int(text, 16),
    "$float": _decode_float,
    "$str": lambda text: base64.b64decode(text, validate=True).decode("utf-8", "surrogatepass"),
    "$bytes": lambda text: base64.b64decode(text, validate=True),
    "$date": date.fromisoformat,
    "$datetime": lambda document: _decode_moment(datetime, document),
    "$time": lambda document: _decode_moment(time, document),
    "$timedelta": lambda parts: timedelta(*parts),
    "$decimal": Decimal,
    "$uuid": uuid.UUID,
    "$complex": lambda parts: complex(*parts),
    "$numpy": _decode_numpy,
    "$tuple": tuple,
    "$set": set,
    "$frozenset": frozenset,
    "$dict": dict,
}
"""Decoder of each tag; its argument has been decoded already."""


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
        data = _plain_bytes(value)
        if data is not None:
            return data
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
        return self.loads(file.read())

    def loads(self, data: bytes) -> object:
        """Return what `read` returns.

        Raises:
            ValueError: see `read`.

        Example:
            >>> JsonSerializer().loads(b'{"$tuple": [1, null]}')
            (1, None)
        """
        # the name of a tag stands after a quotation mark; without one no object needs to be searched for it
        is_plain = b'"$' not in data
        if (
            is_plain
            and _orjson is not None
            and len(data) <= _MAX_QUICK
            and _LOSSY_RUN not in data.translate(_DIGITS)
        ):
            try:
                document: object = _orjson.loads(data)
            except _orjson.JSONDecodeError:
                pass  # below it is read all the same, or refused in the words of the standard library
            else:
                return document
        return (_PLAIN_DECODER if is_plain else _TAG_DECODER).decode(str(data, "utf-8"))


def _plain_bytes(value: object) -> bytes | None:
    """Return the JSON of a value that is written as it stands, without a tag anywhere; None when it may not be.

    What is doubtful counts as not plain: the walk over each part decides, and says what is wrong. Types and keys
    are looked at before; what numbers and texts cannot be written, the encoder says itself. Only a very long
    integer it would write as it is, so that long runs of digits are doubtful.
    """
    parts = _plain_parts(value)
    if parts is None:
        return None
    if (quick := _quick_bytes(value, parts)) is not None:
        return quick
    try:
        data = _ENCODER.encode(value).encode()
    except (ValueError, RecursionError):  # not finite, or not UTF-8; the stack is deep already
        return None
    if len(data) > len(_LONG_RUN) and _LONG_RUN in data.translate(_DIGITS):
        return None
    return data


class _Parts(NamedTuple):
    """What a plain value consists of.

    Args:
        kinds: types of what is in it.
        commas: commas between the parts of containers.
        colons: keys of dicts.
    """

    kinds: Set[type]
    commas: int
    colons: int


def _quick_bytes(value: object, parts: _Parts) -> bytes | None:
    """Return the JSON of a plain value as orjson writes it, when that is what `json` writes; else None.

    The bytes decide about equal versions, so they must not depend on who wrote them. orjson puts no spaces after
    commas and colons: where there are as many of both as the value has itself, none is in a text, and they can
    be added. It writes the same digits as long as there are at most 15, another exponent, and null for what is not
    finite; escapes are left to `json` as well.
    """
    if _orjson is None or (float in parts.kinds and type(None) in parts.kinds):
        return None
    try:
        data = _orjson.dumps(value)
    except (TypeError, RecursionError):  # a long integer, not UTF-8
        return None
    if data.count(b",") != parts.commas or data.count(b":") != parts.colons or b"\\" in data:
        return None
    if float in parts.kinds and (b"null" in data or b"0.0000" in data):
        return None
    numbers = data.translate(_NUMBERS)
    if _UNSURE_RUN in numbers or b"0e" in numbers:
        return None
    spaced: bytes = data.replace(b",", b", ").replace(b":", b": ")
    return spaced


def _plain_parts(value: object) -> _Parts | None:
    """Return what a value consists of, when that is only types that JSON has, and dicts that look like no tag.

    Searches the parts of all containers of a level at once, mostly with loops that run in C.
    """
    run: Sequence[object] = value if type(value) is list else (value,)
    commas, colons = max(0, len(run) - 1), 0
    found: set[type] = set()
    for _ in range(MAX_DEPTH + 1):
        kinds = set(map(type, run))
        found |= kinds
        if kinds <= _PLAIN_LEAVES:
            return _Parts(found, commas, colons)
        if not kinds <= _PLAIN_KINDS:
            return None
        if len(run) > _MANY and _repeats(run):
            return None
        inner: list[object] = []
        if list in kinds:
            lists: Any = run if len(kinds) == 1 else [one for one in run if type(one) is list]
            for one in lists:
                inner += one
            commas += len(inner) - sum(map(bool, lists))
        if dict in kinds:
            dicts: Any = run if len(kinds) == 1 else [one for one in run if type(one) is dict]
            if not _are_plain_keys(dicts):
                return None
            before = len(inner)
            for one in dicts:
                inner += one.values()
            values = len(inner) - before
            commas += values - sum(map(bool, dicts))
            colons += values
        run = inner
    return None


def _are_plain_keys(dicts: list[dict[Any, object]]) -> bool:
    """Whether dicts stay dicts: their keys are text, and none looks like a tag."""
    keys = set().union(*dicts)
    if set(map(type, keys)) - {str}:
        return False
    return "$" not in "".join(keys) or not any(map(_is_tag, dicts))


def _repeats(run: Sequence[object]) -> bool:
    """Whether many containers are few that repeat: in what contains itself twice they double at every level."""
    containers = [one for one in run if type(one) is list or type(one) is dict]
    return len(set(map(id, containers))) * 100 < len(containers)


_MANY = 1000
_PLAIN_LEAVES = frozenset({bool, type(None), int, float, str})
_PLAIN_KINDS = _PLAIN_LEAVES | {list, dict}
_DIGITS = bytes(ord("0") if chr(byte).isdecimal() and byte < 128 else ord(" ") for byte in range(256))
_LONG_RUN = b"0" * len(str(PLAIN_INT_LIMIT))
"""As long as the shortest integer that is not written as it is."""
_NUMBERS = bytes(
    byte if byte == ord("e") else ord("0") if byte == ord(".") else _DIGITS[byte] for byte in range(256)
)
_UNSURE_RUN = b"0" * 17
"""As long as the shortest number with 16 digits and a point: two numbers so long may stand for one float."""
_LOSSY_RUN = b"0" * 19
"""As long as the shortest integer that orjson may read as a float."""
_MAX_QUICK = 1024 * 1024
"""Longer texts are read by `json`, which needs less memory beside the result."""


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


# made once: json.dumps and json.loads with options make one for each call
# what it gets contains itself nowhere: that has been looked at
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False)
_PLAIN_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_TAG_DECODER = json.JSONDecoder(object_hook=_untag, parse_constant=_refuse_constant)


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
