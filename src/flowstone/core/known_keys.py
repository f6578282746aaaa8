"""The keys of dynamic partitions as they stood at one moment, and what happened to them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import NamedTuple, Protocol

from flowstone.core.partition import Partition, decode_partition, partition_label


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
