"""Runs, a run, a backfill: what broke first, one filter, and actions on all that match."""

from __future__ import annotations

import html
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from starlette.testclient import TestClient
from tests.web.conftest import by_header
from tests.web.markup import Document

from flowstone import FlowStone, StaticPartitions, asset
from flowstone.core.actor import Actor, acting
from flowstone.core.state import State
from flowstone.core.step import NewRun, NewStep
from flowstone.web.application import create_app

KEYS = [f"p{number}" for number in range(12)]
PARTS = StaticPartitions(KEYS)


@asset(partitions=PARTS)
def sales(context):
    if context.partition in ("p3", "p7"):
        raise ValueError(f"Row {context.partition[1]} is <b>bad</b>, token=hunter2-of-the-run-page")
    return 1


@asset
def numbers():
    return [1]


@asset
def doubled(numbers):
    return [2]


@pytest.fixture
def flow() -> Iterator[FlowStone]:
    with FlowStone.for_testing([sales, numbers, doubled]) as opened:
        with acting(Actor("ann", "cli")):
            opened.backfill("sales", partitions=KEYS, run_id="fill", tags=["night shift"], on_progress=None)
        opened.materialize_all("doubled", run_id="whole")
        yield opened


def client_of(flow: FlowStone, role: str = "operator") -> TestClient:
    headers = {"sec-fetch-site": "same-origin", "x-role": role}
    app = create_app(flow, identify=by_header)
    return TestClient(app, base_url="http://localhost", headers=headers, follow_redirects=False)


def test_the_root_cause_comes_first(flow):
    """Before summary, assets, time line: grouped by what it says (dagster#12741)."""
    text = client_of(flow).get("/run", params={"id": "fill"}).text
    main = text[text.index("<main") :]
    assert "Row 7 is &lt;b&gt;bad&lt;/b&gt;" in main
    assert "<b>bad" not in text
    assert "hunter2" not in text
    assert "<b>2 steps</b>" in main
    order = [main.index(mark) for mark in ("Why it failed", 'id="summary"', "Time line", "Steps</h2>", "About it")]
    assert order == sorted(order)
    assert "flowstone backfill sales" in main


def test_a_backfill_shows_its_partitions_in_order(flow):
    text = client_of(flow).get("/backfill", params={"id": "fill"}).text
    assert "2 failed, 10 completed of 12" in text
    model = client_of(flow).get("/api/v1/backfill", params={"id": "fill"}).json()
    (strip,) = model["view"]["strips"]
    assert [(one["state"], one["number"]) for one in strip["stretches"]] == [
        ("completed", 3),
        ("failed", 1),
        ("completed", 3),
        ("failed", 1),
        ("completed", 4),
    ]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("", ["whole", "fill"]),
        ("state:failed", ["fill"]),
        ("-state:failed", ["whole"]),
        ('tag:"night shift" by:ann kind:backfill', ["fill"]),
        ("asset:doubled since:1h", ["whole"]),
        ("asset:nothing", []),
    ],
)
def test_one_spelling_finds_runs_in_page_api_and_python(flow, words, found):
    client = client_of(flow)
    listed = client.get("/api/v1/runs", params={"filter": words}).json()
    assert [run["id"] for run in listed["runs"]["items"]] == found
    assert [run.id for run in flow.insights.runs(words).items] == found
    text = client.get("/runs", params={"filter": words}).text
    assert [f"id={run}" in text for run in ("whole", "fill")] == [run in found for run in ("whole", "fill")]
    assert html.escape(listed["filter"], quote=True).replace("&quot;", "&#34;") in text or not words


def test_a_filter_that_cannot_be_read_is_explained_on_the_page(flow):
    answer = client_of(flow).get("/runs", params={"filter": "stat:failed"})
    assert answer.status_code == 200
    assert "Did you mean &#39;state&#39;" in answer.text
    assert "/runs/cancel" not in answer.text


def test_a_bulk_action_says_the_exact_filter_and_count_and_asks_again_when_it_moved(flow):
    """airflow#55452, dagster#3271: what is confirmed is the filter, not what happens to be on the page."""
    client = client_of(flow)
    shown = client.get("/runs/retry", params={"filter": "since:24h"})
    assert shown.status_code == 200
    assert "Retry 1 run" in shown.text
    assert "-state:running -state:completed since:20" in shown.text
    fields = {
        one.attributes["name"]: one.attributes.get("value", "")
        for one in Document(shown.text).all("input")
        if "name" in one.attributes
    }
    assert fields["expected"] == "1"
    moved = client.post("/runs/retry", data={"filter": fields["filter"], "expected": "3"})
    assert moved.status_code == 409
    assert "1 match by now, not 3" in moved.text
    without = client.post("/runs/cancel", data={"filter": "state:running"})
    assert without.status_code == 422
    done = client.post("/runs/cancel", data={"filter": "state:running", "expected": "0"})
    assert done.status_code == 303
    # in memory nothing can be placed that goes on by itself: the reason is said
    refused = client.post("/runs/retry", data={"filter": fields["filter"], "expected": "1"})
    assert refused.status_code == 422
    assert "None of 1 runs can be retried" in refused.text


