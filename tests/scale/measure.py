"""Measures pages: time on the server, size as sent, statements, elements; reads the plans of the statements."""

from __future__ import annotations

import gzip
import re
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg.sql import Composable
from starlette.requests import Request
from starlette.testclient import TestClient
from tests.scale.app import LARGE, Scale
from tests.web.markup import Document

from flowstone import FlowStone
from flowstone.web.application import Dashboard, create_app
from flowstone.web.registry import Person, Role, pages, url

BIG_TABLES = frozenset({"steps", "attempts", "runs", "check_results", "ticks", "lineage", "step_edges"})
"""Tables that no page may read from end to end."""
BASELINE = "SELECT sum(i * 7 %% 13) FROM generate_series(1, 300000) AS i"
BASELINE_MS = 32.0
"""What that statement takes on the machine for which the budgets are written, when nothing else runs."""

# milliseconds on the server and kB as sent, from the specification of the pages
BUDGETS: dict[str, tuple[float, float]] = {
    "/": (60, 15),
    "/assets": (60, 25),
    "/graph": (120, 60),
    "/asset": (150, 30),
    "/partition": (50, 30),
    "/runs": (40, 30),
    "/run": (80, 40),
    "/backfill": (60, 30),
    "/step": (50, 40),
    "/queues": (80, 30),
    "/queue": (80, 30),
    "/workers": (80, 30),
    "/automation": (60, 30),
    "/launch": (50, 30),
}
DEFAULT_BUDGET = (60.0, 40.0)
MAX_ELEMENTS = 1_500
MAX_STATEMENTS = 40
_READS = re.compile(r"(?:\s|--[^\n]*\n)*(?:SELECT|WITH)\b", re.IGNORECASE)
_BLOCKING = ("Sort", "Incremental Sort", "Aggregate", "Hash", "Materialize")
_AROUND = ("BEGIN", "COMMIT", "ROLLBACK", "SET")


@dataclass(slots=True)
class Statement:
    """A statement that a page executed."""

    text: str
    parameters: Any
    seconds: float


@dataclass(slots=True)
class Measured:
    """What a page costs.

    Args:
        address: of the page.
        ms: of the answer, the 95th percentile.
        kb: as sent.
        elements: of the page.
        statements: of one answer, beginnings and ends of transactions left out.
        baseline: milliseconds of the statement of comparison, measured beside it.
        least_ms: of the fastest answer.
    """

    address: str
    ms: float
    kb: float
    elements: int
    statements: list[Statement] = field(default_factory=list)
    baseline: float = BASELINE_MS
    least_ms: float = 0.0

    @property
    def budget(self) -> tuple[float, float]:
        """Milliseconds and kB that it may cost on a machine as slow as this one is now."""
        ms, kb = BUDGETS.get(urlsplit(self.address).path, DEFAULT_BUDGET)
        return ms * max(1.0, self.baseline / BASELINE_MS), kb


