"""The one private door of Oban that we use: how a producer takes its jobs.

Oban 0.7 takes jobs in `producer.get_jobs`. We replace it for our own producers, so that taking a job and
starting its step are one transaction; producers of other Oban instances in the process keep Oban's way.
`tests/contracts/` holds what this module assumes against the real package.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

type TakeJobs = Callable[[str, int, str], Awaitable[list[Any]]]
"""Called with queue, demand and the producer's uuid; returns Oban jobs."""

_POINT = "producer.get_jobs"
_nodes: dict[str, TakeJobs] = {}


def install(oban_name: str, take: TakeJobs) -> None:
    """Let the producers of the Oban instance of this name take jobs through `take`."""
    from oban import _extensions, _producer

    _nodes[oban_name] = take
    current = _extensions.get_ext(_POINT, _producer._get_jobs)  # noqa: SLF001 - see the module
    if current is not _get_jobs:
        _others["default"] = current
        _extensions.put_ext(_POINT, _get_jobs)


def remove(oban_name: str) -> None:
    """Forget an instance."""
    _nodes.pop(oban_name, None)


_others: dict[str, Callable[[Any], Awaitable[list[Any]]]] = {}


async def _get_jobs(producer: Any) -> list[Any]:
    take = _nodes.get(producer._name)  # noqa: SLF001 - see the module
    if take is None:
        return await _others["default"](producer)
    demand = producer._limit - len(producer._running_jobs)  # noqa: SLF001
    if demand <= 0:
        return []
    return await take(producer._queue, demand, producer._uuid)  # noqa: SLF001
