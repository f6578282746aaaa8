"""1 → many → 1 in FlowStone, inline and in memory: partitions of an asset between two others."""

from __future__ import annotations

from benchmarks.peers.exchange import answer, options, repeat
from benchmarks.peers.flowstone_shapes_app import fan_assets
from flowstone import FlowStone


def main() -> None:
    """Print the seconds of each repetition."""
    arguments = options()
    width = arguments["width"]

    def run(flow: FlowStone) -> None:
        assert flow.materialize_all("last").value == width

    answer(
        seconds=repeat(
            lambda: FlowStone.for_testing(fan_assets(width)),
            run,
            repetitions=arguments["repetitions"],
            warmups=1,
        )
    )


main()
