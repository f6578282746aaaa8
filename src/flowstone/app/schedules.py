"""`flow.schedules`: what runs at certain times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from flowstone.app.placement import Placement
from flowstone.app.wiring import Parts
from flowstone.core.automation.record import (
    AutomationKind,
    AutomationRecord,
    Conclusion,
    NewTick,
    TakenAutomation,
    TickRecord,
    TickState,
)
from flowstone.core.automation.schedule import Schedule
from flowstone.core.text import clean_text
from flowstone.engine.automation.schedules import ScheduleEvaluator
from flowstone.errors import DefinitionError, FlowStoneError, UnknownAutomationError

_LEASE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class ScheduleStatus:
    """A schedule as it stands.

    Args:
        schedule: the declaration.
        record: what the store knows of it; None before a node or a person touched it first.
        next_ticks: its next instants, on the clock of its zone.
        last: its newest tick.
    """

    schedule: Schedule
    record: AutomationRecord | None
    next_ticks: Sequence[datetime]
    last: TickRecord | None = None

    @property
    def paused(self) -> bool:
        """Whether nothing of it is evaluated."""
        return self.schedule.paused if self.record is None else self.record.paused


class SchedulesView:
    """Lists, pauses and runs the schedules of the app; worker nodes evaluate them.

    Example:
        >>> from flowstone import FlowStone, Schedule, asset
        >>> @asset
        ... def sales():
        ...     return 42
        >>> flow = FlowStone.for_testing([sales], schedules=[Schedule("sales", "0 6 * * *")])
        >>> flow.schedules.run_now("sales").state.value, flow.load("sales")
        ('requested', 42)
    """

    def __init__(self, parts: Parts, placement: Placement, schedules: Iterable[Schedule]) -> None:
        self._parts = parts
        self._placement = placement
        self._store = parts.store.automations
        self._evaluators: dict[str, ScheduleEvaluator] = {}
        for schedule in schedules:
            if schedule.name in self._evaluators:
                raise DefinitionError(f"There are two schedules named {schedule.name!r}. Give one another name=.")
            self._evaluators[schedule.name] = ScheduleEvaluator(schedule, parts.graph, placement.prepare_request)
        parts.evaluators.extend(self._evaluators.values())

    def list(self) -> list[ScheduleStatus]:
        """Return all schedules with their next instants."""
        records = {record.id: record for record in self._store.records()}
        return [self._status(one, records.get(one.id), 1) for one in self._evaluators.values()]

    def get(self, name: str, *, n: int = 5) -> ScheduleStatus:
        """Return a schedule with its next `n` instants.

        Raises:
            UnknownAutomationError: there is no such schedule.
        """
        found = self._find(name)
        return self._status(found, self._store.record(found.id), n)

    def next_ticks(self, name: str, n: int = 5) -> Sequence[datetime]:
        """Return the next instants of a schedule, on the clock of its zone; paused or not.

        Raises:
            UnknownAutomationError: there is no such schedule.
        """
        return self._find(name).schedule.next_ticks(datetime.now(UTC), n)

    def ticks(self, name: str | None = None, *, limit: int = 50) -> Sequence[TickRecord]:
        """Return the newest ticks of a schedule, or of all schedules.

        Raises:
            UnknownAutomationError: there is no such schedule.
        """
        if name is not None:
            return self._store.ticks(self._find(name).id, limit=limit)
        ticks = [tick for one in self._evaluators.values() for tick in self._store.ticks(one.id, limit=limit)]
        return sorted(ticks, key=lambda tick: tick.id, reverse=True)[:limit]

    def pause(self, name: str) -> bool:
        """Evaluate a schedule no more, on any node, until it is resumed; return whether it was not paused.

        Raises:
            UnknownAutomationError: there is no such schedule.
        """
        return self._store.set_paused(self._declared(name).id, paused=True)

    def resume(self, name: str) -> bool:
        """Go on with a paused schedule; what it missed goes by its `catch_up`. Return whether it was paused.

        Raises:
            UnknownAutomationError: there is no such schedule.
        """
        return self._store.set_paused(self._declared(name).id, paused=False)

    def run_now(self, name: str) -> TickRecord | None:
        """Have a schedule run now, beside its regular instants and even while it is paused.

        With a queue, a worker node does that within about a second; without, it is done here and now.

        Returns:
            The tick when it was done here, None when a node does it.

        Raises:
            UnknownAutomationError: there is no such schedule.
            FlowStoneError: it was done here, and cannot be planned.
        """
        found = self._declared(name)
        self._store.request(found.id)
        if self._parts.store.durable:
            return None
        taken = self._store.take([found.id], lease_seconds=_LEASE_SECONDS)
        return self._run_here(found, taken[0]) if taken else None

    def _run_here(self, one: ScheduleEvaluator, taken: TakenAutomation) -> TickRecord:
        try:
            tick = self._run(one, taken)
        except FlowStoneError as error:
            self._conclude(taken, NewTick(at=taken.now, state=TickState.FAILED, error=clean_text(str(error))))
            raise
        except BaseException:
            self._store.give_back(taken)
            raise
        self._conclude(taken, tick)
        return self._store.ticks(one.id, limit=1)[0]

    def _conclude(self, taken: TakenAutomation, tick: NewTick) -> None:
        record = taken.record
        self._store.conclude(
            taken,
            Conclusion(ticks=[tick], cursor=record.cursor, due_at=record.due_at, failures=record.failures),
        )

    def _run(self, one: ScheduleEvaluator, taken: TakenAutomation) -> NewTick:
        partition, skips = one.partition(taken.now)
        if skips is not None:
            return NewTick(at=taken.now, state=TickState.SKIPPED, reason=skips)
        request, run_id = one.schedule.request(partition), one.run_id(taken.now, taken)
        order = self._placement.requested(request, run_id=run_id, kind="schedule", now=taken.now)
        self._placement.run(order)
        return NewTick(at=taken.now, state=TickState.REQUESTED, run_ids=[run_id])

    def _status(self, one: ScheduleEvaluator, record: AutomationRecord | None, n: int) -> ScheduleStatus:
        last = self._store.ticks(one.id, limit=1) if record is not None else []
        upcoming = one.schedule.next_ticks(datetime.now(UTC), n)
        return ScheduleStatus(one.schedule, record, upcoming, last[0] if last else None)

    def _declared(self, name: str) -> ScheduleEvaluator:
        """Return a schedule that the store knows, whether or not a node has run yet."""
        found = self._find(name)
        self._store.declare([found.id], paused=[found.id] if found.starts_paused else [])
        return found

    def _find(self, name: str) -> ScheduleEvaluator:
        try:
            return self._evaluators[name]
        except KeyError:
            raise UnknownAutomationError(AutomationKind.SCHEDULE, name, self._evaluators) from None
