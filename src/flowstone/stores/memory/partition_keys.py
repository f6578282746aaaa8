"""The keys of dynamic partitions in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from flowstone.core.automation.record import PartitionChange
from flowstone.core.known_keys import KeyChange, KeyState
from flowstone.core.text import clean_text
from flowstone.protocols import PartitionKeys
from flowstone.stores.memory.tables import Tables

_MAX_NOTE = 1000


class MemoryPartitionKeys(PartitionKeys):
    """Implements `flowstone.protocols.PartitionKeys` over dictionaries.

    Args:
        tables: the rows of the store, whose lock makes each method a transaction.
        now: clock of the history.
    """

    def __init__(self, tables: Tables, *, now: Callable[[], datetime] | None = None) -> None:
        self._changed = tables.changed
        self._now = now or (lambda: datetime.now(UTC))
        # per definition the keys in the order of their last change, and all changes
        self._states: dict[str, dict[str, KeyState]] = defaultdict(dict)
        self._history: dict[str, list[KeyChange]] = defaultdict(list)

    def keys(self, name: str) -> list[str]:
        return [state.key for state in self.changed(name) if not state.removed]

    def changed(self, name: str, *, after: int = 0) -> list[KeyState]:
        found: list[KeyState] = []
        with self._changed:
            if name in self._states:
                for state in reversed(self._states[name].values()):
                    if state.revision <= after:
                        break
                    found.append(state)
        return found[::-1]

    def add(
        self, name: str, keys: Sequence[str], *, by: str | None = None, reason: str | None = None
    ) -> list[str]:
        changes = [PartitionChange(name, key) for key in keys]
        return [change.key for change in self.apply_changes(changes, by=by, reason=reason)]

    def remove(
        self, name: str, keys: Sequence[str], *, by: str | None = None, reason: str | None = None
    ) -> list[str]:
        changes = [PartitionChange(name, key, remove=True) for key in keys]
        return [change.key for change in self.apply_changes(changes, by=by, reason=reason)]

    def history(self, name: str, key: str | None = None, *, limit: int = 100) -> list[KeyChange]:
        with self._changed:
            changes = list(self._history[name]) if name in self._history else []
        return [change for change in reversed(changes) if key is None or change.key == key][:limit]

    def apply_changes(
        self, changes: Sequence[PartitionChange], *, by: str | None = None, reason: str | None = None
    ) -> list[PartitionChange]:
        """Add and remove keys, in this order; return the changes that changed something."""
        with self._changed:
            return [change for change in changes if self._apply(change, _note(by), _note(reason))]

    def _apply(self, change: PartitionChange, by: str | None, reason: str | None) -> bool:
        name, key, remove = change
        states, history = self._states[name], self._history[name]
        state = states.get(key)
        if (state is not None and not state.removed) is not remove:
            return False
        revision = len(history) + 1
        position = state.position if remove and state is not None else revision
        states.pop(key, None)  # a changed key is the last one in the order of changes
        states[key] = KeyState(key, position, revision)
        history.append(
            KeyChange(
                definition=name,
                revision=revision,
                key=key,
                removed=remove,
                at=self._now(),
                by=by,
                reason=reason,
            )
        )
        return True


def _note(text: str | None) -> str | None:
    return None if text is None else clean_text(text, limit=_MAX_NOTE)
