"""The pages of an asset, a partition and a version; what is done there, and by whom."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any
from urllib.parse import quote_plus

import pytest
from starlette.testclient import TestClient
from tests.web.conftest import by_header
from tests.web.markup import Document, faults

from flowstone import DynamicPartitions, FlowStone, MultiPartitions, StaticPartitions, asset
from flowstone.config import Settings
from flowstone.web.application import create_app
from flowstone.web.registry import Person, Role

REGIONS = StaticPartitions(["eu", "us", "<b>x</b>", "a/b?c=d"])

type Visit = Callable[..., Any]


@pytest.fixture
def flow() -> Iterator[FlowStone]:
    numbers = count(1)

    @asset(partitions=REGIONS)
    def orders(context: Any) -> dict[str, Any]:
        number = next(numbers)
        context.metadata["rows"] = number
        if context.partition == "us":
            raise ValueError("no <i>orders</i> today")
        return {"number": number, "password": "hunter2", "note": "<script>alert(1)</script>"}

    @asset(partitions=REGIONS)
    def report(orders: dict[str, Any]) -> int:
        return int(orders["number"]) * 100

    @asset
    def total() -> int:
        """All of it."""
        return next(numbers)

    settings = Settings(executor="sync", previews=True)
    with FlowStone.for_testing([orders, report, total], settings=settings) as opened:
        yield opened


@pytest.fixture
def visit(flow: FlowStone) -> Visit:
    """Return a page as a role, or do something there."""

    def visit(path: str, role: str = "viewer", *, form: dict[str, Any] | None = None, **query: Any) -> Any:
        headers = {"sec-fetch-site": "same-origin", "x-role": role}
        app = create_app(flow, identify=by_header)
        client = TestClient(app, base_url="http://localhost", headers=headers, follow_redirects=False)
        if form is not None:
            return client.post(path, data=form)
        return client.get(path, params={name: one for name, one in query.items() if one is not None})

    return visit


def words(answer: Any) -> str:
    assert answer.status_code == 200, answer.text[:2000]
    assert faults(answer.text) == []
    return Document(answer.text).all("main")[0].words()


def test_an_asset_says_whether_it_is_current_and_why_not(flow: FlowStone, visit: Visit) -> None:
    assert "Nothing is in use" in words(visit("/asset", name="total"))
    flow.materialize("total")
    shown = words(visit("/asset", name="total"))
    assert "A version is in use, made from the inputs and the code of now." in shown
    assert "All of it." in shown
    assert "test_asset_pages.py" in shown
    flow.invalidate("total")
    assert "invalidated" in words(visit("/asset", name="total"))
    assert visit("/asset", name="nope").status_code == 404
    assert visit("/asset").status_code == 400
    assert visit("/asset", name="total", tab="nope").status_code == 400


def test_every_section_of_an_asset(flow: FlowStone, visit: Visit) -> None:
    flow.materialize_all("report", partition="eu")
    flow.materialize_all("report", partition="<b>x</b>")
    with pytest.raises(ValueError, match="no"):
        flow.materialize("orders", partition="us")
    for tab in ("overview", "partitions", "history", "numbers", "checks", "automation", "lineage"):
        for name in ("orders", "report", "total"):
            text = visit("/asset", name=name, tab=tab)
            words(text)
            assert "<b>x</b>" not in text.text
            assert "<i>" not in text.text
    overview = words(visit("/asset", name="orders"))
    assert "1 failed" in overview
    assert "no <i>orders</i> today" in overview
    assert "rows" in words(visit("/asset", name="orders", tab="numbers"))
    twin = visit("/api/v1/asset", name="orders", tab="numbers").json()
    assert twin["history"]["numbers"][0]["name"] == "rows"
    assert "No condition requests it." in words(visit("/asset", name="orders", tab="automation"))


def test_a_range_of_partitions_is_chosen_by_text(flow: FlowStone, visit: Visit) -> None:
    """dagster#12546: what was chosen is in the URL."""
    for region in ("eu", "a/b?c=d"):
        flow.materialize("orders", partition=region)
    answer = visit("/asset", name="orders", tab="partitions", first="eu", last="a/b?c=d", role="admin")
    shown = words(answer)
    assert "eu to a/b?c=d: 4 partitions" in shown
    assert "flowstone backfill orders --from eu --to 'a/b?c=d'" in shown
    links = " ".join(Document(answer.text).links())
    assert "first=eu&last=a%2Fb%3Fc%3Dd" in links or "Materialize" not in shown
    wrong = words(visit("/asset", name="orders", tab="partitions", first="nope"))
    assert "nope" in wrong
    confirm = visit("/asset/invalidate", role="operator", name="orders", first="eu", last="a/b?c=d")
    assert "the versions of 4 partitions" in words(confirm)
    done = visit("/asset/invalidate", role="operator", form={"name": "orders", "first": "eu", "last": "a/b?c=d"})
    assert done.status_code == 303
    assert not flow.exists("orders", partition="eu")
    assert not flow.exists("orders", partition="a/b?c=d")


