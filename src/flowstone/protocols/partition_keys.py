"""What a store keeps of dynamic partitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from flowstone.core.known_keys import KeyChange, KeyState


class PartitionKeys(Protocol):
    """The keys of dynamic partitions definitions, by name, with their history; every method is one transaction.

    Keys are encoded. Changes of one definition happen one after the other and are numbered without gaps; a
    definition exists with its first key. A key is there once: of simultaneous additions one is the new one.
    """

    def keys(self, name: str) -> list[str]:
        """Return the keys of a definition in the order of their addition."""

    def changed(self, name: str, *, after: int = 0) -> list[KeyState]:
        """Return every key that was added or removed since a revision, as it stands now, in order of revision."""

    def add(
        self, name: str, keys: Sequence[str], *, by: str | None = None, reason: str | None = None
    ) -> list[str]:
        """Add keys in this order and return those that were not there."""

    def remove(
        self, name: str, keys: Sequence[str], *, by: str | None = None, reason: str | None = None
    ) -> list[str]:
        """Remove keys and return those that were there."""

    def history(self, name: str, key: str | None = None, *, limit: int = 100) -> list[KeyChange]:
        """Return the newest changes of a definition, or of one of its keys, newest first."""
