from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from flowstone.app import FlowStone
from flowstone.core.asset import asset
from flowstone.core.capability import Capability
from flowstone.core.definition import StaticPartitions
from flowstone.core.job import Job
from flowstone.core.materialization import Materialization
from flowstone.core.state import State
from flowstone.errors import OptionsError, StepFailedError
from flowstone.protocols import RunJob


def assets_of_a_chain(length: int) -> list:
    links = [
        asset(name=f"n{at}", deps={"before": f"n{at - 1}"})(lambda before: before + 1) for at in range(1, length)
    ]
    return [asset(name="n0")(lambda: 0), *links]


@pytest.mark.parametrize("executor", ["sync", "async", "serial"])
def test_a_long_chain_runs_in_order(executor: str) -> None:
    flow = FlowStone.for_testing(assets_of_a_chain(300))
    assert flow.materialize_all("n299", executor=executor).value == 299


def test_a_width_of_one_runs_in_the_callers_thread() -> None:
    threads: set[threading.Thread] = set()

    @asset(partitions=StaticPartitions(range(5)))
    def where() -> None:
        threads.add(threading.current_thread())

    FlowStone.for_testing([where]).backfill("where")
    assert threads == {threading.main_thread()}


def test_an_interrupt_ends_the_run_and_frees_its_targets() -> None:
    """A person at the terminal stops an inline run: what did not start is cancelled, nothing hangs later."""

    @asset
    def first() -> None:
        raise KeyboardInterrupt

    @asset
    def second() -> int:
        return 2

    @asset
    def last(first: None, second: int) -> None: ...

    flow = FlowStone.for_testing([first, second, last])
    with pytest.raises(KeyboardInterrupt):
        flow.materialize_all("last", run_id="r")
    assert all(step.state.is_terminal for step in flow.runs.steps("r"))
    assert flow.materialize("second").value == 2


def test_progress_that_raises_ends_the_run() -> None:
    def complain(progress: object) -> None:
        raise ZeroDivisionError

    flow = FlowStone.for_testing(assets_of_a_chain(3))
    with pytest.raises(ZeroDivisionError):
        flow.materialize_all("n2", on_progress=complain, run_id="r")
    assert flow.runs.get("r").state is not State.RUNNING
    assert flow.materialize_all("n2").value == 2


class Refusing:
    """An executor that does not do its work."""

    name = "refusing"
    capabilities = frozenset({Capability.NON_PERSISTENT})

    def bind(self, run: RunJob) -> None: ...

    def execute(self, job: Job, **options: Any) -> Materialization:
        raise ConnectionError("the cluster is away")

    def schedule(self, job: Job, **options: Any) -> Job:
        raise ConnectionError("the cluster is away")


class RefusingBeside(Refusing):
    """The same, with several steps at once, and not of every step."""

    name = "beside"
    capabilities = frozenset({Capability.NON_PERSISTENT, Capability.CONCURRENT})
    max_concurrency = 4

    def bind(self, run: RunJob) -> None:
        self.run = run

    def execute(self, job: Job, **options: Any) -> Materialization:
        return super().execute(job) if job.asset == "n1" else self.run(job)


class InMemory(Refusing):
    """Says that it did the work, and did not."""

    name = "silent"

    def execute(self, job: Job, **options: Any) -> Materialization:
        return None  # type: ignore[return-value]

    def schedule(self, job: Job, **options: Any) -> Job:
        return None  # type: ignore[return-value]


@pytest.mark.parametrize("verb", ["materialize", "schedule"])
def test_an_executor_that_refuses_work_leaves_a_truthful_record(verb: str) -> None:
    flow = FlowStone.for_testing(assets_of_a_chain(3))
    with pytest.raises(ConnectionError, match="cluster is away"):
        getattr(flow, verb)("n0", executor=Refusing(), run_id="r")
    (step,) = flow.runs.steps("r")
    status = flow.runs.status(step.id)
    assert (status.state, status.error_type) == (State.FAILED, "builtins.ConnectionError")
    assert status.error is not None
    assert status.error.startswith("The executor 'refusing' did not run it.")
    assert status.error.endswith("ConnectionError: the cluster is away\n")
    assert flow.materialize_all("n2").value == 2


@pytest.mark.parametrize("executor", [Refusing, RefusingBeside])
@pytest.mark.parametrize("width", [None, 3])
def test_a_refusal_fails_that_step_and_the_run_goes_on(
    executor: Callable[[], Refusing], width: int | None
) -> None:
    @asset
    def apart() -> int:
        return 7

    flow = FlowStone.for_testing([*assets_of_a_chain(3), apart])
    result = flow.backfill("*", executor=executor(), max_concurrency=width, run_id="r")
    refused = "n0" if executor is Refusing else "n1"
    states = {step.asset: step.state for step in flow.runs.steps("r")}
    assert states[refused] is State.FAILED
    assert states["n2"] is State.UPSTREAM_FAILED
    assert states["apart"] is (State.FAILED if executor is Refusing else State.COMPLETED)
    assert result.state is State.FAILED
    assert "cluster is away" in result.errors[refused, ""]
    assert flow.materialize_all("n2").value == 2


def test_an_executor_that_only_says_that_it_worked_fails_its_steps() -> None:
    flow = FlowStone.for_testing(assets_of_a_chain(2))
    with pytest.raises(StepFailedError, match=r"'silent' returned None from execute\(\)"):
        flow.materialize("n0", executor=InMemory())
    with pytest.raises(OptionsError, match=r"'silent' returned None from schedule\(\) instead of the Job"):
        flow.schedule("n0", executor=InMemory())
    assert flow.backfill("n0", executor=InMemory()).failed == 1
    assert flow.materialize_all("n1").value == 1


def test_a_run_goes_on_when_the_step_it_joined_ends_elsewhere() -> None:
    started, gate = threading.Event(), threading.Event()

    @asset
    def shared() -> int:
        started.set()
        assert gate.wait(30)
        return 1

    @asset
    def below(shared: int) -> int:
        return shared + 1

    flow = FlowStone.for_testing([shared, below])
    owner = threading.Thread(target=lambda: flow.materialize("shared"))
    owner.start()
    assert started.wait(30)
    results = []
    guest = threading.Thread(target=lambda: results.append(flow.materialize_all("below")))
    guest.start()
    gate.set()
    owner.join(30)
    guest.join(30)
    assert [(result.value, result.ok) for result in results] == [(2, True)]


def test_a_run_fails_when_the_step_it_joined_fails_elsewhere() -> None:
    started, gate = threading.Event(), threading.Event()

    @asset
    def shared() -> int:
        started.set()
        assert gate.wait(30)
        raise ValueError("shared misfortune")

    @asset
    def below(shared: int) -> int:
        return shared + 1

    flow = FlowStone.for_testing([shared, below])
    owner = threading.Thread(target=lambda: flow.materialize_all("shared"))
    owner.start()
    assert started.wait(30)
    results = []
    guest = threading.Thread(target=lambda: results.append(flow.materialize_all("below")))
    guest.start()
    while len(flow.runs.latest()) < 2:
        started.wait(0.001)
    gate.set()
    owner.join(30)
    guest.join(30)
    assert [result.ok for result in results] == [False]
    with pytest.raises(StepFailedError, match="shared misfortune"):
        results[0].raise_for_failures()
