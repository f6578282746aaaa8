"""Evaluating schedules: which instants have come, and what each of them asks for."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice
from typing import NamedTuple

from flowstone.core.asset import Asset
from flowstone.core.automation.record import AutomationId, Conclusion, NewTick, TakenAutomation, TickState
from flowstone.core.automation.schedule import CatchUp, Schedule
from flowstone.core.clean import clean_text
from flowstone.core.definition import ListedPartitions
from flowstone.core.graph import AssetGraph
from flowstone.core.partitions import Partition, encode_partition
from flowstone.core.partitions_by_time import TimePartitions
from flowstone.core.selection import select
from flowstone.engine.failures import failure
from flowstone.errors import DatabaseError, DefinitionError, FlowStoneError
from flowstone.protocols import Evaluator, PrepareRun

PUNCTUAL_SECONDS = 60.0
"""How late an instant may be evaluated and still counts as met, at most; half of the time to the next one if
that is less."""
_MAX_AT_ONCE = 100
_COUNTED = 1000


class Position(NamedTuple):
    """How far a schedule has come: its cursor.

    Example:
        >>> from datetime import UTC
        >>> position = Position("0 * * * * UTC", datetime(2024, 1, 1, tzinfo=UTC))
        >>> Position.read(position.text()) == position
        True
    """

    fingerprint: str
    at: datetime

    def text(self) -> str:
        """Return it as the text of a cursor."""
        return json.dumps({"times": self.fingerprint, "at": self.at.isoformat()})

    @classmethod
    def read(cls, text: str | None) -> Position | None:
        """Return the position in a cursor; None when there is none that can be read."""
        try:
            found = json.loads(text or "")
            at = datetime.fromisoformat(found["at"])
            return cls(str(found["times"]), at) if at.tzinfo is not None else None
        except (ValueError, TypeError, KeyError):
            return None


class ScheduleEvaluator(Evaluator):
    """Implements `flowstone.protocols.Evaluator` for a schedule.

    Args:
        schedule: the declaration.
        graph: the assets of the app.
        prepare: plans and checks a run.

    Raises:
        SelectionError: the selection cannot be read, or selects nothing.
        DefinitionError: it needs a `partition` function.
    """

    timeout_seconds = 60.0

    def __init__(self, schedule: Schedule, graph: AssetGraph, prepare: PrepareRun) -> None:
        self.schedule = schedule
        self._prepare = prepare
        self._lead = _lead(schedule, graph)

    @property
    def id(self) -> AutomationId:
        """Kind and name."""
        return self.schedule.id

    @property
    def starts_paused(self) -> bool:
        """Whether it begins paused."""
        return self.schedule.paused

    def evaluate(self, taken: TakenAutomation) -> Iterator[Conclusion]:
        record = taken.record
        if taken.by_hand:
            tick = self.tick(taken.now, taken)
            yield Conclusion(ticks=[tick], cursor=record.cursor, due_at=record.due_at, failures=record.failures)
            return
        start = self._position(taken).at
        following = next(iter(self.schedule.times.after(taken.now)), None)
        if self.schedule.catch_up == CatchUp.ALL:
            yield from self._all(start, following, taken)
            return
        last = self.schedule.times.last(start, taken.now)
        ticks = [] if last is None else list(self._newest(start, last, following, taken))
        yield self._conclusion(ticks, last or start, following)

    def tick(self, at: datetime, taken: TakenAutomation) -> NewTick:
        """Return what an instant comes to; one that cannot be planned is a failed tick, not an error."""
        began = time.monotonic()
        try:
            partition, skips = self.partition(at)
            if skips is not None:
                return NewTick(at=at, state=TickState.SKIPPED, reason=skips)
            request = self.schedule.request(partition)
            ready = self._prepare(request, run_id=self.run_id(at, taken), kind="schedule", now=at)
        except DatabaseError:
            raise  # nothing is known about the instant; it is tried again
        except FlowStoneError as error:
            return NewTick(at=at, state=TickState.FAILED, error=clean_text(str(error)))
        run = replace(ready.run, created_at=taken.now)
        took = time.monotonic() - began
        return NewTick(at=at, state=TickState.REQUESTED, runs=[ready._replace(run=run)], took_seconds=took)

    def partition(self, at: datetime) -> tuple[Partition, str | None]:
        """Return the partition of an instant, or why it has none.

        Raises:
            FlowStoneError: the function of the schedule raised; holds its traceback.
        """
        requested = self.schedule.partition
        definition = self._lead.partitions if self._lead is not None else None
        if requested is not None:
            try:
                partition = requested(at.astimezone(self.schedule.times.zone))
                encode_partition(partition)
            except Exception as error:
                raise FlowStoneError(failure(error, None).error) from error
            return partition, "its partition function returned None" if partition is None else None
        if definition is None or isinstance(definition, ListedPartitions):
            return None, None
        partition = definition.last(at)
        return partition, "no partition was complete yet" if partition is None else None

    def run_id(self, at: datetime, taken: TakenAutomation) -> str:
        """Return the id of the run of an instant: the same one whoever evaluates it, however often."""
        suffix = "-by-hand" if taken.by_hand else ""
        return f"{self.schedule.name}@{at.isoformat().replace('+00:00', 'Z')}{suffix}"

    def _position(self, taken: TakenAutomation) -> Position:
        """Return how far it has come; from now on when the times were changed, as the past was another one's."""
        fingerprint = self.schedule.times.fingerprint
        before = Position.read(taken.record.cursor)
        if before is None:
            return Position(fingerprint, taken.record.since)
        return before if before.fingerprint == fingerprint else Position(fingerprint, taken.now)

    def _newest(
        self, start: datetime, last: datetime, following: datetime | None, taken: TakenAutomation
    ) -> Iterator[NewTick]:
        """Yield the last instant, and one skipped tick for all that were missed."""
        moment = timedelta(microseconds=1)
        late = taken.now - last
        is_missed = self.schedule.catch_up == CatchUp.SKIP and late > _punctual(last, following)
        until = last if is_missed else last - moment
        missed = list(islice(self.schedule.times.between(start, until), _COUNTED + 1))
        if missed:
            newest = self.schedule.times.last(start, until)
            assert newest is not None
            yield NewTick(at=newest, state=TickState.SKIPPED, reason=_missed(missed, newest, self.schedule))
        if not is_missed:
            yield self.tick(last, taken)

    def _all(self, start: datetime, following: datetime | None, taken: TakenAutomation) -> Iterator[Conclusion]:
        """Conclude one instant after the other, the oldest first, so many at a time."""
        ticks = list(islice(self.schedule.times.between(start, taken.now), _MAX_AT_ONCE + 1))
        for at in ticks[:_MAX_AT_ONCE]:
            yield self._conclusion([self.tick(at, taken)], at, taken.now, goes_on=True)
        done = ticks[:_MAX_AT_ONCE][-1] if ticks else start
        yield self._conclusion([], done, following if len(ticks) <= _MAX_AT_ONCE else taken.now)

    def _conclusion(
        self, ticks: list[NewTick], at: datetime, due_at: datetime | None, *, goes_on: bool = False
    ) -> Conclusion:
        cursor = Position(self.schedule.times.fingerprint, at).text()
        return Conclusion(ticks=ticks, cursor=cursor, due_at=due_at, goes_on=goes_on)


