from __future__ import annotations

import threading

import pytest

from flowstone.app import FlowStone
from flowstone.core.asset import asset
from flowstone.core.definition import StaticPartitions
from flowstone.core.state import State
from flowstone.errors import MaterializationTimeoutError
from flowstone.executors.inline import AsyncExecutor
from flowstone.testing.marks import wait_until


def test_jobs_scheduled_together_run_together() -> None:
    """Also when a thread is idle already: it must not be counted for each of them."""
    barrier = threading.Barrier(4, timeout=30)

    @asset(partitions=StaticPartitions(range(4)))
    def meets() -> None:
        barrier.wait()

    @asset
    def warm() -> None: ...

    flow = FlowStone.for_testing([meets, warm])
    first = flow.schedule("warm", executor="async")
    assert wait_until(lambda: flow.job_status(first).is_terminal)
    jobs = [flow.schedule("meets", partition=key, executor="async") for key in range(4)]
    assert wait_until(lambda: all(flow.job_status(job).is_terminal for job in jobs))
    assert [flow.job_status(job) for job in jobs] == [State.COMPLETED] * 4


def test_the_limit_holds_for_scheduled_work() -> None:
    lock, running, largest = threading.Lock(), [0], [0]

    @asset(partitions=StaticPartitions(range(40)))
    def counted(context) -> None:
        with lock:
            running[0] += 1
            largest[0] = max(largest[0], running[0])
        context.cancellation.wait(0.005)
        with lock:
            running[0] -= 1

    flow = FlowStone.for_testing([counted])
    executor = AsyncExecutor(max_concurrency=3)
    jobs = [flow.schedule("counted", partition=key, executor=executor) for key in range(40)]
    assert wait_until(lambda: all(flow.job_status(job).is_terminal for job in jobs))
    assert largest[0] in (2, 3)


def test_a_function_that_runs_too_long_fails_and_publishes_nothing() -> None:
    gate = threading.Event()

    @asset
    def slow() -> int:
        gate.wait(30)
        return 1

    flow = FlowStone.for_testing([slow])
    with pytest.raises(MaterializationTimeoutError):
        flow.materialize("slow", executor="async", executor_opts={"timeout_seconds": 0.02})
    gate.set()
    assert not flow.exists("slow")


@pytest.mark.parametrize("options", [{"max_concurrency": 0}, {"timeout_seconds": 0}])
def test_figures_that_cannot_work(options: dict) -> None:
    with pytest.raises((ValueError, TypeError)):
        AsyncExecutor(**options)
