"""How far a sensor has come in things that have an order, in a cursor that does not grow with them.

A value of the cursor is text that names exactly one value of exactly one type. Things at the watermark itself are
remembered, so that those that arrive late with the same value are found, and none is taken twice.
"""

from __future__ import annotations

import json
import math
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from hashlib import blake2b
from typing import NamedTuple, Self
from uuid import UUID

from flowstone.core.partitions import decode_partition, encode_partition
from flowstone.errors import PartitionError, SensorError

type CursorValue = bool | int | str | date | datetime | Decimal | float | UUID | bytes
"""What columns that order rows hold."""


def encode_cursor_value(value: object) -> str:
    """Return the text that stands for exactly this value; aware datetimes become UTC.

    What can be a partition is written as one (`i:7`, `s:eu`, `t:2024-01-01T00:00:00+00:00`), the rest of the
    types of databases with a sign before it that no partition has.

    Raises:
        ValueError: the value has no order (NULL, NaN), or its type is not known.

    Example:
        >>> encode_cursor_value(7), encode_cursor_value(Decimal("1.50")), encode_cursor_value(datetime(2024, 1, 1))
        ('i:7', '@decimal:1.50', '@naive:2024-01-01T00:00:00')
    """
    if isinstance(value, datetime) and value.tzinfo is not None:
        value = value.astimezone(UTC)
    write = _WRITERS.get(type(value))
    if write is not None:
        return write(value)
    if value is None:
        raise ValueError("NULL has no place in an order")
    try:
        return encode_partition(value)  # type: ignore[arg-type]  # a wrong type is what is being found out
    except PartitionError as error:
        raise ValueError(f"values of type {type(value).__qualname__} cannot be kept in a cursor") from error


def decode_cursor_value(text: str) -> CursorValue:
    """Return the value that `encode_cursor_value` turned into this text.

    Raises:
        ValueError: it is not what `encode_cursor_value` writes.

    Example:
        >>> decode_cursor_value("@decimal:1.50")
        Decimal('1.50')
    """
    if not isinstance(text, str):
        raise ValueError(f"{text!r} is no text")  # noqa: TRY004 - one kind of error for whatever a cursor holds
    if text.startswith("@"):
        tag, _, body = text.partition(":")
        if tag not in _READERS:
            raise ValueError(f"{text[:80]!r} has no known tag")
        return _READERS[tag](body)
    value = decode_partition(text)
    if value is None or isinstance(value, tuple):
        raise ValueError(f"{text[:80]!r} is no single value")
    return value


def _naive(value: datetime) -> str:
    # an aware one was turned into UTC and is written as a partition
    return encode_partition(value) if value.tzinfo else f"@naive:{value.isoformat()}"


def _float(value: float) -> str:
    if math.isnan(value):
        raise ValueError("NaN has no place in an order")
    return f"@float:{value.hex()}"


def _decimal(value: Decimal) -> str:
    if value.is_nan():
        raise ValueError("NaN has no place in an order")
    return f"@decimal:{value}"


_WRITERS: dict[type, Callable[..., str]] = {
    datetime: _naive,
    float: _float,
    Decimal: _decimal,
    UUID: lambda value: f"@uuid:{value}",
    bytes: lambda value: f"@bytes:{value.hex()}",
}
_READERS: dict[str, Callable[[str], CursorValue]] = {
    "@naive": datetime.fromisoformat,
    "@float": float.fromhex,
    "@decimal": Decimal,
    "@uuid": UUID,
    "@bytes": bytes.fromhex,
}


MAX_SEEN = 2000
"""How many things at exactly the watermark are remembered one by one."""
_DIGEST_BYTES = 9


class Place(NamedTuple):
    """Where a thing stands: by time, or whatever the watermark is, and among those of the same time."""

    at: CursorValue
    tie: CursorValue


@dataclass(frozen=True, slots=True)
class Watermark:
    """Everything before it was taken; of what lies exactly on it, what was seen.

    Two things may carry the same time, and the second may come to light after the first was taken. So those on
    the watermark are remembered by a digest each. When they are too many for that, their order decides:
    what follows the last one taken is new. What is then asked for twice is held off by its run key.

    Args:
        at: the watermark.
        after: of those on it, the last one taken.
        seen: digests of those on it that were taken; None when there are too many.
        again: names of things before it that could not be used so far, and are looked at again.
    """

    at: CursorValue
    after: CursorValue
    seen: frozenset[str] | None
    again: tuple[str, ...] = ()

    def is_before(self, place: Place) -> bool:
        """Whether a thing is new, given that its time is not before the watermark's."""
        if place.at != self.at:
            return True
        if self.seen is None:
            return bool(place.tie > self.after)  # type: ignore[operator]  # one column has one type
        return digest(place) not in self.seen

    def to_cursor(self) -> str:
        """Return it as the text of a cursor."""
        seen = None if self.seen is None else sorted(self.seen)
        again = {"again": list(self.again)} if self.again else {}
        return json.dumps(
            {"at": encode_cursor_value(self.at), "after": encode_cursor_value(self.after), "seen": seen} | again
        )

    @classmethod
    def from_cursor(cls, cursor: str | None, *, sensor: str) -> Self | None:
        """Read a cursor; None when there is none yet.

        Raises:
            SensorError: it is not one that `to_cursor` wrote.
        """
        if cursor is None:
            return None
        try:
            kept = json.loads(cursor)
            seen = None if kept["seen"] is None else frozenset(map(str, kept["seen"]))
            again = tuple(map(str, kept.get("again", ())))
            return cls(decode_cursor_value(kept["at"]), decode_cursor_value(kept["after"]), seen, again)
        except (ValueError, TypeError, LookupError, InvalidOperation) as error:
            raise SensorError(
                sensor,
                f"its cursor {cursor[:80]!r} cannot be read ({error}). flow.sensors.set_cursor({sensor!r}, None) "
                "lets it start from the beginning; run keys keep what ran from running again.",
            ) from error


def moved(mark: Watermark | None, taken: Sequence[Place]) -> Watermark | None:
    """Return the watermark after these things were taken, in their order.

    Example:
        >>> moved(None, [Place(1, "a"), Place(2, "b")]) == Watermark(2, "b", frozenset([digest(Place(2, "b"))]))
        True
    """
    if not taken:
        return mark
    last = taken[-1]
    on_it = {digest(place) for place in taken if place.at == last.at}
    if mark is None or mark.at != last.at:
        seen: frozenset[str] | None = frozenset(on_it)
    else:
        seen = None if mark.seen is None else mark.seen | on_it
    if seen is not None and len(seen) > MAX_SEEN:
        seen = None
    return Watermark(last.at, last.tie, seen)


def digest(place: Place) -> str:
    """Return a short name for a thing among those of the same time.

    Example:
        >>> len(digest(Place(7, "a")))
        12
    """
    return urlsafe_b64encode(
        blake2b(encode_cursor_value(place.tie).encode(), digest_size=_DIGEST_BYTES).digest()
    ).decode()
