"""What every executor must mean, as tests to run on yours: derive from `ExecutorConformance`.

It joins the ground floor of `executor_case` with approvals, checks, routes and scatters.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from flowstone.app import FlowStone
from flowstone.core.approval import ApprovalState
from flowstone.core.capability import Capability
from flowstone.core.route import ALL_SKIPPED, RouteDecision
from flowstone.core.state import State
from flowstone.core.step import CheckRecord, RunRecord, Severity
from flowstone.engine.scatter import Gathered
from flowstone.errors import (
    ApprovalDecidedError,
    CheckFailedError,
    DependencyNotReadyError,
    GateRepeatedError,
    ItemError,
    OptionsError,
    ScatterFailedError,
    SelectionError,
    StepCancelledError,
    StepFailedError,
)
from flowstone.testing.conformance_assets import KINDS, SPOILED, WIDTH, ItemFailedError
from flowstone.testing.executor_case import (
    TIMEOUT_SECONDS,
    ExecutorCase,
    FailureTests,
    PlacingByExecutorTests,
    ValueTests,
)
from flowstone.testing.marks import wait_until


class ApprovalByExecutorTests(ExecutorCase):
    """Whoever runs a step, it stops, waits, and goes on in the same way."""

    def beside[T](self, call: Callable[[], T]) -> Future[T]:
        """Call something in a thread of its own, because it returns only after a decision."""
        pool = ThreadPoolExecutor(1)
        future = pool.submit(call)
        pool.shutdown(wait=False)
        return future

    def requested(self, flow: FlowStone, *, gate: str | None = None) -> int:
        """Wait for a request; return its id."""

        def found() -> list[int]:
            return [one.id for one in flow.approvals.list() if gate in (None, one.gate)]

        assert wait_until(lambda: bool(found()), timeout_seconds=TIMEOUT_SECONDS), "nobody asked"
        return found()[0]

    def start(self, flow: FlowStone, asset: str, **how: Any) -> Future[Any]:
        """Materialize an asset beside the test."""
        return self.beside(lambda: flow.materialize(asset, executor=self.executor, **how))

    def test_approved(self, flow: FlowStone) -> None:
        """The function goes on where it left off, with its first attempt, and calls what comes after it."""
        run = self.beside(lambda: flow.materialize_all("below_asks", executor=self.executor))
        number = self.requested(flow)
        approval = flow.approvals.get(number)
        assert (approval.message, approval.data) == ("Publish 3 rows?", {"rows": 3})
        assert flow.job_status(approval.step_id) is State.AWAITING_APPROVAL
        assert flow.runs.get(approval.run_id).state is State.RUNNING
        (why,) = flow.why("asks")
        assert f"flowstone approve {number}" in why
        flow.approvals.approve(number, comment="looks right", by="ann")
        result = run.result(TIMEOUT_SECONDS)
        assert (result.ok, result.value) == (True, 6)
        assert flow.load("asks") == {
            "resume": {"sum": 6},
            "by": "ann",
            "comment": "looks right",
            "attempt": 1,
        }
        assert (self.marks.count("asks-before"), self.marks.count("asks-after")) == (1, 1)

    def test_rejected(self, flow: FlowStone) -> None:
        """The step fails and so does what depends on it; nothing of it ran."""
        run = self.beside(lambda: flow.materialize_all("below_asks", executor=self.executor))
        flow.approvals.reject(self.requested(flow), comment="wrong month", by="bob")
        result = run.result(TIMEOUT_SECONDS)
        assert (result.ok, result.failed) == (False, 2)
        states = {step.asset: step.state for step in flow.runs.steps(result.run_id)}
        assert states == {"asks": State.FAILED, "below_asks": State.UPSTREAM_FAILED}
        with pytest.raises(StepFailedError, match=r"rejected by bob .*: wrong month"):
            result.raise_for_failures()
        assert (self.marks.count("asks-after"), self.marks.count("below_asks")) == (0, 0)

    def test_from_another_process(self, flow: FlowStone) -> None:
        """An isolated function asks and is answered like any other."""
        done = self.start(flow, "asks_apart")
        flow.approvals.approve(self.requested(flow))
        assert done.result(TIMEOUT_SECONDS).value == ["from", "afar"]

    def test_several_gates_and_an_accident(self, flow: FlowStone) -> None:
        """Each gate asks once, also when a later attempt comes by."""
        done = self.start(flow, "asks_twice", executor_opts={"retry": True})
        for gate, who in (("budget", "ann"), ("legal", "bob")):
            flow.approvals.approve(self.requested(flow, gate=gate), by=who)
        answer = done.result(TIMEOUT_SECONDS)
        assert (answer.value, answer.attempt) == (["ann", "bob"], 2)
        assert [one.gate for one in flow.approvals.of_step(answer.step_id)] == ["budget", "legal"]

    def test_asking_again_at_an_open_gate(self, flow: FlowStone) -> None:
        """Would never end, so it is an error that says what to write."""
        done = self.start(flow, "asks_for_ever")
        flow.approvals.approve(self.requested(flow), by="ann")
        error = self.failure(lambda: done.result(TIMEOUT_SECONDS))
        self.is_error(error, GateRepeatedError, "context.approvals.get('approval')")
        assert len(flow.approvals.list(state=None)) == 1

    @pytest.mark.parametrize(
        ("meaning", "state"), [("approve", State.COMPLETED), ("skip", State.SKIPPED), ("reject", State.FAILED)]
    )
    def test_nobody_answers(self, flow: FlowStone, meaning: str, state: State) -> None:
        """The time ends it, without help."""
        done = self.start(flow, "asks_nobody", partition=meaning)
        if state is State.FAILED:
            assert "expired" in str(self.failure(lambda: done.result(TIMEOUT_SECONDS)))
        else:
            assert done.result(TIMEOUT_SECONDS).state is state
        (one,) = flow.approvals.list(state=None)
        assert one.state is ApprovalState.EXPIRED
        assert flow.job_status(one.step_id) is state
        with pytest.raises(ApprovalDecidedError):
            flow.approvals.approve(one.id)

    def test_cancelled(self, flow: FlowStone) -> None:
        """It is cancelled meanwhile."""
        done = self.start(flow, "asks")
        number = self.requested(flow)
        assert flow.cancel_job(str(flow.approvals.get(number).step_id)) is State.CANCELLED
        assert isinstance(self.failure(lambda: done.result(TIMEOUT_SECONDS)), StepCancelledError)
        with pytest.raises(ApprovalDecidedError, match="cancelled"):
            flow.approvals.approve(number)
        assert self.marks.count("asks-after") == 0


_ERRORS = {
    "raises": "LookupError: the check itself is broken",
    "nonsense": "returned a value of type 'NoneType'",
    "exits": "SystemExit",
    "table": "holds more than",
    "stalls": "did not finish within its timeout of 0.05 s",
}


def _by_name(records: tuple[CheckRecord, ...] | list[CheckRecord]) -> dict[str, CheckRecord]:
    return {one.check: one for one in records}


class CheckingTests(ExecutorCase):
    """Checks mean the same wherever the asset runs."""

    def test_results_are_recorded_with_the_version(self, flow: FlowStone) -> None:
        """What passed and what only warns; the step is fine."""
        done = flow.materialize("ledger", executor=self.executor)
        assert (done.value, done.state) == ([1, 2, 3], State.COMPLETED)
        assert [(one.check, one.passed) for one in done.checks] == [
            ("positive", True),
            ("short", False),
            ("sealed", False),
        ]
        found = _by_name(flow.checks.results("ledger"))
        assert found == _by_name(done.checks) == _by_name(flow.history("ledger")[0].checks)
        assert (found["short"].severity, found["short"].blocking) == (Severity.WARNING, True)
        assert found["positive"].metadata == {"negative": 0, "attempt": 1, "source": "books"}
        assert found["sealed"].metadata["source"] == "books"
        assert {one.step_id for one in found.values()} == {done.step_id}
        assert flow.materialize("ledger", executor=self.executor).checks == done.checks

    def test_findings_are_cleaned(self, flow: FlowStone) -> None:
        """Poisonous texts are recorded harmlessly."""
        flow.materialize("ledger", executor=self.executor)
        text = _by_name(flow.checks.results("ledger"))["sealed"].description
        assert text == "nul \\x00 surrogate \\ud800 red <script>"

    def test_a_blocking_check_keeps_the_previous_version(self, flow: FlowStone) -> None:
        """Nothing is published, nothing is repeated, downstream never sees the bad value."""
        first = flow.materialize_all("balance", executor=self.executor)
        good = flow.history("ledger")[0]
        self.marks.leave(SPOILED)
        error = self.failure(
            lambda: flow.materialize(
                "ledger", executor=self.executor, force=True, executor_opts=self._retrying(flow)
            )
        )
        self.is_error(error, CheckFailedError, "did not pass the blocking check 'positive'")
        assert "negative numbers; negative=1" in str(error)
        step = self.latest(flow)
        assert (step.state, step.attempt, step.error_type) == (
            State.FAILED,
            1,
            "flowstone.errors.CheckFailedError",
        )
        assert (flow.load("ledger"), flow.load("balance"), first.value) == ([1, 2, 3], 6, 6)
        assert [one.step_id for one in flow.history("ledger")] == [good.step_id]
        assert self.marks.count("ledger") == 2
        newest = _by_name(flow.checks.latest("ledger"))
        assert (newest["positive"].passed, newest["positive"].step_id) == (False, step.id)
        assert newest["sealed"].step_id == good.step_id  # runs after storing, and nothing was stored
        assert "did not pass" in flow.why("ledger")[0]

    def test_downstream_of_a_blocked_value_does_not_run(self, flow: FlowStone) -> None:
        """It is reported at once, in the same run."""
        self.marks.leave(SPOILED)
        result = flow.materialize_all("balance", executor=self.executor)
        states = {step.asset: step.state for step in flow.runs.steps(result.run_id)}
        assert states == {"ledger": State.FAILED, "balance": State.UPSTREAM_FAILED}
        assert self.marks.count("balance") == 0
        assert not flow.exists("ledger")
        with pytest.raises(DependencyNotReadyError):
            flow.checks.run("ledger")

    @pytest.mark.parametrize("kind", _ERRORS)
    def test_a_check_that_goes_wrong_has_failed(self, flow: FlowStone, kind: str) -> None:
        """Whatever it raises or answers, its step reports it and the executor goes on."""
        error = self.failure(lambda: flow.materialize("judged", partition=kind, executor=self.executor))
        self.marks.leave("gate")
        self.is_error(error, CheckFailedError, "the blocking check 'odd'")
        (record,) = flow.checks.results("judged", partition=kind)
        assert (record.passed, record.blocks, record.metadata) == (False, True, {})
        assert record.error is not None
        assert _ERRORS[kind] in record.error
        assert flow.materialize("judged", partition="good", executor=self.executor).checks[0].passed

    def test_a_check_may_ask_for_another_attempt(self, flow: FlowStone) -> None:
        """With `retry=True` a failure that blocks is an ordinary failure of the attempt."""
        done = flow.materialize("repaired", executor=self.executor, executor_opts={"retry": True})
        assert (done.value, done.attempt) == (2, 2)
        assert [(one.attempt, one.passed) for one in flow.checks.results("repaired")] == [(2, True), (1, False)]
        assert [one.attempt for one in done.checks] == [2]

    def test_a_committed_version_is_checked_again(self, flow: FlowStone) -> None:
        """The results are recorded with the version, which stays what it is."""
        done = flow.materialize("ledger", executor=self.executor)
        again = flow.checks.run("ledger")
        assert [one.passed for one in again] == [True, False, False]
        assert {one.step_id for one in again} == {done.step_id}
        assert len(flow.checks.results("ledger")) == 6
        version = flow.history("ledger")[0]
        assert [one.started_at for one in version.checks] == [one.started_at for one in again]

    def _retrying(self, flow: FlowStone) -> dict[str, object]:
        """Ask for retries where they are not a matter of course: a blocked value is not worth them anyway."""
        return {} if self.has(flow, Capability.DURABLE) else {"retry": True}


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
            steps = {step.asset: step for step in flow.runs.steps(result.run_id) if step.partition_key == key}
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
            assert step.error_type == "flowstone.errors.RouteError"

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


class ExecutorConformance(
    ValueTests,
    FailureTests,
    PlacingByExecutorTests,
    CheckingTests,
    ApprovalByExecutorTests,
    RouteTests,
    ScatterTests,
):
    """Tests of the meaning of an executor; make a subclass whose name starts with `Test`.

    Override `make_flow`, and `executor` with the executor's name or object. What an executor does not declare
    in its capabilities is tested as a clear refusal. An executor whose work runs in other processes starts
    workers on `flowstone.testing.conformance_assets:flow` with the environment of the test: the assets leave
    their marks in a directory that an environment variable names.

    Example:
        >>> from flowstone import FlowStone
        >>> class TestMyExecutor(ExecutorConformance):
        ...     executor = "sync"
        ...     def make_flow(self, assets, **options):
        ...         return FlowStone.for_testing(assets, **options)
    """
