"""Conformance of executors: asset checks."""

from __future__ import annotations

import pytest

from flowstone.app import FlowStone
from flowstone.core.capability import Capability
from flowstone.core.check_record import CheckRecord, Severity
from flowstone.core.state import State
from flowstone.errors import CheckFailedError, DependencyNotReadyError
from flowstone.testing.conformance_checks import SPOILED
from flowstone.testing.executor_case import ExecutorCase

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
            "flowstone.errors.checks.CheckFailedError",
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
