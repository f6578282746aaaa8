"""Inline graph in FlowStone: sync executor, values in memory, recording and lineage on, a fresh app each time."""

from __future__ import annotations

from benchmarks.peers.exchange import answer, options, repeat
from benchmarks.peers.shapes import ends_of, expected, functions, inputs_of
from flowstone import FlowStone, asset


def main() -> None:
    """Print the seconds of each repetition."""
    arguments = options()
    shape = arguments["shape"]
    assets = [asset(function) for function in functions(shape).values()]

    def run(flow: FlowStone) -> None:
        result = flow.materialize_all(ends_of(shape))
        assert result.ok
        assert result.total == len(inputs_of(shape))
        assert flow.load(ends_of(shape)[0]) == expected(shape)

    seconds = repeat(lambda: FlowStone.for_testing(assets), run, repetitions=arguments["repetitions"], warmups=3)
    answer(seconds=seconds)


main()
