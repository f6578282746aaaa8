"""Inline graph in Hamilton: one `execute` of a built driver. It records nothing."""

from __future__ import annotations

from hamilton import ad_hoc_utils, base, driver

from benchmarks.peers.exchange import answer, options, repeat
from benchmarks.peers.shapes import ends_of, expected, functions


def main() -> None:
    """Print the seconds of each repetition."""
    arguments = options()
    shape = arguments["shape"]
    module = ad_hoc_utils.create_temporary_module(*functions(shape).values(), module_name=f"graph_{shape}")

    def build() -> driver.Driver:
        return driver.Builder().with_modules(module).with_adapters(base.DictResult()).build()

    def run(graph: driver.Driver) -> None:
        values = graph.execute(ends_of(shape))
        assert values[ends_of(shape)[0]] == expected(shape)

    answer(seconds=repeat(build, run, repetitions=arguments["repetitions"], warmups=3))


main()
