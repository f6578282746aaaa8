from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from flowstone import FlowStone, RetryPolicy, StaticPartitions, asset, telemetry
from flowstone.errors import ConfigurationError, DependencyNotReadyError
from flowstone.observability import OpenTelemetry
from flowstone.observability.background import Background, counters

parts = StaticPartitions([f"p{number}" for number in range(40)])


@asset
def one() -> int:
    return 1


@asset
def two(one: int) -> int:
    return 2 * one


@asset(partitions=parts)
def many() -> int:
    return 1


@asset(retry=RetryPolicy(max_attempts=2, backoff_seconds=0))
def fails_once(context) -> int:
    if context.attempt == 1:
        raise ValueError("not yet")
    return 1


def named(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if span.name == name]


def test_a_run_is_one_trace_and_attempts_are_linked_to_its_placing(
    spans: InMemorySpanExporter, provider: TracerProvider
) -> None:
    with FlowStone.for_testing([one, two], observers=[OpenTelemetry(provider)]) as flow:
        run = flow.materialize_all("two")
    [placing] = named(spans, "run materialize_all")
    first, second = named(spans, "materialize one") + named(spans, "materialize two")
    assert {span.context.trace_id for span in spans.get_finished_spans()} == {placing.context.trace_id}
    assert (placing.kind, first.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    for span in (first, second):
        assert span.parent is not None
        assert span.parent.span_id == placing.context.span_id
        assert [link.context.span_id for link in span.links] == [placing.context.span_id]
        assert span.start_time <= span.end_time
        assert span.status.status_code is StatusCode.UNSET
    assert first.end_time <= second.start_time
    assert second.attributes is not None
    assert dict(second.attributes) == {
        "messaging.system": "flowstone",
        "messaging.operation.name": "materialize",
        "messaging.operation.type": "process",
        "messaging.message.id": second.attributes["flowstone.step_id"],
        "messaging.message.conversation_id": run.run_id,
        "flowstone.asset": "two",
        "flowstone.run_id": run.run_id,
        "flowstone.run_kind": "materialize_all",
        "flowstone.step_id": second.attributes["flowstone.step_id"],
        "flowstone.attempt": 1,
        "flowstone.max_attempts": 1,
        "flowstone.state": "completed",
        "flowstone.outcome": "succeeded",
        "flowstone.accepted": True,
    }


def test_the_trace_goes_on_in_which_the_run_was_asked_for(
    spans: InMemorySpanExporter, provider: TracerProvider
) -> None:
    """What a request starts is a part of that request's trace."""
    with FlowStone.for_testing([one], observers=[OpenTelemetry(provider)]) as flow:
        with provider.get_tracer("web").start_as_current_span("request") as request:
            flow.materialize("one")
        assert named(spans, "run materialize")[0].parent == request.get_span_context()


def test_user_code_runs_inside_the_span_of_its_attempt(
    spans: InMemorySpanExporter, provider: TracerProvider
) -> None:
    @asset
    def plain() -> int:
        with provider.get_tracer("user").start_as_current_span("in plain"):
            return 1

    @asset
    async def waits(plain: int) -> int:
        await asyncio.sleep(0)
        with provider.get_tracer("user").start_as_current_span("in waits"):
            return plain

    @asset(timeout=30)
    def limited(waits: int) -> int:
        with provider.get_tracer("user").start_as_current_span("in limited"):
            return waits

    with FlowStone.for_testing([plain, waits, limited], observers=[OpenTelemetry(provider)]) as flow:
        result = flow.materialize_all("limited", executor="async")
    assert result.ok, [step.error for step in flow.runs.steps(result.run_id)]
    for name in ("plain", "waits", "limited"):
        [outer], [inner] = named(spans, f"materialize {name}"), named(spans, f"in {name}")
        assert inner.parent is not None
        assert inner.parent.span_id == outer.context.span_id


def test_each_attempt_has_a_span_and_says_how_it_ended(
    spans: InMemorySpanExporter, provider: TracerProvider
) -> None:
    with FlowStone.for_testing([fails_once], observers=[OpenTelemetry(provider)]) as flow:
        flow.materialize("fails_once", executor="serial", executor_opts={"retry": True})
    failed, done = named(spans, "materialize fails_once")
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.status.description == "ValueError: not yet"
    assert failed.attributes is not None
    assert (failed.attributes["error.type"], failed.attributes["flowstone.state"]) == ("ValueError", "retrying")
    assert [event.name for event in failed.events] == ["exception"]
    assert done.attributes is not None
    assert done.attributes["flowstone.attempt"] == 2
    assert done.context.trace_id == failed.context.trace_id


class Hanging(SpanExporter):
    """An exporter whose collector does not answer."""

    def __init__(self) -> None:
        self.entered, self.released = threading.Event(), threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.entered.set()
        self.released.wait(60.0)
        return SpanExportResult.SUCCESS


def test_an_exporter_that_hangs_delays_no_step_and_what_is_dropped_is_counted() -> None:
    """airflow#39232: tasks waited for a collector that did not answer."""
    hanging, provider = Hanging(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(hanging))
    observer = OpenTelemetry(provider, max_waiting=5)
    flow = FlowStone.for_testing([many], observers=[observer])
    try:
        # would take forty minutes if a step waited: SimpleSpanProcessor exports where a span ends
        assert flow.backfill("many").succeeded == 40
        assert hanging.entered.wait(30.0)
        assert not hanging.released.is_set()
        assert observer.dropped >= 40 - 5 - 1
        assert counters()["traces"][0] >= observer.dropped
    finally:
        hanging.released.set()
        flow.close()
        provider.shutdown()


def test_an_exporter_that_raises_is_no_matter_of_steps(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            raise ConnectionError("no collector")

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Broken()))
    with FlowStone.for_testing([one], observers=[OpenTelemetry(provider)]) as flow:
        assert flow.materialize("one").value == 1
    provider.shutdown()


