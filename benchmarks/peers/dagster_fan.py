"""1 → many → 1 in Dagster: dynamic outputs, mapped and collected in this process, on an ephemeral instance."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from dagster import DagsterInstance, DynamicOut, DynamicOutput, graph, in_process_executor, mem_io_manager, op

from benchmarks.peers.exchange import answer, options, repeat

ARGUMENTS = options()


@op(out=DynamicOut(int))
def first() -> Iterator[DynamicOutput[int]]:
    """Yield what is computed side by side."""
    for number in range(ARGUMENTS["width"]):
        yield DynamicOutput(1, mapping_key=f"p{number}")


@op
def middle(first: int) -> int:
    """Do nothing."""
    return first


@op
def last(middle: list[int]) -> int:
    """Add up."""
    return sum(middle)


@graph
def fan() -> int:
    """Fan out and in."""
    return last(first().map(middle).collect())


def main() -> None:
    """Print the seconds of each repetition."""
    logging.disable(logging.CRITICAL)
    job = fan.to_job(executor_def=in_process_executor, resource_defs={"io_manager": mem_io_manager})

    def run(instance: DagsterInstance) -> None:
        result = job.execute_in_process(instance=instance)
        assert result.output_value() == ARGUMENTS["width"]

    answer(seconds=repeat(DagsterInstance.ephemeral, run, repetitions=ARGUMENTS["repetitions"]))


main()
