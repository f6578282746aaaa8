"""From targets to steps: what must run, what is already there, what waits for what."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from flowstone.core.graph import AssetGraph
from flowstone.core.step import Target
from flowstone.engine.inputs import InputReader
from flowstone.protocols import Catalog


@dataclass(slots=True)
class PlannedStep:
    """One target of a plan.

    Args:
        asset: asset name.
        partition: encoded partition.
        inputs: positions of the planned steps that it reads.
        reuse: the committed step that serves, when nothing has to run.
        forced: whether it is to be recomputed although a committed version exists, or will by then.
    """

    asset: str
    partition: str
    inputs: tuple[int, ...] = ()
    reuse: int | None = None
    forced: bool = False


@dataclass(slots=True)
class Plan:
    """Steps in an order in which they can run, and inputs that nobody will provide.

    Args:
        steps: what runs or is reused.
        missing: per target, the inputs that are neither planned nor committed.
    """

    steps: list[PlannedStep]
    missing: dict[Target, list[Target]] = field(default_factory=dict)

    @property
    def runs(self) -> int:
        """Number of steps that will run."""
        return sum(step.reuse is None for step in self.steps)

    @property
    def reuses(self) -> int:
        """Number of targets that are served by what is committed."""
        return len(self.steps) - self.runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked of the planner.

    Args:
        targets: what should be there in the end.
        expand: names of assets that may be added upstream when missing; None for all, empty for none.
        force: recompute the targets although they are committed.
        force_deps: recompute what is upstream of them as well.
        now: time that decides which partitions are complete.
    """

    targets: Sequence[Target]
    now: datetime
    expand: Collection[str] | None = None
    force: bool = False
    force_deps: bool = False


class Planner:
    """Plans against what is committed, one question to the catalog per level of the graph."""

    def __init__(self, graph: AssetGraph, reader: InputReader, catalog: Catalog) -> None:
        self._reader = reader
        self._catalog = catalog
        self._rank = {name: position for position, name in enumerate(graph.order)}

    def plan(self, request: Request) -> Plan:
        """Plan a request; shared inputs appear once.

        Args:
            request: what is asked for.

        Returns:
            The plan; its size is the number of (asset, partition) pairs, values are not touched.
        """
        wanted = dict.fromkeys(request.targets)
        committed = self._catalog.current(list(wanted))
        running: dict[Target, list[Target]] = {}
        outside: list[tuple[Target, Target]] = []
        level = list(wanted)
        while level:
            following: dict[Target, None] = {}
            for target in level:
                if not self._must_run(target, target in wanted, target in committed, request):
                    continue
                running[target] = reads = self._reader.targets(*target, request.now)
                for read in reads:
                    if request.expand is None or read[0] in request.expand:
                        following[read] = None
                    else:
                        outside.append((target, read))
            level = [target for target in following if target not in running and target not in committed]
            if request.force_deps:
                level = [target for target in following if target not in running]
            known = self._catalog.current(level) if level else {}
            committed.update(known)
        return Plan(self._steps(wanted, running, committed, request), self._missing(outside, running))

    def _must_run(self, target: Target, asked_for: bool, committed: bool, request: Request) -> bool:
        if not committed:
            return True
        return request.force if asked_for else request.force_deps

    def _steps(
        self,
        wanted: dict[Target, None],
        running: dict[Target, list[Target]],
        committed: dict[Target, int],
        request: Request,
    ) -> list[PlannedStep]:
        # assets are ranked upstream first and never read themselves, so this order can run
        ordered = sorted({**running, **wanted}, key=lambda target: self._rank[target[0]])
        position = {target: index for index, target in enumerate(ordered)}
        steps = []
        for target in ordered:
            if target not in running:
                steps.append(PlannedStep(*target, reuse=committed[target]))
                continue
            inputs = tuple([position[read] for read in running[target] if read in position])
            # force holds also for what another run commits between planning and placing
            forced = target in committed or (request.force if target in wanted else request.force_deps)
            steps.append(PlannedStep(*target, inputs=inputs, forced=forced))
        return steps

    def _missing(
        self, outside: list[tuple[Target, Target]], running: dict[Target, list[Target]]
    ) -> dict[Target, list[Target]]:
        open_reads = [(target, read) for target, read in outside if read not in running]
        known = self._catalog.current([read for _, read in open_reads]) if open_reads else {}
        missing: dict[Target, list[Target]] = {}
        for target, read in open_reads:
            if read not in known:
                missing.setdefault(target, []).append(read)
        return missing