def test_large_backfills_can_have_a_trace_for_each_attempt(
    spans: InMemorySpanExporter, provider: TracerProvider
) -> None:
    with FlowStone.for_testing([many], observers=[OpenTelemetry(provider, own_traces=["backfill"])]) as flow:
        flow.backfill("many", partitions=["p1", "p2"])
    [placing] = named(spans, "run backfill")
    attempts = named(spans, "materialize many")
    assert len({span.context.trace_id for span in (placing, *attempts)}) == 3
    assert {span.links[0].context.span_id for span in attempts} == {placing.context.span_id}


def test_what_is_not_sampled_makes_no_spans_and_costs_no_room() -> None:
    provider = TracerProvider(sampler=ALWAYS_OFF)
    observer = OpenTelemetry(provider)
    with FlowStone.for_testing([one], observers=[observer]) as flow:
        flow.materialize("one")
        assert not observer._attempts
        assert not observer._placing


def test_without_an_sdk_nothing_is_made() -> None:
    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        pytest.skip("another test of this process has set a global provider")
    with FlowStone.for_testing([one], observers=[OpenTelemetry()]) as flow:
        job = flow.schedule("one")
        assert flow.runs.get(job.run_id).state == "completed"
    assert telemetry.tracer is None


def test_failed_planning_leaves_no_span(spans: InMemorySpanExporter, provider: TracerProvider) -> None:
    flow = FlowStone.for_testing([two, one], observers=[OpenTelemetry(provider)])
    with flow, pytest.raises(DependencyNotReadyError):
        flow.materialize("two")
    assert spans.get_finished_spans() == ()


@pytest.mark.parametrize("wrong", ["otel", {"otel": 1}, [OpenTelemetry], [print], 7])
def test_what_is_no_observer_is_refused_where_it_is_given(wrong: object) -> None:
    with pytest.raises(ConfigurationError, match=r"FlowStone\(observers="):
        FlowStone.for_testing([one], observers=wrong)  # type: ignore[arg-type]


def test_kinds_are_a_list() -> None:
    with pytest.raises(TypeError, match="give a list of kinds"):
        OpenTelemetry(own_traces="backfill")
    with pytest.raises(TypeError, match="give a list of kinds"):
        OpenTelemetry(own_traces=None)  # type: ignore[arg-type]
    for wrong in (0, None, "5"):
        with pytest.raises(ValueError, match="a whole number from 1 on"):
            OpenTelemetry(max_waiting=wrong)  # type: ignore[arg-type]


def test_a_queue_in_the_background_survives_what_raises() -> None:
    seen: list[int] = []

    def handle(number: int) -> None:
        if number == 1:
            raise ZeroDivisionError
        seen.append(number)

    sender = Background("test", handle)
    for number in range(3):
        sender.put(number)
    assert sender.flush(timeout_seconds=30.0)
    assert (seen, sender.failed, sender.dropped, sender.waiting) == ([0, 2], 1, 0, 0)


def test_flushing_gives_up_in_time() -> None:
    released = threading.Event()
    sender = Background("test", lambda _: released.wait(60.0) and None)
    sender.put(1)
    started = time.monotonic()
    assert not sender.flush(timeout_seconds=0.05)
    assert time.monotonic() - started < 30.0
    released.set()
    assert sender.flush(timeout_seconds=30.0)
