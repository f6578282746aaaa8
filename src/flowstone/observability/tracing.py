"""OpenTelemetry: one trace for each run, over the processes that place it, work on it and are isolated for it.

`run {kind}` is the span of placing (a producer), `materialize {asset}` that of an attempt (a consumer, below its
run and linked to it). Only the API is used here (extra `otel`): which SDK, exporter and sampler there are is the
program's business, and without an SDK nothing is made.

The span of an attempt is begun when its function is about to be called, because it has to be current while user
code runs; it is ended after the commit, with the time at which the attempt was over, by a thread of its own.
Ending is what exporters see: one that hangs makes that thread wait, and nothing else.
"""

from __future__ import annotations

import logging
import os
import time
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowstone import telemetry
from flowstone.core.step import Attempt
from flowstone.errors import MissingExtraError
from flowstone.observability.background import Background

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Span, TracerProvider

log = logging.getLogger("flowstone.observability")

_EVENTS = ("run.start", "attempt.committed", "attempt.lost")
_MAX_OPEN = 10_000
"""So many spans are kept open at once: those of attempts that are released are never ended."""
_FLUSH_SECONDS = 2.0


@dataclass(slots=True)
class _Ended:
    """A span that is to be ended.

    Args:
        span: the span.
        at: when, in nanoseconds since 1970.
        attributes: what is known of it by now.
        error: the error and its class when it failed.
    """

    span: Span
    at: int
    attributes: Mapping[str, str | int | float | bool]
    error: tuple[str, str] | None = None


