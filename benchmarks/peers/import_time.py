"""How long one import takes in a fresh process."""

from __future__ import annotations

import importlib
import sys
import time

from benchmarks.peers.exchange import answer, options


def main() -> None:
    """Print the seconds of the import and how many modules came with it."""
    name = options()["module"]
    before = len(sys.modules)
    started = time.perf_counter()
    importlib.import_module(name)
    answer(seconds=[time.perf_counter() - started], modules=len(sys.modules) - before)


main()
