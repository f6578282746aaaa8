"""Events of OpenLineage, made by its own classes and sent by its own client to a collector over HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from openlineage.client import OpenLineageClient
from openlineage.client.transport.http import HttpConfig, HttpTransport
from tests.crews import crew_of, pytest_runtest_makereport
from tests.faults.fleet import Fleet
from tests.observability import lineage_app
from tests.observability.openlineage_schema import problems

from flowstone import FlowStone, Published, RetryLater, RetryPolicy, StaticPartitions, asset
from flowstone.config import Settings
from flowstone.observability import OpenLineage
from flowstone.observability.background import counters
from flowstone.observability.openlineage import dataset_of_url
from flowstone.stores.postgres.store import PostgresStore

__all__ = ["pytest_runtest_makereport"]


class Lineage(Fleet):
    app = "tests.observability.lineage_app"

    def client(self) -> FlowStone:
        return lineage_app.make_flow(self.database_url, self.storage)

    @property
    def waiting(self) -> int:
        """How many attempts are noted and not sent."""
        return self.rows("SELECT count(*) FROM flowstone.feed_entries")[0][0]


crew = crew_of(Lineage)
parts = StaticPartitions(["eu", "us"])
_slept: list[int] = []


class Collector:
    """What OpenLineage's client talks to; keeps what is posted."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.posts = 0
        self.status = 201
        self.hangs = threading.Event()
        self.hangs.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.posts += 1
                outer.hangs.wait(60.0)
                if outer.status < 300:
                    outer.events.append(json.loads(body))
                self.send_response(outer.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def client(self) -> OpenLineageClient:
        return OpenLineageClient(
            transport=HttpTransport(HttpConfig(url=self.url, timeout=5.0, retry={"total": 0}))
        )

    def close(self) -> None:
        self.hangs.set()
        self._server.shutdown()
        self._server.server_close()

    def of(self, job: str, *kinds: str) -> list[dict[str, Any]]:
        return [one for one in self.events if one["job"]["name"] == job and one["eventType"] in kinds]


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()
    assert [one for event in made.events for one in problems(event)] == []  # whatever a test sent


@asset(partitions=parts, io="filesystem")
def orders() -> list[int]:
    """What was ordered."""
    return [1, 2]


@asset
def revenue(orders: dict[str, list[int]]) -> int:
    return sum(map(sum, orders.values()))


@asset
def table(revenue: int) -> Published:
    return Published("postgresql://db.example:5432/shop.sales.revenue", version=17, metadata={"rows": 3})


@asset(retry=RetryPolicy(max_attempts=2, backoff_seconds=0))
def fails_once(context) -> int:
    if context.attempt == 1:
        raise ValueError("no luck, password=hunter2")
    return 1


@asset(retry=RetryPolicy(max_attempts=2, backoff_seconds=0))
def reads_twice(context, revenue: int) -> int:
    if context.attempt == 1:
        raise ValueError("no luck")
    return revenue


@asset
def sleepy() -> int:
    if not _slept:
        _slept.append(1)
        raise RetryLater(0.01, "not yet")
    return 1


@asset
def always_fails(revenue: int) -> int:
    raise ValueError("no luck")


ASSETS = [orders, revenue, table, fails_once, reads_twice, sleepy, always_fails]


@pytest.fixture
def make_flow(database_url: str, tmp_path: Path) -> Callable[[OpenLineage], FlowStone]:
    """Return a function that makes the app over PostgreSQL; its steps run in this process."""

    def make(observer: OpenLineage) -> FlowStone:
        settings = Settings(database_url=database_url, storage=str(tmp_path), executor="sync")
        return FlowStone(ASSETS, settings=settings, observers=[observer])

    return make


def test_what_was_read_and_written_is_reported_as_it_is_recorded(
    collector: Collector, make_flow: Callable[[OpenLineage], FlowStone], tmp_path: Path
) -> None:
    with make_flow(OpenLineage(collector.client(), namespace="shop")) as flow:
        run = flow.materialize_all("table")
        read = sorted(one.id for one in flow.runs.steps(run.run_id) if one.asset == "orders")
        [revenue_step] = [one.id for one in flow.runs.steps(run.run_id) if one.asset == "revenue"]
    assert all(not one["inputs"] and not one["outputs"] for one in collector.events if one["eventType"] == "START")
    assert len(collector.of("orders", "START")) == len(collector.of("orders", "COMPLETE")) == 2
    [done] = collector.of("revenue", "COMPLETE")
    [dataset] = done["inputs"]
    assert (dataset["namespace"], dataset["name"]) == ("file", str(tmp_path / "values" / "orders"))
    assert dataset["facets"]["version"]["datasetVersion"] == ",".join(map(str, read))
    [output] = done["outputs"]
    assert output["namespace"].startswith("postgres://localhost:")
    assert output["name"].endswith(".flowstone.revenue")
    assert output["facets"]["version"]["datasetVersion"] == str(revenue_step)
    assert output["outputFacets"]["outputStatistics"]["size"] > 0
    [published] = collector.of("table", "COMPLETE")
    assert published["inputs"][0]["facets"] == {"version": output["facets"]["version"]}
    [reference] = published["outputs"]
    assert (reference["namespace"], reference["name"]) == ("postgres://db.example:5432", "shop.sales.revenue")
    assert reference["outputFacets"]["outputStatistics"]["rowCount"] == 3
    parents = {one["run"]["facets"]["parent"]["run"]["runId"] for one in collector.events}
    assert len(parents) == 1
    assert {one["run"]["facets"]["parent"]["job"]["name"] for one in collector.events} == {"materialize_all"}
    tags = collector.of("orders", "COMPLETE")[0]["run"]["facets"]["tags"]["tags"]
    assert {"key": "run_id", "value": run.run_id, "source": "FLOWSTONE"} in tags


def test_failures_are_events_and_each_attempt_is_a_run(
    collector: Collector, make_flow: Callable[[OpenLineage], FlowStone]
) -> None:
    """airflow#46915: no event of a failed task. OpenLineage#1601: ids that were made anew with each event."""
    with make_flow(OpenLineage(collector.client())) as flow:
        flow.materialize("fails_once", executor="serial", executor_opts={"retry": True})
    [failed], [done] = collector.of("fails_once", "FAIL"), collector.of("fails_once", "COMPLETE")
    error = failed["run"]["facets"]["errorMessage"]
    assert error["message"] == "ValueError: no luck, password=***"
    assert "hunter2" not in json.dumps(collector.events)
    assert failed["run"]["runId"] != done["run"]["runId"]
    started = {one["run"]["runId"] for one in collector.of("fails_once", "START")}
    assert started == {failed["run"]["runId"], done["run"]["runId"]}


def test_a_failure_says_what_it_had_read(
    collector: Collector, make_flow: Callable[[OpenLineage], FlowStone]
) -> None:
    """OpenLineage#990: whoever looks for the cause wants to know from which versions."""
    with make_flow(OpenLineage(collector.client())) as flow:
        run = flow.materialize_all("always_fails")
        [read] = [one.id for one in flow.runs.steps(run.run_id) if one.asset == "revenue"]
    [failed] = collector.of("always_fails", "FAIL")
    assert [one["name"].rpartition(".")[2] for one in failed["inputs"]] == ["revenue"]
    assert failed["inputs"][0]["facets"]["version"]["datasetVersion"] == str(read)
    assert failed["outputs"] == []


@pytest.mark.parametrize("place", ["PostgreSQL", "memory"])
def test_an_attempt_that_is_tried_again_says_what_it_had_read(
    collector: Collector, make_flow: Callable[[OpenLineage], FlowStone], place: str
) -> None:
    """The version may be another one the next time, so it is that of the attempt, not of its step."""
    observer = OpenLineage(collector.client())
    in_memory = FlowStone.for_testing(ASSETS, observers=[observer]) if place == "memory" else None
    with in_memory or make_flow(observer) as flow:
        for asset in ("orders", "revenue"):
            flow.materialize_all(asset)
        first = int(flow.history("revenue")[0].step_id)
        run = flow.materialize("reads_twice", executor="serial", executor_opts={"retry": True})
        assert [one.read for one in flow.runs.attempts(int(run.step_id))] == [(first,), ()]
    [failed], [done] = collector.of("reads_twice", "FAIL"), collector.of("reads_twice", "COMPLETE")
    assert failed["inputs"] == done["inputs"] != []
    assert failed["inputs"][0]["facets"]["version"]["datasetVersion"] == str(first)


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (lambda event: event.pop("eventTime"), "'eventTime' is a required property"),
        (lambda event: event["run"].update(runId="7"), "is not a 'uuid'"),
        (lambda event: event.update(eventType="DONE"), "'DONE' is not one of"),
        (lambda event: event["run"]["facets"]["errorMessage"].pop("message"), "'message' is a required property"),
        (lambda event: event["run"]["facets"]["tags"].update(tags=5), "5 is not of type 'array'"),
    ],
)
def test_the_schemas_notice_what_is_wrong(
    collector: Collector, broken: Callable[[dict[str, Any]], object], says: str
) -> None:
    with FlowStone.for_testing([fails_once], observers=[OpenLineage(collector.client())]) as flow:
        flow.materialize("fails_once", executor="serial", executor_opts={"retry": True})
    [event] = json.loads(json.dumps(collector.of("fails_once", "FAIL")))
    assert problems(event) == []
    broken(event)
    assert says in " ".join(problems(event))


