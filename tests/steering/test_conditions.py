"""Conditions with real workers: two nodes evaluate, nobody else asks for anything but the source."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from tests.faults.fleet import Fleet
from tests.steering import conditions_app

from flowstone import FlowStone
from flowstone.core.automation.record import TickState


class Line(Fleet):
    """Workers and a client of the app with conditions."""

    app = "tests.steering.conditions_app"

    def client(self) -> FlowStone:
        return conditions_app.make_flow(self.database_url, self.storage)

    def provide(self, value: str) -> None:
        """Compute the source anew."""
        (self.directory / "value").write_text(value)
        self.flow.materialize("source", force=True)

    def starts(self) -> dict[str, int]:
        """How often each asset was started."""
        names = [event.asset for event in self.events("start")]
        return {name: names.count(name) for name in dict.fromkeys(names)}

    def wait_settled(self, *, paused: str | None = None) -> None:
        """Wait until every condition was evaluated twice since anything went on, and nothing is requested."""
        due = self.due(paused)
        times = dict.fromkeys(due, 0)

        def settled() -> bool:
            if self.rows("SELECT 1 FROM flowstone.steps WHERE finished_at IS NULL"):
                times.update(dict.fromkeys(times, 0))
            for name, at in self.due(paused).items():
                times[name] += at != due[name]
                due[name] = at
            requested = {one.asset for one in self.flow.conditions.evaluate() if one.requested}
            return min(times.values()) >= 2 and not requested - {paused}

        self.wait(settled, "conditions to settle")

    def due(self, paused: str | None) -> dict[str, datetime | None]:
        """When each condition is evaluated next."""
        records = self.flow.conditions.list()
        return {record.id.name: record.due_at for record in records if record.id.name != paused}


@pytest.fixture
def line(database_url: str, tmp_path: Path) -> Iterator[Line]:
    fleet = Line(tmp_path, database_url)
    try:
        yield fleet
    finally:
        fleet.close()


@pytest.mark.faults
def test_a_chain_reacts_to_new_data_only(line: Line) -> None:
    line.start(2)
    line.provide("one")
    line.wait(lambda: line.flow.exists("third"), "the end of the chain")
    assert line.flow.load("third") == 4
    line.wait_settled()
    assert line.starts() == {"source": 1, "first": 1, "second": 1, "third": 1}
    line.provide("one")
    line.wait_settled()
    assert line.starts() == {"source": 2, "first": 1, "second": 1, "third": 1}, "the same bytes"
    line.provide("two")
    line.wait(lambda: line.flow.load("first") == "TWO", "the first to follow")
    line.wait_settled()
    assert line.starts() == {"source": 3, "first": 2, "second": 2, "third": 1}, "second came out the same"
    ticks = line.flow.conditions.ticks("first")
    assert [tick.state for tick in ticks if tick.run_ids] == [TickState.REQUESTED] * 2
    assert any("input source changed: data version" in (tick.reason or "") for tick in ticks)
    assert line.flow.why("first")[1].startswith("first is not requested: no input changed since it was computed")


@pytest.mark.faults
def test_what_failed_is_not_hammered_and_what_is_paused_not_asked_for(line: Line) -> None:
    line.start(2)
    line.flow.conditions.pause("third")
    line.provide("too long")
    line.wait(lambda: line.flow.exists("second"), "the second")
    line.wait_settled(paused="third")
    assert "third" not in line.starts()
    line.flow.conditions.resume("third")
    line.wait(lambda: line.starts().get("third") == 1, "the try of the third")
    line.wait_settled()
    assert line.starts()["third"] == 1
    (why,) = [text for text in line.flow.why("third") if text.startswith("third is not requested")]
    assert "it ended as failed and neither inputs nor code changed since" in why
    line.provide("fine")
    line.wait(lambda: line.flow.exists("third"), "the third")
    line.wait_settled()
    assert line.starts() == {"source": 2, "first": 2, "second": 2, "third": 2}
