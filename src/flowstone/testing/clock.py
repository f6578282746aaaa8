"""A clock that stands still, for tests of schedules, sensors, conditions and of what partitions are over."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from flowstone.app.flow import FlowStone
from flowstone.core.automation.record import TickRecord
from flowstone.core.declaring import shown
from flowstone.errors import OptionsError

DEFAULT_START = datetime(2024, 1, 1, tzinfo=UTC)
_CALENDAR = (
    "flowstone.app.flow",
    "flowstone.app.submit",
    "flowstone.app.targets",
    "flowstone.app.committed",
    "flowstone.app.launch",
    "flowstone.app.automation",
    "flowstone.app.conditions",
    "flowstone.app.partition_keys",
)
"""The modules in which the present decides which partitions are over and what is due. What is recorded of an
attempt has the real time, and waiting goes by it."""


class FrozenClock:
    """The present, as an app sees it that follows the clock: a test moves it on.

    It stands in the past: attempts are recorded with the real time, and before the end of their partition they
    would count as too early.

    Args:
        start: where it stands at first, timezone-aware, or text such as "2024-03-01T05:59"; UTC without an offset.

    Example:
        >>> from flowstone import DailyPartitions, Schedule, asset
        >>> @asset(partitions=DailyPartitions("2024-01-01"))
        ... def sales(context):
        ...     return context.partition.day
        >>> with FrozenClock("2024-02-01") as clock:
        ...     flow = FlowStone.for_testing([sales], schedules=[Schedule("sales", "0 6 * * *")])
        ...     ticks = clock.follow(flow) and clock.advance(days=2)
        >>> [f"{tick.at:%d. %H:%M}" for tick in ticks], flow.load("sales", partition="2024-02-01")
        (['01. 06:00', '02. 06:00'], 1)
    """

    def __init__(self, start: datetime | str = DEFAULT_START) -> None:
        self._now = _moment("start", start)
        self._flows: list[FlowStone] = []
        self._restore: list[Callable[[], None]] = []

    def __enter__(self) -> FrozenClock:
        frozen = _frozen(self)
        for name in _CALENDAR:
            module = sys.modules[name]
            self._restore.append(_setter(module, module.__dict__["datetime"]))
            _setter(module, frozen)()
        return self

    def __exit__(self, *_: object) -> None:
        while self._restore:
            self._restore.pop()()

    def now(self) -> datetime:
        """Return where it stands."""
        return self._now

    def follow(self, flow: FlowStone) -> FlowStone:
        """Have the schedules, sensors and conditions of an app go by this clock, from now on; return the app."""
        store = flow.parts.store.automations
        store.use_clock(self.now)
        evaluators = flow.evaluators
        store.declare([one.id for one in evaluators], paused=[one.id for one in evaluators if one.starts_paused])
        self._flows.append(flow)
        return flow

    def move_to(self, to: datetime | str) -> Sequence[TickRecord]:
        """Go to a time, and through everything that becomes due on the way, in its order.

        Without an app that follows yet, the clock may go back as well.

        Returns:
            The ticks of schedules and sensors, in this order. In memory their runs are over; with a database they
            are placed on the queue.

        Raises:
            OptionsError: the time is not one, lies in the future, or before what apps have seen.
        """
        goal = _moment("to", to)
        if not self._flows:
            self._now = goal
            return []
        if goal < self._now:
            raise OptionsError(
                f"The clock cannot go back from {self._now.isoformat()} to {goal.isoformat()}: an app follows it. "
                "Move it before the app is made."
            )
        found = self.tick()
        while (due := self._next_due()) is not None and due <= goal:
            self._now = max(self._now, due)
            ticks = self._evaluate()
            found += ticks
            if not ticks and self._next_due() == due:
                break  # another process evaluates it
        self._now = goal
        return [*found, *self.tick()]

    def advance(self, **by: float) -> Sequence[TickRecord]:
        """Go on by a time, such as `advance(days=1, hours=6)`; see `move_to`."""
        return self.move_to(self._now + timedelta(**by))

    def tick(self) -> list[TickRecord]:
        """Evaluate what is due, without moving the clock; conditions as well."""
        found = self._evaluate()
        for flow in self._flows:
            self._conditions(flow)
        return found

    def _evaluate(self) -> list[TickRecord]:
        found: list[TickRecord] = []
        for flow in self._flows:
            ticks = [*flow.schedules.run_due(), *flow.sensors.run_due()]
            if any(tick.run_ids for tick in ticks):
                self._conditions(flow)
            found += ticks
        return found

    def _conditions(self, flow: FlowStone) -> None:
        if not flow.conditions.evaluators:
            return
        if not flow.parts.store.durable:
            flow.conditions.run(now=self._now)
            return
        store = flow.parts.store.automations
        evaluators = {one.id: one for one in flow.conditions.evaluators}
        for taken in store.take(list(evaluators), lease_seconds=3600.0, limit=len(evaluators)):
            for conclusion in evaluators[taken.record.id].evaluate(taken):
                store.conclude(taken, conclusion)
                if not conclusion.goes_on:
                    break

    def _next_due(self) -> datetime | None:
        """Return when a schedule or sensor is due next."""
        found = []
        for flow in self._flows:
            stepped = {one.id for one in [*flow.schedules.evaluators, *flow.sensors.evaluators]}
            records = flow.parts.store.automations.records()
            found += [one.due_at for one in records if one.id in stepped and not one.paused and one.due_at]
        return min(found, default=None)


def _setter(module: Any, value: object) -> Callable[[], None]:
    return lambda: setattr(module, "datetime", value)


def _moment(option: str, given: datetime | str) -> datetime:
    try:
        at = datetime.fromisoformat(given) if isinstance(given, str) else given
    except ValueError as error:
        raise OptionsError(f"{option}={given!r} is no time: write for example 2024-03-01T05:59.") from error
    if not isinstance(at, datetime):
        raise OptionsError(f"{option}={shown(given)}: give a datetime, or text such as 2024-03-01T05:59.")
    if at.tzinfo is None:
        if not isinstance(given, str):
            raise OptionsError(f"{option}={given!r} has no time zone. Write datetime(..., tzinfo=UTC).")
        at = at.replace(tzinfo=UTC)
    if at > datetime.now(UTC):
        raise OptionsError(
            f"{option}={at.isoformat()} lies in the future. Attempts are recorded with the real time, and those "
            "of partitions that end later would count as too early: take a time in the past."
        )
    return at.astimezone(UTC)


def _frozen(clock: FrozenClock) -> type[datetime]:
    """Return a class in place of `datetime`: its present is that of a clock, its instances are real ones."""

    class OfAnyDatetime(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, datetime)

    class FrozenDatetime(datetime, metaclass=OfAnyDatetime):
        def __new__(cls, *args: Any, **keywords: Any) -> datetime:  # type: ignore[misc]
            return datetime(*args, **keywords)

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            found = clock.now()
            return found.astimezone(tz) if tz is not None else found.astimezone().replace(tzinfo=None)

    return FrozenDatetime
