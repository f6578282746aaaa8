"""1 → many → 1 in Hamilton: `Parallelizable` and `Collect`, executed in this thread. It records nothing."""

from __future__ import annotations

import sys

from hamilton import driver
from hamilton.execution import executors
from hamilton.htypes import Collect, Parallelizable

from benchmarks.peers.exchange import answer, options, repeat


def number(width: int) -> Parallelizable[int]:
    """Yield what is computed side by side."""
    yield from range(width)


def middle(number: int) -> int:
    """Do nothing."""
    return 1


def last(middle: Collect[int]) -> int:
    """Add up."""
    return sum(middle)


def main() -> None:
    """Print the seconds of each repetition."""
    arguments = options()

    def build() -> driver.Driver:
        return (
            driver.Builder()
            .enable_dynamic_execution(allow_experimental_mode=True)
            .with_local_executor(executors.SynchronousLocalTaskExecutor())
            .with_remote_executor(executors.SynchronousLocalTaskExecutor())
            .with_modules(sys.modules[__name__])
            .build()
        )

    def run(graph: driver.Driver) -> None:
        assert graph.execute(["last"], inputs={"width": arguments["width"]})["last"] == arguments["width"]

    answer(seconds=repeat(build, run, repetitions=arguments["repetitions"], warmups=1))


main()
