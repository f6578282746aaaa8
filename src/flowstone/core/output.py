"""What an IO manager gets when it stores, and what it returns."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import _AsyncGeneratorContextManager, _GeneratorContextManager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple

from flowstone.core.frozen import maker
from flowstone.core.partitions import PartitionKey
from flowstone.core.project import DEFAULT_PROJECT

type JsonValue = bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None


class OutputAddress(NamedTuple):
    """Where one attempt of one step may write.

    The address is unique per attempt, so that an attempt that lost its lease can never overwrite what
    another one published.

    Args:
        asset: asset name.
        partition_key: encoded partition key; the empty string for an asset without partitions.
        run_id: run the step belongs to.
        step_id: the step, unique over all runs.
        attempt: 1 for the first attempt.
        token: fencing token of the attempt; a later attempt has a larger one.
        project: project of the app. Steps are numbered in each project by itself, so places that several projects
            share (a folder, a bucket) must part by it.

    Example:
        >>> OutputAddress("numbers", "", "run", 12, 1, 7).version
        '12-1'
        >>> OutputAddress("numbers", "", "run", 12, 1, 7).fenced_version
        '12-1.7'
    """

    asset: str
    partition_key: PartitionKey
    run_id: str
    step_id: int
    attempt: int
    token: int
    project: str = DEFAULT_PROJECT

    @property
    def partition(self) -> PartitionKey:
        """The same as `partition_key`; deprecated, and gone in the next version."""
        return self.partition_key

    @property
    def version(self) -> str:
        """Name of the version that this attempt writes, unique over all runs and attempts."""
        return f"{self.step_id}-{self.attempt}"

    @property
    def fenced_version(self) -> str:
        """The version with the token: what no other attempt writes.

        An attempt that was released is taken up again under its number, and whoever had it may still be writing.
        """
        return f"{self.step_id}-{self.attempt}.{self.token}"


@dataclass(frozen=True, slots=True)
class StoredOutput:
    """A stored value: enough to find it again from any process, as plain JSON.

    Args:
        io: name of the IO manager that wrote it; the same name loads it.
        location: opaque to everybody but that manager.
        serializer: name of the serializer that wrote the bytes; None when no bytes were written.
        size_bytes: size of the encoded value; None when it was not encoded.
        content_hash: SHA-256 (hex) of the encoded value; None when it was not encoded.
        value_type: qualified name of the Python type that was stored.
        metadata: small facts for people, such as a row count.
        payload: encoded bytes that travel with the committing transaction instead of being written by the
            manager itself. Not part of the JSON form.

    Example:
        >>> stored = StoredOutput("filesystem", "a/b.json", "json", 2, None, "builtins.list")
        >>> StoredOutput.from_json(stored.to_json()) == stored
        True
    """

    io: str
    location: str
    serializer: str | None = None
    size_bytes: int | None = None
    content_hash: str | None = None
    value_type: str = "builtins.object"
    metadata: dict[str, JsonValue] = field(default_factory=dict)
    payload: bytes | None = field(default=None, repr=False)

    def to_json(self) -> dict[str, JsonValue]:
        """Return the JSON form, without the payload."""
        return {
            "io": self.io,
            "location": self.location,
            "serializer": self.serializer,
            "size_bytes": self.size_bytes,
            "content_hash": self.content_hash,
            "value_type": self.value_type,
            "metadata": self.metadata,
        }

    @classmethod
    def from_json(cls, document: dict[str, JsonValue], payload: bytes | None = None) -> StoredOutput:
        """Rebuild what `to_json` returned.

        Args:
            document: the JSON form.
            payload: the bytes that travelled with the commit, when they were read along.
        """
        return cls(**document, payload=payload)  # type: ignore[arg-type]


make_stored = maker(StoredOutput)
"""Makes a stored value of the same arguments: every step has one."""

MEMORY_ISSUER = "memory-"
"""What the names of stores in memory begin with: each process has one of its own."""


class Publication(NamedTuple):
    """A change of what readers outside of FlowStone see of a target: another version is in use, or none.

    Args:
        asset: asset name.
        partition_key: encoded partition key; the empty string for an asset without partitions.
        token: drawn in the transaction that changed what is in use, so that of two publications of a target the
            later one has the larger token.
        issuer: the store that drew it; tokens of different stores say nothing about each other.
        stored: the version that is in use now; with `in_use` false the one that was until now.
        in_use: whether there is one.
        noted_at: when it was noted, for one that is still to be done; None else.
    """

    asset: str
    partition_key: PartitionKey
    token: int
    issuer: str
    stored: StoredOutput
    in_use: bool = True
    noted_at: datetime | None = None


def unfenced(name: str) -> str:
    """Return the version that `OutputAddress.fenced_version`, or a name without a token, is of.

    Example:
        >>> unfenced("12-1.7"), unfenced("12-1")
        ('12-1', '12-1')
    """
    return name.partition(".")[0]


def type_name(value: object) -> str:
    """Return the qualified name of a value's type.

    Example:
        >>> type_name([])
        'builtins.list'
    """
    kind = type(value)
    return _PLAIN_NAMES.get(kind) or f"{kind.__module__}.{kind.__qualname__}"


def is_read_once(value: object) -> bool:
    """Return whether a value is used up by whoever reads it first: an iterator, an open file, a coroutine.

    Example:
        >>> is_read_once(map(str, [1])), is_read_once(iter([])), is_read_once([1]), is_read_once({1: 2}.items())
        (True, True, False, False)
    """
    kind = type(value)
    if kind in PLAIN or kind in _READ_OFTEN:
        return False
    if isinstance(value, Iterator | AsyncIterator | Awaitable):
        return True
    # what tempfile returns passes everything on to a file and is none by type; a `with` of contextlib opens once
    return (kind.__module__ == "tempfile" and hasattr(value, "read")) or isinstance(value, _OPENED_ONCE)


def find_read_once(value: object) -> tuple[str, object] | None:
    """Return the place and value of something that can be read only once, in a value or its containers.

    Only the first elements of lists, tuples, sets, dicts and deques and the fields of dataclasses and named tuples
    are looked at, so that large values cost nothing.

    Example:
        >>> place, found = find_read_once({"rows": [1, zip("ab")]})
        >>> place
        '$["rows"][1]'
    """
    if type(value) in PLAIN:
        return None
    left: deque[tuple[str, object]] = deque([("$", value)])
    for _ in range(_MAX_EXAMINED):
        if not left:
            return None
        place, one = left.popleft()
        if is_read_once(one):
            return place, one
        left.extend((place + step, item) for step, item in _elements(one) if type(item) not in PLAIN)
    return None


def _elements(value: object) -> Iterator[tuple[str, object]]:
    """Yield the first things that a container holds, with how each is reached; nothing for what is none."""
    if isinstance(value, dict):
        for key, item in islice(dict.items(value), _MAX_ELEMENTS):
            yield f'["{key}"]' if type(key) is str else f"[{key!r:.40}]", item
    elif isinstance(value, tuple) and isinstance(names := getattr(type(value), "_fields", None), tuple):
        yield from ((f".{name}", item) for name, item in zip(names, tuple.__iter__(value), strict=False))
    elif isinstance(value, _CONTAINERS):
        kind: Any = next(one for one in _CONTAINERS if isinstance(value, one))
        held = islice(kind.__iter__(value), _MAX_ELEMENTS)
        yield from ((f"[{place}]", item) for place, item in enumerate(held))
    elif not isinstance(value, type) and (names := getattr(type(value), "__dataclass_fields__", None)):
        yield from ((f".{name}", getattr(value, name, None)) for name in islice(names, _MAX_ELEMENTS))


_CONTAINERS = (list, tuple, set, frozenset, deque)
_OPENED_ONCE = (_GeneratorContextManager, _AsyncGeneratorContextManager)
PLAIN = frozenset({type(None), bool, int, float, str, bytes})
"""Types of values that are neither containers nor used up by reading them."""
_READ_OFTEN = frozenset({list, dict, tuple, set, frozenset})
_PLAIN_NAMES = {kind: f"builtins.{kind.__qualname__}" for kind in PLAIN | _READ_OFTEN}
_MAX_ELEMENTS = 100
_MAX_EXAMINED = 1000
