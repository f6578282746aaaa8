"""Values of a cursor as text that names exactly one value, of exactly one type."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

from flowstone.core.partition import decode_partition, encode_partition
from flowstone.errors import PartitionError

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
