"""The runs that sensors ask for: planned for the queue, or driven here where there is none."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from flowstone.app.placed import Placed
from flowstone.app.placement import Placement, Prepared
from flowstone.app.wiring import Parts
from flowstone.core.automation.record import PreparedRun
from flowstone.core.automation.request import RunRequest
from flowstone.core.selection import select
from flowstone.errors import PartitionError


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
        """See `flowstone.protocols.PrepareRun`."""
        self._refuse_all_partitions(request)
        if self._parts.store.durable:
            return self._placement.prepare_request(request, run_id=run_id, kind=kind, now=now)
        order = self._placement.requested(request, run_id=run_id, kind=kind, now=now)
        ready = self._placement.prepare(order, self._placement.executor(order.executor))
        self._mine()[run_id] = ready
        return PreparedRun(ready.run, ready.steps, request.run_key)

    def drive(self, run_ids: Sequence[str]) -> None:
        """Take runs that were opened to their end; with a queue, workers do that."""
        mine = {run_id: ready for run_id in run_ids if (ready := self._ready(run_id)) is not None}
        left = [*mine]
        try:
            while left:
                self._placement.driving.drive(self._placed(mine[left[0]]))
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

    def _placed(self, ready: Prepared) -> Placed:
        # it is open: opening it again only returns its steps, all of which look joined
        run_id = ready.run.id
        opened = self._parts.store.ledger.open_run(ready.run, ready.steps)
        steps = [one._replace(deduplicated=one.run_id != run_id) for one in opened]
        priorities = [step.priority for step in ready.steps]
        return Placed(
            run_id,
            ready.executor,
            ready.options,
            steps,
            ready.plan,
            ready.order,
            priorities,
            ready.run.details,
            self._parts.store.catalog.run_details,
        )

    def _ready(self, run_id: str) -> Prepared | None:
        """Return what was prepared for a run; one of a forgotten run key has got another id when it was opened."""
        mine = self._mine()
        if run_id in mine:
            return mine[run_id]
        ready = mine.get(run_id.rpartition("-")[0])
        return None if ready is None else ready._replace(run=replace(ready.run, id=run_id))

    def _mine(self) -> dict[str, Prepared]:
        mine: dict[str, Prepared] | None = getattr(self._prepared, "runs", None)
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
