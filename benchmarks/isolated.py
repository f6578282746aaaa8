"""The steps of `benchmarks.memory` whose functions run in a process of their own, and the app that runs them.

It prints `ready` before the large value is there, `made` with its size when it is, and `done`; whoever started it
samples the memory of both processes in between.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from benchmarks.memory import VALUES, forget_peak, manager_of, size_of
from flowstone import AssetContext, FlowStone, StaticPartitions, asset

_SIZES = StaticPartitions(["warm-up", "large"])
_WARM_UP = 1_000_000
_PAUSE_SECONDS = 0.3
"""For what is printed to reach whoever samples, and for one more sample."""


@asset(isolation="process", io="place", partitions=_SIZES)
def made(context: AssetContext) -> Any:
    """Return a value."""
    given = json.loads(os.environ["FLOWSTONE_BENCH_MEMORY"])
    large = context.key.endswith("large")
    value = VALUES[given["value"]](given["size"] if large else _WARM_UP)
    if large and not given["read"]:
        forget_peak()
        _say("made", size_of(value))
    return value


@asset(isolation="process", io="small", partitions=_SIZES)
def read(context: AssetContext, made: Any) -> int:
    """Return the size of a value."""
    if context.key.endswith("large"):
        _say("read", size_of(made))
    return size_of(made)


def _say(*words: object) -> None:
    print(*words, flush=True)
    time.sleep(_PAUSE_SECONDS)


def run(given: Mapping[str, Any]) -> None:
    """Run the step that returns a value, or the one that reads it."""
    os.environ["FLOWSTONE_BENCH_MEMORY"] = json.dumps(given)
    with manager_of(given["place"]) as manager, manager_of("memory", "small") as small:
        flow = FlowStone.for_testing([made, read], io={"place": manager, "small": small})
        flow.materialize("made", partition="warm-up")
        if given["read"]:
            flow.materialize("made", partition="large")
            flow.parts.processes.close()  # with what making the value left in the child
        flow.materialize("read", partition="warm-up")
        forget_peak()
        _say("ready")
        flow.materialize("read" if given["read"] else "made", partition="large")
        _say("done")
        flow.close()


if __name__ == "__main__":
    run(json.loads(sys.argv[1]))