def test_a_viewer_sees_no_buttons_and_is_refused(flow):
    viewer = client_of(flow, "viewer")
    for address in ("/runs?filter=state:failed", "/run?id=fill", "/backfill?id=fill"):
        text = viewer.get(address).text
        for action in ("/runs/cancel", "/run/retry", "/run/cancel", "/run/priority"):
            assert action not in text
    for action in ("/runs/cancel", "/runs/retry", "/run/cancel", "/run/retry", "/run/pause", "/run/window"):
        assert viewer.post(action, data={"id": "fill"}).status_code == 403


def test_odd_addresses(flow):
    client = client_of(flow)
    assert client.get("/run").status_code == 400
    assert client.get("/run", params={"id": "nothing"}).status_code == 404
    assert client.get("/run", params={"id": "fill", "state": "odd"}).status_code == 400
    assert client.get("/run", params={"id": "fill", "next": "odd"}).status_code == 422
    assert client.get("/runs", params={"limit": "999999"}).status_code == 200
    assert client.post("/run/priority", data={"id": "fill", "priority": "3"}).status_code == 422
    assert client.post("/run/pause", data={"id": "fill"}).status_code == 422
    over = client.post("/run/cancel", data={"id": "fill"})
    assert over.status_code == 303
    assert flow.runs.get("fill").state is State.FAILED


def test_steps_of_a_run_are_filtered_by_what_the_page_links_to(flow):
    client = client_of(flow)
    text = client.get("/run", params={"id": "fill", "state": "completed", "asset": "sales"}).text
    assert "10 steps" in text
    errors = client.get("/run", params={"id": "fill", "error": "builtins.ValueError"}).text
    assert "2 steps" in errors


def test_a_tag_is_added_to_the_filter_and_replaces_nothing(flow):
    """dagster#12546; and runs of automations can be left out (dagster#15126)."""
    text = client_of(flow).get("/runs", params={"filter": "state:failed -automation:*"}).text
    expected = "state%3Afailed+-automation%3A%2A+tag%3A%22night+shift%22"
    assert f"filter={expected}" in text


def test_a_run_says_who_did_what_to_it(flow):
    """argo-workflows#10257, gocd#3234: who ended it, and by which way."""
    with acting(Actor("bob", "web")):
        flow.parts.store.ledger.open_run(
            NewRun(id="open", kind="test", selection="numbers", executor="sync", created_at=datetime.now(UTC)),
            [NewStep("numbers", "", forced=True)],
        )
        flow.runs.set_priority("open", 2)
    with acting(Actor("ann", "json")):
        flow.runs.cancel("open")
    view = flow.insights.run("open")
    assert [(one.actor, one.via, one.action) for one in view.actions] == [
        ("ann", "json", "run.cancelled"),
        ("bob", "web", "run.prioritized"),
    ]
    text = client_of(flow).get("/run", params={"id": "open"}).text
    assert "<b>ann</b>" in text
    assert "prioritized, priority 2" in text


def test_pages_stay_small(flow):
    """However many steps: elements at most 1,500."""
    flow.backfill("sales", partitions=KEYS, force=True, run_id="again")
    for address in ("/runs", "/run?id=fill", "/backfill?id=again"):
        text = client_of(flow).get(address).text
        assert text.count("<") < 3000


def test_the_equal_command_asks_for_no_partition_that_the_run_did_not(flow):
    def command_of(keys, run_id):
        flow.backfill("sales", partitions=keys, force=True, run_id=run_id)
        return flow.insights.run(run_id).command

    assert command_of(KEYS[2:5], "range") == f"flowstone backfill sales --from {KEYS[2]} --to {KEYS[4]}"
    assert command_of([KEYS[0], KEYS[4]], "some") == f"flowstone backfill sales --partitions {KEYS[0]},{KEYS[4]}"
    listed = ",".join(KEYS[::2])
    assert command_of(KEYS[::2], "every other") == f"flowstone backfill sales --partitions {listed}"