def _lead(schedule: Schedule, graph: AssetGraph) -> Asset | None:
    """Return the asset whose partitions the instants speak of."""
    names = select(graph, schedule.selection)
    lead = next((graph[name] for name in names if graph[name].partitions is not None), None)
    known = lead is None or isinstance(lead.partitions, TimePartitions | ListedPartitions)
    if schedule.partition is None and not known:
        assert lead is not None
        raise DefinitionError(
            f"Schedule {schedule.name!r} does not know which partition of {lead.name!r} an instant means: it has "
            f"{type(lead.partitions).__name__}. Pass partition=, a function of the instant."
        )
    if schedule.partition is not None and lead is None:
        raise DefinitionError(
            f"Schedule {schedule.name!r} has a partition function, but none of {', '.join(names)} is partitioned. "
            "Leave it out."
        )
    return lead


def _punctual(last: datetime, following: datetime | None) -> timedelta:
    limit = timedelta(seconds=PUNCTUAL_SECONDS)
    return limit if following is None else min(limit, (following - last) / 2)


def _missed(missed: list[datetime], newest: datetime, schedule: Schedule) -> str:
    number = f"{len(missed)}" if len(missed) <= _COUNTED else f"more than {_COUNTED:,}"
    instants = "instant was" if len(missed) == 1 else "instants were"
    return (
        f"{number} {instants} missed, from {missed[0].isoformat()} to {newest.isoformat()} "
        f"(catch_up={str(schedule.catch_up)!r})"
    )
