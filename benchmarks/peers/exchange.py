"""How a measurement gets its options and answers: JSON in, one JSON line out."""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable
from typing import Any


def options() -> dict[str, Any]:
    """Return the options given by the driver."""
    found: dict[str, Any] = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
    return found


def answer(**figures: Any) -> None:
    """Print the figures."""
    print(json.dumps(figures), flush=True)


def repeat[Ready](
    prepare: Callable[[], Ready], act: Callable[[Ready], object], *, repetitions: int, warmups: int = 1
) -> list[float]:
    """Time an act several times after some uncounted ones, each on something freshly prepared.

    Args:
        prepare: makes what the act needs; not timed.
        act: what is timed.
        repetitions: how many are counted.
        warmups: how many are not.

    Returns:
        Seconds of each counted one. Rubbish of earlier ones is collected outside the timing.
    """
    seconds = []
    for number in range(warmups + repetitions):
        ready = prepare()
        gc.collect()
        started = time.perf_counter()
        act(ready)
        took = time.perf_counter() - started
        if number >= warmups:
            seconds.append(took)
    return seconds
