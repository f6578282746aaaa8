"""Conformance of executors: assets that choose their branches, and inputs that may be skipped."""

from __future__ import annotations

import pytest

from flowstone.app import FlowStone
from flowstone.core.route import ALL_SKIPPED, RouteDecision
from flowstone.core.state import State
from flowstone.testing.executor_case import ExecutorCase

_ALL = ["meeting", "below_right", "beside"]
_DONE, _SKIPPED = State.COMPLETED, State.SKIPPED


class RouteTests(ExecutorCase):
    """A decision is made once, in the commit of the asset that makes it, and holds."""

    @pytest.mark.parametrize(
        ("choice", "left", "right", "met"),
        [
            ("left", _DONE, _SKIPPED, [11, None]),
            ("right", _SKIPPED, _DONE, [None, 12]),
            ("both", _DONE, _DONE, [11, 12]),
            ("nobody", _SKIPPED, _SKIPPED, None),
        ],
    )
    def test_a_route(
        self, flow: FlowStone, choice: str, left: State, right: State, met: list[int | None] | None
    ) -> None:
        """Chosen branches get the value; the others and what is below them never start; a meeting takes both."""
        result = flow.materialize_all(_ALL, partition=choice, executor=self.executor)
        steps = {step.asset: step for step in flow.runs.steps(result.run_id)}
        assert {name: step.state for name, step in steps.items()} == {
            "fork": _DONE,
            "left": left,
            "right": right,
            "below_right": right,
            "meeting": _SKIPPED if met is None else _DONE,
            "beside": _DONE,
        }
        assert (result.state, result.ok) == (State.COMPLETED, True)
        for name in ("left", "right", "below_right", "beside", "meeting"):
            assert self.marks.count(name) == (steps[name].state is _DONE)
        if met is None:
            assert steps["meeting"].reason == ALL_SKIPPED
        else:
            assert flow.load("meeting", partition=choice) == met
            read = {one.asset for one in flow.history("meeting")[0].inputs}
            assert read == {name for name in ("below_right", "left") if steps[name].state is _DONE}

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
        # somebody had it computed after the decision: now it is there for others as well
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

    @pytest.mark.parametrize(
        ("asset", "choice", "text"),
        [
            ("fork", "typo", "Did you mean 'left'?"),
            ("fork", "no route", "declares routes ('left', 'right') but returned builtins.int"),
            ("undeclared", None, "@asset(routes=['apart_a'])"),
        ],
    )
    def test_what_cannot_be_chosen(self, flow: FlowStone, asset: str, choice: str | None, text: str) -> None:
        """A choice that was not declared fails for good, and says what was declared."""
        error = self.failure(lambda: flow.materialize(asset, partition=choice, executor=self.executor))
        assert text in str(error)
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
