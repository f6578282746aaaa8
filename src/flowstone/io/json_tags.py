"""How single Python values that JSON does not know are written as tags such as `{"$date": "2024-01-01"}`."""

from __future__ import annotations

import base64
import math
import struct
import sys
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from flowstone.core.output import JsonValue
from flowstone.core.value_types import build, value_types
from flowstone.errors import SerializationError

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
