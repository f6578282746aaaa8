"""Launch: wrong fields are said at the field, the plan is what is placed, a changed plan is shown again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
from starlette.testclient import TestClient
from tests.web.conftest import by_header

from flowstone import DailyPartitions, FlowStone, StaticPartitions, asset
from flowstone.app.launch import LaunchRequest
from flowstone.errors import LaunchChangedError, LaunchError
from flowstone.web.application import create_app
from flowstone.web.registry import Role


@asset(partitions=DailyPartitions(start=date(2024, 1, 1), end=date(2024, 1, 31)))
def orders(context):
    return 1


@asset(partitions=StaticPartitions([f"p{number:05}" for number in range(20_000)]))
def many(context):
    return 1


@asset
def report():
    return 1


@asset
def needs(report):
    return report


def client_of(flow: FlowStone, role: Role = Role.OPERATOR) -> TestClient:
    headers = {"sec-fetch-site": "same-origin", "x-role": role.label}
    app = create_app(flow, identify=by_header)
    return TestClient(app, base_url="http://localhost", headers=headers, follow_redirects=False)


@pytest.fixture
def flow() -> Iterator[FlowStone]:
    with FlowStone.for_testing([orders, many, report, needs]) as opened:
        yield opened


@pytest.fixture
def client(flow: FlowStone) -> TestClient:
    return client_of(flow)


def planned(client: TestClient, **form: Any) -> str:
    answer = client.post("/launch", data={"plan": "true", **form})
    assert answer.status_code == 200, answer.text
    return answer.text


def test_the_form_costs_the_same_with_any_number_of_partitions(client):
    """dagster#11157, #3783, #15679: the form of an asset with many partitions took seconds, or froze."""
    text = client.get("/launch", params={"selection": "many"}).text
    assert "p00000" not in text
    assert len(text) < 20_000
    assert '<option value="many"></option>' in text
    assert 'value="many"' in text


def test_a_plan_says_what_would_run_by_ranges(client, flow):
    """dagster#17839, #22139: any partitions can be chosen, and those that are committed are left out in sight."""
    flow.schedule("orders", partition=date(2024, 1, 3))
    text = planned(client, selection="orders", first="2024-01-01", last="2024-01-05")
    assert "Run 4 steps</button>" in text
    assert "2024-01-01 … 2024-01-02 (2)" in text
    assert "2024-01-04 … 2024-01-05 (2)" in text
    whole = planned(client, selection="many", every="true")
    assert "Run 20,000 steps</button>" in whole
    assert len(whole) < 30_000


@pytest.mark.parametrize(
    ("form", "name", "says"),
    [
        ({"selection": "no_such"}, "selection", "no_such"),
        ({"selection": "a b ( c"}, "selection", "selection"),
        ({"selection": "  "}, "selection", "Which assets?"),
        ({"selection": "(" * 1_500}, "selection", ""),
        ({"selection": "orders"}, "partitions", "Which partitions of orders?"),
        ({"selection": "orders", "partitions": "2024-13-01"}, "partitions", "2024-13-01"),
        ({"selection": "orders", "partitions": "1999-01-01"}, "partitions", "1999-01-01"),
        ({"selection": "orders", "partitions": "2024-01-01", "every": "true"}, "partitions", "either"),
        ({"selection": "orders", "partitions": "2024-01-01", "first": "2024-01-01"}, "partitions", "either"),
        ({"selection": "report", "partitions": "x"}, "partitions", "partitioned"),
        ({"selection": "report", "config": "{no"}, "config", "no JSON"),
        ({"selection": "report", "config": "[" * 10_000}, "config", "no JSON"),
        ({"selection": "report", "config": "[1]"}, "config", "JSON object"),
        ({"selection": "report", "config": '{"rows": 1}'}, "config", "rows"),
        ({"selection": "report", "tags": "ok,<script>\n"}, "tags", ""),
        ({"selection": "report", "executor": "warp"}, "executor", "warp"),
    ],
)
def test_what_is_wrong_is_said_at_its_field_and_the_input_is_kept(client, form, name, says):
    answer = client.post("/launch", data={"plan": "true", **form})
    if name == "tags" and answer.status_code == 200:
        return  # a tag may be anything printable
    assert answer.status_code == 422, answer.text
    message = re.search(rf'id="{name}-wrong"[^>]*>.*?</span> ([^<]*)</span>', answer.text)
    assert message is not None, answer.text
    assert says in message[1].replace("&#39;", "'").replace("&#34;", '"')
    assert 'type="submit"' not in message[1]
    for value in form.values():
        assert value.strip().replace('"', "&#34;")[:50] in answer.text
    assert "Traceback" not in answer.text


