"""Inline graph as a plain loop of function calls: the floor."""

from __future__ import annotations

from benchmarks.peers.exchange import answer, options, repeat
from benchmarks.peers.shapes import ends_of, expected, functions, inputs_of


def main() -> None:
    """Print the seconds of each repetition."""
    arguments = options()
    shape = arguments["shape"]
    steps = [(name, function, inputs_of(shape)[name]) for name, function in functions(shape).items()]

    def run(values: dict[str, int]) -> None:
        for name, function, reads in steps:
            values[name] = function(*[values[read] for read in reads])
        assert values[ends_of(shape)[0]] == expected(shape)

    answer(seconds=repeat(dict, run, repetitions=arguments["repetitions"], warmups=3))


main()
