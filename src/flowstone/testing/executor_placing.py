"""Conformance of executors: scheduling, status, cancelling, options."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

from flowstone.app import FlowStone
from flowstone.core.capability import Capability
from flowstone.core.job import Job
from flowstone.core.state import ACTIVE, State
from flowstone.errors import (
    CapabilityError,
    FlowStoneError,
    OptionsError,
    RunNotFoundError,
    StepCancelledError,
)
from flowstone.testing.executor_case import TIMEOUT_SECONDS, ExecutorCase
from flowstone.testing.marks import wait_until


class PlacingByExecutorTests(ExecutorCase):
    """What happens around the work."""

    def test_schedule_returns_a_handle(self, flow: FlowStone) -> None:
        """Plain data, valid anywhere; its status ends `completed`."""
        job = flow.schedule("numbers", executor=self.executor, run_id="r")
        assert (job.asset, job.partition, job.run_id, job.deduplicated) == ("numbers", None, "r", False)
        again = Job.from_json(job.to_json())
        assert again == job
        assert self.ended(flow, again) is State.COMPLETED
        assert self.ended(flow, job.id) is State.COMPLETED
        assert flow.load("numbers") == [1, 2, 3]
        assert flow.runs.wait_for(job).value == [1, 2, 3]

    def test_scheduled_failures_show_in_the_status(self, flow: FlowStone) -> None:
        """`schedule` does not raise what the work raises, an exit included."""
        for asset, partition in (("broken", None), ("raises", "system_exit")):
            job = flow.schedule(asset, partition=partition, executor=self.executor)
            assert self.ended(flow, job) is State.FAILED

    def test_unknown_jobs(self, flow: FlowStone) -> None:
        """There is an answer for them too."""
        assert flow.job_status("987654321") is State.NOT_FOUND
        assert flow.job_status("no number") is State.NOT_FOUND
        with pytest.raises(RunNotFoundError):
            flow.cancel_job("987654321")

    def test_every_state_belongs_to_the_vocabulary(self, flow: FlowStone) -> None:
        """While work goes on its states are active ones, then one terminal state for good."""
        job = flow.schedule("numbers", executor=self.executor)
        seen = [flow.job_status(job)]
        while not seen[-1].is_terminal and len(seen) < 100_000:
            seen.append(flow.job_status(job))
        assert set(seen) <= ACTIVE | {State.COMPLETED}
        assert flow.job_status(job) is State.COMPLETED

    def test_scheduling_twice_joins(self, flow: FlowStone) -> None:
        """The second handle is the first one's step."""
        if not self.concurrent(flow):
            pytest.skip("the work is over when schedule returns")
        first = flow.schedule("gated", executor=self.executor)
        second = flow.schedule("gated", executor=self.executor)
        assert (second.id, first.deduplicated, second.deduplicated) == (first.id, False, True)
        self.marks.leave("gate")
        assert self.ended(flow, second) is State.COMPLETED
        assert self.marks.count("gated") == 1

    def test_cancel_before_the_start(self, flow: FlowStone) -> None:
        """Work that is placed for later never starts."""
        self.need(flow, Capability.SCHEDULED_AT)
        job = flow.schedule("numbers", executor=self.executor, scheduled_at=datetime.now(UTC) + timedelta(hours=1))
        assert flow.job_status(job) is State.SCHEDULED
        assert flow.cancel_job(job) is State.CANCELLED
        assert flow.cancel_job(job) is State.CANCELLED
        assert (flow.job_status(job), self.marks.count("numbers")) == (State.CANCELLED, 0)
        with pytest.raises(StepCancelledError):
            flow.runs.wait_for(job)
        assert self.run(flow, "numbers") == [1, 2, 3]

    def test_work_for_later_waits(self, flow: FlowStone) -> None:
        """It shows as scheduled with its time, and starts when that has come."""
        self.need(flow, Capability.SCHEDULED_AT)
        due = datetime.now(UTC) + timedelta(seconds=1)
        job = flow.schedule("numbers", executor=self.executor, scheduled_at=due)
        assert (job.scheduled_at, flow.runs.step(job).scheduled_at) == (due, due)
        assert self.ended(flow, job) is State.COMPLETED
        started = flow.runs.step(job).started_at
        assert started is not None
        assert started >= due

    def test_later_without_the_capability(self, flow: FlowStone) -> None:
        """An executor that cannot wait says so, and nothing is placed."""
        if self.has(flow, Capability.SCHEDULED_AT):
            pytest.skip("the executor can place work for later")
        with pytest.raises(CapabilityError, match="scheduled_at"):
            flow.schedule("numbers", executor=self.executor, scheduled_at=datetime.now(UTC) + timedelta(hours=1))
        assert flow.runs.latest() == []

    def test_a_start_time_needs_a_zone(self, flow: FlowStone) -> None:
        """A wall clock reading is not an instant."""
        with pytest.raises(OptionsError, match="time zone"):
            flow.schedule("numbers", executor=self.executor, scheduled_at=datetime(2030, 1, 1))
        assert flow.runs.latest() == []

    def test_cancel_while_running(self, flow: FlowStone) -> None:
        """The token is set; until the work is over the state says `cancelling`; then one terminal state."""
        thread = threading.Thread(target=lambda: self.failure(lambda: self.run(flow, "gated")))
        thread.start()
        assert self.marks.wait("gated")
        step = self.latest(flow)
        assert flow.job_status(step.id) is State.RUNNING
        assert flow.cancel_job(step.id) in (State.CANCELLING, State.CANCELLED)
        assert self.ended(flow, step.id) is State.CANCELLED
        thread.join(TIMEOUT_SECONDS)
        assert not thread.is_alive()
        assert self.marks.count("gated-cancelled") == 1
        assert not flow.exists("gated")

    def test_the_caller_learns_of_a_cancel(self, flow: FlowStone) -> None:
        """Who waits for the value learns that it was cancelled."""
        caught: list[BaseException] = []
        thread = threading.Thread(target=lambda: caught.append(self.failure(lambda: self.run(flow, "gated"))))
        thread.start()
        assert self.marks.wait("gated")
        flow.cancel_job(self.latest(flow).id)
        thread.join(TIMEOUT_SECONDS)
        assert [type(error) for error in caught] == [StepCancelledError]

    def test_cancel_a_run(self, flow: FlowStone) -> None:
        """Running steps are signalled, waiting ones are over at once; the run ends cancelled."""
        thread = threading.Thread(
            target=lambda: flow.materialize_all("below_gated", executor=self.executor, run_id="r")
        )
        thread.start()
        assert self.marks.wait("gated")
        flow.runs.cancel("r")
        thread.join(TIMEOUT_SECONDS)
        assert not thread.is_alive()
        assert wait_until(lambda: flow.runs.get("r").state is State.CANCELLED, timeout_seconds=TIMEOUT_SECONDS)
        assert {step.state for step in flow.runs.steps("r")} == {State.CANCELLED}

    def test_cancel_after_the_end(self, flow: FlowStone) -> None:
        """Too late changes nothing and says the truth."""
        done = flow.materialize("numbers", executor=self.executor)
        assert flow.cancel_job(done.step_id) is State.COMPLETED
        assert flow.load("numbers") == [1, 2, 3]

    def test_unknown_options_place_nothing(self, flow: FlowStone) -> None:
        """A typo is found before anything is recorded, by every verb."""
        options = {"tiemout_seconds": 5}
        for call in (
            lambda: flow.materialize("numbers", executor=self.executor, executor_opts=options),
            lambda: flow.schedule("numbers", executor=self.executor, executor_opts=options),
            lambda: flow.materialize_all("doubled", executor=self.executor, executor_opts=options),
        ):
            with pytest.raises(OptionsError, match="tiemout_seconds"):
                call()
        assert flow.runs.latest() == []
        assert self.run(flow, "numbers") == [1, 2, 3]

    def test_options_that_cannot_travel_place_nothing(self, flow: FlowStone) -> None:
        """Objects cannot be sent to other processes; who does not send them refuses them as unknown."""
        with pytest.raises(OptionsError, match="lock"):
            flow.materialize("numbers", executor=self.executor, executor_opts={"lock": threading.Lock()})
        assert flow.runs.latest() == []

    def test_bad_requests_place_nothing(self, flow: FlowStone) -> None:
        """Nonsense is refused early."""
        for how in ({"priority": 10}, {"run_id": ""}, {"forse": True}):
            with pytest.raises(FlowStoneError):
                flow.materialize("numbers", executor=self.executor, **how)
        for width in (0, -1):
            with pytest.raises(OptionsError, match="max_concurrency"):
                flow.backfill("squares", executor=self.executor, max_concurrency=width)
        assert flow.runs.latest() == []
