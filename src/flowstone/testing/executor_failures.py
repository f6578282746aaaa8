"""Conformance of executors: errors, outcomes, retries; whatever happens, the executor goes on."""

from __future__ import annotations

import pytest

from flowstone.app import FlowStone
from flowstone.core.capability import Capability
from flowstone.core.outcome import Fatal
from flowstone.core.state import State
from flowstone.errors import SerializationError, StepCancelledError, StepFailedError
from flowstone.testing.conformance_assets import RAISED, UnusualError
from flowstone.testing.executor_case import ExecutorCase

_RECORDED = {
    "system_exit": "SystemExit",
    "keyboard_interrupt": "KeyboardInterrupt",
    "cancelled": "CancelledError",
    "group": "first of group",
    "hostile_text": "UnusualError: nul \\x00 surrogate \\ud800 ansi red html <b>",
    "base": "neither error nor exit",
    "bad_str": "_BadStrError",
}


class FailureTests(ExecutorCase):
    """Failures belong to their step."""

    def test_an_error_reaches_the_caller_and_the_record(self, flow: FlowStone) -> None:
        """Type and message, with the traceback from the first line of user code on."""
        error = self.failure(lambda: flow.materialize("broken", executor=self.executor))
        self.is_error(error, UnusualError, "the reason: 42")
        step = self.latest(flow)
        assert (step.state, step.output_step) == (State.FAILED, None)
        assert step.error is not None
        assert "the reason: 42" in step.error
        assert 'raise UnusualError("the reason: 42")' in step.error
        assert step.error_type == "flowstone.testing.conformance_assets.UnusualError"
        assert not flow.exists("broken")
        assert self.run(flow, "numbers") == [1, 2, 3]

    @pytest.mark.parametrize("kind", RAISED)
    def test_whatever_is_raised_is_recorded(self, flow: FlowStone, kind: str) -> None:
        """Exits, interrupts, groups and poisonous texts end their step, and nothing else."""
        self.failure(lambda: flow.materialize("raises", partition=kind, executor=self.executor))
        step = self.latest(flow)
        assert step.state is State.FAILED
        assert step.error is not None
        assert _RECORDED[kind] in step.error
        assert len(step.error) <= 200_000
        step.error.encode()  # no lone surrogates
        assert not {"\x00", "\x1b"} & set(step.error)
        (attempt,) = flow.runs.attempts(step.id)
        assert (attempt.state, attempt.attempt) == (State.FAILED, 1)
        assert self.run(flow, "numbers") == [1, 2, 3]

    def test_a_run_survives_everything_but_an_interrupt(self, flow: FlowStone) -> None:
        """In a run of many steps the others are not touched."""
        kinds = [kind for kind in RAISED if kind != "keyboard_interrupt"]
        result = flow.backfill("raises", partitions=kinds, executor=self.executor)
        assert (result.ok, result.failed, result.total) == (False, len(kinds), len(kinds))
        assert set(result.errors) == {("raises", f"s:{kind}") for kind in kinds}
        assert self.run(flow, "numbers") == [1, 2, 3]

    def test_skips(self, flow: FlowStone) -> None:
        """Nothing to do is an answer, raised or returned; it publishes nothing."""
        done = flow.materialize("skips", executor=self.executor)
        assert (done.state, done.stored) == (State.SKIPPED, None)
        assert flow.materialize("returns_skip", executor=self.executor).state is State.SKIPPED
        assert self.latest(flow).reason == "said politely"
        assert not flow.exists("skips")

    def test_skips_pass_downstream(self, flow: FlowStone) -> None:
        """What depends on a skipped step is skipped; the run is fine."""
        result = flow.materialize_all("below_skips", executor=self.executor)
        assert (result.state, result.skipped, result.failed) == (State.COMPLETED, 2, 0)
        assert self.marks.count("below_skips") == 0

    def test_fatal_is_not_repeated(self, flow: FlowStone) -> None:
        """Whatever the policy says."""
        error = self.failure(
            lambda: flow.materialize("fatal", executor=self.executor, executor_opts={"retry": True})
        )
        assert "the contract ended" in str(error)
        assert self.marks.count("fatal") == 1
        assert self.latest(flow).state is State.FAILED

    def test_retry_later_uses_no_attempt(self, flow: FlowStone) -> None:
        """A snoozed step comes back, as often as it likes, with its single attempt."""
        done = flow.materialize("later", executor=self.executor)
        assert (done.value, done.attempt) == (3, 1)
        assert [one.attempt for one in flow.runs.attempts(done.step_id)] == [1]

    def test_retries(self, flow: FlowStone) -> None:
        """Fails twice, then works: one step, three attempts, each with its row."""
        done = flow.materialize("flaky", executor=self.executor, executor_opts={"retry": True})
        assert (done.value, done.attempt, done.state) == (3, 3, State.COMPLETED)
        attempts = flow.runs.attempts(done.step_id)
        assert [one.state for one in attempts] == [State.FAILED, State.FAILED, State.COMPLETED]
        assert ["attempt 1 failed" in (attempts[0].error or ""), attempts[2].error] == [True, None]
        assert flow.runs.step(done.step_id).error is None

    def test_retries_end(self, flow: FlowStone) -> None:
        """After its attempts a step has failed, with the last error."""
        error = self.failure(
            lambda: flow.materialize("exhausted", executor=self.executor, executor_opts={"retry": True})
        )
        self.is_error(error, UnusualError, "attempt 2 failed")
        step = self.latest(flow)
        assert (step.state, step.attempt, step.max_attempts) == (State.FAILED, 2, 2)
        assert len(flow.runs.attempts(step.id)) == 2

    def test_inline_executors_try_once_unless_asked(self, flow: FlowStone) -> None:
        """A retry policy is for unattended work."""
        if self.has(flow, Capability.DURABLE):
            pytest.skip("durable executors always follow the policy")
        error = self.failure(lambda: flow.materialize("flaky", executor=self.executor))
        self.is_error(error, UnusualError, "attempt 1 failed")
        assert self.marks.count("flaky") == 1

    def test_one_failed_partition_stops_no_other(self, flow: FlowStone) -> None:
        """A backfill goes on, says so, and names the error."""
        result = flow.backfill(["picky", "after_picky"], executor=self.executor, max_concurrency=3)
        assert (result.ok, result.state, result.total) == (False, State.FAILED, 10)
        assert (result.succeeded, result.failed) == (8, 2)
        assert "not the third one" in result.errors["picky", "i:3"]
        assert "picky" in result.errors["after_picky", "i:3"]
        assert flow.load("after_picky", partition=4) == 104
        failed, below = result.failures
        assert (failed.asset, failed.partition, failed.state) == ("picky", 3, State.FAILED)
        assert (below.asset, below.partition, below.state) == ("after_picky", 3, State.UPSTREAM_FAILED)
        assert (failed.attempts, below.attempts, below.error_type) == (failed.attempts or 1, 0, None)

    def test_a_failure_is_data_too(self, flow: FlowStone) -> None:
        """Class, attempts and what `Fatal(..., data=...)` said, with the run and with the error that it raises."""
        result = flow.materialize_all("fatal", executor=self.executor)
        (failure,) = result.failures
        assert (failure.error_type, failure.attempts) == ("flowstone.core.outcome.Fatal", 1)
        assert (failure.data, failure.partition) == ({"customer": 7}, None)
        with pytest.raises(StepFailedError) as caught:
            result.raise_for_failures()
        assert (caught.value.error_type, caught.value.attempts) == (failure.error_type, 1)
        assert (caught.value.data, caught.value.caused_by(Fatal)) == ({"customer": 7}, True)
        assert not caught.value.caused_by(ValueError)

    def test_downstream_of_a_failure_never_runs(self, flow: FlowStone) -> None:
        """Everything below ends at once, to the last step."""
        result = flow.materialize_all("far_below_broken", executor=self.executor)
        states = {step.asset: step.state for step in flow.runs.steps(result.run_id)}
        assert states == {
            "broken": State.FAILED,
            "below_broken": State.UPSTREAM_FAILED,
            "far_below_broken": State.UPSTREAM_FAILED,
        }
        assert self.marks.count("below_broken") == self.marks.count("far_below_broken") == 0
        with pytest.raises(StepFailedError, match="the reason: 42"):
            result.raise_for_failures()

    def test_what_cannot_be_stored_names_its_asset(self, flow: FlowStone) -> None:
        """An unserializable result is a failure that says where and what to do; nothing is published."""
        error = self.failure(lambda: flow.materialize("unserializable", executor=self.executor))
        self.is_error(error, SerializationError, "'unserializable'")
        assert not flow.exists("unserializable")

    def test_a_cancelled_error_of_the_asset_is_a_failure(self, flow: FlowStone) -> None:
        """`asyncio.CancelledError` out of an asset is not our cancel."""
        error = self.failure(lambda: flow.materialize("raises", partition="cancelled", executor=self.executor))
        assert not isinstance(error, StepCancelledError)
