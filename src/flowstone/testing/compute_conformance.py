"""What every compute must do, as tests to run on yours.

The same tests run on the isolated processes of a worker, on commands, on Dask and on Ray.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flowstone.app import FlowStone
from flowstone.core.materialization import Materialization
from flowstone.core.outcome import Fatal
from flowstone.core.state import State
from flowstone.errors import (
    IsolatedFailureError,
    MaterializationTimeoutError,
    SerializationError,
    StepCancelledError,
)
from flowstone.io.filesystem import FilesystemIO
from flowstone.protocols import Compute
from flowstone.testing.compute_assets import KINDS, OddError, Point, compute_assets
from flowstone.testing.marks import Marks, wait_until

TIMEOUT_SECONDS = 90.0
"""How long a test waits for something that must happen."""

GRACE_SECONDS = 3.0
"""How long a function may go on after a cancel."""


class ComputeConformance(ABC):
    """Tests of the meaning of a compute; make a subclass whose name starts with `Test`.

    Override `create`. Where a cluster is expensive to start, keep it in a fixture of the class or module.

    Attributes:
        crash_ends_it: whether a function that ends its process takes away what others need; the test is skipped.
        hears_cancel: whether a running function learns of a cancel through its token.
        sends_logs: whether what a function logs and prints arrives while it runs.
    """

    crash_ends_it = False
    hears_cancel = True
    sends_logs = True

    @abstractmethod
    def create(self) -> Compute:
        """Return a new compute."""

    @property
    def declared(self) -> Mapping[str, Any]:
        """How assets declare it."""
        return {"compute": "under_test"}

    def computes(self) -> dict[str, Compute]:
        """Return what the app is given."""
        return {"under_test": self.create()}

    @pytest.fixture
    def marks(self, tmp_path: Path) -> Marks:
        """What the assets did."""
        directory = tmp_path / "marks"
        directory.mkdir()
        return Marks(directory)

    @pytest.fixture
    def flow(self, marks: Marks, tmp_path: Path) -> Iterator[FlowStone]:
        """An app whose values other processes can read."""
        with self.running(marks, tmp_path, "filesystem") as app:
            yield app

    @pytest.fixture(params=["filesystem", "memory"])
    def either(self, request: pytest.FixtureRequest, marks: Marks, tmp_path: Path) -> Iterator[FlowStone]:
        """That one, and one whose values stay in this process."""
        with self.running(marks, tmp_path, request.param) as app:
            yield app

    @contextmanager
    def running(self, marks: Marks, tmp_path: Path, io: str) -> Iterator[FlowStone]:
        """Make an app, and close it."""
        app = FlowStone.for_testing(
            compute_assets(tmp_path / "marks", **self.declared),
            compute=self.computes(),
            io={"filesystem": FilesystemIO(tmp_path / "values", durable=False)},
            default_io=io,
            resources={"answer": 42, "lock": threading.Lock()},
        )
        app.parts.remote.grace_seconds = app.parts.processes.grace_seconds = GRACE_SECONDS
        try:
            yield app
        finally:
            marks.leave("gate")  # nobody is left behind in front of it
            app.close()

    def make(self, flow: FlowStone, asset: str, **how: Any) -> Materialization:
        """Materialize an asset, and what is missing upstream."""
        opts = how.pop("executor_opts", None)
        run = flow.materialize_all(asset, executor_opts=opts, **how)
        found: list[Materialization] = list(run.raise_for_failures().materializations.values())
        assert len(found) == 1
        return found[0]

    def failure(self, flow: FlowStone, asset: str, **how: Any) -> BaseException:
        """Return what an asset raises, which must be something."""
        flow.materialize_all("marks")
        try:
            flow.materialize(asset, **how)
        except BaseException as error:  # noqa: BLE001 - what the test looks at
            return error
        raise AssertionError("nothing was raised")

    def logged(self, flow: FlowStone, step_id: int) -> list[str]:
        """Return the lines that are kept with a step."""
        return [line.text for line in flow.logs.of(step_id).lines]

    # --- values -------------------------------------------------------------------------------------------

    def test_runs_elsewhere(self, flow: FlowStone, marks: Marks) -> None:
        """In another process, once; the value comes back."""
        made = self.make(flow, "process")
        assert made.value != os.getpid()
        assert made.state is State.COMPLETED
        assert marks.count("process") == 1
        assert flow.load("process") == made.value

    def test_reads_what_was_made_elsewhere(self, either: FlowStone) -> None:
        """Values go from call to call, wherever they lie; the lineage is recorded."""
        made = self.make(either, "doubled")
        assert made.value == [2, 4, 6]
        assert [one.asset for one in made.inputs] == ["numbers"]
        assert made.stored is not None
        assert made.stored.value_type == "builtins.list"

    def test_partitions_arrive(self, either: FlowStone) -> None:
        """Several partitions of an input are a dict, as everywhere."""
        for region in ("eu", "us"):
            self.make(either, "facts", partition=region)
        assert self.make(either, "together").value == ["eu", "us"]

    def test_objects_of_declared_classes(self, either: FlowStone) -> None:
        """Are stored and built again by their name."""
        assert self.make(either, "moved").value.x == 2
        assert type(either.load("moved")).__name__ == Point.__name__

    def test_large_values(self, flow: FlowStone) -> None:
        """Eight megabytes go there and come back."""
        assert self.make(flow, "size").value == 256 * 32_768

    def test_a_coroutine(self, flow: FlowStone) -> None:
        """Runs on a loop there."""
        assert self.make(flow, "awaited").value == 6

    def test_what_cannot_travel(self, either: FlowStone) -> None:
        """Is refused by name, and nothing is stored."""
        error = self.failure(either, "unpicklable")
        assert isinstance(error, SerializationError)
        assert "unpicklable" in str(error)
        assert not either.exists("unpicklable")

    def test_at_once(self, flow: FlowStone, marks: Marks) -> None:
        """Several steps at once do not touch each other."""
        run = flow.backfill("facts", executor="async", max_concurrency=2)
        assert run.ok
        assert {flow.load("facts", partition=one)["partition"] for one in ("eu", "us")} == {"eu", "us"}

    # --- the step -----------------------------------------------------------------------------------------

    def test_the_context_arrives_and_metadata_come_back(self, either: FlowStone) -> None:
        """The function knows what it knows everywhere; facts are recorded beside the value."""
        made = self.make(either, "facts", partition="eu", tags=["nightly"])
        assert made.value == {
            "asset": "facts",
            "partition": "eu",
            "key": "s:eu",
            "run_id": made.run_id,
            "tags": ["nightly"],
            "step_id": made.step_id,
            "attempt": 1,
            "token": made.value["token"],
            "zone": "UTC",
            "cancelled": False,
            "inputs": {},
        }
        assert made.stored is not None
        assert made.stored.metadata["rows"] == 3
        assert made.stored.metadata["region"] == "eu"

    def test_config_and_resources(self, flow: FlowStone) -> None:
        """Config is checked here and built there; resources travel as pickles, or say why they cannot."""
        assert self.make(flow, "configured", config={"configured": {"limit": 5}}).value == {"limit": 5}
        answer, problem = self.make(flow, "resourceful").value
        assert answer == 42
        assert "'lock' cannot be brought" in problem

    def test_logs_arrive_with_their_step(self, flow: FlowStone) -> None:
        """Records, tracebacks and prints are kept with the attempt."""
        made = self.make(flow, "logs")
        kept = "\n".join(self.logged(flow, made.step_id))
        assert "rows: 7" in kept
        assert "printed here" in kept
        assert "it broke" in kept
        assert "ValueError: inner" in kept

    def test_logs_arrive_while_it_runs(self, flow: FlowStone, marks: Marks) -> None:
        """prefect#18082, prefect#6022: whoever waits sees what a long function says, each line once."""
        if not self.sends_logs:
            pytest.skip("what is logged arrives with the answer")
        flow.materialize_all("marks")
        job = flow.schedule("talks", executor="async")
        first = ["at the gate", "waiting for it"]  # streams and loggers may be two ways
        assert wait_until(lambda: sorted(self.logged(flow, job.id)) == first, timeout_seconds=TIMEOUT_SECONDS)
        assert not flow.job_status(job).is_terminal
        marks.leave("gate")
        flow.runs.wait_for(job, timeout_seconds=TIMEOUT_SECONDS)
        whole = self.logged(flow, job.id)
        assert (sorted(whole[:2]), whole[2:]) == (first, ["through the gate"])

    def test_approval(self, flow: FlowStone) -> None:
        """A function stops for a person, and is called again with the decision."""
        with ThreadPoolExecutor(1) as pool:
            done: Future[Any] = pool.submit(flow.materialize, "asks")
            assert wait_until(lambda: bool(flow.approvals.list()), timeout_seconds=TIMEOUT_SECONDS)
            flow.approvals.approve(flow.approvals.list()[0].id, by="ann")
            assert done.result(TIMEOUT_SECONDS).value == "['from', 'afar'] by ann"

    def test_routes(self, flow: FlowStone) -> None:
        """A decision that is made there counts here."""
        run = flow.materialize_all("left or right")
        assert (run.ok, run.skipped) == (True, 1)
        assert flow.load("left") == 6
        assert not flow.exists("right")

    def test_items(self, flow: FlowStone) -> None:
        """The items of a scatter are computed there, and gathered here."""
        assert self.make(flow, "squares").value == 30

    # --- failures -----------------------------------------------------------------------------------------

    def test_errors_arrive(self, flow: FlowStone) -> None:
        """As themselves, with the traceback of where they were raised."""
        expected = {
            "value": (ValueError, "value"),
            "chained": (ValueError, "outer"),
            "exit": (SystemExit, "3"),
            "interrupt": (KeyboardInterrupt, ""),
            "odd": (OddError, "code 7, rewind"),
            "locked": (IsolatedFailureError, "held"),
            "fatal": (Fatal, "the contract ended"),
        }
        assert expected.keys() | {"skip", "later"} == set(KINDS)
        for partition, (kind, text) in expected.items():
            error = self.failure(flow, "raises", partition=partition)
            assert isinstance(error, kind), (partition, error)
            assert text in str(error)
            if partition == "chained":
                notes = "\n".join(error.__notes__)
                assert "KeyError" in notes
                assert "compute_assets.py" in notes

    def test_outcomes(self, flow: FlowStone) -> None:
        """Skipping and asking again later are answers."""
        assert flow.materialize("raises", partition="skip").state is State.SKIPPED
        job = flow.schedule("raises", partition="later", executor="async")
        waits = (State.SCHEDULED, State.WAITING)
        assert wait_until(lambda: flow.job_status(job) in waits, timeout_seconds=TIMEOUT_SECONDS)
        assert flow.cancel_job(job) is State.CANCELLED

    def test_retries_are_those_of_the_step(self, flow: FlowStone, marks: Marks) -> None:
        """One call for an attempt, and another attempt as the policy says."""
        made = self.make(flow, "flaky", executor_opts={"retry": True})
        assert (made.value, made.attempt) == (2, 2)
        assert marks.count("flaky") == 2

    def test_a_process_that_dies(self, flow: FlowStone, marks: Marks) -> None:
        """Is an attempt that failed, never a success, and is repeated whatever the policy says of exceptions."""
        if self.crash_ends_it:
            pytest.skip("where a function ends its process, all of them end")
        made = self.make(flow, "crashes", executor_opts={"retry": True})
        assert (made.value, made.attempt) == (2, 2)
        assert marks.count("crashes") == 2
        first = flow.runs.attempts(made.step_id)[0]
        assert first.state is State.FAILED
        assert "crashes" in (first.error or "")

    def test_timeout(self, flow: FlowStone, marks: Marks) -> None:
        """Counts from where the function begins, and ends it there."""
        error = self.failure(flow, "slow")
        assert isinstance(error, MaterializationTimeoutError)
        assert marks.count("slow") == 1

    def test_cancel_reaches_the_function(self, flow: FlowStone, marks: Marks) -> None:
        """Its token is set, and the step ends as cancelled."""
        flow.materialize_all("marks")
        job = flow.schedule("patient", executor="async")
        assert marks.wait("patient", timeout_seconds=TIMEOUT_SECONDS)
        flow.cancel_job(job)
        with pytest.raises(StepCancelledError):
            flow.runs.wait_for(job, timeout_seconds=TIMEOUT_SECONDS)
        assert flow.job_status(job) is State.CANCELLED
        if self.hears_cancel:
            assert marks.wait("heard", timeout_seconds=TIMEOUT_SECONDS)
        assert marks.count("patient") == 1
        assert marks.count("patient-done") == 0

    def test_a_function_that_does_not_listen(self, flow: FlowStone, marks: Marks) -> None:
        """Holds nobody up for ever: after a grace the step is cancelled without it."""
        flow.materialize_all("marks")
        job = flow.schedule("deaf", executor="async")
        assert marks.wait("deaf", timeout_seconds=TIMEOUT_SECONDS)
        flow.cancel_job(job)
        with pytest.raises(StepCancelledError):
            flow.runs.wait_for(job, timeout_seconds=TIMEOUT_SECONDS)
        assert flow.job_status(job) is State.CANCELLED
        assert not flow.exists("deaf")
