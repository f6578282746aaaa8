"""Conformance of executors, the ground floor: values, scheduling, cancelling, failures, outcomes, retries."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flowstone.app import FlowStone
from flowstone.app.results import Progress
from flowstone.core.asset import Asset
from flowstone.core.capability import Capability
from flowstone.core.job import Job
from flowstone.core.materialization import Materialization
from flowstone.core.outcome import Fatal
from flowstone.core.partitions import encode_partition
from flowstone.core.state import ACTIVE, State
from flowstone.core.step import StepRecord
from flowstone.errors import (
    CapabilityError,
    DependencyNotReadyError,
    FlowStoneError,
    OptionsError,
    RunNotFoundError,
    SerializationError,
    StepCancelledError,
    StepFailedError,
    UnknownAssetError,
    UnknownPartitionError,
)
from flowstone.protocols import Executor
from flowstone.testing.conformance_assets import ASSETS, CHECKS, RAISED, REGIONS, SQUARES, UnusualError
from flowstone.testing.marks import DIRECTORY, Marks, wait_until

TIMEOUT_SECONDS = 60.0
"""How long a test waits for something that must happen."""


class ExecutorCase(ABC):
    """Gives every test an app on a new store, with the marks of its assets in a new directory.

    Attributes:
        executor: name of the executor under test, or the executor.
    """

    executor: str | Executor = "sync"

    @abstractmethod
    def make_flow(self, assets: Sequence[Asset], **options: Any) -> FlowStone:
        """Return an app of these assets on a new, empty store on which the executor works."""

    @pytest.fixture(autouse=True)
    def _marks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        directory = tmp_path / "marks"
        directory.mkdir()
        monkeypatch.setenv(DIRECTORY, str(directory))
        self.marks = Marks(directory)

    @pytest.fixture
    def flow(self, _marks: None) -> Iterator[FlowStone]:
        """An app of the conformance assets."""
        app = self.make_flow(ASSETS, checks=CHECKS)
        try:
            yield app
        finally:
            self.marks.leave("gate")  # nobody is left behind in front of it
            app.close()

    def has(self, flow: FlowStone, capability: Capability) -> bool:
        """Whether the executor declares a capability."""
        return capability in flow.parts.executors.get(self.executor).capabilities

    def need(self, flow: FlowStone, capability: Capability) -> None:
        """Skip the test when the executor does not declare a capability."""
        if not self.has(flow, capability):
            pytest.skip(f"the executor does not declare {capability.value!r}")

    def concurrent(self, flow: FlowStone) -> bool:
        """Whether placed work runs beside its caller."""
        return self.has(flow, Capability.CONCURRENT) or self.has(flow, Capability.DURABLE)

    def failure(self, call: Callable[[], object]) -> BaseException:
        """Return what a call raises, which must be something."""
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - what the test looks at
            return error
        raise AssertionError("nothing was raised")

    def latest(self, flow: FlowStone) -> StepRecord:
        """Return the last step of the newest run."""
        (run,) = flow.runs.latest(limit=1)
        return flow.runs.steps(run.id)[-1]

    def is_error(self, error: BaseException, kind: type[BaseException], text: str) -> None:
        """Check an error of an asset: itself, or what reports it when the asset ran elsewhere."""
        assert isinstance(error, kind | StepFailedError), f"{error!r} is not a {kind.__name__}"
        assert text in str(error)

    def ended(self, flow: FlowStone, job: Job | int) -> State:
        """Wait until a job is over and return its state."""
        over = wait_until(lambda: flow.job_status(job).is_terminal, timeout_seconds=TIMEOUT_SECONDS)
        assert over, f"the job is still {flow.job_status(job)}"
        return flow.job_status(job)

    def run(self, flow: FlowStone, asset: str, **how: Any) -> Any:
        """Materialize one asset on the executor under test and return its value."""
        return flow.materialize(asset, executor=self.executor, **how).value


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
        assert "not the third one" in result.errors["picky", encode_partition(3)]
        assert "picky" in result.errors["after_picky", encode_partition(3)]
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
