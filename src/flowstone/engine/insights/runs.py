"""Runs, as people see them: lines of a list, and one run with what broke first.

Nothing here costs more for a large run: one with more steps than `SINGLE_STEPS` is shown by asset, and one with
more than `GROUPED_STEPS` by what its counters know.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from flowstone.core.actor import AUTOMATION
from flowstone.core.audit import AuditFilter
from flowstone.core.clean import error_line
from flowstone.core.graph import AssetGraph
from flowstone.core.insights.runs import STRIP_CODES, FailedStep, StepGroup
from flowstone.core.paging import Page, clamp_limit, decode_cursor, page_of
from flowstone.core.partitions import PartitionKey
from flowstone.core.run_filter import RunFilter
from flowstone.core.state import State
from flowstone.core.step import RunRecord, StepRecord
from flowstone.engine.insights.requested import equal_command, loose_partitions, partitions_in_words
from flowstone.engine.insights.timeline import NEVER, WORST_FIRST, Bar, Label, bars_of, plain_label, worst_of
from flowstone.errors import OptionsError, RunNotFoundError
from flowstone.protocols import Store

SINGLE_STEPS = 500
"""Up to so many steps a run is shown step by step."""
GROUPED_STEPS = 20_000
"""Up to so many the steps are read to be grouped; of more, the counters of the run are shown."""
COUNTED = 10_000
"""Up to so many matching runs are counted."""
_FAILED = 2000
_ERRORS = 20
_EXAMPLES = 3
_STRIPS = 10
_SCATTERED = 20
_ACTIONS = 20
_NUMBERS = re.compile(r"\d+")
_MAX_LINE = 500


@dataclass(frozen=True, slots=True)
class RunCounts:
    """How the steps of a run stand. The parts add up to `total`.

    Args:
        total: how many there are.
        succeeded: completed, reused or skipped.
        failed: failed, or not started because of that.
        cancelled: cancelled.
        running: at work.
        waiting: everything else.
    """

    total: int
    succeeded: int
    failed: int
    cancelled: int
    running: int
    waiting: int

    @property
    def done(self) -> int:
        """How many are over."""
        return self.succeeded + self.failed + self.cancelled


@dataclass(frozen=True, slots=True)
class RunLine:
    """A run in a list.

    Args:
        id: the run.
        kind: the verb that asked, such as `backfill`.
        selection: what was asked for.
        partitions: which partitions, in words; empty without.
        state: `running`, `cancelling`, `completed`, `failed` or `cancelled`.
        paused: whether nothing more of it is started.
        process_lost: whether the process that drove it is gone, so that nobody goes on with it.
        counts: how its steps stand.
        created_at: when it was asked for.
        finished_at: when it was over.
        took_seconds: how long it took, or has taken so far.
        left_seconds: how long it will probably still take; None when nothing says so.
        requested_by: who asked; None when that is not known.
        via: by which way: `api`, `cli`, `web`, `json` or `automation`.
        automation: the schedule, sensor or condition that asked.
        tags: its tags.
        assets: names of the assets that were asked for, the first 20.
        executor: where its steps run.
        priority: 0 (first) to 9.
        window: how many steps at once; None without a limit.
        retry_of: the run whose failures it repeats.
        parent: the run whose steps scattered these items.
    """

    id: str
    kind: str
    selection: str
    partitions: str
    state: str
    paused: bool
    process_lost: bool
    counts: RunCounts
    created_at: datetime
    finished_at: datetime | None
    took_seconds: float
    left_seconds: float | None
    requested_by: str | None
    via: str | None
    automation: str | None
    tags: tuple[str, ...]
    assets: tuple[str, ...]
    executor: str
    priority: int
    window: int | None
    retry_of: str | None
    parent: str | None


@dataclass(frozen=True, slots=True)
class StepPlace:
    """A step by its name.

    Args:
        id: the step.
        asset: its asset.
        partition: its partition, as people write it.
        partition_key: the same, encoded.
    """

    id: int
    asset: str
    partition: str
    partition_key: str


@dataclass(frozen=True, slots=True)
class ErrorGroup:
    """Failures with the same cause: the same class and, but for numbers, the same line.

    Args:
        error_type: the class.
        line: what it says, of the newest one.
        number: how many steps failed so.
        is_at_least: whether there are more than were read.
        assets: of which assets, the first 20.
        first_at: when the first of them failed.
        last_at: when the last one did.
        examples: some of the steps, the newest first.
    """

    error_type: str
    line: str
    number: int
    is_at_least: bool
    assets: tuple[str, ...]
    first_at: datetime | None
    last_at: datetime | None
    examples: tuple[StepPlace, ...]


@dataclass(frozen=True, slots=True)
class AssetOfRun:
    """The steps of one asset in a run.

    Args:
        asset: its name.
        state: the state that matters most.
        counts: how many are in each state.
        total: how many there are.
        started_at: when the first one started.
        finished_at: when the last one was over.
        busy_seconds: how long they took, added up.
        waits_for: assets of the run of which it needs something that is not there yet.
    """

    asset: str
    state: str
    counts: Mapping[str, int]
    total: int
    started_at: datetime | None
    finished_at: datetime | None
    busy_seconds: float | None
    waits_for: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Partitions in a row with one state."""

    state: str
    number: int


