"""A worker holds the inputs of what runs and nothing of what is over, with the cyclic collector off."""

from __future__ import annotations

from tests.crews import crew_of
from tests.steering import watched_app
from tests.steering.crew import Crew

from flowstone import FlowStone


class Watched(Crew):
    app = "tests.steering.watched_app"

    def client(self) -> FlowStone:
        return watched_app.make_flow(self.database_url, self.storage)


crew = crew_of(Watched)


def test_a_worker_holds_one_input_at_a_time(crew: Watched) -> None:
    crew.start(queues={"assets": 1, "backfill": 1})
    flow, keys = crew.flow, watched_app.KEYS
    assert flow.backfill("big", partitions=keys).ok
    for name in ("reads", "isolated"):
        result = flow.backfill(name, partitions=keys)
        assert result.value == dict.fromkeys(keys, 1), name
    failed = flow.backfill("fails", partitions=keys)
    assert failed.failed == len(keys)
    assert all("1 alive, True" in error for error in failed.errors.values()), failed.errors
    assert flow.materialize_all("scattered").value == 0
    assert flow.materialize("left").value == 0
