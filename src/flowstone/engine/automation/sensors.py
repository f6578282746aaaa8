"""Evaluating sensors: the function is called, and what it answers becomes one conclusion."""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256

from flowstone.core.automation.record import (
    AutomationId,
    Conclusion,
    NewTick,
    PartitionChange,
    PreparedRun,
    TakenAutomation,
    TickState,
)
from flowstone.core.automation.sensor import (
    MAX_REQUESTS,
    RunRequest,
    Sensed,
    Sensor,
    SensorContext,
    check_cursor,
    sense,
)
from flowstone.core.clean import clean_text
from flowstone.core.context import Resources
from flowstone.engine.automation.loop import Deadline
from flowstone.engine.call import CoroutineRunner, LimitReachedError
from flowstone.engine.resources import ResourcePool
from flowstone.errors import DatabaseError, FlowStoneError, SensorError, did_you_mean
from flowstone.protocols import Evaluator, PrepareRun

log = logging.getLogger("flowstone.automation")

RUN_KIND = "sensor"
_MAX_REASON = 2000

type Assume = Callable[[Sequence[PartitionChange]], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorParts:
    """What sensors are evaluated with.

    Args:
        prepare: plans and checks a request.
        resources: the resources of the app.
        coroutines: where `async def` functions run.
        assume: lets requests be planned with keys that are added together with them.
        definitions: names of the dynamic partitions that there are.
    """

    prepare: PrepareRun
    resources: ResourcePool
    coroutines: CoroutineRunner
    assume: Assume
    definitions: Collection[str] = ()


class SensorEvaluator(Evaluator):
    """Implements `flowstone.protocols.Evaluator` for a sensor.

    Ticks, runs, run keys, partitions and cursor are one conclusion, so they are committed together or not at
    all: an evaluation that ends before that has left nothing behind, and the next one gets the same cursor.

    Args:
        sensor: the declaration.
        parts: what it is evaluated with.
    """

    def __init__(self, sensor: Sensor, parts: SensorParts) -> None:
        self.sensor = sensor
        self._parts = parts

    @property
    def id(self) -> AutomationId:
        return self.sensor.id

    @property
    def starts_paused(self) -> bool:
        return self.sensor.paused

    @property
    def timeout_seconds(self) -> float:
        return self.sensor.timeout_seconds

    def evaluate(self, taken: TakenAutomation) -> Iterator[Conclusion]:
        started = time.monotonic()
        sensed = self.sense(taken)
        problems: dict[str, str] = {}
        runs = self.prepare(taken, sensed, problems)
        cursor = sensed.cursor
        if problems and sensed.left_out is not None:
            cursor = sensed.left_out(problems)
            check_cursor(self.sensor.name, cursor)
        reason = "; ".join([*([sensed.skip_reason] if sensed.skip_reason else []), *problems.values()])
        asks = bool(runs or sensed.partitions)
        tick = NewTick(
            at=taken.now,
            state=TickState.REQUESTED if asks else TickState.SKIPPED,
            reason=clean_text(reason, limit=_MAX_REASON) if reason else None,
            runs=runs,
            partitions=sensed.partitions,
            took_seconds=time.monotonic() - started,
            repeatable=True,
        )
        due_at = taken.now + timedelta(seconds=self.sensor.every_seconds)
        yield Conclusion(ticks=[tick], cursor=cursor, due_at=due_at)

    def sense(self, taken: TakenAutomation) -> Sensed:
        """Call the function and return what it asks for, checked; nothing is planned yet.

        Raises:
            SensorError: the answer cannot work.
            BaseException: whatever the function raises.
        """
        sensor, parts = self.sensor, self._parts
        opened = {name: parts.resources.get(name) for name in sensor.requires}
        context = SensorContext(
            sensor.name,
            now=taken.now,
            cursor=taken.record.cursor,
            last_tick_at=taken.record.last_tick_at,
            selection=sensor.selection,
            resources=Resources(opened, sensor.name, kind="sensor"),
            cancellation=Deadline(sensor.timeout_seconds),
        )
        sensed = sense(context, self._answer(context))
        for change in sensed.partitions:
            if change.definition not in parts.definitions:
                raise SensorError(
                    sensor.name,
                    f"it changes the dynamic partitions {change.definition!r}, which no asset has."
                    f"{did_you_mean(change.definition, parts.definitions)}",
                    where=sensor.where,
                )
        return sensed

    def prepare(
        self, taken: TakenAutomation, sensed: Sensed, problems: dict[str, str] | None = None
    ) -> list[PreparedRun]:
        """Plan and check what was asked for; nothing is recorded yet.

        Args:
            taken: the evaluation.
            sensed: what was asked for.
            problems: filled with what cannot be planned, by run key, where the sensor can do without.

        Raises:
            SensorError: a request cannot work.
        """
        prepared: list[PreparedRun] = []
        with self._parts.assume(sensed.partitions):
            for position, one in enumerate(sensed.requests):
                try:
                    prepared.append(self._prepared(taken, position, one))
                except SensorError as error:
                    database = isinstance(error.__cause__, DatabaseError)
                    if problems is None or sensed.left_out is None or one.run_key is None or database:
                        raise
                    problems[one.run_key] = f"left out: {one.run_key}: {error.__cause__}"
                    log.warning("Sensor %r left out %s: %s", self.sensor.name, one.run_key, error.__cause__)
        return prepared

    def _prepared(self, taken: TakenAutomation, position: int, request: RunRequest) -> PreparedRun:
        # A run key makes the same run id wherever and whenever: even if the run keys were lost, the same run is
        # not placed again as long as it is known.
        if request.run_key is not None:
            run_id = run_id_of(self.sensor.name, "key", request.run_key)
        else:
            run_id = run_id_of(self.sensor.name, "at", taken.now.isoformat(), str(taken.token), str(position))
        try:
            return self._parts.prepare(request, run_id=run_id, kind=RUN_KIND)
        except FlowStoneError as error:
            of = f" with the run key {request.run_key!r}" if request.run_key is not None else ""
            raise SensorError(
                self.sensor.name,
                f"it asks for a run{of} that cannot be planned, so nothing of this evaluation was placed and the "
                f"cursor stays. {type(error).__name__}: {error}",
                where=self.sensor.where,
            ) from error

    def _answer(self, context: SensorContext) -> object:
        answer = self.sensor.function(context) if self.sensor.takes_context else self.sensor.function()
        if inspect.isawaitable(answer):
            return self._run(_awaited(answer))
        if isinstance(answer, AsyncIterable):
            return self._run(_listed(answer))
        return answer

    def _run(self, coroutine: Awaitable[object]) -> object:
        assert inspect.iscoroutine(coroutine)
        seconds = self.sensor.timeout_seconds
        try:
            return self._parts.coroutines.run(
                coroutine,
                timeout_seconds=seconds,
                shared=bool(self.sensor.requires),
                name=f"flowstone-{self.sensor.name}",
            )
        except LimitReachedError as error:
            raise SensorError(
                self.sensor.name, f"it took longer than {seconds:g} s and was stopped.", where=self.sensor.where
            ) from error


def run_id_of(sensor: str, *parts: str) -> str:
    """Return the id of the run that a sensor asks for: the same parts, the same run.

    Example:
        >>> run_id_of("inbox", "key", "a.csv")[:13]
        'sensor-inbox-'
    """
    readable = "".join(one if one.isascii() and (one.isalnum() or one in "-_") else "-" for one in sensor)[:40]
    # lengths go first, so that no two lists of parts make one text
    text = "".join(f"{len(part)}:{part}" for part in (sensor, *parts))
    return f"{RUN_KIND}-{readable}-{sha256(text.encode()).hexdigest()[:32]}"


async def _awaited(answer: Awaitable[object]) -> object:
    found = await answer
    return await _listed(found) if isinstance(found, AsyncIterable) else found


async def _listed(answer: AsyncIterable[object]) -> list[object]:
    """Return what an asynchronous generator yields, one more than is allowed at most."""
    found: list[object] = []
    async for one in answer:
        found.append(one)
        if len(found) > MAX_REQUESTS:
            break
    return found