@dataclass(frozen=True, slots=True)
class PartitionStrip:
    """The partitions of an asset in a run, in their order.

    Args:
        asset: its name.
        stretches: run-length coded.
        total: how many partitions.
    """

    asset: str
    stretches: tuple[Stretch, ...]
    total: int

    @property
    def pairs(self) -> list[tuple[str, int]]:
        """The stretches as (state, number)."""
        return [(one.state, one.number) for one in self.stretches]


@dataclass(frozen=True, slots=True)
class RunAction:
    """What a person or a program did to a run.

    Args:
        at: when.
        actor: who.
        via: by which way.
        action: what, such as `run.cancelled`.
        details: more about it.
    """

    at: datetime
    actor: str
    via: str | None
    action: str
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RunView:
    """One run, what broke first.

    Args:
        run: the run.
        errors: why steps failed, the most frequent first.
        assets: its steps by asset, what matters most first.
        is_coarse: whether the run is so large that `assets` says what its counters know.
        bars: the time line: steps of a small run, else its assets.
        bars_left_out: how many rows it has more.
        critical_seconds: how long the critical path took; None when it is not known.
        scattered: runs of items that its steps scattered.
        strips: its partitions, when it is a backfill.
        rate: partitions that were over per second, since it began.
        actions: what people did to it, the newest first.
        command: the command line that asks for the same, its config apart; empty when no short one does.
        config: config by asset, without secrets.
        metadata: facts about it.
        io: names of IO managers by asset.
        resources: names of resources that stood in.
        hooks: names of hooks.
    """

    run: RunLine
    errors: tuple[ErrorGroup, ...]
    assets: tuple[AssetOfRun, ...]
    is_coarse: bool
    bars: tuple[Bar, ...]
    bars_left_out: int
    critical_seconds: float | None
    scattered: tuple[RunLine, ...]
    strips: tuple[PartitionStrip, ...]
    rate: float | None
    actions: tuple[RunAction, ...]
    command: str
    config: Mapping[str, Any]
    metadata: Mapping[str, Any]
    io: Mapping[str, str]
    resources: Mapping[str, str]
    hooks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StepLine:
    """A step of a run in a list.

    Args:
        step: the step.
        state: its state.
        attempt: the number of its newest attempt.
        max_attempts: how many it may have.
        error_type: the class of its error.
        line: what the error says, in a line.
        reason: why it is where it is.
        started_at: when its newest attempt started.
        finished_at: when it was over.
        took_seconds: how long that attempt took.
    """

    step: StepPlace
    state: str
    attempt: int
    max_attempts: int
    error_type: str | None
    line: str
    reason: str | None
    started_at: datetime | None
    finished_at: datetime | None
    took_seconds: float | None


