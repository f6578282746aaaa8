"""`flow.launch`: a request as people write it, what it would do, and placing exactly that.

What was shown is what is placed: a plan has a digest, and a request that carries one is placed only while its plan
is still the same. `LaunchView.plan` reads each field by itself, so that what is wrong is said of the field.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from flowstone.app.asynchronous import AsyncFlowStone, awaitable
from flowstone.app.build import Parts
from flowstone.app.results import RunHandle
from flowstone.app.runs import RunsView
from flowstone.app.submit import Placement
from flowstone.app.targets import backfill_targets, describe, parse_several
from flowstone.core.capability import Capability
from flowstone.core.clean import masked_document
from flowstone.core.declaring import view
from flowstone.core.partitions import Partition
from flowstone.core.run_details import check_tags
from flowstone.core.selection import select
from flowstone.core.step import NewStep, Target
from flowstone.engine.insights.plans import PlanGroup, action_of, grouped
from flowstone.engine.planner import Plan
from flowstone.engine.run_spec import BACKFILL_PRIORITY, BACKFILL_QUEUE, RunSpec
from flowstone.errors import FlowStoneError, LaunchChangedError, LaunchError

MAX_TARGETS = 200_000
_MAX_SPANS = 20
_MAX_BLOCKED = 20
_MANY = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchRequest:
    """What is to be computed, as people write it.

    Args:
        selection: which assets: a name, `+name`, `tag:x`, or any selection; only selected assets run.
        partitions: partitions of the first selected asset that has some, separated by commas.
        first: first one of a range instead.
        last: last one of a range, included.
        every: all complete partitions instead.
        config: config of the run.
        tags: for finding the run.
        force: compute what is selected although it is committed.
        executor: where it runs; it must be one that goes on without the caller.
        max_concurrency: most steps at once.
        allow_incomplete: compute partitions that are not over.
    """

    selection: str
    partitions: str = ""
    first: str = ""
    last: str = ""
    every: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    force: bool = False
    executor: str = "auto"
    max_concurrency: int | None = None
    allow_incomplete: bool = False


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """What a request would do.

    Args:
        digest: says whether two plans are the same.
        runs: steps that would run.
        reuses: targets that are served by what is committed.
        joins: of the steps that would run, those that are under way already: the run waits for them.
        skips: targets that are left out.
        blocked: how many of the steps wait for inputs that nothing makes.
        blocked_by: what is missing, a sentence for each, at most 20.
        groups: the steps by asset and action, each with at most 20 ranges.
        more_spans: how many ranges are left out of each group.
        executor: where it runs.
        config: its config as JSON, secrets masked; empty without.
        tags: for finding it.
    """

    digest: str
    runs: int
    reuses: int
    joins: int
    skips: int
    blocked: int
    blocked_by: tuple[str, ...]
    groups: tuple[PlanGroup, ...]
    more_spans: tuple[int, ...]
    executor: str
    config: str = ""
    tags: tuple[str, ...] = ()


@view("flow.launch")
class LaunchView:
    """Plans a request as people write it, and places exactly what was planned.

    Example:
        >>> from flowstone import FlowStone, StaticPartitions, asset
        >>> from flowstone.app.launch import LaunchRequest
        >>> @asset(partitions=StaticPartitions(["eu", "us", "asia"]))
        ... def orders(context): ...
        >>> flow = FlowStone.for_testing([orders])
        >>> plan = flow.launch.plan(LaunchRequest(selection="orders", partitions="eu, us", executor="sync"))
        >>> plan.runs, [str(span) for span in plan.groups[0].spans]
        (2, ['eu … us (2)'])
    """

    def __init__(self, parts: Parts, placement: Placement, runs: RunsView) -> None:
        self._parts = parts
        self._placement = placement
        self._runs = runs

    def plan(self, request: LaunchRequest) -> LaunchPlan:
        """Return what a request would do; nothing is placed.

        Args:
            request: what is to be computed.

        Raises:
            LaunchError: it cannot work; its `problems` say which fields are wrong, and why.
        """
        return self._planned(request)[0]

    def place(self, request: LaunchRequest, *, digest: str | None = None) -> RunHandle:
        """Place a request, and return its run; workers do the work.

        Args:
            request: what is to be computed.
            digest: of the plan that was agreed to; None places whatever the plan is now.

        Raises:
            LaunchError: it cannot work; see `plan`.
            LaunchChangedError: the plan is another one by now; it has the new plan.
        """
        plan, spec = self._planned(request)
        self._require_durable(request)
        if digest is not None and digest != plan.digest:
            raise LaunchChangedError(plan)
        return self._runs.handle(self._placement.start(spec).id)

    def suggestions(self, *, limit: int = 500) -> list[str]:
        """Return texts that are selections: names of assets, groups and tags; not more than `limit`."""
        graph = self._parts.graph
        groups = {f"group:{asset.group}" for asset in graph if asset.group}
        tags = {f"tag:{tag}" for asset in graph for tag in asset.tags}
        names = (asset.name for asset in graph)
        return list(islice([*sorted(groups), *sorted(tags), *names], limit))

    def executors(self) -> list[str]:
        """Return the names of executors that a launched run may use."""
        selector = self._parts.executors
        return ["auto", *[name for name in selector.names() if self._is_durable(name)]]

    def _planned(self, request: LaunchRequest) -> tuple[LaunchPlan, RunSpec]:
        spec = self._read(request)
        try:
            plan = self._placement.plan(spec)
        except FlowStoneError as error:
            raise LaunchError({"partitions" if request.partitions or request.first else "": str(error)}) from error
        joined = self._active(plan)
        groups = grouped(plan, self._parts.graph, datetime.now(UTC))
        return (
            LaunchPlan(
                digest=_digest(plan, joined),
                runs=sum(step.reuse is None and step.skip is None for step in plan.steps),
                reuses=plan.reuses,
                joins=len(joined),
                skips=sum(step.skip is not None for step in plan.steps),
                blocked=len(plan.missing),
                blocked_by=self._blocked(plan),
                groups=tuple(_bounded(one) for one in groups),
                more_spans=tuple(max(0, len(one.spans) - _MAX_SPANS) for one in groups),
                executor=request.executor,
                config=json.dumps(masked_document(request.config), indent=2) if request.config else "",
                tags=tuple(spec.tags),
            ),
            spec,
        )

    def _read(self, request: LaunchRequest) -> RunSpec:
        """Make the request of the verbs of one that people wrote, field by field."""
        graph, problems = self._parts.graph, _Problems()
        names = problems.of("selection", lambda: _selected(graph, request.selection)) or ()
        partitions: list[Partition] | None = None
        if names:
            partitions = problems.of("partitions", lambda: self._partitions(request, names))
        tags = problems.of("tags", lambda: check_tags(request.tags)) or ()
        problems.of("executor", lambda: self._parts.executors.capabilities(_named(request.executor)))
        targets: Sequence[Target] = []
        explicit: tuple[str, ...] = ()
        if names and "partitions" not in problems.found:
            now, incomplete = datetime.now(UTC), request.allow_incomplete

            def read() -> tuple[Sequence[Target], tuple[str, ...], tuple[str, ...]]:
                return backfill_targets(graph, request.selection, partitions, now, allow_incomplete=incomplete)

            targets, _, explicit = problems.of("partitions", read) or ([], (), ())
        if len(targets) > MAX_TARGETS:
            problems.found["partitions"] = (
                f"These are {len(targets):,} steps; {MAX_TARGETS:,} at most are launched here. Choose fewer."
            )
        many = len(targets) > _MANY
        spec = RunSpec(
            kind="backfill" if many else "materialize_all",
            selection=describe(request.selection) if names else "",
            targets=targets,
            executor=request.executor or "auto",
            expand=names,
            force=request.force,
            usual_priority=BACKFILL_PRIORITY if many else None,
            queue=BACKFILL_QUEUE if many else None,
            max_concurrency=request.max_concurrency,
            explicit=explicit,
            allow_incomplete=request.allow_incomplete,
            config=dict(request.config) if request.config else None,
            tags=tags,
        )
        if not problems.found:
            problems.of("config", lambda: self._parts.details.read(spec))
        if problems.found:
            raise LaunchError(problems.found)
        return spec

    def _partitions(self, request: LaunchRequest, names: Sequence[str]) -> list[Partition] | None:
        parted = [name for name in names if self._parts.graph[name].partitions is not None]
        given = bool(request.partitions.strip() or request.first or request.last)
        if request.every and given:
            raise LaunchError({"partitions": "Give either all partitions, or some of them."})
        if parted and not request.every and not given:
            raise LaunchError(
                {"partitions": f"Which partitions of {parted[0]}? Give some, a range, or all complete ones."}
            )
        if request.every or not given:
            return None
        listed = [request.partitions] if request.partitions.strip() else None
        return parse_several(
            self._parts.graph, names, listed=listed, first=request.first or None, last=request.last or None
        )

    def _require_durable(self, request: LaunchRequest) -> None:
        executor = self._placement.executor(request.executor or "auto")
        if Capability.DURABLE not in executor.capabilities:
            raise LaunchError(
                {
                    "executor": f"The executor {executor.name!r} runs steps in this process, where nobody would "
                    "wait for them. Launched runs need workers: give the app a database "
                    "(FLOWSTONE_DATABASE_URL), and choose oban."
                }
            )

    def _is_durable(self, executor: str) -> bool:
        try:
            return Capability.DURABLE in self._parts.executors.capabilities(executor)
        except FlowStoneError:
            return False

    def _active(self, plan: Plan) -> list[Target]:
        """Return the targets that would run and are under way already."""
        keys: dict[str, set[str]] = {}
        for step in plan.steps:
            if step.reuse is None and step.skip is None:
                keys.setdefault(step.asset, set()).add(step.partition_key)
        insights = self._parts.store.insights.assets
        found: list[Target] = []
        for asset, requested in keys.items():
            targets = insights.targets(asset)
            found += [(asset, key) for key in sorted((targets.active | targets.unstarted) & requested)]
        return found

    def _blocked(self, plan: Plan) -> tuple[str, ...]:
        graph = self._parts.graph
        return tuple(
            f"{graph.describe(*target)} waits for {', '.join(graph.describe(*one) for one in missing[:3])}"
            + (f" and {len(missing) - 3:,} more" if len(missing) > 3 else "")
            for target, missing in islice(plan.missing.items(), _MAX_BLOCKED)
        )


class AsyncLaunchView(AsyncFlowStone):
    """`flow.aio.launch`: the verbs of `flow.launch`, awaitable."""

    plan = awaitable(LaunchView.plan)
    place = awaitable(LaunchView.place)
    suggestions = awaitable(LaunchView.suggestions)
    executors = awaitable(LaunchView.executors)


class _Problems:
    """What is wrong with a request, by field; the first problem of each."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}

    def of[T](self, name: str, read: Callable[[], T]) -> T | None:
        """Return what a field says; None, and the problem is kept, when it cannot be read."""
        try:
            return read()
        except LaunchError as error:
            self.found.update(error.problems)
        except (FlowStoneError, RecursionError) as error:
            self.found.setdefault(name, str(error))
        return None


