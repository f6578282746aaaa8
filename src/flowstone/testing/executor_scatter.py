"""Conformance of executors: assets that discover their items when they run."""

from __future__ import annotations

from typing import Any

import pytest

from flowstone.app import FlowStone
from flowstone.core.state import State
from flowstone.core.step import RunRecord
from flowstone.engine.gathered import Gathered
from flowstone.errors import ItemError, OptionsError, ScatterFailedError, SelectionError
from flowstone.testing.executor_case import TIMEOUT_SECONDS, ExecutorCase
from flowstone.testing.marks import wait_until
from flowstone.testing.scatter_assets import KINDS, WIDTH, ItemFailedError

_ITEMS = "fanned.item"


class ScatterTests(ExecutorCase):
    """Each item is a step; what succeeded is gathered in order, once all are over."""

    def test_items_are_gathered_in_order(self, flow: FlowStone) -> None:
        """Thirty items, no more at once than declared; their results come in the order of discovery."""
        value = self._fan(flow, "all")
        assert value == {"values": list(range(30)), "counts": [30, 30, 0, 0], "failures": []}
        assert (self.marks.count("item-all"), self.marks.count("discovered-all")) == (30, 1)
        assert self.marks.largest("fanned") <= WIDTH
        if self.concurrent(flow):
            assert self.marks.largest("fanned") > 1
        run = self._items(flow)
        assert (run.kind, run.state, run.counts) == ("scatter", State.COMPLETED, {State.COMPLETED: 30})
        again = flow.materialize("fanned", partition="all", executor=self.executor)
        assert (again.state, again.value) == (State.REUSED, value)

    def test_some_items_may_fail(self, flow: FlowStone) -> None:
        """As many failures as are allowed do not hold up the others."""
        value = self._fan(flow, "some_fail")
        assert value["values"] == [number for number in range(1, 21) if number % 5]
        assert value["counts"] == [20, 16, 4, 0]
        assert [one[0] for one in value["failures"]] == ["5", "10", "15", "20"]
        assert value["failures"][0][1].endswith(".ItemFailedError")
        assert self._items(flow).state is State.COMPLETED

    def test_too_many_items_fail(self, flow: FlowStone) -> None:
        """With more failures than allowed nothing is gathered; the error says how many, and which."""
        error = self.failure(lambda: self._fan(flow, "too_many"))
        self.is_error(error, ScatterFailedError, "5 of 21 items failed")
        assert "number 0" in str(error)
        assert not flow.exists("fanned", partition="too_many")
        assert self._items(flow).state is State.FAILED

    def test_no_items(self, flow: FlowStone) -> None:
        """Nothing to do is no failure."""
        assert self._fan(flow, "none") == {"values": [], "counts": [0, 0, 0, 0], "failures": []}

    def test_skipped_items(self, flow: FlowStone) -> None:
        """An item that has nothing to do is neither a result nor a failure."""
        value = self._fan(flow, "skips")
        assert (value["values"], value["counts"]) == ([0, 2, 4, 6], [7, 4, 0, 3])

    def test_items_keep_their_type(self, flow: FlowStone) -> None:
        """JSON values and partition values come as what they were; the key is the item, else its position."""
        shown = self._fan(flow, "kinds")["values"]
        assert [item for _, item in shown] == [repr(item) for item in KINDS]
        assert [key for key, _ in shown] == [*(repr(item) for item in KINDS[:5]), "5", "6"]

    @pytest.mark.parametrize(
        ("scenario", "text"), [("twice", "its key 'a' is that of an earlier item"), ("no_items", "JSON values")]
    )
    def test_unusable_items(self, flow: FlowStone, scenario: str, text: str) -> None:
        """An item that cannot be used ends the asset for good, and says which one it is."""
        self.is_error(self.failure(lambda: self._fan(flow, scenario)), ItemError, text)
        assert self.marks.count(f"discovered-{scenario}") == 1

    def test_a_discovery_that_breaks_off(self, flow: FlowStone) -> None:
        """Its error is that of the asset; nothing is gathered, no item is left behind."""
        error = self.failure(lambda: self._fan(flow, "broken"))
        self.is_error(error, ItemFailedError, "broke off")
        over = wait_until(
            lambda: all(run.state.is_terminal for run in flow.runs.latest()), timeout_seconds=TIMEOUT_SECONDS
        )
        assert over, flow.runs.latest()

    def test_a_retry_runs_only_what_failed(self, flow: FlowStone) -> None:
        """Nothing is discovered again, and what succeeded is kept."""
        self.failure(lambda: self._fan(flow, "too_many"))
        first, tried = self._items(flow), self.marks.count("item-too_many")
        assert first.parent is not None
        self.marks.leave("repair")
        again = flow.runs.retry(first.parent, executor=self.executor)
        assert again.ok, again.errors
        assert again.value["too_many"]["values"] == list(range(21))
        kept = first.counts[State.COMPLETED]
        assert self.marks.count("item-too_many") == tried + 21 - kept
        assert self.marks.count("discovered-too_many") == 1
        assert self._items(flow, again.run_id).counts == {State.REUSED: kept, State.COMPLETED: 21 - kept}
        with pytest.raises(OptionsError, match="Retry that one"):
            flow.runs.retry(first.id)

    def test_cancelling_reaches_the_items(self, flow: FlowStone) -> None:
        """The items that have not started never do, the others are signalled; the asset is cancelled."""
        if not self.concurrent(flow):
            pytest.skip("the work is over when schedule returns")
        flow.materialize("numbers", executor=self.executor)
        job = flow.schedule("fanned", partition="gated", executor=self.executor)
        assert self.marks.wait("item-gated", timeout_seconds=TIMEOUT_SECONDS)
        flow.runs.cancel(job.run_id)
        assert self.ended(flow, job) is State.CANCELLED
        items = self._items(flow, job.run_id)
        wait_until(lambda: flow.runs.get(items.id).state.is_terminal, timeout_seconds=TIMEOUT_SECONDS)
        assert flow.runs.get(items.id).state is State.CANCELLED
        assert self.marks.count("item-cancelled") >= 1
        assert self.marks.count("item-gated") <= WIDTH

    def test_results_without_a_gathering_function(self, flow: FlowStone) -> None:
        """The value is the reader itself, for the caller and for assets below."""
        assert flow.materialize_all("calendar", executor=self.executor).value == [
            "2024-01-02",
            "2024-01-03",
            "2024-01-04",
        ]
        reader = flow.load("days")
        assert isinstance(reader, Gathered)
        assert (len(reader), reader.total, list(reader.failures)) == (3, 3, [])

    def test_items_alone_cannot_be_asked_for(self, flow: FlowStone) -> None:
        """They run with what discovered them; selections leave them out."""
        with pytest.raises(OptionsError, match="Materialize 'fanned'"):
            flow.materialize(_ITEMS, partition=("all", 1), executor=self.executor)
        with pytest.raises(SelectionError, match="scatters it"):
            flow.materialize_all(_ITEMS, executor=self.executor)

    def _fan(self, flow: FlowStone, scenario: str) -> Any:
        if not flow.exists("numbers"):
            flow.materialize("numbers", executor=self.executor)
        return self.run(flow, "fanned", partition=scenario)

    def _items(self, flow: FlowStone, run_id: str | None = None) -> RunRecord:
        """Return the newest run of items."""
        return next(run for run in flow.runs.latest() if run.parent and run_id in (None, run.parent))
