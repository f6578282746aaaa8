"""The first page, the search, queues and workers: what they say, and what may be done."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from starlette.testclient import TestClient
from tests.web.conftest import by_header
from tests.web.markup import Document

from flowstone import FlowStone, asset
from flowstone.stores.postgres.database import Database
from flowstone.web.application import create_app
from flowstone.web.registry import Role


def words(client: TestClient, address: str) -> str:
    answer = client.get(address)
    assert answer.status_code == 200, answer.text
    return Document(answer.text).all("main")[0].words()


def test_the_first_page_leads_with_a_sentence(viewer: TestClient, flow: FlowStone) -> None:
    assert "Nothing is broken, and nothing waits for a decision" in words(viewer, "/")
    flow.materialize_all("doubled")
    model = viewer.get("/api/v1/overview").json()
    assert sum(minute["ended"] for minute in model["minutes"]) == 2
    assert model["sentence"].startswith("Nothing is broken")


def test_a_search_leads_to_what_it_found(viewer: TestClient, flow: FlowStone) -> None:
    run = flow.materialize_all("doubled")
    page = viewer.get("/search", params={"text": "doub"}).text
    assert "/asset?name=doubled" in Document(page).links()
    assert (
        f"/run?id={run.run_id}" in Document(viewer.get("/search", params={"text": run.run_id[:12]}).text).links()
    )
    assert "Nothing begins with this" in words(viewer, "/search?text=zzz")
    assert viewer.get("/search", params={"text": "x" * 201}).status_code == 400
    assert viewer.get("/search", params={"text": "<script>alert(1)</script>"}).text.count("<script>alert") == 0


def test_an_app_in_memory_says_that_it_has_no_queues(viewer: TestClient) -> None:
    assert "keeps everything in memory" in words(viewer, "/queues")
    assert "No worker is alive" in words(viewer, "/workers")
    assert viewer.get("/queue?name=nothing").status_code == 404


class TestOnADatabase:
    """Pause, resume, scale, by people with the right."""

    @pytest.fixture
    def client_of(self, database_url: str) -> Iterator[Callable[[Role], TestClient]]:
        @asset(queue="gpu's <b>")
        def trained() -> int:
            return 1

        with FlowStone([trained], database_url=database_url) as flow:
            flow.schedule("trained")
            self.flow = flow
            with Database(database_url) as database, database.connection() as connection:
                connection.execute(
                    "INSERT INTO flowstone.workers (id, kind, host, pid, lease_seconds, queues) SELECT "
                    "'w' || n, 'node', 'h', n, 600, '{\"assets\": 10}' FROM generate_series(1, 3) AS n"
                )
            dashboard = create_app(flow, identify=by_header)

            def client(role: Role) -> TestClient:
                headers = {"sec-fetch-site": "same-origin", "x-role": role.label}
                return TestClient(dashboard, base_url="http://localhost", headers=headers, follow_redirects=False)

            yield client

    def test_scaling_says_what_it_means(self, client_of: Callable[[Role], TestClient]) -> None:
        operator, viewer = client_of(Role.OPERATOR), client_of(Role.VIEWER)
        question = words(operator, "/queues/scale?name=assets&limit=20")
        assert "3 workers × 10 → 3 × 20 (30 → 60 steps at once)" in question
        assert viewer.get("/queues/scale?name=assets&limit=20").status_code == 403
        assert viewer.post("/queues/scale", data={"name": "assets", "limit": "20"}).status_code == 403
        done = operator.post("/queues/scale", data={"name": "assets", "limit": "20"})
        assert done.status_code == 303
        (queue,) = [one for one in operator.get("/api/v1/queues").json()["items"] if one["name"] == "assets"]
        assert (queue["capacity"], queue["node_limit"]) == (60, 20)
        assert operator.post("/queues/reset", data={"name": "assets"}).status_code == 303
        assert self.flow.insights.queue("assets").queue.capacity == 30
        assert [line.action for line in self.flow.audit.latest(limit=2)] == ["queue.scaled", "queue.scaled"]
        assert {line.actor for line in self.flow.audit.latest(limit=2)} == {"an operator"}
        assert "Scale" not in words(viewer, "/queue?name=assets").split()

    def test_a_queue_that_nobody_serves_is_an_alarm(self, client_of: Callable[[Role], TestClient]) -> None:
        viewer, operator = client_of(Role.VIEWER), client_of(Role.OPERATOR)
        for address in ("/", "/queues", "/queue?name=gpu%27s+%3Cb%3E"):
            assert "no worker serves the queue" in words(viewer, address)
        assert "3 alive" in words(viewer, "/workers")
        assert operator.post("/queues/pause", data={"name": "gpu's <b>"}).status_code == 303
        paused = viewer.get("/api/v1/queue", params={"name": "gpu's <b>"}).json()
        assert paused["queue"]["state"] == "paused"
        assert operator.post("/queues/pause", data={"name": "nothing"}).status_code in (404, 422)


def test_the_system_page_masks_secrets(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWSTONE_DATABASE_URL", database_url)
    with FlowStone([], database_url=database_url.replace("flowstone@", "flowstone:hunter2@")) as flow:
        headers = {"sec-fetch-site": "same-origin", "x-role": "operator"}
        client = TestClient(create_app(flow, identify=by_header), base_url="http://localhost", headers=headers)
        page = client.get("/system")
        assert page.status_code == 200, page.text
        assert "hunter2" not in page.text
        model = client.get("/api/v1/system").json()
        assert "hunter2" not in str(model)
        tables = {one["name"]: one for one in model["tables"]}
        assert {"steps", "runs", "oban_jobs"} <= set(tables)
        assert [one["state"] for one in model["migrations"]][:1] == ["applied"]
        assert 0 <= model["pulse_ms"] < 1_000
        assert client.get("/system", headers={"x-role": "viewer"}).status_code == 403