def test_a_bad_publish_is_undone_from_the_page(flow: FlowStone, visit: Visit) -> None:
    first = flow.materialize("total")
    second = flow.materialize("total", force=True)
    page = visit("/partition", asset="total", version=first.step_id, role="operator")
    assert f"Restore version {first.step_id}" in words(page)
    assert f"flowstone versions restore total {first.step_id}" in page.text
    assert "Restore version" not in words(visit("/partition", asset="total", version=first.step_id))
    confirm = visit("/partition/restore", role="operator", version=first.step_id)
    assert f"in place of version {second.step_id}" in words(confirm)
    form = {"version": first.step_id, "expect": second.step_id, "reason": "bad <feed>"}
    assert visit("/partition/restore", role="viewer", form=form).status_code == 403
    assert visit("/partition/restore", role="operator", form=form).status_code == 303
    shown = words(visit("/partition", asset="total"))
    assert "restored ⟲ by an operator" in shown or "⟲ restored by an operator" in shown
    assert "bad <feed>" in shown
    late = visit("/partition/restore", role="operator", form=form | {"version": second.step_id})
    assert late.status_code == 409, "another version is in use than the person saw"
    (line, *_) = flow.audit.latest(action="versions.restored")
    assert (line.actor, line.via, line.details["reason"]) == ("an operator", "web", "bad <feed>")


def test_a_version_shows_what_it_was_made_from(flow: FlowStone, visit: Visit) -> None:
    """dagster#14883."""
    flow.materialize_all("report", partition="eu")
    read = flow.history("orders", partition="eu")[0].step_id
    flow.materialize("orders", partition="eu", force=True)
    shown = words(visit("/partition", asset="report", partition="eu"))
    assert "would come out differently now" in shown
    assert f"now {flow.history('orders', partition='eu')[0].step_id}" in shown
    other = visit("/partition", asset="report", partition="eu", version=read)
    assert other.status_code == 404, "a version of another partition"
    assert visit("/partition", asset="report", partition="asia").status_code in (404, 422)
    assert visit("/partition", asset="report", partition="us").status_code == 200
    assert visit("/partition", asset="report").status_code == 422


def test_erasing_needs_an_administrator_who_types_the_name(flow: FlowStone, visit: Visit) -> None:
    flow.materialize_all("report", partition="eu")
    form = {"name": "orders", "first": "eu", "typed": "orders", "reason": "request 4711"}
    assert visit("/asset/erase", role="operator", form=form).status_code == 403
    confirm = visit("/asset/erase", role="admin", name="orders", first="eu")
    assert "1 values" in words(confirm)
    assert "Type orders to confirm" in words(confirm)
    assert visit("/asset/erase", role="admin", form=form | {"typed": "order"}).status_code == 422
    assert flow.exists("orders", partition="eu")
    assert visit("/asset/erase", role="admin", form=form).status_code == 303
    shown = words(visit("/partition", asset="orders", partition="eu"))
    assert "It was erased" in shown
    assert "erased by an admin" in shown
    (line, *_) = flow.audit.latest(action="versions.erased")
    assert line.details["reason"] == "request 4711"


