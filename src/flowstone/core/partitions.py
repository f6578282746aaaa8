r"""Partition values and their text form.

In Python a partition is an ordinary value. At every boundary (database, command line, file name, URL) it is
text, and the text must name exactly one value: `encode_partition` is injective and `decode_partition` is its
inverse, whatever the types, the characters or the daylight-saving hour.

The text is a tag, a colon and a readable body: `d:2024-01-01`, `s:eu`, `i:42`, `b:true`,
`t:2024-01-01T05:00:00+01:00`, `t:2024-10-27T02:00:00[Europe/Berlin;fold=1]`, and for tuples
`(d:2024-01-01|s:eu)`. Not partitioned is the empty text. Characters that PostgreSQL text or one line of a
terminal cannot carry become `\xHH`, `\uHHHH` or `\UHHHHHHHH`; `\`, `|` and parentheses get a backslash.
The set of escaped characters is fixed here rather than asked from `unicodedata`, so that a newer Python never
changes the name of a partition that is already stored.

The keys of dynamic partitions as they stood at one moment, and what happened to them.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timezone
from functools import cached_property, lru_cache
from typing import NamedTuple, NewType, NoReturn, Protocol
from zoneinfo import ZoneInfo

from flowstone.errors import PartitionError

type Partition = bool | int | str | date | datetime | tuple[Partition, ...] | None
"""A partition as a Python value; `None` alone means "not partitioned"."""

PartitionKey = NewType("PartitionKey", str)
"""The text form of a partition: what `encode_partition` returns, and what stores and file names carry."""

NO_PARTITION = PartitionKey("")
"""The key of an asset without partitions."""

MAX_DEPTH = 16
"""How deep tuples may nest."""

# Every interpreter can print an integer of this size in decimal, whatever sys.set_int_max_str_digits says.
_DECIMAL_BITS = 2048

# Controls, line separators, invisible and direction-changing characters, surrogates, language tags.
_UNSAFE_CLASS = (
    "\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
)
_UNSAFE = re.compile(f"[{_UNSAFE_CLASS}]")
_SPECIAL = re.compile(rf"[\\|(){_UNSAFE_CLASS}]")
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|([\\|()]))")
_ATOM = re.compile(r"(?:[^\\|()]|\\.)*", re.DOTALL)
_ZONE_KEY = re.compile(r"[A-Za-z0-9_+\-/]+")
_ZONED = re.compile(r"([^\[\]]+)\[([A-Za-z0-9_+\-/]+)(;fold=1)?\]")


def encode_partition(value: Partition) -> PartitionKey:
    """Return the text that stands for exactly this partition.

    Args:
        value: the partition. Subclasses (`IntEnum`, `pandas.Timestamp`, `numpy.str_`) are refused, because
            they could not come back as what they were.

    Returns:
        One line of text without control characters; empty for `None`.

    Raises:
        PartitionError: the value, or a part of it, cannot be a partition.

    Example:
        >>> encode_partition(date(2024, 1, 1)), encode_partition("2024-01-01"), encode_partition(("eu", 7))
        ('d:2024-01-01', 's:2024-01-01', '(s:eu|i:7)')
    """
    if value is None:
        return NO_PARTITION
    encode = _ENCODERS.get(type(value))
    # what the encoders return is a key by definition; saying so at run time costs a tenth of the call
    return encode(value) if encode else _encode(value, 0)  # type: ignore[return-value]


_KEPT_KEYS = 1024
"""So many keys are kept with their values, which cannot change."""


def decode_partition(text: str) -> Partition:
    """Return the partition that `encode_partition` turned into this text.

    Args:
        text: an encoded partition.

    Raises:
        PartitionError: the text is not what `encode_partition` writes.

    Example:
        >>> decode_partition("(d:2024-01-01|s:eu)")
        (datetime.date(2024, 1, 1), 'eu')
    """
    if type(text) is not str:
        raise PartitionError(f"An encoded partition is text, not {type(text).__qualname__}: {text!r}.")
    return _decoded(text) if text else None


@lru_cache(_KEPT_KEYS)
def _decoded(text: str) -> Partition:
    # a step needs its value in its job, its context and its result: the text is read once
    try:
        value, end = _parse(text, 0, 0)
        # Writing it again refuses every second spelling ("i:+5", "i:05"), so that one value has one text.
        if end == len(text) and encode_partition(value) == text:
            return value
    except (ValueError, LookupError, OSError) as error:
        raise PartitionError(f"{text!r} is not an encoded partition: {error}") from error
    raise PartitionError(
        f"{text!r} is not an encoded partition. It looks like 'd:2024-01-01', 's:eu' or '(i:1|s:a)'; "
        "text typed by a person is read with the parse() of the asset's partitions."
    )


def partition_label(value: Partition) -> str:
    """Return the short form for people: tables, command line, log lines.

    Args:
        value: the partition.

    Returns:
        One safe line of text; different partitions may share it (`1` and `"1"`).

    Raises:
        PartitionError: the value cannot be a partition.

    Example:
        >>> partition_label(("eu", date(2024, 1, 1)))
        'eu|2024-01-01'
    """
    encode_partition(value)  # refuses what cannot be a partition
    return _label(value)


# --- writing ------------------------------------------------------------------------------------------------


def _encode(value: Partition, depth: int) -> str:
    """Encode a part of a tuple, where None has a tag of its own, or a value that needs an explanation."""
    if value is None:
        return "n:"
    if type(value) is tuple:
        if depth >= MAX_DEPTH:
            raise PartitionError(f"A partition nests more than {MAX_DEPTH} tuples. Use a flat tuple.")
        return f"({'|'.join([_encode(part, depth + 1) for part in value])})"
    encode = _ENCODERS.get(type(value))
    if encode is None:
        _reject_type(value)
    return encode(value)


def _encode_str(value: str) -> str:
    return "s:" + (_SPECIAL.sub(_escape, value) if _SPECIAL.search(value) else value)


def _encode_int(value: int) -> str:
    return f"i:{value:#x}" if value.bit_length() > _DECIMAL_BITS else f"i:{value}"


def _encode_datetime(value: datetime) -> str:
    zone = value.tzinfo
    if type(zone) is timezone and not zone.utcoffset(None).microseconds:
        return "t:" + value.isoformat()
    if type(zone) is ZoneInfo and zone.key and _ZONE_KEY.fullmatch(zone.key):
        # Wall clock, fold and zone name, without the offset: a later edition of the time zone database that
        # changes the offset must not make a stored partition unreadable.
        fold = ";fold=1" if value.fold else ""
        return f"t:{value.replace(tzinfo=None).isoformat()}[{zone.key}{fold}]"
    _reject_naive(value)
    raise PartitionError(
        f"The datetime {value!r} cannot be a partition: its tzinfo is {zone!r}. "
        "Use zoneinfo.ZoneInfo('Europe/Berlin'), or datetime.timezone with whole seconds."
    )


def _escape(match: re.Match[str]) -> str:
    char = match[0]
    if char in "\\|()":
        return "\\" + char
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _reject_naive(value: datetime) -> None:
    if value.tzinfo is None:
        raise PartitionError(
            f"The datetime {value.isoformat()!r} has no time zone, so it names no instant. Write "
            "value.replace(tzinfo=ZoneInfo('Europe/Berlin')), or tzinfo=datetime.UTC."
        )


def _reject_type(value: object) -> NoReturn:
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    for base, remedy in _REMEDIES.items():
        if isinstance(value, base):
            raise PartitionError(
                f"{value!r} cannot be a partition: it is a {name}, a subclass of {base.__name__}, and would "
                f"not come back as one. Convert it with {remedy}."
            )
    raise PartitionError(
        f"{value!r} cannot be a partition: it is a {name}. Partitions are str, int, bool, date, datetime "
        "with a time zone, or tuples of these."
    )


_ENCODERS: dict[type, Callable[..., str]] = {
    str: _encode_str,
    date: lambda value: "d:" + value.isoformat(),
    int: _encode_int,
    datetime: _encode_datetime,
    bool: lambda value: "b:true" if value else "b:false",
}

_REMEDIES: dict[type, str] = {
    int: "int(value)",
    str: "str(value), or value.value if it is an enum",
    datetime: "value.to_pydatetime() if it is a pandas Timestamp",
    date: "date(value.year, value.month, value.day)",
    tuple: "tuple(value)",
}


def _label(value: Partition) -> str:
    if isinstance(value, tuple):
        return "|".join(f"({_label(part)})" if isinstance(part, tuple) else _label_part(part) for part in value)
    if isinstance(value, str):
        return _UNSAFE.sub(_escape, value)
    if isinstance(value, datetime):
        return value.isoformat(timespec="auto" if value.second or value.microsecond else "minutes")
    return encode_partition(value)[2:]


def _label_part(part: Partition) -> str:
    return "none" if part is None else _label(part)


# --- reading ------------------------------------------------------------------------------------------------


def _parse(text: str, start: int, depth: int) -> tuple[Partition, int]:
    """Read one value that begins at `start`; return it and the position behind it."""
    if not text.startswith("(", start):
        atom = _ATOM.match(text, start)
        assert atom is not None  # the pattern matches the empty text too
        return _decode_atom(atom[0]), atom.end()
    if depth >= MAX_DEPTH:
        raise ValueError(f"it nests more than {MAX_DEPTH} tuples")
    if text.startswith(")", start + 1):
        return (), start + 2
    parts: list[Partition] = []
    separator = "|"
    while separator == "|":
        part, start = _parse(text, start + 1, depth + 1)
        parts.append(part)
        separator = text[start : start + 1]
    if separator != ")":
        raise ValueError("a parenthesis is not closed")
    return tuple(parts), start + 1


def _decode_atom(atom: str) -> Partition:
    decode = _DECODERS.get(atom[:2])
    if decode is None:
        raise ValueError(f"{atom[:2]!r} is not one of the tags {', '.join(_DECODERS)}")
    return decode(atom[2:])


def _unescape(match: re.Match[str]) -> str:
    return match[4] or chr(int(match[1] or match[2] or match[3], 16))


def _decode_datetime(body: str) -> datetime:
    zoned = _ZONED.fullmatch(body)
    if zoned is None:
        return datetime.fromisoformat(body)
    return datetime.fromisoformat(zoned[1]).replace(tzinfo=ZoneInfo(zoned[2]), fold=1 if zoned[3] else 0)


_DECODERS: dict[str, Callable[[str], Partition]] = {
    "s:": lambda body: _ESCAPE.sub(_unescape, body),
    "d:": date.fromisoformat,
    "i:": lambda body: int(body, 16 if "x" in body else 10),
    "t:": _decode_datetime,
    "b:": {"true": True, "false": False}.__getitem__,
    "n:": lambda body: None,
}


class KeyState(NamedTuple):
    """How a key that was ever added stands.

    Args:
        key: encoded key.
        position: number of the change that added it last; keys are ordered by it.
        revision: number of the last change of it; equals `position` unless it was removed since.
    """

    key: str
    position: int
    revision: int

    @property
    def removed(self) -> bool:
        """Whether it is no key at present."""
        return self.revision > self.position


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChange:
    """One entry of the history of a dynamic partitions definition.

    Args:
        definition: name of the definition.
        revision: number of the change, from 1, without gaps within a definition.
        key: encoded key.
        removed: whether the key was removed; else it was added.
        at: when, by the store's clock.
        by: who did it, as far as they said.
        reason: why, as far as they said.
    """

    definition: str
    revision: int
    key: str
    removed: bool
    at: datetime
    by: str | None = None
    reason: str | None = None

    @property
    def partition(self) -> Partition:
        """The key as a value."""
        return decode_partition(self.key)


class KnownKeys:
    """All keys that a definition ever had, as of one revision; immutable.

    Args:
        revision: number of the newest change that is in it.
        active: the keys, encoded, in the order of their addition, with their values.
        removed: keys that were removed, with their values.
        positions: number of the change that added each of them last.

    Example:
        >>> known = KnownKeys().after([KeyState("s:eu", 1, 1), KeyState("s:us", 2, 3)])
        >>> list(known.active.values()), list(known.removed.values()), known.revision
        (['eu'], ['us'], 3)
    """

    def __init__(
        self,
        revision: int = 0,
        active: Mapping[str, Partition] | None = None,
        removed: Mapping[str, Partition] | None = None,
        positions: Mapping[str, int] | None = None,
    ) -> None:
        self.revision = revision
        self.active = active or {}
        self.removed = removed or {}
        self.positions = positions or {}

    def after(self, changes: Iterable[KeyState]) -> KnownKeys:
        """Return what is known after these changes, which come in the order of their revisions."""
        revision, active, removed = self.revision, dict(self.active), dict(self.removed)
        positions = dict(self.positions)
        for state in changes:
            revision = state.revision
            value = active.pop(state.key, None)
            if value is None:
                value = removed.pop(state.key, None)
            if value is None:
                value = decode_partition(state.key)
            (removed if state.removed else active)[state.key] = value
            positions[state.key] = state.position
        return KnownKeys(revision, active, removed, positions)

    def find(self, key: str, *, also_removed: bool) -> Partition | None:
        """Return the value of an encoded key, None if there is no such key."""
        value = self.active.get(key)
        return self.removed.get(key) if value is None and also_removed else value

    def span(self, low: int, high: int) -> list[Partition]:
        """Return the keys that were added by the changes from `low` to `high`, both included."""
        positions, values = self._order
        return values[bisect_left(positions, low) : bisect_right(positions, high)]

    def until(self, key: str, number: int) -> list[Partition]:
        """Return up to `number` keys that end with this known one, which may be a removed one."""
        positions, values = self._order
        stop = bisect_left(positions, self.positions[key])
        return [*values[max(0, stop - number + 1) : stop], self.find(key, also_removed=True)]

    @cached_property
    def _order(self) -> tuple[list[int], list[Partition]]:
        return [self.positions[key] for key in self.active], list(self.active.values())

    @cached_property
    def labels(self) -> dict[str, str]:
        """Short form for people of each encoded key, also of removed ones; no two share one.

        A key whose short form could mean another one as well goes by its unmistakable encoded form.
        """
        short = {key: partition_label(value) for key, value in (self.active | self.removed).items()}  # type: ignore[operator]
        number = Counter(short.values())
        return {
            key: label if label and number[label] == 1 and (label == key or label not in short) else key
            for key, label in short.items()
        }

    @cached_property
    def by_label(self) -> dict[str, str]:
        """The encoded key of each label."""
        return {label: key for key, label in self.labels.items()}


class KeySource(Protocol):
    """Where a dynamic partitions definition that is bound to an app finds its keys."""

    def known(self, name: str, *, fresh: bool = False) -> KnownKeys:
        """Return the keys of a definition.

        Args:
            name: name of the definition.
            fresh: read now; else what was read a short while ago will do.
        """
