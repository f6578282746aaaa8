"""The private doors of Oban that we use, and nothing else of what is private there.

- `producer.get_jobs`: how a producer takes its jobs. Ours take a job and start its step in one transaction.
- `Query.stage_jobs`: what the stager asks for. Ours makes only jobs of ours available.
- `PostgresNotifier._dispatch`: what a notification does. Ours survives any payload.

Each is replaced for our own instances; other Oban instances in the process keep Oban's way. `tests/contracts/`
holds what this module assumes against the real package.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from flowstone.executors.oban.signals import Notifications, Signals

type TakeJobs = Callable[[str, int, str], Awaitable[list[Any]]]
"""Called with queue, demand and the producer's uuid; returns Oban jobs."""

type StageJobs = Callable[[Sequence[str]], Awaitable[list[str]]]
"""Called with queues; returns those with work."""

_POINT = "producer.get_jobs"
_TAKE = "take_jobs"
_others: dict[str, Callable[[Any], Awaitable[list[Any]]]] = {}


def install() -> None:
    """Let producers whose dispatcher has `take_jobs` take their jobs through it; twice is no more than once."""
    from oban import _extensions, _producer

    current = _extensions.get_ext(_POINT, _producer._get_jobs)  # noqa: SLF001 - see the module
    if current is not _get_jobs:
        _others["default"] = current
        _extensions.put_ext(_POINT, _get_jobs)


def attach(oban: Any, *, stage: StageJobs, signals: Signals) -> None:
    """Let an Oban instance of ours stage through `stage`, and hear notifications through `signals`.

    Args:
        oban: the instance, not started.
        stage: makes due jobs available.
        signals: what is done about signals.
    """

    async def stage_jobs(_limit: int, queues: list[str], before: object = None) -> tuple[int, list[str]]:
        found = await stage(queues)
        return len(found), found

    oban._query.stage_jobs = stage_jobs  # noqa: SLF001 - see the module
    oban._notifier._dispatch = Notifications(oban._notifier, signals).dispatch  # noqa: SLF001


async def _get_jobs(producer: Any) -> list[Any]:
    take: TakeJobs | None = getattr(producer._dispatcher, _TAKE, None)  # noqa: SLF001 - see the module
    if take is None:
        return await _others["default"](producer)
    demand = producer._limit - len(producer._running_jobs)  # noqa: SLF001
    if demand <= 0:
        return []
    return await take(producer._queue, demand, producer._uuid)  # noqa: SLF001
