"""Telemetry events and log records that say which step they belong to.

Events have a name, measurements (numbers) and metadata (what they are about). Handlers are called in the
thread in which the event happens, after the fact and never inside a transaction; a handler that raises is
logged and detached, it never disturbs the work. The idea, and the names `start`, `stop` and `exception`,
are those of Erlang's telemetry, which Oban uses.

A handler is called by the thread that works. One that sends something over a network must not wait there: see
`flowstone.observability.background`.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

type Handler = Callable[[str, Mapping[str, float], Mapping[str, Any]], None]

EVENTS: Mapping[str, str] = {
    "step.start": "an attempt of a step starts",
    "step.stop": "an attempt ended without an error; measures duration_seconds",
    "step.exception": "an attempt failed; measures duration_seconds",
    "step.placed": "a step was recorded for a target that nothing serves yet",
    "step.snoozed": "an attempt was released and is tried again later; measures retry_in_seconds",
    "step.parked": "a step is held back by a limit, a rate or a breaker",
    "step.cancelled": "a step is over because it was cancelled",
    "check.stop": "a check has looked at a value; measures duration_seconds",
    "run.start": "a run was planned and placed; measures steps",
    "run.ended": "the last step of a run was committed here; measures duration_seconds and steps",
    "attempt.committed": "an attempt was committed, or refused because another one replaced it; measures "
    "duration_seconds, and queue_seconds and retry_in_seconds where there are any",
    "attempt.lost": "the process of an attempt was lost, and the attempt ended by another one",
    "approval.requested": "a step waits for the decision of a person",
    "approval.decided": "a request for approval is over: approved, rejected, expired or cancelled",
    "commit.stop": "a group of attempts was committed; measures duration_seconds and attempts",
    "worker.start": "a worker node takes up work",
    "worker.stop": "a worker node has stopped; measures duration_seconds",
    "automation.stop": "a schedule, sensor or condition was evaluated; measures duration_seconds",
    "notification.sent": "a sender has taken a notification; measures attempts",
    "notification.given_up": "a notification was not sent, however often that was tried; measures attempts",
}
"""Every event that FlowStone emits."""

_log = logging.getLogger("flowstone.telemetry")
listeners: dict[str, tuple[frozenset[str], Handler]] = {}
"""The attached handlers by name. Hot paths see whether there are any before they put an event together."""


def attach(name: str, events: Iterable[str], handler: Handler) -> None:
    """Call `handler(event, measurements, metadata)` for these events.

    Args:
        name: identifies the handler; attaching the same name again replaces it.
        events: names from `EVENTS`; a prefix with a star (`step.*`) takes all of a kind.
        handler: called in the thread of the event.

    Raises:
        ValueError: an event does not exist.

    Example:
        >>> seen = []
        >>> attach("example", ["step.*"], lambda event, measured, about: seen.append(event))
        >>> detach("example")
    """
    matched: set[str] = set()
    for event in events:
        matching = {known for known in EVENTS if known == event or _matches(event, known)}
        if not matching:
            raise ValueError(f"There is no event {event!r}. Known events: {', '.join(EVENTS)}.")
        matched |= matching
    listeners[name] = (frozenset(matched), handler)


def _matches(pattern: str, event: str) -> bool:
    return pattern.endswith("*") and event.startswith(pattern[:-1])


def detach(name: str) -> None:
    """Stop calling a handler; detaching one that is not attached is fine."""
    listeners.pop(name, None)


def listening(event: str | None = None) -> bool:
    """Whether there is a listener.

    Args:
        event: whether there is one for this event, before many of them are put together; None for any.
    """
    if event is None or not listeners:
        return bool(listeners)
    return any(event in events for events, _ in listeners.values())


def emit(event: str, measurements: Mapping[str, float], metadata: Mapping[str, Any]) -> None:
    """Call the handlers of an event."""
    for name, (events, handler) in list(listeners.items()):
        if event in events:
            try:
                handler(event, measurements, metadata)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                    raise  # the person at the terminal
                # handlers are guests here
                _log.exception("The telemetry handler %r raised on %s and is detached", name, event)
                detach(name)


class Event(NamedTuple):
    """An event that is emitted later: when what it is about is committed."""

    name: str
    measurements: Mapping[str, float]
    metadata: Mapping[str, Any]

    def emit(self) -> None:
        """Call the handlers."""
        emit(*self)


def emit_run_ended(run: Any) -> None:
    """Emit that a run is over.

    Args:
        run: its record.
    """
    took = (run.finished_at - run.created_at).total_seconds() if run.finished_at is not None else 0.0
    about: dict[str, Any] = {
        "run_id": run.id,
        "kind": run.kind,
        "state": run.state.value,
        "executor": run.executor,
    }
    counts = {state.value: number for state, number in run.counts.items()}
    emit(
        "run.ended",
        {"duration_seconds": took, "steps": run.total},
        about | {"counts": counts, "parent": run.parent},
    )


class Tracer(Protocol):
    """What takes part in the trace of a run; see `flowstone.observability.tracing`."""

    def place(self, run_id: str, kind: str) -> str | None:
        """Begin the span of a run that is about to be placed; return the `traceparent` to record with it."""

    def attempt(self, attempt: Any) -> AbstractContextManager[None]:
        """Begin the span of an attempt, and make it the current one while its function runs."""

    def carrier(self) -> Mapping[str, str]:
        """Return the context that is current here, to be sent to a process of our own."""


tracer: Tracer | None = None
"""Set while traces are made. Only code that has found a listener reads it."""

AUTO_INSTRUMENTED = "FLOWSTONE_AUTO_INSTRUMENTED"
"""Set in the environment of children whose parent was started by `opentelemetry-instrument`."""


def activate(carrier: Mapping[str, str]) -> None:
    """Make a trace context current that another process of ours has sent, for the rest of this context.

    Args:
        carrier: what `Tracer.carrier` returned there.
    """
    from opentelemetry import context, propagate  # here, because it is an extra, and only a trace needs it

    if os.environ.pop(AUTO_INSTRUMENTED, None):
        # `opentelemetry-instrument` keeps out of the children of what it instruments
        from opentelemetry.instrumentation.auto_instrumentation import initialize

        initialize()
    context.attach(propagate.extract(carrier))


class RunsHere(Protocol):
    """A step whose function runs, as far as logging is concerned."""

    @property
    def fields(self) -> Mapping[str, Any]:
        """What its log records carry: asset, partition, run_id, attempt, step_id."""

    @property
    def log(self) -> Any:
        """What keeps its log records and what it prints (see `flowstone.engine.logs`); None when nothing does."""


class RunningStep(NamedTuple):
    """A step whose function runs in a process that knows no more of it."""

    fields: Mapping[str, Any]
    log: Any = None


running_step: ContextVar[RunsHere | None] = ContextVar("flowstone_step", default=None)
"""The step whose function runs here. One variable for all there is to know: each costs every step something."""


class StepFields:
    """What log records of the running step carry: asset, partition, run_id, attempt, step_id."""

    @staticmethod
    def get() -> Mapping[str, Any] | None:
        """Return the fields; None outside of steps."""
        step = running_step.get()
        return None if step is None else step.fields


step_fields = StepFields()
"""Read like a context variable, `step_fields.get()`, by whatever puts log lines together."""


class StepLogFilter(logging.Filter):
    """Puts `asset`, `partition`, `run_id` and `attempt` on every log record written inside a step.

    Add it to a handler, and libraries that know nothing of FlowStone log with these fields as well;
    outside a step the fields are empty.

    Example:
        >>> handler = logging.StreamHandler()
        >>> handler.addFilter(StepLogFilter())
        >>> handler.setFormatter(logging.Formatter("%(asset)s %(partition)s %(message)s"))
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields; every record passes."""
        fields = step_fields.get()
        for name in ("asset", "partition", "run_id", "attempt"):
            if not hasattr(record, name):
                setattr(record, name, fields[name] if fields else "")
        return True
