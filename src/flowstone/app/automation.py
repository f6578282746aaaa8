"""`flow.schedules` and `flow.sensors`: what runs by itself, as people list, pause, try and evaluate it.

`SensorRuns` makes runs of what sensors request; `DeclaredAutomations` is what both views share: names, pausing,
ticks. Evaluation itself is in `engine/automation`; conditions have a view of their own, in `app/conditions`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import ClassVar

from flowstone.app.asynchronous import AsyncFlowStone, awaitable
from flowstone.app.build import Parts
from flowstone.app.driving import SubmittedRun
from flowstone.app.partition_keys import PartitionKeysView
from flowstone.app.submit import Placement, options_for
from flowstone.app.targets import whole_number
from flowstone.core.automation.record import (
    AutomationKind,
    AutomationRecord,
    Conclusion,
    NewTick,
    PartitionChange,
    PreparedRun,
    RunKey,
    TakenAutomation,
    TickRecord,
    TickState,
)
from flowstone.core.automation.schedule import Schedule
from flowstone.core.automation.sensor import RunRequest, Sensor, check_cursor
from flowstone.core.clean import clean_text
from flowstone.core.declaring import shown, view
from flowstone.core.selection import select
from flowstone.core.step import NewRun
from flowstone.engine.automation.schedules import ScheduleEvaluator
from flowstone.engine.automation.sensors import SensorEvaluator, SensorParts
from flowstone.engine.failures import failure
from flowstone.engine.planner import Plan
from flowstone.engine.run_spec import RunSpec
from flowstone.errors import (
    DefinitionError,
    FlowStoneError,
    OptionsError,
    PartitionError,
    SensorError,
    UnknownAutomationError,
)
from flowstone.protocols import AutomationStore, Evaluator

type _Ready = tuple[RunSpec, NewRun, Plan]


class SensorRuns:
    """Prepares requests; without a queue it also takes to their end those that the store has opened.

    Args:
        parts: of the app.
        placement: plans and drives.
    """

    def __init__(self, parts: Parts, placement: Placement) -> None:
        self._parts = parts
        self._placement = placement
        # per thread: what one evaluation prepared is not another's to drive
        self._prepared = threading.local()

    def prepare(self, request: RunRequest, *, run_id: str, kind: str, now: datetime | None = None) -> PreparedRun:
        """Prepare the run of a request, to be placed with the tick that asked for it."""
        self._refuse_all_partitions(request)
        return self.prepare_tick(request, run_id=run_id, kind=kind, now=now)

    def prepare_tick(
        self, request: RunRequest, *, run_id: str, kind: str, now: datetime | None = None
    ) -> PreparedRun:
        """Prepare the run of a schedule, which may mean every partition."""
        if self._parts.store.durable:
            return self._placement.prepare_request(request, run_id=run_id, kind=kind, now=now)
        spec = self._placement.requested(request, run_id=run_id, kind=kind, now=now)
        run, plan = self._placement.prepare(spec, self._placement.executor(spec.executor))
        self._mine()[run_id] = spec, run, plan
        return PreparedRun(run, plan.steps, request.run_key)

    def drive(self, run_ids: Sequence[str]) -> None:
        """Take runs that were opened to their end; with a queue, workers do that."""
        mine = {run_id: ready for run_id in run_ids if (ready := self._ready(run_id)) is not None}
        left = [*mine]
        try:
            while left:
                self._placement.driving.drive(self._submitted(*mine[left[0]]))
                del left[0]
        except BaseException:
            for run_id in left:  # nobody else will run them, and later requests would wait for them
                self._parts.store.ledger.cancel_run(run_id)
            raise
        finally:
            self.forget()

    def forget(self) -> None:
        """Drop what this thread prepared."""
        self._mine().clear()

    def _submitted(self, spec: RunSpec, run: NewRun, plan: Plan) -> SubmittedRun:
        # it is open: opening it again only returns its steps, all of which look joined
        opened = self._parts.store.ledger.open_run(run, plan.steps)
        steps = [replace(one, deduplicated=one.run_id != run.id) for one in opened]
        executor = self._placement.executor(spec.executor)
        read_details = self._parts.store.catalog.run_details
        return SubmittedRun(spec, run, plan, executor, options_for(spec, executor), steps, read_details)

    def _ready(self, run_id: str) -> _Ready | None:
        """Return what was prepared for a run; one of a forgotten run key has got another id when it was opened."""
        mine = self._mine()
        if run_id in mine:
            return mine[run_id]
        ready = mine.get(run_id.rpartition("-")[0])
        return None if ready is None else (ready[0], replace(ready[1], id=run_id), ready[2])

    def _mine(self) -> dict[str, _Ready]:
        mine: dict[str, _Ready] | None = getattr(self._prepared, "runs", None)
        if mine is None:
            mine = self._prepared.runs = {}
        return mine

    def _refuse_all_partitions(self, request: RunRequest) -> None:
        """Refuse a request that forgot its partition, and would compute every one there is."""
        if request.partition is not None:
            return
        graph = self._parts.graph
        for name in select(graph, request.selection):
            if graph[name].partitions is not None:
                raise PartitionError(
                    f"Asset {name!r} is partitioned by {graph[name].partitions!r}; say which partition the run is "
                    "for: context.request(partition=...)."
                )


_LEASE_SECONDS = 3600.0
_MAX_TICKS = 10_000


class DeclaredAutomations[One: Evaluator]:
    """The automations of one kind that an app declares.

    Args:
        store: where they are recorded.
        runs: prepares what they request.
    """

    kind: ClassVar[AutomationKind]

    def __init__(self, store: AutomationStore, runs: SensorRuns) -> None:
        self._store = store
        self._runs = runs
        self._evaluators: dict[str, One] = {}

    @property
    def evaluators(self) -> Sequence[One]:
        """What worker nodes evaluate."""
        return list(self._evaluators.values())

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

    def run_due(self) -> Sequence[TickRecord]:
        """Evaluate, here and now, what is due and not paused; without a queue its runs are over when this returns.

        Workers do this by themselves; this is for apps and tests without any.

        Returns:
            What was recorded, in this order.
        """
        evaluators = {one.id: one for one in self._evaluators.values()}
        self._store.declare(list(evaluators), paused=[one.id for one in evaluators.values() if one.starts_paused])
        done: list[TickRecord] = []
        for taken in self._store.take(list(evaluators), lease_seconds=_LEASE_SECONDS, limit=len(evaluators) or 1):
            done += self._run_taken(evaluators[taken.record.id], taken)
        return done

    def _run_taken(self, one: One, taken: TakenAutomation) -> Sequence[TickRecord]:
        before = max((tick.id for tick in self._store.ticks(one.id, limit=1)), default=0)
        try:
            for conclusion in one.evaluate(taken):
                self._runs.drive(self._store.conclude(taken, conclusion).run_ids)
                if not conclusion.goes_on:
                    break
        except Exception as error:  # noqa: BLE001 - it is recorded, as on a worker
            self._conclude(taken, NewTick(at=taken.now, state=TickState.FAILED, error=failure(error, None).error))
        except BaseException:
            self._store.release(taken)
            raise
        finally:
            self._runs.forget()
        return [tick for tick in reversed(self._store.ticks(one.id, limit=_MAX_TICKS)) if tick.id > before]

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
        given: object = name
        if not isinstance(given, str) or given not in self._evaluators:
            text = given if isinstance(given, str) else shown(given)
            raise UnknownAutomationError(self.kind, text, self._evaluators)
        return self._evaluators[given]

    def _conclude(self, taken: TakenAutomation, tick: NewTick) -> None:
        """Record a tick and leave cursor and next instant as they are."""
        record = taken.record
        self._store.conclude(
            taken,
            Conclusion(ticks=[tick], cursor=record.cursor, due_at=record.due_at, failures=record.failures),
        )


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
        super().__init__(parts.store.automations, SensorRuns(parts, placement))
        self._parts = parts
        self._placement = placement
        for schedule in schedules:
            try:
                placement.check_request(schedule.request(None))
            except OptionsError as error:
                raise DefinitionError(f"Schedule {schedule.name!r}: {error}") from error
            self._add(schedule.name, ScheduleEvaluator(schedule, parts.graph, self._runs.prepare_tick))

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
        spec = self._placement.requested(request, run_id=run_id, kind="schedule", now=taken.now)
        self._placement.run(spec)
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
    run_due = awaitable(SchedulesView.run_due)


_LEASE_MARGIN_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class SensorStatus:
    """A sensor as it stands.

    Args:
        sensor: the declaration.
        record: what the store knows of it; None before a node or a person touched it first.
        last: its newest tick.
    """

    sensor: Sensor
    record: AutomationRecord | None
    last: TickRecord | None = None

    @property
    def paused(self) -> bool:
        """Whether nothing of it is evaluated."""
        return self.sensor.paused if self.record is None else self.record.paused


@dataclass(frozen=True, slots=True)
class SensorPreview:
    """What an evaluation would do; nothing of it was done.

    Args:
        requests: the runs it asks for, planned and checked. Those whose run key was used before would be left out.
        steps: how many steps each of them would have.
        cursor: the cursor it would leave.
        partitions: keys of dynamic partitions that it would add or remove.
        skip_reason: why there is nothing to do.
    """

    requests: Sequence[RunRequest]
    steps: Sequence[int]
    cursor: str | None
    partitions: Sequence[PartitionChange] = ()
    skip_reason: str | None = None


@view("flow.sensors")
class SensorsView(DeclaredAutomations[SensorEvaluator]):
    """Lists, pauses, tries and evaluates the sensors of the app; worker nodes evaluate them by themselves.

    Example:
        >>> from flowstone import FlowStone, asset, sensor
        >>> @asset
        ... def orders():
        ...     return 42
        >>> @sensor(selection="orders")
        ... def inbox(context):
        ...     return context.request(run_key="a.csv")
        >>> flow = FlowStone.for_testing([orders], sensors=[inbox])
        >>> flow.sensors.evaluate("inbox").state.value, flow.load("orders")
        ('requested', 42)
        >>> flow.sensors.evaluate("inbox").reason
        'everything it asked for had run before'
    """

    kind = AutomationKind.SENSOR

    def __init__(
        self, parts: Parts, placement: Placement, keys: PartitionKeysView, sensors: Iterable[Sensor]
    ) -> None:
        super().__init__(parts.store.automations, SensorRuns(parts, placement))
        self._parts = parts
        given = SensorParts(
            prepare=self._runs.prepare,
            resources=parts.resources,
            coroutines=parts.coroutines,
            assume=parts.keys.assuming,
            definitions=keys.names(),
        )
        for sensor in sensors:
            self._check(sensor)
            self._add(sensor.name, SensorEvaluator(sensor, given))

    def list(self) -> list[SensorStatus]:
        """Return all sensors as they stand."""
        records = self._records()
        return [self._status(one, records.get(name)) for name, one in self._evaluators.items()]

    def get(self, name: str) -> SensorStatus:
        """Return a sensor as it stands.

        Raises:
            UnknownAutomationError: there is no such sensor.
        """
        found = self._find(name)
        return self._status(found, self._store.record(found.id))

    def set_cursor(self, name: str, cursor: str | None) -> None:
        """Let a sensor go on from another cursor; None is the beginning. An evaluation at work concludes nothing.

        What ran stays as it is, and run keys that were used do not trigger again.

        Raises:
            UnknownAutomationError: there is no such sensor.
            SensorError: that cannot be a cursor.
        """
        check_cursor(name, cursor)
        self._store.set_cursor(self._declared(name).id, cursor)

    def run_keys(self, name: str, *, key: str | None = None, limit: int = 100) -> Sequence[RunKey]:
        """Return the run keys that a sensor has used, the newest first, with the runs that they triggered.

        Args:
            name: the sensor.
            key: only this one.
            limit: how many at most.

        Raises:
            UnknownAutomationError: there is no such sensor.
            OptionsError: the limit is less than 1.
        """
        if limit < 1:
            raise OptionsError(f"limit={limit!r}: give at least 1.")
        return self._store.run_keys(self._find(name).id, key=key, limit=limit)

    def forget_run_keys(self, name: str, keys: Iterable[str]) -> Sequence[str]:
        """Let run keys trigger again, the next time that the sensor asks for them; their runs stay recorded.

        Args:
            name: the sensor.
            keys: the run keys; those that were not used are left out.

        Returns:
            Those that may trigger again.

        Raises:
            UnknownAutomationError: there is no such sensor.
            OptionsError: `keys` is no list of texts.
        """
        if isinstance(keys, str):
            raise OptionsError(f"keys={keys!r} is one run key; pass a list: [{keys!r}].")
        given = [*keys]
        for key in given:
            if not isinstance(key, str):
                raise OptionsError(f"keys: {key!r} is no run key; they are texts.")
        return self._store.forget_run_keys(self._find(name).id, [clean_text(key) for key in given])

    def run_now(self, name: str) -> TickRecord | None:
        """Have a sensor evaluated now, even while it is paused.

        With a queue, a worker node does that within about a second; without, it is done here and now.

        Returns:
            The tick when it was done here, None when a node does it.

        Raises:
            UnknownAutomationError: there is no such sensor.
            BaseException: it was done here, and failed; see `evaluate`.
        """
        if not self._parts.store.durable:
            return self.evaluate(name)
        self._store.request(self._declared(name).id)
        return None

    def evaluate(self, name: str) -> TickRecord:
        """Evaluate a sensor in this thread and return the tick, even while it is paused.

        The runs it asks for are placed on the queue or, without one, are over when this returns. This is what
        tests of a sensor want.

        Raises:
            UnknownAutomationError: there is no such sensor.
            SensorError: a node evaluates it just now, or it answers with what cannot work.
            BaseException: whatever its function raises; that is recorded too.
        """
        found = self._declared(name)
        self._store.request(found.id)
        lease_seconds = found.timeout_seconds + _LEASE_MARGIN_SECONDS
        taken = self._store.take([found.id], lease_seconds=lease_seconds)
        if not taken:
            raise SensorError(name, "a worker evaluates it just now, and does so once more for you after that.")
        try:
            conclusion = next(found.evaluate(taken[0]))
        except BaseException as error:
            self._record_failure(taken[0], error)
            raise
        concluded = self._store.conclude(taken[0], conclusion)
        self._runs.drive(concluded.run_ids)
        return self._store.ticks(found.id, limit=1)[0]

    def preview(self, name: str) -> SensorPreview:
        """Evaluate a sensor in this thread, from its cursor, without recording or placing anything.

        Raises:
            UnknownAutomationError: there is no such sensor.
            SensorError: it answers with what cannot work.
            BaseException: whatever its function raises.
        """
        found, now = self._find(name), datetime.now(UTC)
        record = self._store.record(found.id)
        if record is None:
            record = AutomationRecord(id=found.id, paused=found.starts_paused, cursor=None, since=now, due_at=now)
        taken = TakenAutomation(record=record, token=0, now=now, by_hand=True)
        sensed = found.sense(taken)
        planned = found.prepare(taken, sensed)
        self._runs.forget()
        steps = [len(one.steps) for one in planned]
        return SensorPreview(sensed.requests, steps, sensed.cursor, sensed.partitions, sensed.skip_reason)

    # --- pieces -------------------------------------------------------------------------------------------

    def _check(self, sensor: Sensor) -> None:
        self._parts.resources.check((), [sensor])
        if sensor.selection is not None:
            select(self._parts.graph, sensor.selection)

    def _record_failure(self, taken: TakenAutomation, error: BaseException) -> None:
        if not isinstance(error, Exception):  # a person at a terminal wants it to end
            self._store.release(taken)
            return
        self._conclude(taken, NewTick(at=taken.now, state=TickState.FAILED, error=failure(error, None).error))

    def _status(self, one: SensorEvaluator, record: AutomationRecord | None) -> SensorStatus:
        return SensorStatus(one.sensor, record, self._newest(one, record))


class AsyncSensorsView(AsyncFlowStone):
    """`flow.aio.sensors`: the verbs of `flow.sensors`, awaitable."""

    list = awaitable(SensorsView.list)
    get = awaitable(SensorsView.get)
    set_cursor = awaitable(SensorsView.set_cursor)
    run_keys = awaitable(SensorsView.run_keys)
    forget_run_keys = awaitable(SensorsView.forget_run_keys)
    run_now = awaitable(SensorsView.run_now)
    evaluate = awaitable(SensorsView.evaluate)
    preview = awaitable(SensorsView.preview)
    ticks = awaitable(SensorsView.ticks)
    pause = awaitable(SensorsView.pause)
    resume = awaitable(SensorsView.resume)
    run_due = awaitable(SensorsView.run_due)
