"""Automation, approvals, checks, audit and partition keys: what a person sees and does there, by plain HTTP."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from starlette.testclient import TestClient
from tests.web.markup import Document

from flowstone import (
    AwaitApproval,
    DynamicPartitions,
    FlowStone,
    Schedule,
    SkipReason,
    asset,
    check,
    eager,
    sensor,
)


@asset
def sales() -> int:
    return 42


@asset(automation=eager())
def report(sales: int) -> int:
    return sales


@asset(partitions=DynamicPartitions("customers"))
def invoices(context) -> str:
    return str(context.partition)


@asset
def payment(context) -> str:
    if context.approval is None:
        return AwaitApproval("Pay 1,200?", data={"total": 1200}, on_timeout="approve")
    return f"paid by {context.approval.decided_by}"


@check(sales)
def positive(sales: int) -> bool:
    return sales < 0


@sensor(selection="sales")
def inbox(context):
    if context.cursor == "end":
        return SkipReason("nothing new")
    return context.request(run_key=f"file-{context.cursor}")


@pytest.fixture
def flow() -> Iterator[FlowStone]:
    with FlowStone.for_testing(
        [sales, report, invoices, payment],
        checks=[positive],
        schedules=[Schedule("sales", "0 0 13 * FRI", timezone="America/St_Johns")],
        sensors=[inbox],
    ) as opened:
        yield opened


def words(client: TestClient, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text[:500]
    return Document(answer.text).all("main")[0].words()


def do(client: TestClient, path: str, **form: str) -> str:
    """Do something and return what the next page says about it."""
    answer = client.post(path, data=form)
    assert answer.status_code == 303, f"{answer.status_code} {Document(answer.text).all('main')[0].words()}"
    return words(client, answer.headers["location"])


def test_a_schedule_is_in_words_with_its_next_times(viewer: TestClient) -> None:
    """People misread cron: of two days that are given, either will do."""
    text = words(viewer, "/automation/details?kind=schedule&name=sales")
    assert "At 00:00 on the 13th day of month or on Friday" in text
    assert "America/St_Johns" in text
    document = Document(viewer.get("/automation/details?kind=schedule&name=sales").text)
    assert len([one for one in document.all("time") if one.within("ol")]) == 10, "five times, and how far they are"


def test_pausing_running_and_the_cursor(admin: TestClient, flow: FlowStone) -> None:
    assert "is paused now" in do(admin, "/automation/pause", kind="schedule", name="sales")
    assert "paused" in words(admin, "/automation?state=paused")
    assert flow.schedules.get("sales").paused
    assert "goes on now" in do(admin, "/automation/resume", kind="schedule", name="sales")
    assert "placed" in do(admin, "/automation/run-now", kind="schedule", name="sales")
    assert flow.load("sales") == 42
    assert "goes on from end" in do(admin, "/automation/set-cursor", name="inbox", cursor="end")
    assert "would place nothing: nothing new" in do(admin, "/automation/preview", name="inbox")
    assert "from the beginning" in do(admin, "/automation/set-cursor", name="inbox", cursor="")
    outcome = do(admin, "/automation/preview", name="inbox")
    assert "would place 1 runs" in outcome
    assert "Nothing was done" in outcome
    assert not flow.sensors.ticks("inbox"), "a preview records nothing"


def test_a_condition_shows_its_tree_of_facts(viewer: TestClient) -> None:
    text = words(viewer, "/automation/details?kind=condition&name=report")
    assert "input sales is missing" in text
    assert "not to be computed" in text


def test_an_unknown_automation_is_404_and_suggests_the_right_one(viewer: TestClient) -> None:
    answer = viewer.get("/automation/details?kind=sensor&name=inbux")
    assert answer.status_code == 404
    assert "inbox" in answer.text


@pytest.fixture
def request_id(flow: FlowStone) -> Iterator[int]:
    """A request for approval that waits."""

    def pay() -> None:
        with contextlib.suppress(Exception):
            flow.materialize("payment", executor="sync")

    thread = threading.Thread(target=pay)
    thread.start()
    deadline = time.monotonic() + 20
    while not flow.approvals.list() and time.monotonic() < deadline:
        time.sleep(0.01)
    (request,) = flow.approvals.list()
    yield request.id
    with contextlib.suppress(Exception):
        flow.approvals.reject(request.id, by="the end of the test")
    thread.join()


def test_the_inbox_says_what_silence_will_do(request_id: int, viewer: TestClient) -> None:
    text = words(viewer, "/approvals")
    assert "Pay 1,200?" in text
    assert "it is approved and the step goes on" in text
    assert "total 1200" in text
    assert "in 59 min" in text
    assert "Reject" not in text, "a viewer decides nothing"


def test_the_first_decision_wins_and_the_loser_sees_who(
    request_id: int, flow: FlowStone, client_of: Callable[..., TestClient]
) -> None:
    from flowstone.web.registry import Role

    first, second = client_of(Role.APPROVER), client_of(Role.ADMIN)
    assert "Reject request" in words(first, "/approvals")
    outcome = do(first, "/approvals/approve", id=str(request_id), comment="fine")
    assert "Approved request" in outcome
    answer = second.post("/approvals/reject", data={"id": str(request_id)})
    assert answer.status_code == 409
    assert "an approver" in answer.text, "the loser sees who won"
    assert "approved by an approver" in words(second, f"/approval?id={request_id}")
    assert "approval.approved" in words(second, f"/audit?subject=approval:{request_id}")


def test_two_decide_at_the_same_moment(request_id: int, client_of: Callable[..., TestClient]) -> None:
    from flowstone.web.registry import Role

    statuses: list[int] = []

    def decide(path: str) -> None:
        statuses.append(client_of(Role.APPROVER).post(path, data={"id": str(request_id)}).status_code)

    both = [threading.Thread(target=decide, args=[path]) for path in ("/approvals/approve", "/approvals/reject")]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert sorted(statuses) == [303, 409]


def test_checks_that_fail_are_first_and_can_be_run_again(admin: TestClient, flow: FlowStone) -> None:
    flow.materialize("sales", executor="sync")
    assert "Failing now" in words(admin, "/checks")
    assert "positive failed" in do(admin, "/checks/run", asset="sales")
    assert len(flow.checks.results("sales")) == 2
    assert words(admin, "/checks?state=completed").endswith("No check fits these filters.")


def test_partition_keys_are_added_and_removed(admin: TestClient, flow: FlowStone) -> None:
    outcome = do(admin, "/keys/add", name="customers", keys="acme\n  globex \n\nacme", reason="new")
    assert "Added 2 keys" in outcome
    assert list(flow.partitions.list("customers")) == ["acme", "globex"]
    assert "Removed 1 keys" in do(admin, "/keys/remove", name="customers", keys="acme")
    text = words(admin, "/keys")
    assert "an admin" in text
    assert "new" in text
    assert admin.post("/keys/remove", data={"name": "customers", "keys": "nobody"}).status_code in (404, 422)


def test_the_audit_log_filters_and_pages(admin: TestClient, flow: FlowStone) -> None:
    for number in range(3):
        do(admin, "/automation/set-cursor", name="inbox", cursor=str(number))
    first = admin.get("/api/v1/audit?actor=an+admin&limit=2").json()
    assert len(first["page"]["items"]) == 2
    assert {one["actor"] for one in first["page"]["items"]} == {"an admin"}
    assert {one["via"] for one in first["page"]["items"]} == {"web"}
    rest = admin.get("/api/v1/audit", params={"actor": "an admin", "next": first["page"]["next"]}).json()
    ids = [one["id"] for one in (*first["page"]["items"], *rest["page"]["items"])]
    assert ids == sorted(set(ids), reverse=True)
    assert words(admin, "/audit?actor=nobody").endswith("No line fits these filters.")
    assert admin.get("/audit?next=tampered").status_code in (400, 422)