def run_lines(
    store: Store,
    requested: RunFilter,
    *,
    cursor: str | None = None,
    limit: object = None,
    now: datetime,
    label: Label = plain_label,
) -> Page[RunLine]:
    """Return the newest runs that match, with how many there are.

    Args:
        store: where they are recorded.
        requested: which.
        cursor: place of the page; None for the first one.
        limit: how many at most.
        now: the present.
        label: writes partitions for people.

    Raises:
        OptionsError: the cursor is none.
    """
    before = _before(cursor)
    size = clamp_limit(limit)
    found = store.insights.runs.page(requested, before=before, limit=size + 1)
    total = len(found) if before is None and len(found) <= size else None
    if total is None:
        total = store.insights.runs.count(requested, limit=COUNTED + 1)
    page = page_of(
        found,
        size,
        lambda run: (run.created_at.isoformat(), run.id),
        total=min(total, COUNTED),
        total_is_at_least=total > COUNTED,
    )
    lines = {line.id: line for line in _lines(store, page.items, now, label)}
    return page.map(lambda run: lines[run.id])


def _before(cursor: str | None) -> tuple[datetime, str] | None:
    """Return behind which run a page begins.

    Raises:
        OptionsError: the cursor is none of ours.
    """
    place = decode_cursor(cursor, str, str)
    if place is None:
        return None
    try:
        return datetime.fromisoformat(place[0]).astimezone(UTC), place[1]
    except (ValueError, OverflowError):
        raise OptionsError("cursor: this is no place in a list of runs; leave it out.") from None


def run_view(
    store: Store, graph: AssetGraph, run_id: str, *, now: datetime, with_partitions: bool = True
) -> RunView:
    """Return one run.

    Args:
        store: where it is recorded.
        graph: the assets.
        run_id: the run.
        now: the present.
        with_partitions: whether to return the states of its partitions too, when it is a backfill.

    Raises:
        RunNotFoundError: there is no such run.
    """
    record = store.insights.runs.run(run_id)
    if record is None:
        raise RunNotFoundError("run", run_id)
    (line,) = _lines(store, [record], now, graph.label)
    is_large = line.counts.total > GROUPED_STEPS
    groups = store.insights.runs.groups(run_id, from_counters=is_large)
    if groups is None:
        asset = record.assets[0] if record.assets else record.selection
        groups = [StepGroup(asset, record.counts, record.created_at, record.finished_at)]
    is_small = line.counts.total <= SINGLE_STEPS
    spans = store.insights.runs.spans(run_id, limit=SINGLE_STEPS) if is_small else []
    bars, left_out, critical = bars_of(groups, spans, now, graph.label)
    items = store.insights.runs.page(RunFilter(items_of=run_id), limit=_SCATTERED)
    is_backfill = record.partitions is not None and record.partitions > 1
    return RunView(
        run=line,
        errors=_errors(store, run_id, graph.label) if line.counts.failed else (),
        assets=_assets(groups, graph),
        is_coarse=is_large,
        bars=bars,
        bars_left_out=left_out,
        critical_seconds=critical,
        scattered=tuple(_lines(store, items, now, graph.label)),
        strips=strips(store, run_id) if is_backfill and with_partitions else (),
        rate=_rate(line),
        actions=_actions(store, run_id),
        command=equal_command(record, graph.label, others=loose_partitions(record, graph, spans, now)),
        config=record.details.config,
        metadata=record.details.metadata,
        io=record.details.io,
        resources=record.details.resources,
        hooks=record.details.hooks,
    )


