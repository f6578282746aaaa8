"""Every page that links lead to: no secret, no traceback, nothing changed, nothing broken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape

import pytest
from starlette.testclient import TestClient
from tests.web.conftest import by_header
from tests.web.test_pages import read

from flowstone import DailyPartitions, FlowStone, asset
from flowstone.core.clean import hide_values
from flowstone.errors import StepFailedError
from flowstone.stores.postgres.database import Database
from flowstone.web.application import create_app
from flowstone.web.registry import Role, pages

pytestmark = pytest.mark.usefixtures("one_loop")

MAX_PAGES = 150
HOSTILE = "a/b ../?#<script>alert(1)</script>&amp;\u05d0\U0001f600"
PLANTED = ["hunter2-planted", "sk_planted_0123456789", "tr0ub4dor-planted"]
_HIDDEN = PLANTED[2]


def assets() -> list[object]:
    @asset(name=HOSTILE, description=f"reads postgresql://me:{PLANTED[0]}@db/x")
    def hostile() -> list[int]:
        return [1]

    @asset(partitions=DailyPartitions("2024-01-01", end="2024-01-05"), group="g<b>")
    def daily(context: object) -> int:
        context.logger.info("password=%s and %s", PLANTED[0], _HIDDEN)  # type: ignore[attr-defined]
        return 1

    @asset
    def broken() -> int:
        raise ValueError(f"cannot open api_key={PLANTED[1]} with {_HIDDEN} <img src=x onerror=alert(1)>")

    return [hostile, daily, broken]


def run_all(flow: FlowStone) -> None:
    hide_values([_HIDDEN])
    flow.materialize(HOSTILE, executor="sync", tags=["t<i>"], metadata={"db_password": PLANTED[0]})
    flow.backfill("daily", executor="sync")
    with pytest.raises((StepFailedError, ValueError)):
        flow.materialize("broken", executor="sync")


def crawl(client: TestClient) -> Iterator[tuple[str, str]]:
    """Yield every page that is reached by links, with what it says, and each page's JSON twin."""
    todo, seen = [path for path in pages() if client.get(path).status_code == 200], set[str]()
    while todo and len(seen) < MAX_PAGES:
        path = todo.pop(0)
        if path in seen:
            continue
        seen.add(path)
        answer = client.get(path)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text[-600:]}"
        yield path, answer.text
        if not path.startswith("/api/") and answer.headers["content-type"].startswith("text/html"):
            links = [link.partition("#")[0] for link in read(answer.text).links]
            todo += [link for link in links if link.partition("?")[0] in pages() and link not in seen]
            base, _, query = path.partition("?")
            todo.append(f"/api/v1{pages()[base].api}" + (f"?{query}" if query else ""))


def client_of(flow: FlowStone, role: Role) -> TestClient:
    headers = {"x-role": role.label, "sec-fetch-site": "same-origin"}
    app = create_app(flow, identify=by_header)
    return TestClient(app, base_url="http://localhost", headers=headers, follow_redirects=False)


def wrong_in(path: str, text: str) -> list[str]:
    found = [f"{path} shows {secret}" for secret in PLANTED if secret in text or secret in unescape(text)]
    found += [
        f"{path} trusts {tag}" for tag in ("<script>alert", "<img src=x") if tag in text and "/api/" not in path
    ]
    return found + ([f"{path} has our frames"] if "flowstone/web/" in text else [])


@contextmanager
def in_memory() -> Iterator[FlowStone]:
    with FlowStone.for_testing(assets()) as flow:  # type: ignore[arg-type]
        run_all(flow)
        yield flow


def test_no_page_shows_a_secret_or_trusts_a_name() -> None:
    with in_memory() as flow:
        found = list(crawl(client_of(flow, Role.ADMIN)))
    assert len(found) > 4
    assert [line for path, text in found for line in wrong_in(path, text)] == []


def test_a_viewer_sees_no_button_that_does_not_work() -> None:
    with in_memory() as flow:
        client = client_of(flow, Role.VIEWER)
        shown = {link for path, text in crawl(client) if "/api/" not in path for link in read(text).links}
        app = create_app(flow, identify=by_header)
    actions = {path for path, route in app.routes.items() if route.kind == "action" and route.role != Role.VIEWER}
    assert shown & actions == set()


def contents(database: Database) -> dict[str, str]:
    """A fingerprint of each table, but of those that beat by themselves."""
    with database.connection() as connection:
        names = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'flowstone'::regnamespace AND relkind = 'r'"
        ).fetchall()
        return {
            name: str(
                connection.execute(
                    f"SELECT md5(string_agg(one::text, '|' ORDER BY one::text)) FROM flowstone.{name} AS one"  # type: ignore[arg-type]
                ).fetchone()
            )
            for (name,) in names
            if name != "workers"
        }


def test_reading_changes_nothing(database_url: str) -> None:
    """Every page and its twin, on PostgreSQL, as an administrator: not a row of any table is another one after."""
    with FlowStone(assets(), database_url=database_url) as flow:  # type: ignore[arg-type]
        run_all(flow)  # and closed, as logs are written a moment later
    with FlowStone(assets(), database_url=database_url) as flow, Database(database_url) as database:  # type: ignore[arg-type]
        before = contents(database)
        found = list(crawl(client_of(flow, Role.ADMIN)))
        assert [line for path, text in found for line in wrong_in(path, text)] == []
        assert contents(database) == before
