"""`flow.schedules`: what runs at certain times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from flowstone.app.async_face import AsyncFlowStone, awaitable
from flowstone.app.declared_automations import DeclaredAutomations
from flowstone.app.placement import Placement
from flowstone.app.wiring import Parts
from flowstone.core.automation.record import (
    AutomationKind,
    AutomationRecord,
    NewTick,
    TakenAutomation,
    TickRecord,
    TickState,
)
from flowstone.core.automation.schedule import Schedule
from flowstone.core.declaring import view
from flowstone.core.text import clean_text
from flowstone.engine.automation.schedules import ScheduleEvaluator
from flowstone.errors import DefinitionError, FlowStoneError, OptionsError

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


@view("flow.schedules")
class SchedulesView(DeclaredAutomations[ScheduleEvaluator]):
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

    kind = AutomationKind.SCHEDULE

    def __init__(self, parts: Parts, placement: Placement, schedules: Iterable[Schedule]) -> None:
        super().__init__(parts.store.automations)
        self._parts = parts
        self._placement = placement
        for schedule in schedules:
            try:
                placement.check_request(schedule.request(None))
            except OptionsError as error:
                raise DefinitionError(f"Schedule {schedule.name!r}: {error}") from error
            self._add(schedule.name, ScheduleEvaluator(schedule, parts.graph, placement.prepare_request))
        parts.evaluators.extend(self._evaluators.values())

    def list(self) -> list[ScheduleStatus]:
        """Return all schedules with their next instants."""
        records = self._records()
        return [self._status(one, records.get(name), 1) for name, one in self._evaluators.items()]

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
            self._store.release(taken)
            raise
        self._conclude(taken, tick)
        return self._store.ticks(one.id, limit=1)[0]

    def _run(self, one: ScheduleEvaluator, taken: TakenAutomation) -> NewTick:
        partition, skips = one.partition(taken.now)
        if skips is not None:
            return NewTick(at=taken.now, state=TickState.SKIPPED, reason=skips)
        request, run_id = one.schedule.request(partition), one.run_id(taken.now, taken)
        order = self._placement.requested(request, run_id=run_id, kind="schedule", now=taken.now)
        self._placement.run(order)
        return NewTick(at=taken.now, state=TickState.REQUESTED, run_ids=[run_id])

    def _status(self, one: ScheduleEvaluator, record: AutomationRecord | None, n: int) -> ScheduleStatus:
        upcoming = one.schedule.next_ticks(datetime.now(UTC), n)
        return ScheduleStatus(one.schedule, record, upcoming, self._newest(one, record))


class AsyncSchedulesView(AsyncFlowStone):
    """`flow.aio.schedules`: the verbs of `flow.schedules`, awaitable."""

    list = awaitable(SchedulesView.list)
    get = awaitable(SchedulesView.get)
    next_ticks = awaitable(SchedulesView.next_ticks)
    run_now = awaitable(SchedulesView.run_now)
    ticks = awaitable(SchedulesView.ticks)
    pause = awaitable(SchedulesView.pause)
    resume = awaitable(SchedulesView.resume)
