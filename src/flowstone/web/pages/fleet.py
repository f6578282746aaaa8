"""Queues and workers: is work moving? And what is done to queues: pause, resume, scale."""

from __future__ import annotations

from dataclasses import dataclass

from flowstone.engine.insights.fleet import Queue, QueueDetails, Queues, Workers
from flowstone.errors import OptionsError
from flowstone.web.fields import NoFields, number
from flowstone.web.problems import Problem
from flowstone.web.registry import ActionCall, Confirm, Done, PageRequest, Role, action, page, url

_MAX_LIMIT = 1_000


@page("/queues", template="queues.html", role=Role.VIEWER, title="Queues", rail="Queues")
def queues(request: PageRequest[NoFields]) -> Queues:
    """Return all queues, and the limits of the fleet."""
    return request.insights.queues()


@dataclass(frozen=True, slots=True)
class QueueQuery:
    """Which queue.

    Args:
        name: the queue.
    """

    name: str


@page("/queue", template="queue.html", query=QueueQuery, role=Role.VIEWER, title="Queue", rail="Queues")
def queue(request: PageRequest[QueueQuery]) -> QueueDetails:
    """Return one queue."""
    try:
        return request.insights.queue(request.query.name)
    except OptionsError as error:
        raise Problem(404, str(error), "The list of queues has those that exist.") from error


@page("/workers", template="workers.html", role=Role.VIEWER, title="Workers", rail="Queues")
def workers(request: PageRequest[NoFields]) -> Workers:
    """Return the processes that have a lease, or lost it lately."""
    return request.insights.workers()


@dataclass(frozen=True, slots=True)
class QueueForm:
    """Which queue.

    Args:
        name: the queue.
    """

    name: str


@dataclass(frozen=True, slots=True)
class ScaleForm:
    """How many steps of a queue each worker runs at once.

    Args:
        name: the queue.
        limit: steps at once per worker.
    """

    name: str
    limit: int = number(10, minimum=1, maximum=_MAX_LIMIT)


def _queue(call: ActionCall[QueueForm] | ActionCall[ScaleForm]) -> Queue:
    return call.flow.insights.queue(call.form.name).queue


def capacity_text(one: Queue, limit: int | None = None) -> str:
    """Return how many steps of a queue run at once, over its workers.

    Args:
        one: the queue.
        limit: steps at once per worker in place of what holds now; None for that.
    """
    workers_ = "1 worker" if one.workers == 1 else f"{one.workers} workers"
    each = limit or one.node_limit
    if each is not None:
        return f"{workers_} × {each}"
    declared = " or ".join(map(str, one.declared_limits)) or "what they declare"
    return f"{workers_} × {declared}"


def _confirm_pause(call: ActionCall[QueueForm]) -> Confirm:
    one = _queue(call)
    more = "more than " if one.waiting_is_at_least else ""
    return Confirm(
        f"Pause the queue {one.name}?",
        button="Pause",
        details=(
            "Nothing more of it starts anywhere until it is resumed.",
            f"{one.running:,} steps run and go on; {more}{one.waiting:,} wait.",
        ),
    )


@action("/queues/pause", form=QueueForm, role=Role.OPERATOR, title="Pause a queue", confirm=_confirm_pause)
def pause_queue(call: ActionCall[QueueForm]) -> Done:
    """Start nothing more of a queue."""
    call.flow.queues.pause(call.form.name)
    return Done(f"Paused the queue {call.form.name}.", location=url("queue", name=call.form.name))


def _confirm_resume(call: ActionCall[QueueForm]) -> Confirm:
    one = _queue(call)
    more = "more than " if one.waiting_is_at_least else ""
    return Confirm(
        f"Resume the queue {one.name}?",
        button="Resume",
        details=(f"{more}{one.waiting:,} steps wait; {capacity_text(one)} at once.",),
    )


@action("/queues/resume", form=QueueForm, role=Role.OPERATOR, title="Resume a queue", confirm=_confirm_resume)
def resume_queue(call: ActionCall[QueueForm]) -> Done:
    """Go on with a paused queue."""
    call.flow.queues.resume(call.form.name)
    return Done(f"Resumed the queue {call.form.name}.", location=url("queue", name=call.form.name))


def _confirm_scale(call: ActionCall[ScaleForm]) -> Confirm:
    one, limit = _queue(call), call.form.limit
    total = f" ({one.capacity:,} → {one.workers * limit:,} steps at once)" if one.workers else ""
    return Confirm(
        f"Scale the queue {one.name} to {limit} steps per worker?",
        button=f"Scale to {limit}",
        details=(
            f"{capacity_text(one)} → {one.workers} × {limit}{total}.",
            "It holds for workers that start later too, until it is reset.",
        ),
    )


@action("/queues/scale", form=ScaleForm, role=Role.OPERATOR, title="Scale a queue", confirm=_confirm_scale)
def scale_queue(call: ActionCall[ScaleForm]) -> Done:
    """Let each worker run this many steps of a queue at once."""
    call.flow.queues.scale(call.form.name, call.form.limit)
    message = f"Scaled the queue {call.form.name} to {call.form.limit} steps per worker."
    return Done(message, location=url("queue", name=call.form.name))


def _confirm_reset(call: ActionCall[QueueForm]) -> Confirm:
    one = _queue(call)
    declared = " or ".join(map(str, one.declared_limits)) or "unknown as long as no worker serves it"
    return Confirm(
        f"Let workers run as many steps of {one.name} as they declare?",
        button="Reset",
        details=(f"{capacity_text(one)} now; declared: {declared}.",),
    )


@action("/queues/reset", form=QueueForm, role=Role.OPERATOR, title="Reset a queue", confirm=_confirm_reset)
def reset_queue(call: ActionCall[QueueForm]) -> Done:
    """Take back what was set with scale."""
    call.flow.queues.scale(call.form.name, None)
    message = f"Each worker runs as many steps of {call.form.name} as it declares."
    return Done(message, location=url("queue", name=call.form.name))