class OpenTelemetry:
    """Makes traces of runs; give it to an app: `FlowStone(..., observers=[OpenTelemetry()])`.

    One per process: a second one takes the place of the first.

    Args:
        tracer_provider: makes the spans; the global one by default, as it is when a span is made.
        own_traces: kinds of runs, such as `backfill`, of which each attempt begins a trace of its own, linked to
            the run: a trace of a hundred thousand spans is read by nobody.
        max_waiting: how many spans may wait for their exporter; more are dropped, and counted.

    Raises:
        MissingExtraError: the API is not installed.

    Example:
        >>> from flowstone import FlowStone, asset
        >>> @asset
        ... def one():
        ...     return 1
        >>> with FlowStone.for_testing([one], observers=[OpenTelemetry()]) as flow:
        ...     flow.materialize("one").value
        1
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        *,
        own_traces: Collection[str] = (),
        max_waiting: int = 10_000,
    ) -> None:
        try:
            import opentelemetry.trace  # noqa: F401 - said here, and not when the first run is placed
        except ModuleNotFoundError as error:
            raise MissingExtraError("opentelemetry-api", "otel", "Tracing") from error
        kinds: object = own_traces
        if isinstance(kinds, str) or not isinstance(kinds, Collection):
            raise TypeError(f"own_traces={kinds!r}: give a list of kinds of runs, such as ['backfill'].")
        self._provider = tracer_provider
        self._own_traces = frozenset(own_traces)
        self._background: Background[_Ended] = Background("traces", _end, max_waiting=max_waiting)
        self._placing: OrderedDict[str, Span] = OrderedDict()
        self._attempts: OrderedDict[tuple[int, int], tuple[Span, int]] = OrderedDict()
        self._queues: dict[str, str] = {}
        self._made: Any = None
        self._parents: OrderedDict[tuple[str, bool], tuple[Context, list[Link]]] = OrderedDict()

    @property
    def dropped(self) -> int:
        """How many spans were dropped because their exporter did not keep up."""
        return self._background.dropped

    def start(self, app: Any = None) -> None:
        """Begin to make traces in this process.

        Args:
            app: the app that is watched; its graph knows the queues of assets.
        """
        if app is not None:
            self._queues |= {asset.name: asset.queue for asset in app.graph}
        telemetry.tracer = self
        telemetry.attach("opentelemetry", _EVENTS, self._on_event)

    def stop(self) -> None:
        """Make no more traces; those that wait are sent, as far as that does not take long."""
        self.flush(timeout_seconds=_FLUSH_SECONDS)
        if telemetry.tracer is self:
            telemetry.tracer = None
            telemetry.detach("opentelemetry")

    def flush(self, *, timeout_seconds: float) -> bool:
        """Wait until the spans that are over were handed to the SDK; return whether that was so in time."""
        return self._background.flush(timeout_seconds=timeout_seconds)

    # --- what the app and the runner call, see `telemetry.Tracer` -----------------------------------------------

    def place(self, run_id: str, kind: str) -> str | None:
        """Begin the span of a run that is about to be placed; return the `traceparent` to record with it."""
        from opentelemetry.trace import SpanKind, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        attributes = {
            "messaging.system": "flowstone",
            "messaging.operation.name": "place",
            "messaging.operation.type": "send",
            "messaging.message.conversation_id": run_id,
            "flowstone.run_id": run_id,
            "flowstone.run_kind": kind,
        }
        span = self._tracer().start_span(f"run {kind}", kind=SpanKind.PRODUCER, attributes=attributes)
        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier, set_span_in_context(span))
        if span.is_recording():
            _keep(self._placing, run_id, span)
        return carrier.get("traceparent")

    @contextmanager
    def attempt(self, attempt: Attempt) -> Iterator[None]:
        """Begin the span of an attempt, and make it the current one while its function runs."""
        from opentelemetry import context
        from opentelemetry.trace import SpanKind, set_span_in_context

        run = attempt.run
        traceparent = None if run is None else run.details.traceparent
        parent, links = self._parent(traceparent, own=run is not None and run.kind in self._own_traces)
        span = self._tracer().start_span(
            f"materialize {attempt.asset}",
            parent,
            kind=SpanKind.CONSUMER,
            attributes=self._attributes(attempt),
            links=links,
        )
        token = context.attach(set_span_in_context(span, context.get_current()))
        try:
            yield
        finally:
            context.detach(token)
            if span.is_recording():
                _keep(self._attempts, (attempt.step_id, attempt.token), (span, time.time_ns()))

    def carrier(self) -> Mapping[str, str]:
        """Return the context that is current here, to be sent to a process of our own."""
        from opentelemetry import propagate

        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        return carrier

    # --- pieces -------------------------------------------------------------------------------------------------

    def _tracer(self) -> Any:
        """Return what makes spans; the one of the global provider follows that when it is set later."""
        if self._made is None:
            from opentelemetry import trace

            self._made = trace.get_tracer("flowstone", tracer_provider=self._provider)
        return self._made

    def _attributes(self, attempt: Attempt) -> dict[str, str | int | float | bool]:
        found: dict[str, str | int | float | bool] = {
            "messaging.system": "flowstone",
            "messaging.operation.name": "materialize",
            "messaging.operation.type": "process",
            "messaging.message.id": str(attempt.step_id),
            "messaging.message.conversation_id": attempt.run_id,
            "flowstone.asset": attempt.asset,
            "flowstone.run_id": attempt.run_id,
            "flowstone.step_id": str(attempt.step_id),
            "flowstone.attempt": attempt.attempt,
            "flowstone.max_attempts": attempt.max_attempts,
        }
        if attempt.partition_key:
            found["flowstone.partition"] = attempt.partition_key
        if attempt.run is not None and attempt.run.kind:
            found["flowstone.run_kind"] = attempt.run.kind
        if attempt.queued_seconds is not None:
            found["flowstone.queue_seconds"] = attempt.queued_seconds
            found["messaging.destination.name"] = self._queues.get(attempt.asset, "assets")
        return found

    def _on_event(self, event: str, measured: Mapping[str, float], about: Mapping[str, Any]) -> None:
        """End the spans of what was committed; called after the commit, by whoever committed."""
        if event == "run.start":
            span = self._placing.pop(about["run_id"], None)
            if span is not None:
                steps = {"flowstone.steps": int(measured.get("steps", 0))}
                self._background.put(_Ended(span, time.time_ns(), steps))
            return
        if event == "attempt.lost":
            self._end_lost(about)
            return
        found = self._attempts.pop((int(about["step_id"]), about["token"]), None)
        if found is None:
            return
        span, at = found
        attributes: dict[str, str | int | float | bool] = {"flowstone.state": about["state"]}
        attributes |= {"flowstone.outcome": about["outcome"], "flowstone.accepted": about["accepted"]}
        if "retry_in_seconds" in measured:
            attributes["flowstone.retry_in_seconds"] = measured["retry_in_seconds"]
        error = None
        if "error" in about:
            error = about["error"], (about["error_type"] or "Error").removeprefix("builtins.")
            attributes["error.type"] = error[1]
        elif not about["accepted"]:
            error = "another attempt had taken its place; nothing of it was committed", "superseded"
        self._background.put(_Ended(span, at, attributes, error))

    def _end_lost(self, about: Mapping[str, Any]) -> None:
        """Make the span of an attempt whose process is gone, and could not end its own."""
        from opentelemetry.trace import SpanKind

        parent, links = self._parent(about["traceparent"], own=about["run_kind"] in self._own_traces)
        began = about["started_at"]
        span = self._tracer().start_span(
            f"materialize {about['asset']}",
            parent,
            kind=SpanKind.CONSUMER,
            attributes={
                "messaging.system": "flowstone",
                "messaging.operation.name": "materialize",
                "messaging.operation.type": "process",
                "messaging.message.id": about["step_id"],
                "messaging.message.conversation_id": about["run_id"],
                "flowstone.asset": about["asset"],
                **({"flowstone.partition": about["partition"]} if about["partition"] else {}),
                "flowstone.run_id": about["run_id"],
                "flowstone.run_kind": about["run_kind"],
                "flowstone.step_id": about["step_id"],
                "flowstone.attempt": about["attempt"],
                "flowstone.worker": about["worker"],
                "error.type": "WorkerLost",
            },
            links=links,
            start_time=None if began is None else int(began.timestamp() * 1_000_000_000),
        )
        if span.is_recording():
            lost = f"The worker {about['worker']} died or lost its lease."
            attributes = {"flowstone.state": about["state"]}
            self._background.put(_Ended(span, time.time_ns(), attributes, (lost, "WorkerLost")))

    def _parent(self, traceparent: str | None, *, own: bool) -> tuple[Context, list[Link]]:
        """Return the context in which the span of an attempt begins, and the link to its placing.

        Args:
            traceparent: the span that placed the run.
            own: whether the attempt begins a trace of its own.
        """
        from opentelemetry import context
        from opentelemetry.trace import Link, get_current_span
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        if traceparent is None:
            return context.get_current(), []
        found = self._parents.get((traceparent, own))
        if found is None:
            nothing = context.Context()
            placed = TraceContextTextMapPropagator().extract({"traceparent": traceparent}, nothing)
            placing = get_current_span(placed).get_span_context()
            found = (nothing if own else placed), [Link(placing)] if placing.is_valid else []
            _keep(self._parents, (traceparent, own), found)
        return found


class Instrumentor:
    """What `opentelemetry-instrument` finds: traces without a line of code."""

    def instrument(self, **_: Any) -> None:
        """Begin to make traces in this process, and in the children in which assets are isolated."""
        os.environ[telemetry.AUTO_INSTRUMENTED] = "1"
        OpenTelemetry().start()

    def uninstrument(self, **_: Any) -> None:
        """Make no more traces."""
        if isinstance(telemetry.tracer, OpenTelemetry):
            telemetry.tracer.stop()


def _keep[Key, Value](kept: OrderedDict[Key, Value], key: Key, value: Value) -> None:
    """Keep something, and forget the oldest when there is too much."""
    kept[key] = value
    if len(kept) > _MAX_OPEN:
        kept.popitem(last=False)


def _end(one: _Ended) -> None:
    """End a span; here, in a thread of its own, the processors and exporters of the SDK are called."""
    from opentelemetry.trace import Status, StatusCode

    for name, value in one.attributes.items():
        one.span.set_attribute(name, value)
    if one.error is not None:
        message, kind = one.error
        one.span.set_status(Status(StatusCode.ERROR, message))
        one.span.add_event("exception", {"exception.type": kind, "exception.message": message}, one.at)
    one.span.end(one.at)
