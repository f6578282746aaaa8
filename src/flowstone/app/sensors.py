"""`flow.sensors`: what looks for something to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from flowstone.app.async_face import AsyncFlowStone, awaitable
from flowstone.app.declared_automations import DeclaredAutomations
from flowstone.app.partition_keys import PartitionKeysView
from flowstone.app.placement import Placement
from flowstone.app.sensor_runs import SensorRuns
from flowstone.app.wiring import Parts
from flowstone.core.automation.record import (
    AutomationKind,
    AutomationRecord,
    NewTick,
    PartitionChange,
    RunKey,
    TakenAutomation,
    TickRecord,
    TickState,
)
from flowstone.core.automation.request import RunRequest
from flowstone.core.automation.sensing import check_cursor
from flowstone.core.automation.sensor import Sensor
from flowstone.core.declaring import view
from flowstone.core.selection import select
from flowstone.core.text import clean_text
from flowstone.engine.automation.sensors import SensorEvaluator, SensorParts
from flowstone.engine.failures import failure
from flowstone.errors import OptionsError, SensorError

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
        super().__init__(parts.store.automations)
        self._parts = parts
        self._runs = SensorRuns(parts, placement)
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
        parts.evaluators.extend(self._evaluators.values())

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
