"""The keys of dynamic partitions as this process knows them, read again when that is due."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from flowstone.core.automation.record import PartitionChange
from flowstone.core.forks import renew_after_fork
from flowstone.core.known_keys import KeySource, KeyState, KnownKeys
from flowstone.protocols import PartitionKeys

_NOTHING = KnownKeys()
_SHORT_SECONDS = 1.0


class _Assumed:
    """Changes that are taken for made, and what the keys are then."""

    __slots__ = ("_then", "changes")

    def __init__(self, changes: Sequence[PartitionChange] = ()) -> None:
        self.changes = tuple(changes)
        # for each definition, so that 1,000 requests do not work out 1,000 times what 1,000 changes come to
        self._then: dict[str, tuple[KnownKeys, KnownKeys]] = {}

    def after(self, name: str, known: KnownKeys) -> KnownKeys:
        """Return the keys of a definition once the changes are made."""
        before, then = self._then.get(name, (None, known))
        if before is not known:
            then = _assuming(known, [change for change in self.changes if change.definition == name])
            self._then[name] = known, then
        return then


_NONE = _Assumed()


class KeySnapshots(KeySource):
    """Implements `flowstone.core.known_keys.KeySource` over a store.

    A snapshot serves for a short while, so that checking 100,000 keys is not a question each. Reading it again
    only fetches what changed. Whoever misses a key asks for a fresh one before saying so; a key that another
    process removed may pass until the snapshot is read again.

    Args:
        store: where the keys are.
        short_seconds: how long a snapshot serves.

    Example:
        >>> from flowstone.stores.memory import MemoryStore
        >>> store = MemoryStore().partition_keys
        >>> keys = KeySnapshots(store)
        >>> added = store.add("customers", ["s:acme"])
        >>> list(keys.known("customers", fresh=True).active.values())
        ['acme']
    """

    def __init__(self, store: PartitionKeys, *, short_seconds: float = _SHORT_SECONDS) -> None:
        self._store = store
        self._short_seconds = short_seconds
        self._begin()
        renew_after_fork(self, KeySnapshots._begin)
        self._read: dict[str, tuple[float, KnownKeys]] = {}
        self._assumed: ContextVar[_Assumed] = ContextVar("assumed", default=_NONE)

    def _begin(self) -> None:
        self._guard = threading.Lock()

    def known(self, name: str, *, fresh: bool = False) -> KnownKeys:
        started = time.monotonic()
        read_at, known = self._read.get(name, (float("-inf"), _NOTHING))
        if fresh or started - read_at > self._short_seconds:
            changes = self._store.changed(name, after=known.revision)
            known = self._keep(name, started, known.after(changes) if changes else known)
        assumed = self._assumed.get()
        return assumed.after(name, known) if assumed.changes else known

    @contextmanager
    def assuming(self, changes: Sequence[PartitionChange]) -> Iterator[None]:
        """Let this thread (or task) see keys as they will be once these changes are made.

        For planning what is committed together with them; nobody else sees them before.
        """
        token = self._assumed.set(_Assumed((*self._assumed.get().changes, *changes)))
        try:
            yield
        finally:
            self._assumed.reset(token)

    def _keep(self, name: str, started: float, known: KnownKeys) -> KnownKeys:
        """Keep what was read, unless another thread read something newer meanwhile; return the newer one."""
        with self._guard:
            read_at, kept = self._read.get(name, (started, known))
            newest = known if known.revision >= kept.revision else kept
            self._read[name] = max(read_at, started), newest
        return newest


def _assuming(known: KnownKeys, changes: Sequence[PartitionChange]) -> KnownKeys:
    states: dict[str, KeyState] = {}
    for revision, (_, key, remove) in enumerate(changes, known.revision + 1):
        active = not states[key].removed if key in states else key in known.active
        if active is remove:
            position = revision
            if remove:
                position = states[key].position if key in states else known.positions[key]
            states.pop(key, None)
            states[key] = KeyState(key, position, revision)
    return known.after(states.values()) if states else known
