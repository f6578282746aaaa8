"""Approvals through the app, on executors of this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowstone import Approval, AwaitApproval, FlowStone, asset
from flowstone.app.admin import current_user
from flowstone.config import Settings
from flowstone.core.state import State
from flowstone.errors import ApprovalNotFoundError, OptionsError, StepCancelledError, StepFailedError
from flowstone.testing.marks import wait_until

calls: list[str] = []


@asset
def asks(context):
    calls.append("asks")
    if context.approval is None:
        raise AwaitApproval("Go on?", resume=len(calls))
    return context.approval.resume


@asset
def reader(asks):
    return asks + 1


@asset(concurrency={"crane": 1})
def lifts(context):
    if context.approval is None:
        raise AwaitApproval("Lift?")
    return "lifted"


@asset(concurrency={"crane": 1})
def also_lifts():
    return "also lifted"


ASSETS = [asks, reader, lifts, also_lifts]


@pytest.fixture(autouse=True)
def _forget() -> None:
    calls.clear()


@pytest.fixture
def flow() -> Iterator[FlowStone]:
    with FlowStone.for_testing(ASSETS) as app:
        yield app


def requested(flow: FlowStone, number: int = 1) -> Approval:
    assert wait_until(lambda: len(flow.approvals.list()) >= number), "nobody asked"
    return flow.approvals.list()[0]


def test_a_notifier_may_decide() -> None:
    reported: list[str] = []

    def notify(approval: Approval) -> None:
        reported.append(approval.state)
        if approval.state == "pending":
            flow.approvals.approve(approval.id, by="robot")

    flow = FlowStone.for_testing(ASSETS, notifiers=[notify])
    assert flow.materialize_all("reader").value == 2
    assert reported == ["pending", "approved"]
    assert [(line.actor, line.action) for line in flow.audit.latest()] == [
        ("robot", "approval.approved"),
        ("asset asks", "approval.requested"),
    ]


def test_the_terminal_learns_once(flow: FlowStone, caplog: pytest.LogCaptureFixture) -> None:
    job = flow.schedule("asks", executor="async")
    one = requested(flow)
    assert flow.job_status(job) is State.AWAITING_APPROVAL
    assert wait_until(lambda: f"flow.approvals.approve({one.id})" in caplog.text)
    flow.approvals.reject(str(one.id), comment="no")
    with pytest.raises(StepFailedError, match=f"rejected by {current_user()}"):
        flow.runs.wait_for(job)
    assert sum("waits for approval" in record.getMessage() for record in caplog.records) == 1
    assert flow.approvals.get(one.id).decided_by == current_user()


def test_limits_are_free_meanwhile(flow: FlowStone) -> None:
    job = flow.schedule("lifts", executor="async")
    one = requested(flow)
    assert flow.materialize("also_lifts").value == "also lifted"
    flow.approvals.approve(one.id)
    assert flow.runs.wait_for(job).value == "lifted"


def test_a_second_request_joins_the_waiting_step(flow: FlowStone) -> None:
    first = flow.schedule("asks", executor="async")
    one = requested(flow)
    second = flow.schedule("asks", executor="async")
    assert (second.id, second.deduplicated) == (first.id, True)
    flow.approvals.approve(one.id)
    assert flow.runs.wait_for(second).value == 1
    assert calls == ["asks", "asks"]


def test_an_interrupt_while_waiting_ends_the_run(flow: FlowStone, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(flow.parts.store.approvals, "expire_due", interrupt)
    with pytest.raises(KeyboardInterrupt):
        flow.materialize("asks")
    (one,) = flow.approvals.list(state=None)
    assert (one.state, flow.job_status(one.step_id)) == ("cancelled", State.CANCELLED)


def test_a_cancelled_run_asks_nobody(flow: FlowStone) -> None:
    job = flow.schedule("asks", executor="async")
    requested(flow)
    flow.runs.cancel(job.run_id)
    with pytest.raises(StepCancelledError):
        flow.runs.wait_for(job)
    assert list(flow.approvals.list()) == []


def test_a_retried_run_asks_anew(flow: FlowStone) -> None:
    job = flow.schedule("asks", executor="async")
    flow.approvals.reject(requested(flow).id)
    assert wait_until(lambda: flow.job_status(job).is_terminal)
    again = threading.Thread(target=lambda: flow.runs.retry(job.run_id, executor="async"))
    again.start()
    flow.approvals.approve(requested(flow).id)
    again.join(60)
    assert flow.load("asks") == 2


@pytest.mark.parametrize("number", [0, -1, 99, "x", "", "1.0", "9" * 40])
def test_unknown_requests(flow: FlowStone, number: int | str) -> None:
    for call in (flow.approvals.get, flow.approvals.approve, flow.approvals.reject):
        with pytest.raises(ApprovalNotFoundError):
            call(number)


def test_options_are_checked(flow: FlowStone) -> None:
    with pytest.raises(OptionsError, match="pending, approved"):
        flow.approvals.list(state="open")
    with pytest.raises(OptionsError, match="say who"):
        flow.approvals.approve(1, by=" ")


def test_inline_work_on_a_database_is_decided_from_elsewhere(database_url: str, tmp_path: Path) -> None:
    """What waits in one process is approved by another one, which knows it from the tables alone."""
    settings = Settings(database_url=database_url, storage=str(tmp_path), executor="sync")
    with FlowStone(ASSETS, settings=settings) as worker, FlowStone(ASSETS, settings=settings) as person:
        answers: list[object] = []
        thread = threading.Thread(target=lambda: answers.append(worker.materialize_all("reader").value))
        thread.start()
        one = requested(person)
        assert person.why("asks") == [one.waits()]
        assert person.parts.store.approvals.expire_due() == 0
        started = time.monotonic()
        person.approvals.approve(one.id, by="ann")
        thread.join(60)
        assert (answers, calls) == ([2], ["asks", "asks"])
        assert time.monotonic() - started < 10