def test_values_are_shown_to_operators_where_that_is_switched_on(flow: FlowStone, visit: Visit) -> None:
    flow.materialize("orders", partition="eu")
    number = flow.history("orders", partition="eu")[0].step_id
    assert visit("/partition/preview", version=number).status_code == 403
    answer = visit("/partition/preview", version=number, role="operator")
    assert "'number': 1" in words(answer)
    assert "hunter2" not in answer.text
    assert "<script>alert" not in answer.text
    assert visit("/partition/preview", version=99999, role="operator").status_code == 404
    flow.versions.erase("orders", partition="eu")
    assert "it was erased" in words(visit("/partition/preview", version=number, role="operator"))


def test_values_are_not_shown_by_default() -> None:
    @asset
    def one() -> int:
        return 1

    with FlowStone.for_testing([one]) as flow:
        done = flow.materialize("one")
        headers = {"sec-fetch-site": "same-origin", "x-role": "admin"}
        app = create_app(flow, identify=by_header)
        client = TestClient(app, base_url="http://localhost", headers=headers)
        assert client.get("/partition/preview", params={"version": done.step_id}).status_code == 403
        assert "Show the value" not in client.get("/partition", params={"asset": "one"}).text


def test_what_a_run_published_is_undone_from_the_page(flow: FlowStone, visit: Visit) -> None:
    flow.materialize("total")
    bad = flow.materialize_all("total", force=True)
    assert "1 earlier versions are in use again" in words(visit("/run/undo", role="operator", run=bad.run_id))
    assert visit("/run/undo", role="operator", form={"run": bad.run_id}).status_code == 303
    assert flow.load("total") == 1
    assert visit("/run/undo", role="operator", form={"run": "nope"}).status_code == 404


def test_removed_keys_and_assets_still_have_their_pages() -> None:
    customers = DynamicPartitions("customers")

    @asset(partitions=customers)
    def profile() -> int:
        return 1

    with FlowStone.for_testing([profile]) as flow:
        flow.partitions.add("customers", ["ann"])
        flow.materialize("profile", partition="ann")
        flow.partitions.remove("customers", ["ann"])
        headers = {"sec-fetch-site": "same-origin", "x-role": "admin"}
        client = TestClient(create_app(flow, identify=by_header), base_url="http://localhost", headers=headers)
        page = client.get("/partition", params={"asset": "profile", "partition": "ann"})
        assert page.status_code == 200
        assert faults(page.text) == []


def test_cells_of_a_matrix_are_launched_as_they_are_seen() -> None:
    grid = MultiPartitions(
        day=StaticPartitions([f"d{n}" for n in range(12)]), region=StaticPartitions([f"r{n}" for n in range(12)])
    )

    @asset(partitions=grid)
    def cells() -> int:
        return 1

    with FlowStone.for_testing([cells]) as flow:
        dashboard = create_app(flow, identify=lambda request: Person("ann", Role.ADMIN))
        client = TestClient(dashboard, base_url="http://localhost")

        def chosen(first: str, last: str) -> tuple[int, str, bool, str]:
            query = {"name": "cells", "tab": "partitions", "first": first, "last": last}
            found = client.get("/api/v1/asset", params=query).json()["chosen"]
            return found["count"], found["partitions"], found["can_launch"], found["backfill"]

        listed = "d0|r0,d0|r1,d1|r0,d1|r1"
        assert chosen("d0|r0", "d1|r1") == (4, listed, True, f"flowstone backfill cells --partitions '{listed}'")
        assert chosen("d0|r0", "d11|r11") == (144, "", False, "")
        query = {"name": "cells", "tab": "partitions", "first": "d0|r0", "last": "d1|r1"}
        page = client.get("/asset", params=query)
        assert f"partitions={quote_plus(listed)}" in page.text