def test_everything_that_is_wrong_is_said_at_once(client):
    form = {"selection": "orders", "partitions": "2024-13-01", "config": "{no", "executor": "warp"}
    answer = client.post("/launch", data={"plan": "true", **form})
    for name in ("partitions", "config", "executor"):
        assert f'id="{name}-wrong"' in answer.text
    assert "{no</textarea>" in answer.text
    assert "</button>" in answer.text
    assert "Run " not in answer.text[answer.text.index("<main") :]


def test_only_operators_launch_and_nothing_is_placed_by_planning(flow, client):
    for role in (Role.VIEWER, Role.APPROVER):
        assert client_of(flow, role).get("/launch").status_code == 403
        assert client_of(flow, role).post("/launch/place", data={"selection": "report"}).status_code == 403
    planned(client, selection="report")
    assert flow.runs.latest() == []
    foreign = client.post("/launch", data={"selection": "report"}, headers={"sec-fetch-site": "cross-site"})
    assert foreign.status_code == 403


def test_an_app_without_workers_says_so_at_the_executor(client, flow):
    answer = client.post("/launch/place", data={"selection": "report"})
    assert answer.status_code == 422
    assert "FLOWSTONE_DATABASE_URL" in answer.text
    assert flow.runs.latest() == []


def test_the_twin_of_the_api_plans_and_answers_with_the_fields_that_are_wrong(client):
    plan = client.post("/api/v1/launch", json={"selection": "report", "plan": True}).json()["plan"]
    assert plan["runs"] == 1
    wrong = client.post("/api/v1/launch", json={"selection": "orders", "plan": True})
    assert wrong.status_code == 422
    assert "partitions" in wrong.json()["errors"]


@pytest.fixture
def durable(server) -> Iterator[FlowStone]:
    with server.database() as dsn, FlowStone([orders, report, needs], database_url=dsn) as opened:
        yield opened


def test_what_was_planned_is_placed_and_a_changed_plan_is_shown_again(durable):
    """dagster#17839: nobody could see which partitions would be launched."""
    client = client_of(durable)
    form = {"selection": "orders", "partitions": "2024-01-01, 2024-01-02", "tags": "by hand", "executor": "oban"}
    digest = re.search(r'name="digest" value="(\w+)"', planned(client, **form))
    assert digest is not None
    durable.materialize("orders", partition=date(2024, 1, 1), executor="sync")
    changed = client.post("/launch/place", data={**form, "config": "", "digest": digest[1]})
    assert changed.status_code == 303
    assert len(durable.runs.latest()) == 1  # the one that changed the plan
    shown = client.get(changed.headers["location"])
    assert "Run 1 step</button>" in shown.text
    assert "The plan changed meanwhile: now 1 steps would run. Nothing was started." in shown.text
    other = TestClient(client.app, base_url="http://localhost", headers={"x-role": "admin"})
    assert "is gone by now" in other.get(changed.headers["location"]).text
    agreed = re.search(r'name="digest" value="(\w+)"', shown.text)
    assert agreed is not None
    placed = client.post("/launch/place", data={**form, "digest": agreed[1]})
    assert placed.status_code == 303
    newest = durable.runs.latest()[0]
    assert placed.headers["location"] == f"/run?id={newest.id}"
    assert (newest.tags, newest.requested_by, newest.requested_via) == (("by hand",), "an operator", "web")
    assert sum(newest.counts.values()) == 2
    # what is under way is joined
    assert (
        durable.launch.plan(LaunchRequest(selection="orders", partitions="2024-01-02", executor="oban")).joins == 1
    )


def test_the_verbs_refuse_what_the_form_refuses(durable):
    with pytest.raises(LaunchError) as wrong:
        durable.launch.plan(LaunchRequest(selection="no_such", tags=("a" * 10_000,)))
    assert set(wrong.value.problems) >= {"selection"}
    plan = durable.launch.plan(LaunchRequest(selection="needs"))
    assert (plan.runs, plan.blocked) == (1, 1)
    assert plan.blocked_by == ("needs waits for report",)
    with pytest.raises(LaunchChangedError):
        durable.launch.place(LaunchRequest(selection="report"), digest=plan.digest)
    assert durable.runs.latest() == []
