"""What surrounds every page: how many approvals wait, and what is wrong with the whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from flowstone.app.flow import FlowStone
from flowstone.app.insights import InsightsView
from flowstone.app.reading import Reading
from flowstone.core.approval import ApprovalState
from flowstone.errors import DatabaseError, SchemaVersionError
from flowstone.web.registry import url
from flowstone.web.rendering import Notice

_MAX_NOTICES = 5
_MAX_APPROVALS = 100


@dataclass(frozen=True, slots=True)
class Chrome:
    """What is read for all pages at once.

    Args:
        approvals: how many requests wait, at most 100; None when that could not be read.
        notices: what is wrong.
    """

    approvals: int | None = None
    notices: tuple[Notice, ...] = ()


def read_chrome(flow: FlowStone, reading: Reading) -> Chrome:
    """Return what every page says besides its own subject; what cannot be read is left out, and the page stands.

    Args:
        flow: the app.
        reading: its connections that only read.
    """
    notices: list[Notice] = []
    try:
        with reading.snapshot() as insights:
            approvals = len(reading.parts.store.approvals.list(state=ApprovalState.PENDING, limit=_MAX_APPROVALS))
            notices += _alarms(insights) if flow.parts.store.durable else ()
    except SchemaVersionError as error:
        return Chrome(None, (Notice(str(error), "bad"),))
    except DatabaseError as error:
        return Chrome(None, (Notice(f"Not all of this could be read: {error}", "bad"),))
    if len(notices) > _MAX_NOTICES:
        left = len(notices) - _MAX_NOTICES
        notices = [
            *notices[:_MAX_NOTICES],
            Notice(f"{left} more queues and limits need attention.", "warn", url("queues")),
        ]
    return Chrome(approvals, tuple(notices))


def _alarms(insights: InsightsView) -> Iterator[Notice]:
    """Say what keeps work from moving: no worker, queues that are paused or not served, breakers that are open."""
    queues = insights.queues()
    waiting = any(queue.waiting for queue in queues.items)
    alive = insights.workers().alive
    if not alive:
        text = "No worker is alive: what is enqueued waits." if waiting else "No worker is alive."
        yield Notice(text, "bad" if waiting else "warn", url("workers"))
    for queue in queues.items:
        if queue.alarm and alive:
            yield Notice(queue.alarm, "bad", url("queue", name=queue.name))
        elif queue.paused:
            yield Notice(f"The queue {queue.name} is paused.", "warn", url("queue", name=queue.name))
    for limit in queues.limits:
        if limit.open_until is not None:
            yield Notice(f"The breaker {limit.name} is open: steps under it wait.", "bad", url("queues"))
