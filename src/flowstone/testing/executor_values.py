"""Conformance of executors: values, dependencies, partitions, context, many steps."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from flowstone.app import FlowStone
from flowstone.app.results import Progress
from flowstone.core.capability import Capability
from flowstone.core.materialization import Materialization
from flowstone.core.state import State
from flowstone.errors import DependencyNotReadyError, UnknownAssetError, UnknownPartitionError
from flowstone.testing.conformance_assets import REGIONS, SQUARES
from flowstone.testing.executor_case import ExecutorCase


class ValueTests(ExecutorCase):
    """The same program means the same everywhere."""

    def test_a_value(self, flow: FlowStone) -> None:
        """A function runs once and its value is there, for the caller and for everybody."""
        done = flow.materialize("numbers", executor=self.executor)
        assert (done.value, done.state, done.attempt, done.asset) == ([1, 2, 3], State.COMPLETED, 1, "numbers")
        assert flow.load("numbers") == [1, 2, 3]
        assert flow.exists("numbers")
        assert self.marks.count("numbers") == 1

    def test_a_committed_value_is_reused(self, flow: FlowStone) -> None:
        """Unforced requests do not compute again, forced ones do."""
        first = flow.materialize("numbers", executor=self.executor)
        again = flow.materialize("numbers", executor=self.executor)
        assert (again.state, again.value, again.stored) == (State.REUSED, [1, 2, 3], first.stored)
        forced = flow.materialize("numbers", executor=self.executor, force=True)
        assert (forced.state, forced.value) == (State.COMPLETED, [1, 2, 3])
        assert self.marks.count("numbers") == 2
        assert len(flow.history("numbers")) == 2

    def test_dependencies(self, flow: FlowStone) -> None:
        """What is missing upstream runs first, shared inputs once; `def` and `async def` alike."""
        result = flow.materialize_all("total", executor=self.executor)
        assert (result.value, result.ok, result.succeeded) == (30, True, 4)
        assert (self.marks.count("numbers"), self.marks.count("doubled")) == (1, 1)
        assert {version.asset for version in flow.lineage.upstream("total")} == {
            "total",
            "doubled",
            "tripled",
            "numbers",
        }

    def test_lineage_names_what_was_read(self, flow: FlowStone) -> None:
        """The exact versions of the inputs are recorded."""
        numbers = flow.materialize("numbers", executor=self.executor)
        doubled = flow.materialize("doubled", executor=self.executor)
        (read,) = flow.history("doubled")[0].inputs
        assert (read.asset, read.parameter, read.step_id) == ("numbers", "numbers", numbers.step_id)
        assert [version.step_id for version in flow.lineage.impact("numbers")] == [doubled.step_id]

    def test_async_functions(self, flow: FlowStone) -> None:
        """Coroutines are awaited, alone too."""
        self.run(flow, "numbers")
        assert self.run(flow, "tripled") == [3, 6, 9]

    def test_missing_inputs(self, flow: FlowStone) -> None:
        """Without inputs nothing starts, and it is said what is missing."""
        with pytest.raises(DependencyNotReadyError) as caught:
            flow.materialize("doubled", executor=self.executor)
        assert caught.value.missing == (("numbers", ""),)
        assert flow.runs.latest() == []

    def test_unknown_things_place_nothing(self, flow: FlowStone) -> None:
        """Bad names fail before anything is recorded."""
        with pytest.raises(UnknownAssetError, match="numbers"):
            flow.materialize("numbres", executor=self.executor)
        with pytest.raises(UnknownPartitionError):
            flow.materialize("regional", partition="mars", executor=self.executor)
        assert flow.runs.latest() == []

    def test_context(self, flow: FlowStone) -> None:
        """A function may know its step; small facts it notes are recorded with the output."""
        self.run(flow, "numbers")
        done = flow.materialize("facts", executor=self.executor, run_id="my run")
        assert done.value == {
            "asset": "facts",
            "partition": None,
            "key": "",
            "run_id": "my run",
            "step_id": done.step_id,
            "attempt": 1,
            "token": True,
            "aware": True,
            "cancelled": False,
            "resources": [],
            "inputs": ["numbers"],
        }
        stored = flow.history("facts")[0].stored
        assert stored is not None
        assert stored.metadata["rows"] == 3

    def test_partitions(self, flow: FlowStone) -> None:
        """Each partition is a value of its own, whatever its key looks like."""
        for region in REGIONS:
            value = self.run(flow, "regional", partition=region)
            assert value.startswith(f"{region} of s:")
        assert flow.load("regional", partition="us") == "us of s:us"
        assert [len(flow.history("regional", partition=region)) for region in REGIONS] == [1] * len(REGIONS)

    def test_all_partitions_of_an_input(self, flow: FlowStone) -> None:
        """Many partitions of an input arrive as a dict, in order."""
        result = flow.materialize_all("world", executor=self.executor)
        assert result.ok
        assert [line.split(": ")[0] for line in result.value] == list(REGIONS)
        assert result.succeeded == len(REGIONS) + 1

    def test_a_run_id_is_idempotent(self, flow: FlowStone) -> None:
        """The same run again answers with the same steps."""
        first = flow.materialize_all("doubled", executor=self.executor, run_id="once")
        again = flow.materialize_all("doubled", executor=self.executor, run_id="once")
        assert (first.value, again.value) == ([2, 4, 6], [2, 4, 6])
        assert len(flow.runs.latest()) == 1
        assert self.marks.count("doubled") == 1

    def test_fifty_requests_are_one_computation(self, flow: FlowStone) -> None:
        """Simultaneous requests join; all get the value, one pays for it."""
        start = threading.Barrier(25)

        def request(_: int) -> Materialization:
            start.wait()
            return flow.materialize("slow", executor=self.executor)

        with ThreadPoolExecutor(25) as pool:
            done = list(pool.map(request, range(50)))
        assert {one.value for one in done} == {1}
        assert self.marks.count("slow") == 1
        assert len(flow.history("slow")) == 1
        assert sum(one.state is State.COMPLETED and not one.deduplicated for one in done) == 1

    def test_runs_side_by_side_share_their_inputs(self, flow: FlowStone) -> None:
        """Two runs that need the same input compute it once and both end."""
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda _: flow.materialize_all("total", executor=self.executor), range(16)))
        assert [one.value for one in results] == [30] * 16
        assert (self.marks.count("numbers"), self.marks.count("doubled")) == (1, 1)

    def test_a_backfill_keeps_its_width(self, flow: FlowStone) -> None:
        """Two hundred partitions, never more than ten at once, more than one where the executor can."""
        seen: list[Progress] = []
        result = flow.backfill("squares", executor=self.executor, max_concurrency=10, on_progress=seen.append)
        assert (result.ok, result.total, result.succeeded) == (True, SQUARES, SQUARES)
        assert result.value == {number: number**2 for number in range(SQUARES)}
        assert self.marks.largest("squares") <= 10
        if self.concurrent(flow):
            assert self.marks.largest("squares") > 1
        if self.has(flow, Capability.SEQUENTIAL):
            assert self.marks.largest("squares") == 1
        assert (seen[-1].total, seen[-1].done, seen[-1].failed) == (SQUARES, SQUARES, 0)
        again = flow.backfill("squares", executor=self.executor, partitions=[7, 8, 9])
        assert (again.total, again.reused, again.value) == (3, 3, {7: 49, 8: 64, 9: 81})
