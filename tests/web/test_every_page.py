"""What holds for every page there is: it renders on an empty app and on hostile names, and its markup is sound.

Nothing here names a page: what is registered is visited, and so is what the pages link to. A page that needs a
field of its query is reached by a link, or gets a value from `tests.web.visits.SAMPLES`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient
from tests.web import hostile
from tests.web.conftest import by_header
from tests.web.markup import Document, faults
from tests.web.visits import addresses, crawl

from flowstone import FlowStone
from flowstone.web.application import create_app
from flowstone.web.registry import Role

pytestmark = pytest.mark.usefixtures("one_loop")


def visitor(flow: FlowStone, role: str = "admin", prefix: str = "") -> TestClient:
    """Return a client of the dashboard of an app."""
    headers = {"sec-fetch-site": "same-origin", "x-role": role}
    app = create_app(flow, identify=by_header)
    client = TestClient(
        app, base_url="http://localhost", headers=headers, follow_redirects=False, root_path=prefix
    )
    client.prefix = prefix  # type: ignore[attr-defined]
    return client


@pytest.fixture(scope="module")
def hostile_flow() -> Iterator[FlowStone]:
    with hostile.make_flow() as flow:
        hostile.fill(flow)
        yield flow
        hostile.settle(flow)


def check_all(client: TestClient, flow: FlowStone) -> dict[str, str]:
    """Visit every page of an app and what it links to; return the pages by address."""
    visited = crawl(client, addresses(flow, Role.of(client.headers["x-role"])), maximum=70)
    found = {address: problems for address, text in visited.items() if (problems := faults(text))}
    assert found == {}
    return visited


def test_every_page_renders_on_an_empty_app() -> None:
    with FlowStone.for_testing([]) as flow:
        check_all(visitor(flow), flow)
        check_all(visitor(flow, role="viewer"), flow)


def test_every_page_renders_with_hostile_names(hostile_flow: FlowStone) -> None:
    for address, text in check_all(visitor(hostile_flow), hostile_flow).items():
        assert "<script>alert" not in text, address
        assert "<b>bold" not in text, address
        assert "60481729" not in Document(text).all("h1")[0].words(), "a name is no template"


def test_every_page_renders_behind_a_prefix(hostile_flow: FlowStone) -> None:
    for address, text in crawl(visitor(hostile_flow, prefix="/ops"), ["/ops/about", "/ops/"], maximum=12).items():
        assert faults(text) == [], address
        outside = [link for link in Document(text).links() if not link.startswith("/ops")]
        assert outside == [], f"{address} leads out of the prefix"


def test_what_a_viewer_may_not_do_is_not_shown(hostile_flow: FlowStone) -> None:
    client = visitor(hostile_flow, role="viewer")
    for address, text in crawl(client, addresses(hostile_flow, Role.VIEWER), maximum=40).items():
        forms = [one for one in Document(text).all("form") if one.attributes.get("method") == "post"]
        targets = {one.attributes["action"] for one in forms} - {"/preferences", "/logout"}
        assert targets == set(), f"{address} offers a viewer {targets}"


def test_every_page_renders_on_postgresql(database_url: str) -> None:
    with hostile.make_flow(database_url) as flow:
        hostile.fill(flow)
        check_all(visitor(flow), flow)
        hostile.settle(flow)
