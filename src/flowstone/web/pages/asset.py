"""One asset: is it current, and if not why; its partitions, history, numbers, checks, automation, neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from flowstone.core.automation.record import AutomationId, AutomationKind, TickRecord
from flowstone.core.definition import write_partition
from flowstone.core.insights.details import AssetDetail, AssetHistory, NumberSeries
from flowstone.core.insights.versions import CheckLine
from flowstone.core.partitions import decode_partition
from flowstone.engine.insights.assets import AssetPartitions, FailingPartition
from flowstone.engine.insights.notifications import FreshnessLine
from flowstone.errors import PartitionError, command
from flowstone.web.asset_charts import durations, recorded
from flowstone.web.charts import Point
from flowstone.web.problems import Problem
from flowstone.web.registry import ActionCall, Confirm, Done, PageRequest, Role, action, page, url

MAX_ERASED = 1_000
"""So many partitions are erased with one confirmation."""
_MAX_LINES = 60
_SHOWN = 10
_LINES = 40
_MAX_LISTED = 100
"""So many cells of a matrix are named one by one to launch them."""
_FEW_PARTITIONS = 200
"""Of an asset with more the newest versions are found among all, which the section of the history does."""


class Tab(StrEnum):
    """A section of the page."""

    OVERVIEW = "overview"
    PARTITIONS = "partitions"
    HISTORY = "history"
    NUMBERS = "numbers"
    CHECKS = "checks"
    AUTOMATION = "automation"
    LINEAGE = "lineage"


@dataclass(frozen=True, slots=True)
class AssetQuery:
    """Which asset, and what of it.

    Args:
        name: the asset.
        tab: the section.
        first: first partition of a chosen range, as people write it.
        last: the last one.
    """

    name: str
    tab: Tab = Tab.OVERVIEW
    first: str = ""
    last: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenRange:
    """Partitions that were chosen on the heat map or typed.

    Args:
        first: the first one.
        last: the last one.
        count: how many there are between them.
        partitions: each of them, where they are no range: those between two corners of a matrix.
        can_launch: whether a form can name them all.
        problem: what is wrong with them; empty when nothing is.
        backfill: the equal command.
    """

    first: str
    last: str
    count: int = 0
    partitions: str = ""
    can_launch: bool = True
    problem: str = ""
    backfill: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetAutomation:
    """What requests the asset by itself.

    Args:
        condition: its condition; empty without one.
        paused: whether that is paused.
        lines: what it says now: of the asset, or of its newest partition.
        ticks: the newest ticks that requested something or failed.
    """

    condition: str
    paused: bool
    lines: tuple[str, ...]
    ticks: tuple[TickRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetModel:
    """The page; what the section does not show is None.

    Args:
        asset: the asset, and how it stands.
        tab: the section.
        tabs: all sections that it has.
        partitions: the state of each partition.
        chosen: the chosen range.
        failing: partitions whose last attempt failed.
        history: newest versions, and the numbers that they recorded.
        checks: newest results of checks.
        automation: what requests it.
        freshness: how old its data are, if it declares how old they may be.
    """

    asset: AssetDetail
    tab: str
    tabs: tuple[str, ...]
    partitions: AssetPartitions | None = None
    chosen: ChosenRange | None = None
    failing: tuple[FailingPartition, ...] = ()
    history: AssetHistory | None = None
    checks: tuple[CheckLine, ...] | None = None
    automation: AssetAutomation | None = None
    freshness: FreshnessLine | None = None

    def durations(self) -> list[Point]:
        """Return how long each version took, for a chart; the oldest first."""
        return durations(self.history.versions) if self.history is not None else []

    def recorded(self, series: NumberSeries) -> list[Point]:
        """Return the numbers of a series, for a chart."""
        return recorded(self.asset.name, series.points)


@page("/asset", template="asset.html", title="Asset", query=AssetQuery, role=Role.VIEWER, rail="Assets")
def asset(request: PageRequest[AssetQuery]) -> AssetModel:
    """Return what a section shows; only that is asked for."""
    query, insights = request.query, request.insights
    detail = insights.asset(query.name)
    tab = query.tab if query.tab is not Tab.PARTITIONS or detail.partitioned else Tab.OVERVIEW
    partitions = chosen = history = checks = automation = None
    failing: tuple[FailingPartition, ...] = ()
    if tab is Tab.PARTITIONS and detail.declared:
        partitions = insights.partitions(query.name)
        chosen = _chosen(request) if query.first or query.last else None
    is_failing = detail.state == "failed" and detail.partitioned and detail.declared
    if tab in (Tab.OVERVIEW, Tab.PARTITIONS) and is_failing:
        failing = tuple(one for one in insights.failing(assets=200, of_each=_SHOWN) if one.asset == query.name)
    few = not detail.partitioned or (detail.total is not None and detail.total <= _FEW_PARTITIONS)
    if tab in (Tab.HISTORY, Tab.NUMBERS) or (tab is Tab.OVERVIEW and few):
        history = insights.asset_history(query.name, limit=_SHOWN if tab is Tab.OVERVIEW else _LINES)
    if tab is Tab.CHECKS:
        checks = tuple(insights.asset_checks(query.name, limit=_LINES))
    if tab is Tab.AUTOMATION and detail.declared:
        automation = _automation(request, detail)
    tabs = tuple(one.value for one in Tab if one is not Tab.PARTITIONS or (detail.partitioned and detail.declared))
    return AssetModel(
        asset=detail,
        tab=tab.value,
        tabs=tabs,
        partitions=partitions,
        chosen=chosen,
        failing=failing[:_SHOWN],
        history=history,
        checks=checks,
        automation=automation,
        freshness=next(iter(insights.freshness(query.name)), None),
    )


def _chosen(request: PageRequest[AssetQuery]) -> ChosenRange:
    query = request.query
    first, last = query.first or query.last, query.last or query.first
    try:
        keys = request.insights.partition_range(query.name, first, last)
    except PartitionError as error:
        return ChosenRange(first=first, last=last, problem=str(error))
    if len(keys) == 1 or not isinstance(decode_partition(keys[0]), tuple):
        backfill = command("backfill", query.name, **{"from": first, "to": last})
        return ChosenRange(first=first, last=last, count=len(keys), backfill=backfill)
    if len(keys) > _MAX_LISTED:
        return ChosenRange(first=first, last=last, count=len(keys), can_launch=False)
    graph = request.flow.parts.graph
    definition = graph[query.name].partitions if query.name in graph else None
    listed = ",".join(write_partition(definition, key) for key in keys)
    backfill = command("backfill", query.name, partitions=listed)
    return ChosenRange(first=first, last=last, count=len(keys), partitions=listed, backfill=backfill)


def _automation(request: PageRequest[AssetQuery], detail: AssetDetail) -> AssetAutomation:
    conditions = request.flow.conditions
    if not detail.automation:
        return AssetAutomation(condition="", paused=False, lines=(), ticks=())
    decisions = conditions.evaluate(detail.name)
    lines = tuple(decisions[0].explain()[:_MAX_LINES]) if decisions else ("It has no complete partition yet.",)
    ticks = tuple(conditions.ticks(detail.name, limit=_SHOWN))
    record = request.flow.parts.store.automations.record(AutomationId(AutomationKind.CONDITION, detail.name))
    paused = record is not None and record.paused
    return AssetAutomation(condition=detail.automation, paused=paused, lines=lines, ticks=ticks)


@dataclass(frozen=True, slots=True)
class RangeForm:
    """Partitions of one asset.

    Args:
        name: the asset.
        first: first partition, as people write it; empty for an asset without partitions.
        last: last partition; the first one when it is empty.
        typed: the name of the asset, typed by whoever erases.
        reason: why, for the audit log.
    """

    name: str
    first: str = ""
    last: str = ""
    typed: str = ""
    reason: str = ""


def _keys(call: ActionCall[RangeForm]) -> list[str]:
    """Return the encoded partitions that are meant.

    Raises:
        Problem: a partition is missing.
    """
    form = call.form
    detail = call.flow.insights.asset(form.name)
    if not detail.partitioned:
        return [""]
    if not form.first:
        raise Problem(422, f"Asset {form.name!r} has partitions.", "Say from which to which: first and last.")
    return [*call.flow.insights.partition_range(form.name, form.first, form.last)]


def _shown(form: RangeForm, keys: list[str]) -> str:
    if not form.first:
        return form.name
    return f"{form.name} [{form.first}]" if len(keys) == 1 else f"{form.name} [{form.first} to {form.last}]"


def _confirm_invalidate(call: ActionCall[RangeForm]) -> Confirm:
    keys = _keys(call)
    number = "its version" if len(keys) == 1 else f"the versions of {len(keys):,} partitions"
    return Confirm(
        f"Invalidate {_shown(call.form, keys)}?",
        button="Invalidate",
        details=(
            f"Takes {number} out of use: what reads them waits, until they are computed again.",
            "Values stay stored, and can be put in use again from the page of each partition.",
        ),
        danger=True,
    )


@action(
    "/asset/invalidate",
    title="Invalidate partitions",
    form=RangeForm,
    role=Role.OPERATOR,
    confirm=_confirm_invalidate,
)
def invalidate(call: ActionCall[RangeForm]) -> Done:
    """Take the versions of a range of partitions out of use."""
    keys = _keys(call)
    partitions = None if keys == [""] else [decode_partition(key) for key in keys]
    number = call.flow.invalidate(call.form.name, partitions=partitions)
    return Done(
        f"{number:,} versions of {_shown(call.form, keys)} are out of use.", url("asset", name=call.form.name)
    )


def _confirm_erase(call: ActionCall[RangeForm]) -> Confirm:
    keys = _erasable(call)
    partitions = [decode_partition(key) if key else None for key in keys]
    planned = call.flow.versions.erase(call.form.name, partitions=partitions, dry_run=True)
    downstream = f"{'more than ' if planned.more_downstream else ''}{len(planned.downstream):,}"
    return Confirm(
        f"Erase {_shown(call.form, keys)} for good?",
        button="Erase for good",
        details=(
            f"{planned.values:,} values ({planned.size_bytes:,} bytes) of {planned.steps:,} steps are deleted "
            "wherever they are, with errors, metadata, results of checks, logs and requests. Nothing brings them "
            "back.",
            f"{downstream} versions were made from them, and stay as they are.",
            "That it was erased, when and by whom, stays in the history.",
        ),
        asks=(
            ("typed", f"Type {call.form.name} to confirm", True),
            ("reason", "Reason, for the audit log", False),
        ),
        danger=True,
    )


def _erasable(call: ActionCall[RangeForm]) -> list[str]:
    keys = _keys(call)
    if len(keys) > MAX_ERASED:
        raise Problem(
            422, f"{len(keys):,} partitions at once are too many to erase here.", f"Choose at most {MAX_ERASED:,}."
        )
    return keys


@action("/asset/erase", title="Erase for good", form=RangeForm, role=Role.ADMIN, confirm=_confirm_erase)
def erase(call: ActionCall[RangeForm]) -> Done:
    """Erase partitions for good."""
    if call.form.typed != call.form.name:
        raise Problem(422, "Nothing was erased: the name of the asset was not typed.", f"Type {call.form.name}.")
    keys = _erasable(call)
    partitions = [decode_partition(key) if key else None for key in keys]
    erased = call.flow.versions.erase(call.form.name, partitions=partitions, reason=call.form.reason or None)
    left = sum(erased.out_of_reach.values())
    message = f"{_shown(call.form, keys)}: {erased.values:,} values of {erased.steps:,} steps are erased."
    if left:
        names = ", ".join(sorted(erased.out_of_reach))
        message += f" {left:,} could not be deleted ({names}): erase again where these can be reached."
    if erased.elsewhere:
        message += f" {len(erased.elsewhere):,} refer to data elsewhere, which is still there: yours to delete."
    if erased.downstream:
        message += f" {len(erased.downstream):,} versions were made from them and are as they were."
    return Done(message, url("asset", name=call.form.name))
