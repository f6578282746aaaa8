"""One `materialize` for each partition in FlowStone, in memory."""

from __future__ import annotations

from datetime import date, timedelta

from benchmarks.peers.exchange import answer, options, repeat
from flowstone import DailyPartitions, FlowStone, asset

FIRST = date(2020, 1, 1)


@asset(partitions=DailyPartitions(FIRST))
def part() -> int:
    """Do nothing."""
    return 1


def main() -> None:
    """Print the seconds of each repetition: all partitions, one after the other."""
    arguments = options()
    days = [FIRST + timedelta(days=n) for n in range(arguments["partitions"])]

    def run(flow: FlowStone) -> None:
        for day in days:
            flow.materialize("part", partition=day)

    answer(seconds=repeat(lambda: FlowStone.for_testing([part]), run, repetitions=arguments["repetitions"]))


main()
