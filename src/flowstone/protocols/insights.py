"""What a store answers for people who watch: pages, `--json`, the JSON API.

One protocol for each subject, each a property of `Insights`. Everything here only reads, is bounded whatever it
is asked, and costs what it returns, not what is recorded. Ages are measured by the clock of the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from flowstone.core.approval import Approval
from flowstone.core.automation.record import AutomationId, TickRecord
from flowstone.core.insights.assets import AssetCounts, AssetHealth, AssetTargets, FailedTarget, StaleVersion
from flowstone.core.insights.fleet import (
    LimitRecord,
    MinuteFlow,
    QueueFlow,
    QueueRecord,
    QueueWait,
    RunningStep,
    WorkerRecord,
)
from flowstone.core.insights.overview import FoundRun, PoolUse, Pulse, StaleAsset, TableSize
from flowstone.core.insights.runs import FailedStep, StepGroup, StepSpan, Strip
from flowstone.core.run_filter import RunFilter
from flowstone.core.state import State
from flowstone.core.step import CheckRecord, RunRecord, StepRecord


class FleetInsights(Protocol):
    """Workers, queues and limits. In memory nothing has a lease, and nothing stands on a queue."""

    def workers(self, *, limit: int) -> list[WorkerRecord]:
        """Return processes with a lease, those that lost it lately last; in the order of their start."""

    def running(self, *, worker: str | None = None, queue: str | None = None, limit: int) -> list[RunningStep]:
        """Return steps at work, those that have run longest first.

        Args:
            worker: only those of this worker.
            queue: only those that were started from this queue.
            limit: how many at most.
        """

    def queues(self) -> list[QueueRecord]:
        """Return the queues that are set, served, or have work; by name."""

    def flow(self, queues: Sequence[str]) -> list[QueueFlow]:
        """Return what started and ended on some queues lately."""

    def waits(self, queues: Sequence[str], *, limit: int, by_minute: bool = False) -> list[QueueWait]:
        """Return how long the last steps of some queues had waited for a worker.

        Args:
            queues: which.
            limit: how many of the last steps of each are measured.
            by_minute: whether each minute stands for itself.
        """

    def minutes(self, since: datetime) -> list[MinuteFlow]:
        """Return how many attempts ended, and failed, in each minute since a time; empty minutes are left out."""

    def limits(self, *, limit: int) -> list[LimitRecord]:
        """Return the named limits that were ever asked for a start; by name."""


class AssetInsights(Protocol):
    """Assets and the states of their partitions. Items of scattered steps are no partitions."""

    def targets(self, asset: str) -> AssetTargets:
        """Return which partitions of an asset are in which state."""

    def counts(self) -> list[AssetCounts]:
        """Return how many partitions of each asset are in which state; unknown assets are left out."""

    def stale(self, asset: str, code_version: str | None, *, limit: int) -> list[StaleVersion]:
        """Return versions in use that would come out differently now, one input each that is the reason.

        Args:
            asset: whose.
            code_version: what the asset declares now; None when it declares none.
            limit: how many at most.
        """

    def failures(self, assets: Sequence[str], *, limit: int) -> list[FailedTarget]:
        """Return partitions whose last attempt failed, the newest first.

        Args:
            assets: of which assets.
            limit: how many of each at most.
        """

    def health(self, assets: Sequence[str]) -> list[AssetHealth]:
        """Return how long versions of some assets usually take, and how many checks fail; one for each asset."""


class RunInsights(Protocol):
    """Runs and their steps."""

    def page(
        self, requested: RunFilter, *, before: tuple[datetime, str] | None = None, limit: int
    ) -> list[RunRecord]:
        """Return the newest runs that match, behind the (creation, id) of the last one of the page before.

        No steps are counted: of runs that are not over, the counts say what the counters know.
        """

    def run(self, run_id: str) -> RunRecord | None:
        """Return one run; its counts are those of a list."""

    def count(self, requested: RunFilter, *, limit: int) -> int:
        """Return how many runs match, counted up to a limit."""

    def usual_seconds(self, run_ids: Sequence[str]) -> dict[str, float]:
        """Return how long runs like these took lately, where there were any."""

    def groups(self, run_id: str, *, from_counters: bool = False) -> list[StepGroup] | None:
        """Return the steps of a run by asset.

        Args:
            run_id: the run.
            from_counters: do not read its steps; None when the run does not know then.
        """

    def failed(self, run_id: str, *, limit: int) -> list[FailedStep]:
        """Return the newest steps of a run that failed."""

    def spans(self, run_id: str, *, limit: int) -> list[StepSpan]:
        """Return when the first steps of a run ran, own and joined, and what each waits for."""

    def strips(self, run_id: str, *, limit: int) -> list[Strip]:
        """Return the states of its own partitions by asset, of the first assets."""

    def steps(
        self,
        run_id: str,
        *,
        states: Sequence[State] = (),
        assets: Sequence[str] = (),
        error_type: str | None = None,
        after: int = 0,
        limit: int,
    ) -> list[StepRecord]:
        """Return own steps of a run by their ids, without their values, behind a step.

        Args:
            run_id: the run.
            states: only in these states; all when empty.
            assets: only of these assets; all when empty.
            error_type: only with an error of this class.
            after: behind the step of this id.
            limit: how many at most.
        """


class OverviewInsights(Protocol):
    """The first page, and the search."""

    def stale_assets(self, code_versions: Mapping[str, str | None], *, limit: int) -> list[StaleAsset]:
        """Return assets with versions in use that would come out differently now; by name.

        Args:
            code_versions: the assets to compare, with what they declare now.
            limit: how many of the last partitions of each, in the order of their texts.
        """

    def find_runs(self, text: str, *, limit: int) -> list[FoundRun]:
        """Return runs whose id or selection begins with a text, or that have it as a tag; the newest first."""


class AutomationInsights(Protocol):
    """Automations, checks and approvals: what is asked of many at once, a bounded number of each."""

    def ticks(self, automations: Sequence[AutomationId], *, each: int) -> list[TickRecord]:
        """Return the newest ticks of each of some automations, all of them newest first."""

    def recent_checks(self, assets: Sequence[str], *, each: int) -> list[CheckRecord]:
        """Return the newest results of the checks of each of some assets; those of one asset newest first."""

    def failing_checks(self, assets: Sequence[str], *, each: int) -> list[CheckRecord]:
        """Return results that are failures and the newest of their check and partition.

        Args:
            assets: of which assets.
            each: how many of the last failures of each are looked through.
        """

    def decided(self, *, before: int | None = None, limit: int) -> list[Approval]:
        """Return requests for approval that are over, the newest first; those with an id before this one."""

    def pending(self, *, limit: int) -> int:
        """Return how many requests wait for a decision, counted to the limit."""


class Insights(Protocol):
    """All subjects."""

    @property
    def runs(self) -> RunInsights:
        """Runs and their steps."""

    @property
    def fleet(self) -> FleetInsights:
        """Workers and queues."""

    @property
    def assets(self) -> AssetInsights:
        """Assets and their partitions."""

    @property
    def overview(self) -> OverviewInsights:
        """The first page, and the search."""

    @property
    def automation(self) -> AutomationInsights:
        """Automations, checks and approvals."""

    def tables(self) -> list[TableSize]:
        """Return the tables of the store with their sizes, the largest first."""

    def connections(self) -> list[PoolUse]:
        """Return how many connections this process holds here; nothing in memory."""

    def pulse(self) -> Pulse:
        """Return a text for each topic that changes when something about it does; asked once a second."""