@contextmanager
def recorded() -> Iterator[list[Statement]]:
    """Note every statement that this process executes meanwhile."""
    found: list[Statement] = []
    execute = psycopg.Cursor.execute

    def noted(self: Any, query: Any, params: Any = None, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return execute(self, query, params, **options)
        finally:
            text = query.as_string(self) if isinstance(query, Composable) else query
            text = text.decode() if isinstance(text, bytes) else str(text)
            found.append(Statement(text, params, time.perf_counter() - began))

    psycopg.Cursor.execute = noted  # type: ignore[method-assign]
    try:
        yield found
    finally:
        psycopg.Cursor.execute = execute  # type: ignore[method-assign]


@contextmanager
def dashboard_of(flow: FlowStone) -> Iterator[tuple[Dashboard, TestClient]]:
    """Give the dashboard of an app as an operator sees it, and a client with one loop for all its requests."""

    def identify(_: Request) -> Person:
        return Person("ann", Role.OPERATOR)

    dashboard = create_app(flow, identify=identify)
    with TestClient(dashboard, base_url="http://localhost", headers={"sec-fetch-site": "same-origin"}) as client:
        yield dashboard, client


def addresses(scale: Scale) -> list[str]:
    """Return the pages with what is largest of a scale; those that are not registered are left out."""
    hour = scale.end.isoformat(timespec="minutes")
    largest = f"backfill-{scale.pruned + scale.full:06}"
    found = [
        url("/"),
        url("assets"),
        url("assets", selection="group:ads"),
        url("graph"),
        url("graph", asset=LARGE),
        url("asset", name=LARGE),
        url("asset", name="sales"),
        url("partition", asset=LARGE, partition=hour),
        url("runs"),
        url("runs", filter="state:failed"),
        url("runs", filter="asset:events"),
        url("runs", filter="kind:backfill"),
        url("run", id=largest),
        url("run", id=f"nightly-{scale.nights // 2:06}"),
        url("run", id="nightly-999999"),
        url("run", id="backfill-999999"),
        url("backfill", id="backfill-999999"),
        url("step", id=scale.hours),
        url("queues"),
        url("queue", name="assets"),
        url("queue", name="gpu"),
        url("workers"),
        url("automation"),
        url("automation/details", kind="schedule", name="nightly"),
        url("automation/details", kind="sensor", name="inbox-0"),
        url("approvals"),
        url("checks"),
        url("check", asset=LARGE),
        url("audit"),
        url("audit", actor="ann"),
        url("keys"),
        url("launch"),
        url("launch", selection=LARGE),
        url("search", text="even"),
        url("system"),
    ]
    known = pages()
    return [one for one in found if urlsplit(one).path in known]


def baseline(dsn: str) -> float:
    """Return the milliseconds of the statement of comparison, now."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        times = []
        for _ in range(5):
            began = time.perf_counter()
            connection.execute(BASELINE.replace("%%", "%"))
            times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


def measure(
    dashboard: Dashboard, client: TestClient, address: str, dsn: str, *, times: int = 12
) -> Measured | None:
    """Measure a page as it is when nobody has seen it within the last second; None when it is none.

    Args:
        dashboard: whose kept answers are dropped before each request.
        client: of it.
        address: of the page.
        dsn: of its database.
        times: how often.
    """
    first = client.get(address)
    if first.status_code == 400:  # a field of the query that this page does not have
        return None
    assert first.status_code == 200, f"{address}: {first.status_code} {first.text[:500]}"
    slow = baseline(dsn)
    taken = []
    of_page: list[Statement] = []
    for _ in range(times):
        dashboard._shared.clear()
        with recorded() as statements:
            began = time.perf_counter()
            client.get(address)
            taken.append((time.perf_counter() - began) * 1000)
        of_page = [one for one in statements if not one.text.strip().upper().startswith(_AROUND)]
    slow = max(slow, baseline(dsn))
    body = first.text.encode()
    elements = len(Document(first.text).elements)
    kb = len(gzip.compress(body, 6)) / 1024
    return Measured(address, sorted(taken)[-2], kb, elements, of_page, slow, least_ms=min(taken))


def whole_reads(dsn: str, statements: list[Statement]) -> list[str]:
    """Return which big tables statements read from end to end: plans of PostgreSQL, not executed."""
    found = []
    with psycopg.connect(dsn, autocommit=True) as connection:
        for one in statements:
            if not _READS.match(one.text) or "nextval" in one.text:
                continue
            row = connection.execute(f"EXPLAIN (FORMAT JSON) {one.text}", one.parameters).fetchone()
            assert row is not None
            found += [f"{table}: {' '.join(one.text.split())[:160]}" for table in _scans(row[0][0]["Plan"])]
    return found


def _scans(node: dict[str, Any], *, bounded: bool = False) -> Iterator[str]:
    """Yield what is read whole; below a limit, with nothing between that reads it all first, little is read."""
    kind = node["Node Type"]
    bounded = kind == "Limit" or (bounded and kind not in _BLOCKING)
    if kind == "Seq Scan" and node.get("Relation Name") in BIG_TABLES and not bounded:
        yield f"sequential scan of {node['Relation Name']}"
    for inner in node.get("Plans", ()):
        yield from _scans(inner, bounded=bounded)
