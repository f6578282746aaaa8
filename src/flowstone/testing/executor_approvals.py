"""Conformance of executors: steps that wait for a person's decision."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from flowstone.app import FlowStone
from flowstone.core.approval import ApprovalState
from flowstone.core.state import State
from flowstone.errors import ApprovalDecidedError, GateRepeatedError, StepCancelledError, StepFailedError
from flowstone.testing.executor_case import TIMEOUT_SECONDS, ExecutorCase
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
