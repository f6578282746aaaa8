"""The private doors of Oban that we use, and nothing else of what is private there.

- `producer.get_jobs`: how a producer takes its jobs. Ours acquire a job and start its step in one transaction.
- `producer._paused`: whether it takes any.
- `Query.stage_jobs`: what the stager asks for. Ours makes only jobs of ours available.
- `PostgresNotifier._dispatch`: what a notification does. Ours survives any payload.
- Oban's loggers: while the database is away, one line in a while instead of a traceback a second.

Each is replaced for our own instances; other Oban instances in the process keep Oban's way. `tests/contracts/`
holds what this module assumes against the real package.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from flowstone.executors.oban.signals import Notifications, Signals

_LOGGERS = ("_leader", "_lifeline", "_notifier", "_producer", "_pruner", "_refresher", "_scheduler", "_stager")
_AGAIN_SECONDS = 60.0


class RepeatFilter(logging.Filter):
    """Passes the same message once a minute, without its traceback unless that is debugged.

    Example:
        >>> repeat_filter = RepeatFilter()
        >>> record = logging.makeLogRecord({"msg": "no connection", "levelno": logging.WARNING})
        >>> repeat_filter.filter(record), repeat_filter.filter(record)
        (True, False)
    """

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Let a record through unless it repeats an earlier one."""
        if record.levelno < logging.WARNING or logging.getLogger("oban").isEnabledFor(logging.DEBUG):
            return True
        key, now = (record.name, str(record.msg)), time.monotonic()
        if now - self._last.get(key, -_AGAIN_SECONDS) < _AGAIN_SECONDS:
            return False
        self._last[key] = now
        record.msg, record.args = " ".join(record.getMessage().split()), ()
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            if str(error) not in record.msg:
                record.msg = f"{record.msg}: {type(error).__name__}: {' '.join(str(error).split())}"
            record.exc_info = record.exc_text = None
        return True


_repeat_filter = RepeatFilter()


def filter_oban_logs() -> None:
    """Apply this to Oban's loops; doing so twice changes nothing."""
    for name in _LOGGERS:
        logging.getLogger(f"oban.{name}").addFilter(_repeat_filter)


type TakeJobs = Callable[[Any, str, int, str], Awaitable[list[Any]]]
"""Called with a producer, its queue, demand and uuid; returns Oban jobs."""

type StageJobs = Callable[[Sequence[str]], Awaitable[list[str]]]
"""Called with queues; returns those with work."""

_POINT = "producer.get_jobs"
_LISTEN_SECONDS = 10.0
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


async def wait_listening(oban: Any, *, timeout_seconds: float = _LISTEN_SECONDS) -> bool:
    """Wait until the channels that Oban's loops asked for are listened on; what is sent before is not heard.

    Oban subscribes without waiting: its notifier sends LISTEN when it comes round. A database that is away just
    now is listened on when it is back, so this does not wait for ever.

    Args:
        oban: a started instance.
        timeout_seconds: how long at most.

    Returns:
        Whether all of them are listened on.
    """
    events = [event.wait() for event in oban._notifier._listen_events.values()]  # noqa: SLF001 - see the module
    try:
        await asyncio.wait_for(asyncio.gather(*events), timeout_seconds)
    except TimeoutError:
        return False
    return True


def is_paused(producer: Any) -> bool:
    """Return whether a producer takes nothing, because Oban's tools have paused it."""
    return bool(producer._paused)  # noqa: SLF001 - see the module


async def _get_jobs(producer: Any) -> list[Any]:
    take: TakeJobs | None = getattr(producer._dispatcher, _TAKE, None)  # noqa: SLF001 - see the module
    if take is None:
        return await _others["default"](producer)
    demand = producer._limit - len(producer._running_jobs)  # noqa: SLF001
    if demand <= 0:
        return []
    return await take(producer, producer._queue, demand, producer._uuid)  # noqa: SLF001
