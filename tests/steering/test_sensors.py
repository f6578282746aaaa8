"""Sensors with real workers: files come in, each is taken once; what fails or hangs holds nobody up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.fleet import Fleet
from tests.steering import sensing_app

from flowstone import FlowStone
from flowstone.core.automation.record import TickState


class Office(Fleet):
    """Workers and a client of the app with sensors."""

    app = "tests.steering.sensing_app"

    def client(self) -> FlowStone:
        self.inbox = Path(self.storage).parent / "inbox"
        self.inbox.mkdir()
        return sensing_app.make_flow(self.database_url, self.storage)

    def put(self, *names: str) -> None:
        for name in names:
            (self.inbox / name).write_text(name)

    def done(self) -> list[str]:
        return sorted(one.key for one in self.events("end", "taken"))


@pytest.fixture
def office(database_url: str, tmp_path: Path) -> Iterator[Office]:
    fleet = Office(tmp_path, database_url)
    try:
        yield fleet
    finally:
        fleet.close()


@pytest.mark.faults
def test_two_workers_take_every_file_once(office: Office) -> None:
    flow = office.flow.sensors
    office.put("a.csv", "b.csv", "notes.txt")
    office.start(2)
    office.wait(lambda: office.done() == ["a.csv", "b.csv"], "the first files")
    office.put("c.csv")
    office.wait(lambda: office.done() == ["a.csv", "b.csv", "c.csv"], "another file")
    flow.pause("inbox")
    office.put("d.csv")
    flow.set_cursor("inbox", None)  # everything is new again, and nothing but d runs for it
    # a file is left alone until it has settled, and a paused sensor does not look again by itself
    office.wait(
        lambda: "d.csv" in [one.partition for one in flow.preview("inbox").requests], "the file to have settled"
    )
    assert flow.run_now("inbox") is None
    office.wait(lambda: office.done() == ["a.csv", "b.csv", "c.csv", "d.csv"], "the file taken by hand")
    office.wait_over()
    assert office.flow.partitions.list("files") == ["a.csv", "b.csv", "c.csv", "d.csv"]
    assert len(office.flow.runs.latest()) == 4
    office.wait(lambda: flow.get("hangs").last and flow.get("raises").last, "the others")
    for name, says in (("hangs", "took longer than 0.3 s"), ("raises", "no network")):
        status = flow.get(name)
        assert status.record is not None
        assert status.record.failures >= 1
        assert all(tick.state is TickState.FAILED for tick in flow.ticks(name))
        assert says in (flow.ticks(name)[0].error or "")
    office.open_gate("hangs")
