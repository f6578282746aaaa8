"""Inline graph in Dagster: `materialize` on an ephemeral instance with the in-memory IO manager."""

from __future__ import annotations

import logging

from dagster import DagsterInstance, asset, materialize, mem_io_manager

from benchmarks.peers.exchange import answer, options, repeat
from benchmarks.peers.shapes import ends_of, expected, functions


def main() -> None:
    """Print the seconds of each repetition; `log` leaves its usual log on standard error."""
    arguments = options()
    shape = arguments["shape"]
    if not arguments["log"]:
        logging.disable(logging.CRITICAL)
    assets = [asset(function) for function in functions(shape).values()]

    def run(instance: DagsterInstance) -> None:
        result = materialize(assets, instance=instance, resources={"io_manager": mem_io_manager})
        assert result.success
        assert result.output_for_node(ends_of(shape)[0]) == expected(shape)

    answer(seconds=repeat(DagsterInstance.ephemeral, run, repetitions=arguments["repetitions"]))


main()
