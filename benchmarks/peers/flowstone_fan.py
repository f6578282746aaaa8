"""1 → many → 1 in FlowStone, inline and in memory: partitions of an asset between two others."""

from __future__ import annotations

from benchmarks.peers.exchange import answer, options, repeat
from flowstone import AllPartitions, FlowStone, StaticPartitions, asset, dep


def main() -> None:
    """Print the seconds of each repetition."""
    arguments = options()
    width = arguments["width"]

    @asset
    def first() -> int:
        return 1

    @asset(partitions=StaticPartitions([f"p{number:06}" for number in range(width)]))
    def middle(first: int) -> int:
        return first

    @asset(deps=[dep("middle", mapping=AllPartitions())])
    def last(middle: dict[str, int]) -> int:
        return sum(middle.values())

    def run(flow: FlowStone) -> None:
        assert flow.materialize_all("last").value == width

    answer(
        seconds=repeat(
            lambda: FlowStone.for_testing([first, middle, last]),
            run,
            repetitions=arguments["repetitions"],
            warmups=1,
        )
    )


main()
