"""A fleet on the app of the steering tests, and what its log says about who worked at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.faults.fleet import Event, Fleet
from tests.steering import steered_app

from flowstone import FlowStone
from flowstone.core.step import Attempt
from flowstone.stores.postgres.queue import Lease
from flowstone.stores.postgres.store import PostgresStore


class Crew(Fleet):
    """Workers and a client of the steered app."""

    app = "tests.steering.steered_app"

    def client(self) -> FlowStone:
        return steered_app.make_flow(self.database_url, self.storage)

    @property
    def store(self) -> PostgresStore:
        store = self.flow.parts.store
        assert isinstance(store, PostgresStore)
        return store

    def lease(self, name: str = "hand", queues: dict[str, int] | None = None) -> Lease:
        """Register a worker that does nothing by itself: the test takes jobs with `take`."""
        lease = Lease(self.store.database, name)
        served = queues or {"assets": 100, "backfill": 100}
        lease.register(kind="node", host="here", pid=1, queues=served, lease_seconds=600.0)
        return lease

    def take(self, queue: str = "backfill", *, demand: int = 100, worker: str = "hand") -> list[Attempt]:
        """Take jobs as a worker node does."""
        return self.store.queue.fetch(queue, demand=demand, worker_id=worker, attempted_by=["here", worker])

    def keep_out(self, run_ids: Sequence[str]) -> None:
        """Let work go through the queue of backfills behind what should not start, and see it through."""
        self.wait_over([self.place_many("quick", 3, force=True)])
        assert all(self.flow.runs.get(run_id).state == "running" for run_id in run_ids)

    def place_step(self, asset: str, partition: str | None = None, **how: Any) -> str:
        """Schedule one step; return its run."""
        return self.flow.schedule(asset, partition=partition, **how).run_id


def max_at_once(events: Sequence[Event]) -> int:
    """Return the largest number of attempts that were between their start and their end."""
    present = maximum = 0
    for event in sorted(events, key=lambda one: one.at):
        present += 1 if event.event == "start" else -1
        maximum = max(maximum, present)
    return maximum
