"""Dynamic partitions with real workers, which are never started again."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.faults.fleet import Fleet
from tests.steering import dynamic_app

from flowstone import FlowStone
from flowstone.errors import UnknownPartitionError


class Sales(Fleet):
    """Workers and a client of the app with dynamic partitions."""

    app = "tests.steering.dynamic_app"

    def client(self) -> FlowStone:
        return dynamic_app.make_flow(self.database_url, self.storage)


@pytest.fixture
def sales(database_url: str, tmp_path: Path) -> Iterator[Sales]:
    fleet = Sales(tmp_path, database_url)
    try:
        yield fleet
    finally:
        fleet.close()


@pytest.mark.faults
def test_workers_see_new_keys_without_a_restart(sales: Sales) -> None:
    sales.start()
    flow = sales.flow
    flow.partitions.add("customers", ["acme", "globex"])
    assert flow.materialize_all("trend", partition="globex").value == {"globex": ["acme", "globex"]}
    flow.partitions.add("customers", ["initech"])
    assert flow.materialize_all("trend", partition="initech").value == {"initech": ["globex", "initech"]}
    flow.partitions.remove("customers", ["globex"])
    flow.partitions.add("customers", ["hooli"])
    assert flow.materialize_all("trend", partition="hooli").value == {"hooli": ["initech", "hooli"]}
    done = flow.backfill("*", force=True)
    assert (done.ok, done.total) == (True, 6)
    assert flow.load("trend", partition="globex") == ["acme", "globex"]


@pytest.mark.faults
def test_a_step_goes_on_when_its_key_is_removed(sales: Sales) -> None:
    (sales.directory / "hold-globex").touch()
    flow = sales.flow
    flow.partitions.add("customers", ["acme", "globex", "initech"])
    run = sales.place("trend", "globex")  # nobody works yet: acme is pending, trend waits
    flow.partitions.remove("customers", ["acme"])
    sales.start()
    sales.wait_event("start", "orders", count=2)  # one is running by now
    flow.partitions.remove("customers", ["globex"])
    with pytest.raises(UnknownPartitionError, match="was removed"):
        flow.materialize("trend", partition="globex")
    sales.open_gate("globex")
    sales.wait_over([run])
    assert flow.runs.get(run).state == "completed"
    assert [one.value for one in flow.history("orders", partition="globex")] == ["globex"]
    # the mapping knows the place of a removed key, and leaves out the other one
    assert flow.load("trend", partition="globex") == ["globex"]
    assert flow.partitions.list("customers") == ["initech"]


def test_clients_that_add_the_same_keys_at_once(sales: Sales) -> None:
    keys = [f"customer {number}" for number in range(30)]
    clients = [sales.client() for _ in range(4)]
    try:
        with ThreadPoolExecutor(len(clients)) as pool:
            added = list(pool.map(lambda client: list(client.partitions.add("customers", keys)), clients))
        assert sorted(key for new in added for key in new) == sorted(keys)
        assert all(client.partitions.list("customers") == keys for client in clients)
    finally:
        for client in clients:
            client.close()
