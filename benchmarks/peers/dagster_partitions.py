"""One `materialize` for each partition in Dagster, ephemeral and in memory."""

from __future__ import annotations

import logging
from datetime import date, timedelta

from dagster import DagsterInstance, DailyPartitionsDefinition, asset, materialize, mem_io_manager

from benchmarks.peers.exchange import answer, options, repeat

FIRST = date(2020, 1, 1)


@asset(partitions_def=DailyPartitionsDefinition("2020-01-01"))
def part() -> int:
    """Do nothing."""
    return 1


def main() -> None:
    """Print the seconds of each repetition: all partitions, one after the other."""
    arguments = options()
    if not arguments["log"]:
        logging.disable(logging.CRITICAL)
    keys = [(FIRST + timedelta(days=n)).isoformat() for n in range(arguments["partitions"])]

    def run(instance: DagsterInstance) -> None:
        for key in keys:
            done = materialize(
                [part], partition_key=key, instance=instance, resources={"io_manager": mem_io_manager}
            )
            assert done.success

    answer(seconds=repeat(DagsterInstance.ephemeral, run, repetitions=arguments["repetitions"]))


main()