def _actions(store: Store, run_id: str) -> tuple[RunAction, ...]:
    lines = store.audit.lines(AuditFilter(subject=f"run:{run_id}"), limit=_ACTIONS)
    return tuple(RunAction(line.at, line.actor, line.via, line.action, line.details) for line in lines)


def strips(store: Store, run_id: str) -> tuple[PartitionStrip, ...]:
    """Return the partitions of the first assets of a run, run-length coded."""
    return tuple(
        PartitionStrip(
            asset=strip.asset,
            stretches=tuple(Stretch(STRIP_CODES[code], len(list(row))) for code, row in groupby(strip.codes)),
            total=len(strip.codes),
        )
        for strip in store.insights.runs.strips(run_id, limit=_STRIPS)
    )


def step_lines(
    store: Store,
    run_id: str,
    *,
    states: Sequence[State] = (),
    assets: Sequence[str] = (),
    error_type: str | None = None,
    cursor: str | None = None,
    limit: object = None,
    label: Label = plain_label,
) -> Page[StepLine]:
    """Return steps of a run in the order of their planning.

    Args:
        store: where it is recorded.
        run_id: the run.
        states: only in these states.
        assets: only of these assets.
        error_type: only with an error of this class.
        cursor: place of the page.
        limit: how many at most.
        label: writes partitions for people.

    Raises:
        OptionsError: the cursor is none.
    """
    place = decode_cursor(cursor, int)
    size = clamp_limit(limit)
    found = store.insights.runs.steps(
        run_id,
        states=states,
        assets=assets,
        error_type=error_type,
        after=0 if place is None else place[0],
        limit=size + 1,
    )
    return page_of(found, size, lambda step: (step.id,)).map(lambda step: _step_line(step, label))


def counts_of(counts: Mapping[State, int]) -> RunCounts:
    """Return how steps stand, of how many are in each state.

    Example:
        >>> counts_of({State.COMPLETED: 2, State.RETRYING: 1}).waiting
        1
    """
    found: Counter[str] = Counter()
    for state, number in counts.items():
        found[_PARTS.get(state, "waiting")] += number
    return RunCounts(
        total=sum(counts.values()),
        succeeded=found["succeeded"],
        failed=found["failed"],
        cancelled=found["cancelled"],
        running=found["running"],
        waiting=found["waiting"],
    )


_PARTS = {
    State.COMPLETED: "succeeded",
    State.REUSED: "succeeded",
    State.SKIPPED: "succeeded",
    State.FAILED: "failed",
    State.UPSTREAM_FAILED: "failed",
    State.CANCELLED: "cancelled",
    State.RUNNING: "running",
    State.CANCELLING: "running",
}


def _lines(store: Store, records: Sequence[RunRecord], now: datetime, label: Label) -> list[RunLine]:
    still_open = [run.id for run in records if not run.state.is_terminal]
    usual = store.insights.runs.usual_seconds(still_open)
    return [_line(run, usual.get(run.id), now, label) for run in records]


def _line(run: RunRecord, usual: float | None, now: datetime, label: Label) -> RunLine:
    counts = counts_of(run.counts)
    took = max(0.0, ((run.finished_at or now) - run.created_at).total_seconds())
    by_automation = run.requested_via == AUTOMATION
    return RunLine(
        id=run.id,
        kind=run.kind,
        selection=run.selection,
        partitions=partitions_in_words(run, label),
        state=run.state.value,
        paused=run.paused and not run.state.is_terminal,
        process_lost=run.process_lost,
        counts=counts,
        created_at=run.created_at,
        finished_at=run.finished_at,
        took_seconds=took,
        left_seconds=None if run.state.is_terminal else _left(counts, took, usual, paused=run.paused),
        requested_by=None if by_automation else run.requested_by,
        via=run.requested_via,
        automation=run.requested_by if by_automation else None,
        tags=tuple(run.tags),
        assets=run.assets[:_EXAMPLES],
        executor=run.executor,
        priority=run.priority,
        window=run.max_concurrency,
        retry_of=run.retry_of,
        parent=run.parent,
    )


