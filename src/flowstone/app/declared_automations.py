"""What schedules and sensors have in common: they are declared by name, paused, resumed, and have ticks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from flowstone.app.requests import whole_number
from flowstone.core.automation.record import (
    AutomationKind,
    AutomationRecord,
    Conclusion,
    NewTick,
    TakenAutomation,
    TickRecord,
)
from flowstone.errors import DefinitionError, UnknownAutomationError
from flowstone.protocols import AutomationStore, Evaluator


class DeclaredAutomations[One: Evaluator]:
    """The automations of one kind that an app declares.

    Args:
        store: where they are recorded.
    """

    kind: ClassVar[AutomationKind]

    def __init__(self, store: AutomationStore) -> None:
        self._store = store
        self._evaluators: dict[str, One] = {}

    def ticks(self, name: str | None = None, *, limit: int = 50) -> Sequence[TickRecord]:
        """Return the newest ticks of one, or of all of this kind.

        Raises:
            UnknownAutomationError: there is none of this name.
        """
        limit = whole_number("limit", limit)
        if name is not None:
            return self._store.ticks(self._find(name).id, limit=limit)
        ticks = [tick for one in self._evaluators.values() for tick in self._store.ticks(one.id, limit=limit)]
        return sorted(ticks, key=lambda tick: tick.id, reverse=True)[:limit]

    def pause(self, name: str) -> bool:
        """Evaluate it no more, on any node, until it is resumed; return whether it was not paused.

        Raises:
            UnknownAutomationError: there is none of this name.
        """
        return self._store.set_paused(self._declared(name).id, paused=True)

    def resume(self, name: str) -> bool:
        """Go on: a schedule with what its `catch_up` says, a sensor from its cursor. Return whether it was paused.

        Raises:
            UnknownAutomationError: there is none of this name.
        """
        return self._store.set_paused(self._declared(name).id, paused=False)

    def _add(self, name: str, one: One) -> None:
        if name in self._evaluators:
            raise DefinitionError(f"There are two {self.kind}s named {name!r}. Give one another name=.")
        self._evaluators[name] = one

    def _records(self) -> dict[str, AutomationRecord]:
        return {record.id.name: record for record in self._store.records() if record.id.kind == self.kind}

    def _newest(self, one: One, record: AutomationRecord | None) -> TickRecord | None:
        ticks = self._store.ticks(one.id, limit=1) if record is not None else []
        return ticks[0] if ticks else None

    def _declared(self, name: str) -> One:
        """Return one that the store knows, whether or not a node has run yet."""
        found = self._find(name)
        self._store.declare([found.id], paused=[found.id] if found.starts_paused else [])
        return found

    def _find(self, name: str) -> One:
        try:
            return self._evaluators[name]
        except KeyError:
            raise UnknownAutomationError(self.kind, name, self._evaluators) from None

    def _conclude(self, taken: TakenAutomation, tick: NewTick) -> None:
        """Record a tick and leave cursor and next instant as they are."""
        record = taken.record
        self._store.conclude(
            taken,
            Conclusion(ticks=[tick], cursor=record.cursor, due_at=record.due_at, failures=record.failures),
        )
