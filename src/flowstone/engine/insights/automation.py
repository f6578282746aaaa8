"""What runs by itself, as people watch it: schedules, sensors and conditions with their ticks, late ones first.

An automation that is declared is shown even before a worker has touched it. What a store recorded of others, which
the app no longer declares, is left out: nobody evaluates them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from flowstone.core.asset import Asset
from flowstone.core.automation.condition import Decision, Verdict
from flowstone.core.automation.record import AutomationId, AutomationKind, AutomationRecord, TickRecord
from flowstone.core.automation.schedule import Schedule
from flowstone.core.automation.sensor import Sensor
from flowstone.core.definition import write_partition
from flowstone.core.graph import AssetGraph
from flowstone.core.paging import Page, clamp_limit, decode_cursor, page_of
from flowstone.core.partitions import PartitionKey
from flowstone.core.selection import Selection
from flowstone.protocols import Store

STRIP = 30
"""So many ticks are in the strip of an automation."""
LATE_SECONDS = 60.0
"""An evaluation that is due for longer is late: a worker polls every second."""


@dataclass(frozen=True, slots=True)
class Automations:
    """What an app declares that runs by itself; conditions are declared with their assets.

    Args:
        schedules: the schedules.
        sensors: the sensors.
        decide: judges partitions of an asset by its condition; None for the newest ones.
    """

    schedules: Sequence[Schedule] = ()
    sensors: Sequence[Sensor] = ()
    decide: Callable[[str, Sequence[PartitionKey] | None], Sequence[Decision]] | None = None

    def ids(self, graph: AssetGraph) -> list[AutomationId]:
        """Return kind and name of all, conditions of the graph included."""
        conditions = [AutomationId(AutomationKind.CONDITION, one.name) for one in graph if one.automation]
        return [*(one.id for one in self.schedules), *(one.id for one in self.sensors), *conditions]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """One evaluation.

    Args:
        id: of its record.
        at: its instant.
        state: `requested`, `skipped` or `failed`.
        reason: why there was nothing to do.
        error: what the evaluation raised.
        run_ids: the runs that it placed.
        evaluated_at: when; of repeats the last time.
        took_seconds: how long.
        by_hand: whether a person asked for it.
        worker: who evaluated it.
        repeats: further evaluations that came to the same.
    """

    id: int
    at: datetime
    state: str
    reason: str | None = None
    error: str | None = None
    run_ids: tuple[str, ...] = ()
    evaluated_at: datetime
    took_seconds: float = 0.0
    by_hand: bool = False
    worker: str | None = None
    repeats: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AutomationSummary:
    """An automation in a list.

    Args:
        kind: `schedule`, `sensor` or `condition`.
        name: its name; of a condition that of its asset.
        description: what it is for.
        when: when it is evaluated, in words.
        selection: what it runs; empty for a sensor that says so itself.
        state: `failing`, `late`, `paused`, `active`, or `new` when no worker has evaluated it yet.
        expression: the cron expression of a schedule.
        timezone: its zone.
        due_at: when it is evaluated next.
        late_seconds: how long it has been due without an evaluation; None when it is in time.
        failures: evaluations that failed in a row.
        next_times: its next instants.
        ticks: its last evaluations, the newest first.
    """

    kind: str
    name: str
    description: str = ""
    when: str
    selection: str
    state: str
    expression: str | None = None
    timezone: str | None = None
    due_at: datetime | None = None
    late_seconds: float | None = None
    failures: int = 0
    next_times: tuple[datetime, ...] = ()
    ticks: tuple[Tick, ...] = ()

    @property
    def last(self) -> Tick | None:
        """The newest tick."""
        return self.ticks[0] if self.ticks else None

    @property
    def strip(self) -> tuple[tuple[str, int], ...]:
        """The outcomes of the ticks, the oldest first, as a chart takes them."""
        return tuple((one.state, 1 + one.repeats) for one in reversed(self.ticks))


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of the tree of facts that a condition is judged by.

    Args:
        depth: how deep in the tree, from 0.
        holds: whether it is so.
        text: the fact, or how those below it are combined.
        name: the condition as it is written.
    """

    depth: int
    holds: bool
    text: str
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a condition says about one partition now.

    Args:
        partition_key: the partition, encoded; empty without partitions.
        partition: as people write it.
        requested: whether it is to be computed.
        reason: the facts that decided.
        held: why it is not requested yet although the condition holds.
        in_progress: whether it is being computed.
        facts: the tree, a line each.
    """

    partition_key: PartitionKey
    partition: str
    requested: bool
    reason: str
    held: str | None = None
    in_progress: bool = False
    facts: tuple[Fact, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class UsedKey:
    """A run key that a sensor has used."""

    key: str
    run_id: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AutomationDetails:
    """One automation.

    Args:
        about: what a list shows, with more ticks.
        where: file and line of the declaration.
        cursor: of a sensor: where it goes on.
        every_seconds: of a sensor.
        timeout_seconds: of a sensor.
        catch_up: of a schedule: how missed instants are made up for.
        since: when it was first declared to a store.
        run_keys: of a sensor, the newest first.
        judgements: of a condition.
    """

    about: AutomationSummary
    where: str = ""
    cursor: str | None = None
    every_seconds: float | None = None
    timeout_seconds: float | None = None
    catch_up: str | None = None
    since: datetime | None = None
    run_keys: tuple[UsedKey, ...] = ()
    judgements: tuple[Judgement, ...] = field(default=())


class AutomationWatch:
    """Answers about the automations of an app.

    Args:
        graph: its assets.
        store: what is recorded.
        declared: what else runs by itself.
    """

    def __init__(self, graph: AssetGraph, store: Store, declared: Automations) -> None:
        self._graph = graph
        self._store = store
        self._declared = declared

    def page(
        self,
        now: datetime,
        *,
        kind: str | None = None,
        state: str | None = None,
        text: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> Page[AutomationSummary]:
        """Return automations in order of kind and name: a page of those that fit.

        Args:
            now: the time.
            kind: only of this kind.
            state: only in this state.
            text: only those with this in their name, description or selection.
            cursor: where the page begins.
            limit: how many.
        """
        limit, after = clamp_limit(limit), decode_cursor(cursor, str, str)
        found = [
            one
            for one in self._summaries(now)
            if kind in (None, one.kind) and state in (None, one.state) and _mentions(one, text)
        ]
        rest = [one for one in found if after is None or (one.kind, one.name) > after]
        shown = page_of(rest[: limit + 1], limit, lambda one: (one.kind, one.name), total=len(found))
        ticks = self._ticks([_id(one) for one in shown.items], STRIP)
        return shown.map(lambda one: replace(one, ticks=ticks[_id(one)]))

    def counts(self, now: datetime) -> dict[str, int]:
        """Return how many automations are in each state."""
        found: dict[str, int] = defaultdict(int)
        for one in self._summaries(now):
            found[one.state] += 1
        return dict(found)

    def late(self, now: datetime, *, limit: int = 20) -> list[AutomationSummary]:
        """Return what should have been evaluated by now, the latest first."""
        found = [one for one in self._summaries(now) if one.late_seconds is not None]
        return sorted(found, key=lambda one: -(one.late_seconds or 0.0))[:limit]

    def get(
        self,
        kind: str,
        name: str,
        now: datetime,
        *,
        partition: PartitionKey | None = None,
        ticks: int = 100,
    ) -> AutomationDetails | None:
        """Return one automation with its last ticks; None when the app declares none of this name.

        Args:
            kind: `schedule`, `sensor` or `condition`.
            name: its name; of a condition that of its asset.
            now: the time.
            partition: of a condition: which partition to judge, encoded; None for the newest ones.
            ticks: how many ticks.
        """
        about = next((one for one in self._summaries(now) if (one.kind, one.name) == (kind, name)), None)
        if about is None:
            return None
        automation = _id(about)
        shown = replace(about, ticks=self._ticks([automation], clamp_limit(ticks))[automation])
        record = self._store.automations.record(automation)
        details = AutomationDetails(about=shown, since=record.since if record else None)
        if kind == "schedule":
            schedule = next(one for one in self._declared.schedules if one.name == name)
            return replace(details, catch_up=str(schedule.catch_up))
        if kind == "sensor":
            sensor = next(one for one in self._declared.sensors if one.name == name)
            keys = self._store.automations.run_keys(automation, limit=50)
            return replace(
                details,
                where=sensor.where,
                cursor=record.cursor if record else None,
                every_seconds=sensor.every_seconds,
                timeout_seconds=sensor.timeout_seconds,
                run_keys=tuple(UsedKey(key=one.run_key, run_id=one.run_id, at=one.used_at) for one in keys),
            )
        asset = self._graph[name]
        return replace(details, where=asset.where, judgements=self._judgements(asset, partition))

    def _judgements(self, asset: Asset, partition: PartitionKey | None) -> tuple[Judgement, ...]:
        if self._declared.decide is None:
            return ()
        decisions = self._declared.decide(asset.name, None if partition is None else [partition])
        # the tree of one is long: only those of the first few are sent
        return tuple(_judgement(asset, one, facts=place < 5) for place, one in enumerate(decisions[:20]))

    def _ticks(self, automations: Sequence[AutomationId], each: int) -> dict[AutomationId, tuple[Tick, ...]]:
        found: dict[AutomationId, list[Tick]] = {one: [] for one in automations}
        for tick in self._store.insights.automation.ticks(automations, each=each) if automations else ():
            found[tick.automation].append(tick_of(tick))
        return {automation: tuple(ticks) for automation, ticks in found.items()}

    def _summaries(self, now: datetime) -> list[AutomationSummary]:
        records = {record.id: record for record in self._store.automations.records()}
        found = [*self._conditions(records, now), *self._schedules(records, now), *self._sensors(records, now)]
        return sorted(found, key=lambda one: (one.kind, one.name))

    def _schedules(
        self, records: dict[AutomationId, AutomationRecord], now: datetime
    ) -> Iterable[AutomationSummary]:
        for one in self._declared.schedules:
            record = records.get(one.id)
            state, late = _state(record, one.paused, now)
            yield AutomationSummary(
                kind="schedule",
                name=one.name,
                description=one.description,
                when=one.times.words,
                selection=_selected(one.selection),
                state=state,
                expression=one.cron,
                timezone=one.timezone,
                due_at=record.due_at if record else None,
                late_seconds=late,
                failures=record.failures if record else 0,
                next_times=() if state == "paused" else tuple(one.times.next(now, 5)),
            )

    def _sensors(
        self, records: dict[AutomationId, AutomationRecord], now: datetime
    ) -> Iterable[AutomationSummary]:
        for one in self._declared.sensors:
            record = records.get(one.id)
            state, late = _state(record, one.paused, now)
            yield AutomationSummary(
                kind="sensor",
                name=one.name,
                description=one.description or "",
                when=f"Every {every_words(one.every_seconds)}",
                selection="" if one.selection is None else _selected(one.selection),
                state=state,
                due_at=record.due_at if record else None,
                late_seconds=late,
                failures=record.failures if record else 0,
            )

    def _conditions(
        self, records: dict[AutomationId, AutomationRecord], now: datetime
    ) -> Iterable[AutomationSummary]:
        for one in self._graph:
            if one.automation is None:
                continue
            automation = AutomationId(AutomationKind.CONDITION, one.name)
            record = records.get(automation)
            state, late = _state(record, False, now)
            yield AutomationSummary(
                kind="condition",
                name=one.name,
                description=one.description or "",
                when=str(one.automation),
                selection=one.name,
                state=state,
                due_at=record.due_at if record else None,
                late_seconds=late,
                failures=record.failures if record else 0,
            )


def tick_of(record: TickRecord) -> Tick:
    """Return a tick as it is shown."""
    return Tick(
        id=record.id,
        at=record.at,
        state=record.state.value,
        reason=record.reason,
        error=record.error,
        run_ids=record.run_ids,
        evaluated_at=record.evaluated_at,
        took_seconds=record.took_seconds,
        by_hand=record.by_hand,
        worker=record.worker,
        repeats=record.repeats,
    )


def every_words(seconds: float) -> str:
    """Return a time between evaluations as people say it.

    Example:
        >>> every_words(60), every_words(5400), every_words(2.5), every_words(86400)
        ('minute', '90 minutes', '2.5 s', 'day')
    """
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        number, rest = divmod(seconds, size)
        if number and not rest:
            return unit if number == 1 else f"{number:,.0f} {unit}s"
    return f"{seconds:g} s"


def _state(record: AutomationRecord | None, paused: bool, now: datetime) -> tuple[str, float | None]:
    """Return the state of an automation, and how late it is."""
    if record is None:
        return ("paused" if paused else "new"), None
    if record.paused:
        return "paused", None
    late = None if record.due_at is None else (now - record.due_at) / timedelta(seconds=1)
    late = late if late is not None and late > LATE_SECONDS else None
    if record.failures:
        return "failing", late
    return ("late" if late is not None else "active"), late


def _selected(selection: Selection) -> str:
    if isinstance(selection, str):
        return selection
    return selection.name if isinstance(selection, Asset) else ", ".join(map(_selected, selection))


def _mentions(one: AutomationSummary, text: str | None) -> bool:
    return not text or text.casefold() in f"{one.name}\n{one.description}\n{one.selection}".casefold()


def _id(one: AutomationSummary) -> AutomationId:
    return AutomationId(AutomationKind(one.kind), one.name)


def _judgement(asset: Asset, decision: Decision, *, facts: bool) -> Judgement:
    key = decision.partition_key
    return Judgement(
        partition_key=key,
        partition=write_partition(asset.partitions, key) if key else "",
        requested=decision.requested,
        reason=decision.reason,
        held=decision.held,
        in_progress=decision.in_progress,
        facts=tuple(_facts(decision.because, 0)) if facts else (),
    )


def _facts(verdict: Verdict, depth: int) -> Iterable[Fact]:
    name = verdict.name if verdict.name != verdict.text else ""
    yield Fact(depth, verdict.holds, verdict.text, name)
    for part in verdict.parts:
        yield from _facts(part, depth + 1)
