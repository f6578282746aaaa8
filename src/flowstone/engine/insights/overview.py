"""The first page: is anything broken, does anything wait for me? And what a search finds."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from flowstone.core.approval import Approval, ApprovalState
from flowstone.core.automation.record import AutomationId, AutomationKind, AutomationRecord
from flowstone.core.definition import write_partition
from flowstone.core.graph import AssetGraph
from flowstone.core.insights.overview import StaleAsset
from flowstone.core.paging import Page
from flowstone.core.run_filter import RunFilter
from flowstone.core.state import State
from flowstone.engine.insights.assets import AssetWatch, FailingPartition
from flowstone.engine.insights.automation import LATE_SECONDS
from flowstone.engine.insights.fleet import FleetWatch, Minute, RunningWork
from flowstone.engine.insights.notifications import FreshnessLine
from flowstone.engine.insights.runs import RunLine, run_lines
from flowstone.protocols import Store

_SHOWN = 20
_SHOWN_STEPS = 10
_COUNTED_APPROVALS = 500
_LATE = timedelta(seconds=LATE_SECONDS)


@dataclass(frozen=True, slots=True)
class WaitingApproval:
    """A request that waits for a person.

    Args:
        id: the request.
        asset: the asset that asks.
        partition: its partition, as people write it; empty without.
        message: what is asked.
        created_at: when it was asked.
        expires_at: until when a decision counts.
        seconds_left: until then; never negative.
        on_timeout: what silence will do: `reject`, `approve` or `skip`.
    """

    id: int
    asset: str
    partition: str
    message: str
    created_at: datetime
    expires_at: datetime
    seconds_left: float
    on_timeout: str


@dataclass(frozen=True, slots=True)
class LateSchedule:
    """A schedule that was due and that nobody evaluated.

    Args:
        name: the schedule.
        due_at: when it was due.
        seconds: for how long.
    """

    name: str
    due_at: datetime
    seconds: float


@dataclass(frozen=True, slots=True)
class StaleLine:
    """An asset with versions in use that would come out differently now.

    Args:
        asset: the asset.
        number: how many of its last partitions are stale.
        compared: how many were compared.
        reason: why the first of them is.
    """

    asset: str
    number: int
    compared: int
    reason: str


@dataclass(frozen=True, slots=True)
class Overview:
    """What a person sees first.

    Args:
        sentence: whether anything is broken, and whether anything waits for a person.
        tone: `good`, `warn` or `bad`.
        alarms: what is wrong with queues, workers and breakers, a sentence each.
        failing: assets that failed by themselves, the newest failures first; when there is none, those of which
            an input failed.
        failing_total: how many assets failed by themselves.
        held: how many assets could not run only because an input failed.
        approvals: requests that wait for a person, by time left.
        approvals_total: how many there are.
        running: steps at work, those that have run longest first.
        running_total: how many there are.
        runs: runs that are not over, the newest first.
        minutes: what ended and failed in each minute of the last hour.
        late: schedules that were due and that nobody evaluated.
        late_data: assets whose data are older than their `fresh_within`, the oldest first.
        late_data_total: how many there are.
        stale: assets with stale versions, among their last partitions; None while that is being found out.
        workers: living workers.
        assets: how many assets are declared.
    """

    sentence: str
    tone: str
    alarms: tuple[str, ...]
    failing: tuple[FailingPartition, ...]
    failing_total: int
    held: int
    approvals: tuple[WaitingApproval, ...]
    approvals_total: int
    running: tuple[RunningWork, ...]
    running_total: int
    runs: Page[RunLine]
    minutes: tuple[Minute, ...]
    late: tuple[LateSchedule, ...]
    late_data: tuple[FreshnessLine, ...]
    late_data_total: int
    stale: tuple[StaleLine, ...] | None
    workers: int
    assets: int


def overview(
    graph: AssetGraph,
    store: Store,
    assets: AssetWatch,
    fleet: FleetWatch,
    *,
    automations: Collection[AutomationId] = (),
    fresh: Sequence[FreshnessLine] = (),
) -> Overview:
    """Return what a person sees first, in about a dozen questions to the store.

    Args:
        graph: the assets.
        store: what is recorded.
        assets: how they stand.
        fleet: queues and workers.
        automations: those that the app declares; what it declares no more is due for good, and is not late.
        fresh: how old the data of assets are that declare how old they may be.
    """
    now = datetime.now(UTC)
    late_data = sorted((one for one in fresh if one.late_since), key=lambda one: one.late_since or now)
    counts = assets.counts()
    failing_total = sum(one.name in counts and counts[one.name].failed > 0 for one in graph)
    failing, held = causes(graph, assets.failing(assets=failing_total) if failing_total else ())
    pending = store.approvals.list(state=ApprovalState.PENDING, limit=_COUNTED_APPROVALS)
    queues, workers = fleet.queues(), fleet.workers()
    running = fleet.running(limit=_SHOWN_STEPS)
    running_total = sum(one.running for one in queues.items) or len(running)
    runs = run_lines(store, RunFilter.parse("state:running"), limit=_SHOWN, now=now)
    records = [one for one in store.automations.records() if one.id in automations] if store.durable else []
    late = late_schedules(records, now)
    alarms = [one.alarm for one in queues.items if one.alarm]
    alarms += [
        f"the breaker {one.name!r} is open" for one in queues.limits if one.kind == "breaker" and one.is_full
    ]
    waits = any(one.waiting or one.later for one in queues.items) or bool(late)
    if store.durable and waits and not any(one.kind == "node" and one.state == "alive" for one in workers.items):
        alarms = ["no worker is alive: start `flowstone worker`"]
    sentence, tone = _sentence(
        failing_total - held, held, alarms, len(late), len(pending), running_total, len(late_data)
    )
    return Overview(
        sentence=sentence,
        tone=tone,
        alarms=tuple(alarms[:_SHOWN]),
        failing=failing[:_SHOWN],
        failing_total=failing_total - held,
        held=held,
        approvals=tuple(_approval(graph, one, now) for one in pending[:_SHOWN]),
        approvals_total=len(pending),
        running=running,
        running_total=running_total,
        runs=runs,
        minutes=fleet.minutes(),
        late=late[:_SHOWN],
        late_data=tuple(late_data[:_SHOWN]),
        late_data_total=len(late_data),
        stale=stale_lines(graph, assets.stale_assets()),
        workers=sum(one.kind == "node" and one.state == "alive" for one in workers.items),
        assets=len(graph.assets),
    )


def causes(graph: AssetGraph, failing: Sequence[FailingPartition]) -> tuple[tuple[FailingPartition, ...], int]:
    """Return what failed by itself, with how many others each holds up, and how many assets only wait for those.

    Whoever is called at night has one thing to mend: not the forty assets behind it.
    """
    held = {one.asset for one in failing if one.state == State.UPSTREAM_FAILED}
    own = tuple(
        replace(one, holds=len(held & graph.downstream(one.asset))) for one in failing if one.asset not in held
    )
    return own or tuple(failing), len(held)


def late_schedules(records: Iterable[AutomationRecord], now: datetime) -> tuple[LateSchedule, ...]:
    """Return schedules that were due more than a minute ago and are not paused, the longest due first."""
    late = [
        LateSchedule(one.id.name, one.due_at, (now - one.due_at).total_seconds())
        for one in records
        if one.id.kind is AutomationKind.SCHEDULE and not one.paused and one.due_at and one.due_at < now - _LATE
    ]
    return tuple(sorted(late, key=lambda one: one.due_at))


def stale_lines(graph: AssetGraph, found: Sequence[StaleAsset] | None) -> tuple[StaleLine, ...] | None:
    """Return stale assets with the reason in words."""
    if found is None:
        return None
    return tuple(
        StaleLine(one.asset, one.number, one.compared, stale_reason(graph, one)) for one in found[:_SHOWN]
    )


def stale_reason(graph: AssetGraph, one: StaleAsset) -> str:
    """Return in words why the first stale version of an asset is."""
    if one.upstream is None:
        return "its code has changed"
    definition = graph[one.upstream].partitions if one.upstream in graph else None
    written = write_partition(definition, one.upstream_key or "")
    return f"{one.upstream}{f' [{written}]' if written else ''} has another version by now"


def _sentence(
    failing: int, held: int, alarms: Sequence[str], late: int, approvals: int, running: int, late_data: int = 0
) -> tuple[str, str]:
    """Return the first sentence of the page, and its tone.

    Example:
        >>> _sentence(0, 0, (), 0, 0, 0)
        ('Nothing is broken, and nothing waits for a decision. Nothing runs.', 'good')
        >>> _sentence(2, 6, ("no worker",), 0, 0, 3)
        ('2 assets fail, 6 assets lack an input and 1 alarm is raised. 3 steps run.', 'bad')
    """
    broken = [
        *([_number(failing, "asset fails", "assets fail")] if failing else []),
        *([_number(held, "asset lacks an input", "assets lack an input")] if held else []),
        *([_number(len(alarms), "alarm is raised", "alarms are raised")] if alarms else []),
        *([_number(late, "schedule is late", "schedules are late")] if late else []),
        *([_number(late_data, "asset has late data", "assets have late data")] if late_data else []),
    ]
    waits = _number(approvals, "approval waits", "approvals wait") + " for a decision"
    runs = f"{_number(running, 'step runs', 'steps run')}." if running else "Nothing runs."
    if not broken:
        first = "Nothing is broken" + (f"; {waits}." if approvals else ", and nothing waits for a decision.")
        return f"{first} {runs}", "warn" if approvals else "good"
    *before, last = broken
    first = f"{', '.join(before)} and {last}." if before else f"{last}."
    return f"{first} {f'{waits}. ' if approvals else ''}{runs}", "bad"


def _number(number: int, one: str, many: str) -> str:
    return f"1 {one}" if number == 1 else f"{number:,} {many}"


def _approval(graph: AssetGraph, one: Approval, now: datetime) -> WaitingApproval:
    definition = graph[one.asset].partitions if one.asset in graph else None
    return WaitingApproval(
        id=one.id,
        asset=one.asset,
        partition=write_partition(definition, one.partition_key),
        message=one.message[:500],
        created_at=one.created_at,
        expires_at=one.expires_at,
        seconds_left=max(0.0, (one.expires_at - now).total_seconds()),
        on_timeout=one.on_timeout,
    )