def _left(counts: RunCounts, took: float, usual: float | None, *, paused: bool) -> float | None:
    """Return how long a run will still take: by its own rate once it has one, else by earlier runs like it."""
    if paused:
        return None
    if counts.done >= _EXAMPLES and took > 0:
        return (counts.total - counts.done) * took / counts.done
    return None if usual is None else max(0.0, usual - took)


def _rate(line: RunLine) -> float | None:
    return line.counts.done / line.took_seconds if line.took_seconds > 0 and line.counts.done else None


def _place(step_id: int, asset: str, key: PartitionKey, label: Label) -> StepPlace:
    return StepPlace(id=step_id, asset=asset, partition=label(asset, key), partition_key=key)


def _step_line(step: StepRecord, label: Label) -> StepLine:
    took = None
    if step.started_at is not None and step.finished_at is not None:
        took = max(0.0, (step.finished_at - step.started_at).total_seconds())
    return StepLine(
        step=_place(step.id, step.asset, step.partition_key, label),
        state=step.state.value,
        attempt=step.attempt,
        max_attempts=step.max_attempts,
        error_type=step.error_type,
        line=error_line(step.error)[:_MAX_LINE],
        reason=step.reason,
        started_at=step.started_at,
        finished_at=step.finished_at,
        took_seconds=took,
    )


def _errors(store: Store, run_id: str, label: Label) -> tuple[ErrorGroup, ...]:
    failed = store.insights.runs.failed(run_id, limit=_FAILED + 1)
    is_at_least = len(failed) > _FAILED
    groups: dict[tuple[str, str], list[FailedStep]] = defaultdict(list)
    lines: dict[tuple[str, str], str] = {}
    for step in failed[:_FAILED]:
        line = error_line(step.error)[:_MAX_LINE]
        key = (step.error_type or "", _NUMBERS.sub("#", line))
        groups[key].append(step)
        lines.setdefault(key, line)
    by_number = sorted(groups.items(), key=lambda one: (-len(one[1]), one[0]))
    return tuple(
        ErrorGroup(
            error_type=kind,
            line=lines[kind, text],
            number=len(steps),
            is_at_least=is_at_least,
            assets=tuple(dict.fromkeys(step.asset for step in steps))[:_ERRORS],
            first_at=min((step.finished_at for step in steps if step.finished_at), default=None),
            last_at=max((step.finished_at for step in steps if step.finished_at), default=None),
            examples=tuple(
                _place(step.step_id, step.asset, step.partition_key, label) for step in steps[:_EXAMPLES]
            ),
        )
        for (kind, text), steps in by_number[:_ERRORS]
    )


def _assets(groups: Sequence[StepGroup], graph: AssetGraph) -> tuple[AssetOfRun, ...]:
    still_open = {one.asset for one in groups if any(not state.is_terminal for state in one.counts)}
    rows = [
        AssetOfRun(
            asset=one.asset,
            state=worst_of(one.counts).value,
            counts={state.value: number for state, number in one.counts.items()},
            total=sum(one.counts.values()),
            started_at=one.started_at,
            finished_at=None if one.asset in still_open else one.finished_at,
            busy_seconds=one.busy_seconds,
            waits_for=_waits_for(one, still_open, graph),
        )
        for one in groups
    ]
    return tuple(
        sorted(rows, key=lambda row: (WORST_FIRST.index(State(row.state)), row.started_at or NEVER, row.asset))
    )


def _waits_for(group: StepGroup, still_open: set[str], graph: AssetGraph) -> tuple[str, ...]:
    if State.WAITING not in group.counts or group.asset not in graph:
        return ()
    upstream = dict.fromkeys(one.asset for one in graph[group.asset].dependencies)
    return tuple(name for name in upstream if name in still_open and name != group.asset)