def test_an_attempt_that_is_put_off_starts_once(
    collector: Collector, make_flow: Callable[[OpenLineage], FlowStone]
) -> None:
    """OpenLineage#1601: a task that was deferred sent its start again when it went on."""
    _slept.clear()
    with make_flow(OpenLineage(collector.client())) as flow:
        flow.materialize("sleepy")
    assert [one["eventType"] for one in collector.events] == ["START", "COMPLETE"]


def test_a_batch_is_a_few_questions(
    collector: Collector, make_flow: Callable[[OpenLineage], FlowStone], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six for each attempt cost a worker twenty times what the attempt cost."""
    observer = OpenLineage(collector.client())
    with make_flow(observer) as flow:
        feed_of(flow).subscribe("openlineage")
        monkeypatch.setattr(observer, "_thread", threading.current_thread())  # nobody else sends
        flow.backfill("orders")
        flow.materialize_all("always_fails")
        database, questions = flow.parts.store.database, []  # type: ignore[attr-defined]
        for name in ("connection", "transaction"):
            ask = getattr(database, name)
            monkeypatch.setattr(database, name, lambda ask=ask: questions.append(1) or ask())
        assert observer.send_due() == 4
        assert len(questions) <= 10
        monkeypatch.setattr(observer, "_thread", None)
    assert len(collector.events) == 2 * 4
    assert collector.of("always_fails", "FAIL")[0]["inputs"]


def test_a_slow_collector_leaves_the_rest_to_others(
    collector: Collector, make_flow: Callable[[OpenLineage], FlowStone], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is claimed for two minutes is sent in one, or claimed again later."""
    observer = OpenLineage(collector.client())
    with make_flow(observer) as flow:
        feed_of(flow).subscribe("openlineage")
        monkeypatch.setattr(observer, "_thread", threading.current_thread())
        flow.backfill("orders")
        monkeypatch.setattr("flowstone.observability.openlineage._LEASE_SECONDS", 0.0)
        assert observer.send_due() == 2
        assert (len(collector.events), feed_of(flow).waiting("openlineage")) == (2, 1)
        monkeypatch.setattr(observer, "_thread", None)


def feed_of(flow: FlowStone) -> Any:
    assert isinstance(flow.parts.store, PostgresStore)
    return flow.parts.store.feed


def test_what_was_committed_and_not_sent_is_sent_by_another_process_later(
    collector: Collector, make_flow: Callable[[OpenLineage], FlowStone]
) -> None:
    collector.status = 503
    observer = OpenLineage(collector.client())
    flow = make_flow(observer)
    flow.materialize_all("revenue")
    assert feed_of(flow).waiting("openlineage") == 3
    with pytest.raises(Exception, match="503"):
        observer.send_due() or observer.send_due()
    flow.close()  # as one that dies: two seconds are all it takes for the rest
    assert collector.events == []
    collector.status = 201
    with make_flow(OpenLineage(collector.client())) as flow:
        with flow.parts.store.connection() as connection:  # type: ignore[attr-defined]
            connection.execute("UPDATE flowstone.feed_entries SET claim_after = clock_timestamp()")
        flow.materialize("sleepy", force=True)
    assert {one["job"]["name"] for one in collector.events} == {"orders", "revenue", "sleepy"}
    assert len(collector.events) == 2 * 4


def test_who_dies_with_what_it_has_claimed_leaves_it_to_others(
    collector: Collector, make_flow: Callable[[OpenLineage], FlowStone]
) -> None:
    observer = OpenLineage(collector.client())
    with make_flow(observer) as flow:
        collector.hangs.clear()
        feed = feed_of(flow)
        feed.subscribe("other")
        flow.materialize("fails_once", executor="serial", executor_opts={"retry": True})
        first = feed.claim("other", lease_seconds=600.0, limit=1)
        others = feed.claim("other", lease_seconds=0.0, limit=9)
        assert (len(first), len(others), feed.waiting("other")) == (1, 1, 2)
        again = feed.claim("other", lease_seconds=0.0, limit=9)
        assert [(one.id, one.tries) for one in again] == [(others[0].id, 2)]
        feed.acknowledge(again)
        feed.release(first, retry_in_seconds=0.0)
        assert [one.id for one in feed.claim("other", lease_seconds=0.0, limit=9)] == [first[0].id]
        feed.unsubscribe("other")
        assert feed.waiting("other") == 0
        collector.hangs.set()


def test_a_worker_killed_while_it_sends_loses_nothing(crew: Lineage, collector: Collector) -> None:
    """Its attempts are committed and claimed, and nothing of them has arrived when it dies."""
    collector.hangs.clear()
    (first,) = crew.start(queues={"assets": 2}, LINEAGE_URL=collector.url)
    run = crew.flow.schedule("source").run_id
    crew.wait_over([run])
    crew.wait(lambda: collector.posts == 1, "an event that hangs")
    first.kill()
    assert (collector.events, crew.waiting) == ([], 1)
    collector.hangs.set()
    crew.start(queues={"assets": 2}, LINEAGE_URL=collector.url)
    crew.wait(lambda: crew.waiting == 0, "that another worker sends it")
    sent = {(one["job"]["name"], one["eventType"]) for one in collector.events}
    assert sent == {("source", "START"), ("source", "COMPLETE")}
    assert len({one["run"]["runId"] for one in collector.events}) == 1


def test_a_worker_killed_before_it_sends_loses_nothing(crew: Lineage, collector: Collector) -> None:
    """The commit noted it; nobody who could have sent it was there."""
    collector.status = 503
    (first,) = crew.start(queues={"assets": 2}, LINEAGE_URL=collector.url)
    crew.wait_over([crew.flow.schedule("source").run_id])
    crew.wait_over([crew.flow.schedule("derived").run_id])
    first.kill()
    assert (collector.events, crew.waiting) == ([], 2)
    collector.status = 201
    crew.execute("UPDATE flowstone.feed_entries SET claim_after = clock_timestamp()")
    crew.start(queues={"assets": 2}, LINEAGE_URL=collector.url)
    crew.wait(lambda: crew.waiting == 0, "that another worker sends it")
    [done] = collector.of("derived", "COMPLETE")
    assert [one["name"].rpartition(".")[2] for one in done["inputs"]] == ["source"]
    assert len(collector.of("source", "COMPLETE")) == 1


def test_a_collector_that_hangs_delays_no_step(
    collector: Collector, make_flow: Callable[[OpenLineage], FlowStone]
) -> None:
    collector.hangs.clear()
    flow = make_flow(OpenLineage(collector.client()))
    try:
        assert flow.materialize_all("table").ok
        assert collector.events == []
        assert counters()["openlineage"][2] >= 1
    finally:
        collector.hangs.set()
        flow.close()


def test_without_a_subscriber_nothing_is_noted_and_there_is_no_trigger(
    make_flow: Callable[[OpenLineage], FlowStone], collector: Collector, database_url: str, tmp_path: Path
) -> None:
    def triggers(flow: FlowStone) -> list[tuple[str]]:
        with flow.parts.store.connection() as connection:  # type: ignore[attr-defined]
            return connection.execute("SELECT tgname FROM pg_trigger WHERE tgname = 'attempts_feed'").fetchall()

    settings = Settings(database_url=database_url, storage=str(tmp_path), executor="sync")
    with FlowStone(ASSETS, settings=settings) as flow:
        flow.materialize("sleepy")
        assert triggers(flow) == []
    with make_flow(OpenLineage(collector.client())) as flow:
        flow.materialize("sleepy", force=True)
        assert triggers(flow) == [("attempts_feed",)]
        feed_of(flow).unsubscribe("openlineage")
        assert triggers(flow) == []


def test_a_feed_that_nobody_asks_for_stops_growing(
    make_flow: Callable[[OpenLineage], FlowStone], collector: Collector
) -> None:
    with make_flow(OpenLineage(collector.client())) as flow:
        feed_of(flow).subscribe("gone")
        with flow.parts.store.connection() as connection:  # type: ignore[attr-defined]
            connection.execute("UPDATE flowstone.feeds SET polled_at = '2000-01-01' WHERE name = 'gone'")
        flow.materialize("sleepy", force=True)
        assert feed_of(flow).waiting("gone") == 0


def test_in_memory_it_is_sent_at_once(collector: Collector) -> None:
    with FlowStone.for_testing([fails_once], observers=[OpenLineage(collector.client())]) as flow:
        flow.materialize("fails_once", executor="serial", executor_opts={"retry": True})
    assert [one["eventType"] for one in collector.events] == ["START", "FAIL", "START", "COMPLETE"]
    assert collector.events[-1]["outputs"][0]["name"] == "fails_once"


def test_ids_are_derived() -> None:
    one, two = OpenLineage(namespace="a"), OpenLineage(namespace="a")
    assert one.run_id(1, 1, "r") == two.run_id(1, 1, "r") != one.run_id(1, 2, "r")
    assert OpenLineage(namespace="b").run_id(1, 1, "r") != one.run_id(1, 1, "r")


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("s3a://lake/values/orders/x/1-1.json", ("s3://lake", "values/orders")),
        ("gs://lake/orders", ("gs://lake", "orders")),
        # OpenLineage#4661: the same files with and without TLS
        ("abfs://lake@acme.dfs.core.windows.net/orders/1", ("abfss://lake@acme.dfs.core.windows.net", "orders")),
        ("s3n://lake/orders", ("s3://lake", "orders")),
        (
            "abfss://container@account.dfs.core.windows.net/orders/1",
            ("abfss://container@account.dfs.core.windows.net", "orders"),
        ),
        ("postgresql://me:pw@db/shop.sales.orders", ("postgres://db", "shop.sales.orders")),
        ("s3://lake", ("s3://lake", "/")),
        ("duckdb:///data/shop.duckdb@3", ("duckdb://", "data/shop.duckdb")),
    ],
)
def test_names_of_datasets_follow_their_storage(location: str, expected: tuple[str, str]) -> None:
    found = dataset_of_url(location, "orders")
    assert found == expected
    assert "pw" not in str(found)
