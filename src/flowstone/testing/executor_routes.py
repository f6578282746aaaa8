"""Conformance of executors: assets that choose their branches, and inputs that may be skipped."""

from __future__ import annotations

from functools import partial

from flowstone.app import FlowStone
from flowstone.core.route import ALL_SKIPPED, RouteDecision
from flowstone.core.state import State
from flowstone.testing.executor_case import ExecutorCase

_ALL = ["meeting", "below_right", "beside"]
_DONE, _SKIPPED = State.COMPLETED, State.SKIPPED
_MET = {"left": [11, None], "right": [None, 12], "both": [11, 12], "nobody": None}
_WRONG = [
    ("fork", "typo", "Did you mean 'left'?"),
    ("fork", "no route", "declares routes ('left', 'right') but returned builtins.int"),
    ("undeclared", None, "@asset(routes=['apart_a'])"),
]


class RouteTests(ExecutorCase):
    """A decision is made once, in the commit of the asset that makes it, and holds."""

    def test_routes(self, flow: FlowStone) -> None:
        """Chosen branches get the value; the others and what is below them never start; a meeting takes both."""
        result = flow.backfill("fork+", partitions=list(_MET), executor=self.executor)
        assert (result.state, result.failed) == (State.COMPLETED, 0)
        for choice, met in _MET.items():
            key = f"s:{choice}"
            steps = {step.asset: step for step in flow.runs.steps(result.run_id) if step.partition == key}
            left = _DONE if choice in ("left", "both") else _SKIPPED
            right = _DONE if choice in ("right", "both") else _SKIPPED
            assert {name: step.state for name, step in steps.items()} == {
                "fork": _DONE,
                "left": left,
                "right": right,
                "below_right": right,
                "meeting": _DONE if met else _SKIPPED,
                "beside": _DONE,
            }
            if not met:
                assert steps["meeting"].reason == ALL_SKIPPED
                continue
            assert flow.load("meeting", partition=choice) == met
            read = {one.asset for one in flow.history("meeting", partition=choice)[0].inputs}
            assert read == {name for name in ("below_right", "left") if steps[name].state is _DONE}
        counts = [self.marks.count(name) for name in ("left", "right", "below_right", "meeting", "beside")]
        assert counts == [2, 2, 2, 3, 4]

    def test_what_was_not_chosen_says_why(self, flow: FlowStone) -> None:
        """The decision is recorded with the version, and with what it left out."""
        result = flow.materialize_all(_ALL, partition="left", executor=self.executor)
        steps = {step.asset: step for step in flow.runs.steps(result.run_id)}
        assert steps["right"].reason == "not chosen by fork: it is left"
        assert flow.why("right", "left") == ["it is over: skipped (not chosen by fork: it is left)"]
        assert steps["below_right"].reason == "input right s:left ended as skipped"
        expected = RouteDecision(("left",), ("right",), "it is left")
        assert flow.history("fork")[0].route == expected
        again = flow.materialize("fork", partition="left", executor=self.executor)
        assert (again.state, again.route, again.value) == (State.REUSED, expected, 10)

    def test_a_decision_holds(self, flow: FlowStone) -> None:
        """A later run does not ask again; what was not chosen is skipped at once, unless it is forced."""
        flow.materialize_all(_ALL, partition="left", executor=self.executor)
        result = flow.materialize_all(_ALL, partition="left", executor=self.executor, force=True)
        states = {step.asset: step.state for step in flow.runs.steps(result.run_id)}
        assert states == {"meeting": _DONE, "below_right": _SKIPPED, "right": _SKIPPED, "beside": _DONE}
        assert flow.load("meeting", partition="left") == [11, None]
        alone = flow.materialize("right", partition="left", executor=self.executor)
        assert (alone.state, alone.reason) == (_SKIPPED, "not chosen by fork: it is left")
        assert flow.materialize("below_right", partition="left", executor=self.executor).state is _SKIPPED
        assert (self.marks.count("fork"), self.marks.count("right")) == (1, 0)
        forced = flow.materialize("right", partition="left", executor=self.executor, force=True)
        assert (forced.state, forced.value) == (_DONE, 12)
        # it was computed after the decision: now it is there for others as well
        assert flow.materialize("below_right", partition="left", executor=self.executor).value == 12

    def test_a_retried_run_does_not_ask_again(self, flow: FlowStone) -> None:
        """What failed below a decision is run again under the same decision."""
        failed = flow.materialize_all(_ALL, partition="stumbles", executor=self.executor)
        assert (failed.failed, failed.skipped) == (2, 2)
        result = flow.runs.retry(failed.run_id, executor=self.executor)
        assert result.ok, result.errors
        assert flow.load("meeting", partition="stumbles") == [11, None]
        assert (self.marks.count("fork"), self.marks.count("left"), self.marks.count("right")) == (1, 2, 0)

    def test_another_decision_replaces_the_first(self, flow: FlowStone) -> None:
        """Where the asset that decides is computed again, its old decision is void."""
        flow.materialize_all(_ALL, partition="left", executor=self.executor)
        result = flow.materialize_all(_ALL, partition="left", executor=self.executor, force=True, force_deps=True)
        assert (result.succeeded, result.skipped) == (4, 2)
        assert self.marks.count("fork") == 2

    def test_what_cannot_be_chosen(self, flow: FlowStone) -> None:
        """A choice that was not declared fails for good, and says what was declared."""
        for asset, choice, text in _WRONG:
            call = partial(flow.materialize, asset, partition=choice, executor=self.executor)
            assert text in str(self.failure(call))
            step = self.latest(flow)
            assert (step.state, step.attempt) == (State.FAILED, 1)
            assert step.error_type == "flowstone.errors.routing.RouteError"

    def test_a_route_out_of_a_process_of_its_own(self, flow: FlowStone) -> None:
        """The choice crosses the wire with its value."""
        result = flow.materialize_all(["apart_a", "apart_b"], executor=self.executor)
        states = {step.asset: step.state for step in flow.runs.steps(result.run_id)}
        assert states == {"fork_apart": _DONE, "apart_a": _SKIPPED, "apart_b": _DONE}
        assert flow.load("apart_b") == 3

    def test_a_skip_of_its_own_is_done_without(self, flow: FlowStone) -> None:
        """Optional inputs are None whoever skipped them; inputs from outside of the run as well."""
        result = flow.materialize_all("with_or_without", executor=self.executor)
        assert (result.value, result.skipped) == ([None, 3], 1)
        alone = flow.materialize("with_or_without", executor=self.executor, force=True)
        assert (alone.state, alone.value) == (_DONE, [None, 3])
