"""What went wrong with such pages elsewhere, by the reports of users, and how it is here."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime

import pytest
from starlette.testclient import TestClient
from tests.web.conftest import by_header
from tests.web.markup import Document

from flowstone import (
    AwaitApproval,
    FlowStone,
    Schedule,
    SkipReason,
    StaticPartitions,
    asset,
    check,
    eager,
    sensor,
)
from flowstone.web.application import create_app


@asset
def whole() -> int:
    return 1


@asset(partitions=StaticPartitions(["eu", "us"]), automation=eager())
def parted(context, whole: int) -> int:
    return whole


@asset
def asks(context) -> int:
    return 1 if context.approval else AwaitApproval("Go on?")


@check(whole)
def first(whole: int) -> bool:
    return whole > 0


passes = [False]


@check(whole)
def flips(whole: int) -> bool:
    return passes[0]


@sensor
def idle() -> SkipReason:
    return SkipReason("nothing new")


NIGHTLY = Schedule("whole", "30 2 * * *", name="nightly", timezone="America/New_York")


@pytest.fixture
def flow() -> Iterator[FlowStone]:
    with FlowStone.for_testing(
        [whole, parted, asks], checks=[first, flips], schedules=[NIGHTLY], sensors=[idle]
    ) as opened:
        yield opened


@pytest.fixture
def client(flow: FlowStone) -> TestClient:
    headers = {"sec-fetch-site": "same-origin", "x-role": "admin"}
    app = create_app(flow, identify=by_header)
    return TestClient(app, base_url="http://localhost", headers=headers, follow_redirects=False)


def words(client: TestClient, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200
    return Document(answer.text).all("main")[0].words()


def test_the_next_times_are_those_at_which_it_runs(client: TestClient) -> None:
    """dolphinscheduler#12458, #10833: the next five times were shown in another zone than they were run in."""
    about = client.get("/api/v1/automation/details?kind=schedule&name=nightly").json()["about"]
    shown = [datetime.fromisoformat(one) for one in about["next_times"]]
    assert shown == NIGHTLY.next_ticks(datetime.now(UTC), 5)
    assert about["timezone"] == "America/New_York"


def test_a_condition_over_inputs_with_other_partitions_has_its_tree(client: TestClient) -> None:
    """dagster#22787: the page failed for conditions over parents with other partitions."""
    text = words(client, "/automation/details?kind=condition&name=parted&partition=eu")
    assert "input whole is missing" in text


def test_each_part_of_a_condition_is_shown_once(flow: FlowStone) -> None:
    """dagster#32999: of two parts of a condition one was shown twice, the other not at all."""
    facts = flow.insights.automation("condition", "parted", partition=None).judgements[0].facts
    branches = [(one.depth, one.name, one.text) for one in facts]
    assert len(branches) == len(set(branches))


def test_strip_and_table_show_the_same_ticks(flow: FlowStone, client: TestClient) -> None:
    """dagster#17662: ticks were in the time line and not in the table."""
    flow.sensors.evaluate("idle")
    document = Document(client.get("/automation/details?kind=sensor&name=idle").text)
    (table,) = [one for one in document.all("table") if "Outcome" in one.words()]
    rows = [one for one in document.all("tr") if one.within("tbody") and one.within("table") is table]
    assert len(rows) == 1
    assert any("1 skipped" in one.words() for one in document.all("svg"))


def test_what_was_cancelled_asks_nobody_any_more(flow: FlowStone, client: TestClient) -> None:
    """airflow#55053: a request stayed in the inbox although its task had been ended by hand."""

    def go() -> None:
        with contextlib.suppress(Exception):
            flow.materialize("asks", executor="sync", run_id="asking")

    thread = threading.Thread(target=go)
    thread.start()
    deadline = time.monotonic() + 20
    while not flow.approvals.list() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "1 wait for a decision" in words(client, "/approvals")
    flow.runs.cancel("asking")
    thread.join()
    assert "Nothing waits for a decision" in words(client, "/approvals")
    assert flow.insights.approvals_waiting() == 0


def test_a_later_success_ends_a_failure(flow: FlowStone, client: TestClient) -> None:
    """dagster#14067: what had failed once was shown as failed although it had succeeded since."""
    passes[0] = False
    flow.materialize("whole", executor="sync")
    assert "Failing now" in words(client, "/checks")
    passes[0] = True
    flow.checks.run("whole")
    assert "Failing now" not in words(client, "/checks")
    assert flow.insights.checks(state="failed").items == ()


def test_never_run_is_said_in_other_words_than_passed(client: TestClient) -> None:
    """dagster#18303: "not evaluated" meant two things."""
    text = words(client, "/checks")
    assert text.count("never ran") >= 2
    assert "passed" not in text.partition("Check Asset State")[2]


def test_the_audit_log_has_a_filter_for_each_question(client: TestClient, flow: FlowStone) -> None:
    """airflow#53055, #37582: who, what, to what, and between which times."""
    client.post("/automation/pause", data={"kind": "schedule", "name": "nightly"})
    today = date.today().isoformat()
    for query in ("actor=an+admin", "action=schedule", "subject=schedule:nightly", f"since={today}"):
        lines = client.get(f"/api/v1/audit?{query}").json()["page"]["items"]
        assert [one["subject"] for one in lines] == ["schedule:nightly"], query
    assert client.get(f"/api/v1/audit?until={today}").json()["page"]["items"] == []