def _selected(graph: Any, selection: str) -> tuple[str, ...]:
    if not selection.strip():
        raise LaunchError(
            {"selection": "Which assets? Give a name, such as orders, or a selection, such as +orders."}
        )
    names: tuple[str, ...] = select(graph, selection)
    if not names:
        raise LaunchError({"selection": f"{selection!r} selects no asset."})
    return names


def _named(executor: str) -> str:
    return "sync" if executor in ("", "auto") else executor


def _bounded(group: PlanGroup) -> PlanGroup:
    return PlanGroup(group.asset, group.action, group.count, group.spans[:_MAX_SPANS], group.after, group.reason)


def _digest(plan: Plan, joined: Iterable[Target]) -> str:
    """Return what is another one as soon as other steps would run, be reused, joined or blocked."""
    found = hashlib.blake2b(digest_size=16)
    for line in sorted(map(_line, plan.steps)):
        found.update(line.encode("utf-8", "surrogatepass"))
    for kind, targets in (("join", joined), ("blocked", plan.missing)):
        for asset, key in sorted(targets):
            found.update(f"{kind}\0{asset}\0{key}\n".encode("utf-8", "surrogatepass"))
    return found.hexdigest()


def _line(step: NewStep) -> str:
    return f"{action_of(step)}\0{step.asset}\0{step.partition_key}\n"
