"""Automations, approvals, checks and the audit log as people watch them: the same answers from both stores."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest

from flowstone import (
    AwaitApproval,
    CheckResult,
    FlowStone,
    Schedule,
    StaticPartitions,
    asset,
    check,
    eager,
    sensor,
)
from flowstone.config import Settings
from flowstone.core.automation.record import AutomationId, AutomationKind
from flowstone.errors import ApprovalNotFoundError, UnknownAutomationError


@asset
def sales() -> int:
    return 42


@asset(automation=eager())
def report(sales: int) -> int:
    return sales


@asset(partitions=StaticPartitions(["eu", "us"]))
def orders(context) -> int:
    return {"eu": 0, "us": 7}[context.partition]


@asset
def payment(context) -> str:
    if context.approval is None:
        return AwaitApproval("Pay?", data={"total": 1200, "to": "acme"}, on_timeout="skip")
    return "paid"


@check(orders)
def positive(orders: int) -> CheckResult:
    """There are orders."""
    return CheckResult(orders > 0, description=f"{orders} orders")


@check(orders, severity="warning")
def plenty(orders: int) -> bool:
    return orders > 5


@sensor(selection="sales", every=120)
def inbox(context):
    return context.request(run_key=f"file-{context.cursor or 0}")


def make_flow(url: str | None) -> FlowStone:
    return FlowStone(
        [sales, report, orders, payment],
        checks=[positive, plenty],
        schedules=[Schedule("sales", "30 2 * * *", timezone="Europe/Berlin", description="every night")],
        sensors=[inbox],
        settings=Settings(executor="sync", database_url=url),
    )


@pytest.fixture(params=["memory", "postgresql"])
def flow(request: pytest.FixtureRequest) -> Iterator[FlowStone]:
    with ExitStack() as stack:
        url = None
        if request.param == "postgresql":
            url = stack.enter_context(request.getfixturevalue("start_server")("embedded").database())
        yield stack.enter_context(make_flow(url))


def test_what_is_declared_is_shown_before_any_worker_saw_it(flow: FlowStone) -> None:
    page = flow.insights.automations()
    assert [(one.kind, one.name) for one in page.items] == [
        ("condition", "report"),
        ("schedule", "sales"),
        ("sensor", "inbox"),
    ]
    schedule = page.items[1]
    assert (schedule.when, schedule.timezone) == ("At 02:30 every day", "Europe/Berlin")
    assert len(schedule.next_times) == 5
    assert page.items[2].when == "Every 2 minutes"
    assert flow.insights.automations(kind="sensor", text="SALES").total == 1
    assert flow.insights.automations(text="nothing like it").items == ()


def test_pages_of_automations_neither_repeat_nor_miss(flow: FlowStone) -> None:
    names, cursor = [], None
    while True:
        page = flow.insights.automations(cursor=cursor, limit=1)
        names += [one.name for one in page.items]
        cursor = page.next
        if cursor is None:
            break
    assert names == ["report", "sales", "inbox"]


def test_ticks_come_with_their_automations(flow: FlowStone) -> None:
    flow.schedules.run_now("sales") if not flow.parts.store.durable else None
    flow.sensors.evaluate("inbox")
    flow.sensors.set_cursor("inbox", "5")
    found = flow.insights.automation("sensor", "inbox")
    assert found.cursor == "5"
    assert [one.state for one in found.about.ticks] == ["requested"]
    assert found.run_keys[0].key == "file-0"
    assert found.run_keys[0].run_id == found.about.ticks[0].run_ids[0]
    with pytest.raises(UnknownAutomationError, match="inbox"):
        flow.insights.automation("sensor", "inbux")


def test_a_condition_shows_the_facts_it_is_judged_by(flow: FlowStone) -> None:
    (judged,) = flow.insights.automation("condition", "report").judgements
    assert not judged.requested
    texts = [(one.depth, one.holds, one.text) for one in judged.facts]
    assert texts[0][0] == 0
    assert any("input sales is missing" in text for _, _, text in texts)


def test_late_is_what_is_due_for_a_minute_and_neither_paused_nor_new(flow: FlowStone) -> None:
    assert flow.insights.late_automations() == []
    flow.schedules.pause("sales")
    flow.schedules.resume("sales")
    watch = flow.insights._automation
    soon, later = datetime.now(UTC) + timedelta(seconds=30), datetime.now(UTC) + timedelta(minutes=10)
    assert [one.name for one in watch.late(soon)] == []
    found = {one.name: one for one in watch.late(later)}
    assert found["sales"].state == "late"
    assert (found["sales"].late_seconds or 0) > 500
    flow.schedules.pause("sales")
    assert "sales" not in {one.name for one in watch.late(later)}
    assert AutomationId(AutomationKind.SCHEDULE, "sales") in {
        one.id for one in flow.parts.store.automations.records()
    }


def test_checks_that_fail_come_first_and_a_later_success_ends_a_failure(flow: FlowStone) -> None:
    assert [one.state for one in flow.insights.checks().items] == ["unstarted", "unstarted"]
    flow.backfill("orders", executor="sync")
    found = flow.insights.checks()
    assert [(one.check, one.state, one.failing) for one in found.items] == [
        ("positive", "failed", 1),
        ("plenty", "stale", 1),
    ]
    assert flow.insights.checks(state="completed").items == ()
    failing = flow.insights.checks_failing().items
    assert {(one.check, one.partition) for one in failing} == {("positive", "eu"), ("plenty", "eu")}
    assert [one.passed for one in flow.insights.check_findings("orders", "positive").items] in (
        [True, False],
        [False, True],
    )
    flow.checks.run("orders", partition="us")
    assert len(flow.insights.check_findings("orders", "positive").items) == 3


def test_an_approval_is_a_card_and_then_part_of_the_history(flow: FlowStone) -> None:
    def pay() -> None:
        with contextlib.suppress(Exception):
            flow.materialize("payment", executor="sync")

    thread = threading.Thread(target=pay)
    thread.start()
    wait_until(lambda: flow.insights.approvals_waiting() == 1)
    (card,) = flow.insights.approvals().items
    assert card.facts == (("total", "1200"), ("to", "acme"))
    assert card.seconds_left is not None
    assert 0 < card.seconds_left <= 3600
    assert "skipped" in card.silence
    flow.approvals.approve(card.id, by="ann", comment="fine")
    thread.join()
    assert flow.insights.approvals().items == ()
    (decided,) = flow.insights.approvals_decided().items
    assert (decided.state, decided.decided_by, decided.comment) == ("approved", "ann", "fine")
    assert flow.insights.approval(card.id).verdict == decided.verdict
    with pytest.raises(ApprovalNotFoundError):
        flow.insights.approval(card.id + 1)


def test_the_audit_log_is_read_in_pages(flow: FlowStone) -> None:
    for number in range(5):
        flow.sensors.set_cursor("inbox", str(number))
    first = flow.insights.audit(limit=2)
    assert len(first.items) == 2
    assert first.next is not None
    rest = flow.insights.audit(cursor=first.next, limit=100)
    ids = [one.id for one in (*first.items, *rest.items)]
    assert ids == sorted(ids, reverse=True)
    assert len(set(ids)) >= 5
    assert flow.insights.audit(actor="nobody at all").items == ()


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)
