"""What the bus says of steps that move without the end of an attempt, after the transaction that moved them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from flowstone import AwaitApproval, FlowStone, RetryLater, asset, telemetry
from flowstone.config import Settings
from flowstone.observability import OpenTelemetry
from flowstone.stores.postgres.database import note_ended
from flowstone.stores.postgres.queue import Lease
from flowstone.stores.postgres.store import PostgresStore

type Seen = list[tuple[str, dict[str, Any]]]


@asset
def plain() -> int:
    return 1


@asset(concurrency={"narrow": 1})
def first() -> int:
    return 1


@asset(concurrency={"narrow": 1})
def second() -> int:
    return 1


@asset
def asks(context) -> int:
    if not context.approvals:
        raise AwaitApproval("Pay?")
    return 1


_slept: list[int] = []


@asset
def sleepy() -> int:
    if not _slept:
        _slept.append(1)
        raise RetryLater(0.01, "not yet")
    return 1


@pytest.fixture
def seen() -> Iterator[Seen]:
    found: Seen = []
    events = ["step.placed", "step.snoozed", "step.parked", "step.cancelled", "attempt.lost", "approval.*"]
    telemetry.attach("test", events, lambda event, _, about: found.append((event, dict(about))))
    yield found
    telemetry.detach("test")


def short(seen: Seen) -> list[tuple[str, str, str]]:
    return [(event, about["asset"], about.get("state", "")) for event, about in seen]


@pytest.fixture
def durable(database_url: str, tmp_path) -> Iterator[FlowStone]:
    settings = Settings(database_url=database_url, storage=str(tmp_path), executor="oban")
    with FlowStone([plain, first, second, asks], settings=settings) as flow:
        yield flow


def store_of(flow: FlowStone) -> PostgresStore:
    assert isinstance(flow.parts.store, PostgresStore)
    return flow.parts.store


def fetch(flow: FlowStone) -> list[str]:
    """Take what waits, as a worker that does nothing with it."""
    store = store_of(flow)
    lease = Lease(store.database, "hand")
    lease.register(kind="node", host="here", pid=1, queues={"assets": 9}, lease_seconds=600.0)
    return [
        one.asset for one in store.queue.fetch("assets", demand=9, worker_id="hand", attempted_by=["here", "1"])
    ]


def test_placed_steps_are_announced_each(seen: Seen) -> None:
    with FlowStone.for_testing([plain, first]) as flow:
        run = flow.materialize_all("plain")
        assert short(seen) == [("step.placed", "plain", "pending")]
        assert seen[0][1]["run_id"] == run.run_id
        seen.clear()
        flow.materialize_all("plain")
        assert seen == []  # reused: nothing was placed


def test_a_step_that_is_tried_later(seen: Seen) -> None:
    with FlowStone.for_testing([sleepy]) as flow:
        assert flow.materialize("sleepy").value == 1
    assert short(seen) == [("step.placed", "sleepy", "pending"), ("step.snoozed", "sleepy", "")]
    assert seen[1][1]["reason"] == "not yet"


def test_a_request_for_approval_and_its_decision_in_memory(seen: Seen) -> None:
    with FlowStone.for_testing([asks]) as flow:
        flow.parts.notices._notifiers = (
            lambda one: one.state.is_decided or flow.approvals.approve(one.id, by="ann"),
        )
        flow.materialize("asks")
    events = [event for event in short(seen) if event[0] != "step.placed"]
    assert events == [("approval.requested", "asks", ""), ("approval.decided", "asks", "approved")]
    assert [about["decided_by"] for event, about in seen if event == "approval.decided"] == ["ann"]


def test_a_step_that_is_cancelled_before_it_starts(durable: FlowStone, seen: Seen) -> None:
    job = durable.schedule("plain")
    seen.clear()
    durable.cancel_job(job)
    assert short(seen) == [("step.cancelled", "plain", "")]
    assert seen[0][1] == {"asset": "plain", "partition": "", "run_id": job.run_id, "step_id": str(job.id)}


def test_a_step_that_its_limit_holds_back(durable: FlowStone, seen: Seen) -> None:
    for name in ("first", "second"):
        durable.schedule(name)
    seen.clear()
    [started] = fetch(durable)
    parked = "second" if started == "first" else "first"
    assert short(seen) == [("step.parked", parked, "")]
    assert seen[0][1]["limits"] == ["narrow"]


def test_an_attempt_whose_worker_is_lost(durable: FlowStone, seen: Seen) -> None:
    job = durable.schedule("plain")
    assert fetch(durable) == ["plain"]
    seen.clear()
    with store_of(durable).connection() as connection:
        connection.execute("UPDATE flowstone.workers SET lost_at = clock_timestamp() WHERE id = 'hand'")
    assert store_of(durable).queue.rescue() == 1
    [(event, about)] = seen
    assert (event, about["asset"], about["attempt"], about["worker"]) == ("attempt.lost", "plain", 1, "hand")
    assert (about["run_id"], about["state"]) == (job.run_id, durable.runs.status(job).state)


def test_a_transaction_that_is_rolled_back_says_nothing(durable: FlowStone, seen: Seen) -> None:
    def fails() -> None:
        with store_of(durable).database.transaction():
            note_ended([telemetry.Event("step.cancelled", {}, {})])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert seen == []
    with store_of(durable).database.transaction():
        note_ended([telemetry.Event("step.cancelled", {}, {})])
        assert seen == []
    assert seen == [("step.cancelled", {})]


@pytest.mark.parametrize("own", [[], ["schedule"]])
def test_a_lost_attempt_has_a_span_all_the_same(
    durable: FlowStone, spans: InMemorySpanExporter, provider: TracerProvider, own: list[str]
) -> None:
    """airflow#43941: only the process that began a span can end it; whoever ends the attempt makes another one."""
    observer = OpenTelemetry(provider, own_traces=own)
    observer.start(durable.parts)
    try:
        durable.schedule("plain")
        assert fetch(durable) == ["plain"]
        with store_of(durable).connection() as connection:
            connection.execute("UPDATE flowstone.workers SET lost_at = clock_timestamp() WHERE id = 'hand'")
        assert store_of(durable).queue.rescue() == 1
    finally:
        observer.stop()
    placing, lost = spans.get_finished_spans()
    assert (placing.name, lost.name) == ("run schedule", "materialize plain")
    assert lost.links[0].context.span_id == placing.context.span_id
    assert (lost.parent.span_id if lost.parent else None) == (None if own else placing.context.span_id)
    assert lost.attributes is not None
    assert lost.attributes["flowstone.run_kind"] == "schedule"
    assert (lost.attributes["error.type"], lost.attributes["flowstone.worker"]) == ("WorkerLost", "hand")
    assert lost.start_time < lost.end_time
