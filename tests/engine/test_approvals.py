from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from tests.stores.conformance.case import Scene

from flowstone.core.approval import Approval
from flowstone.core.outcome import Suspended
from flowstone.core.step import NewStep
from flowstone.engine.approvals import ApprovalNotices
from flowstone.errors import ConfigurationError
from flowstone.stores.memory import MemoryStore
from flowstone.testing.marks import wait_until


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(now=clock)


def ask(store: MemoryStore, name: str = "a") -> Approval:
    scene = Scene(store)
    (step,) = scene.open(f"run-{name}", [NewStep(name, "")])
    scene.end(scene.claim(step.id), Suspended("Go on?"))
    return store.approvals.of_step(step.id)[0]


def test_everybody_learns_of_the_request_and_of_the_decision(store: MemoryStore) -> None:
    reported: list[tuple[str, str]] = []
    notices = ApprovalNotices(
        store.approvals,
        [lambda one: reported.append(("first", one.state)), lambda one: reported.append(("second", one.state))],
    )
    one = ask(store)
    assert [notices.notify(), notices.notify()] == [1, 0]
    store.approvals.decide(one.id, approve=False, by="ann")
    assert [notices.notify(), notices.notify()] == [1, 0]
    assert reported == [("first", "pending"), ("second", "pending"), ("first", "rejected"), ("second", "rejected")]


def test_a_notifier_that_raises_is_tried_again_less_and_less_often(
    store: MemoryStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[datetime] = []

    def notify(approval: Approval) -> None:
        calls.append(clock.now)
        if len(calls) < 4:
            raise SystemExit("no network")

    notices = ApprovalNotices(store.approvals, [notify])
    ask(store)
    for _ in range(40):
        notices.notify()
        clock.pass_(1)
    pauses = [round((after - before).total_seconds()) for before, after in pairwise(calls)]
    assert pauses == [2, 4, 8]
    assert "raised SystemExit: no network" in caplog.text


def test_a_notifier_that_hangs_holds_nobody_up(store: MemoryStore, clock: Clock) -> None:
    gate = threading.Event()
    entered: list[int] = []
    reported: list[int] = []

    def hang(approval: Approval) -> None:
        entered.append(approval.id)
        gate.wait(30)

    notices = ApprovalNotices(store.approvals, [hang, lambda one: reported.append(one.id)], timeout_seconds=0.02)
    first, second = ask(store, "a"), ask(store, "b")
    assert notices.notify() == 2
    # it hangs already, so it is not given a second thread
    assert (entered, reported) == ([first.id], [first.id, second.id])
    gate.set()
    clock.pass_(10)

    def all_reported() -> bool:
        notices.notify()
        clock.pass_(10)
        return {first.id, second.id} <= set(entered)

    assert wait_until(all_reported, timeout_seconds=60)


def test_in_the_background(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    reported = threading.Event()
    with caplog.at_level(logging.WARNING):
        notices = ApprovalNotices(store.approvals, [lambda one: reported.set()])
        notices.start()
        ask(store)
        assert reported.wait(60)
        notices.stop()
    assert caplog.text == ""


def test_without_notifiers_nothing_happens(store: MemoryStore) -> None:
    notices = ApprovalNotices(store.approvals, [])
    threads = threading.active_count()
    notices.start()
    ask(store)
    assert (notices.notify(), threading.active_count()) == (0, threads)
    notices.stop()


async def _asynchronous(approval: Approval) -> None:
    """Cannot be called without a loop."""


@pytest.mark.parametrize("notifier", ["slack", None, _asynchronous])
def test_what_cannot_be_called_is_refused(store: MemoryStore, notifier: object) -> None:
    with pytest.raises(ConfigurationError, match="plain functions"):
        ApprovalNotices(store.approvals, [notifier])  # type: ignore[list-item]
