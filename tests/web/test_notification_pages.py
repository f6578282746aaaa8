"""The page of notifications, and late data on the page of an asset."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.web.markup import Document, faults
from tests.web.test_every_page import visitor

from flowstone import FlowStone, Notify, asset
from flowstone.core.notification import NotificationState

HOSTILE = "<script>alert(1)</script> {{ 7 * 7 }}"


@asset(fresh_within=0.001)
def orders():
    raise ValueError(HOSTILE)


@pytest.fixture
def flow() -> Iterator[FlowStone]:
    rules = [Notify(to=print, on=["failed", "late"], name=HOSTILE)]
    with FlowStone.for_testing([orders], notify=rules) as flow:
        with pytest.raises(ValueError, match="alert"):
            flow.materialize("orders")
        yield flow


def test_what_could_not_be_sent_and_its_retry(flow: FlowStone) -> None:
    store = flow.parts.store.notifications
    (one,) = store.claim([HOSTILE], lease_seconds=60)
    store.give_up(one, error=f"refused {HOSTILE}")
    client = visitor(flow)
    page = client.get("/notifications").text
    assert faults(page) == []
    words = Document(page).all("body")[0].words()
    assert "1 could not be sent" in words
    assert f"refused {HOSTILE}" in words
    assert client.get("/notifications?state=sent").text.count("refused") == 0
    question = client.get(f"/notifications/retry?id={one.id}").text
    assert "again?" in question
    assert client.post("/notifications/retry", data={"id": str(one.id)}).status_code == 303
    assert [each.state for each in store.newest()] == [NotificationState.PENDING]
    assert client.get("/api/v1/notifications").json()["found"]["pending"] == 1


def test_a_viewer_reads_and_does_nothing(flow: FlowStone) -> None:
    (one,) = flow.notifications.list()
    client = visitor(flow, role="viewer")
    assert client.get("/notifications").status_code == 200
    assert client.post("/notifications/retry", data={"id": str(one.id)}).status_code == 403


def test_late_data_are_on_the_page_of_the_asset(flow: FlowStone) -> None:
    client = visitor(flow)
    assert "late" not in Document(client.get("/asset?name=orders").text).all("body")[0].words().split()
    flow.notifications.deliver()  # as a worker does: since when it has no data is known now
    assert "It has no data since" in client.get("/asset?name=orders").text


def test_late_data_are_on_the_first_page_and_in_the_list(flow: FlowStone) -> None:
    flow.notifications.deliver()
    client = visitor(flow)
    for path in ("/", "/assets"):
        page = client.get(path).text
        assert faults(page) == []
        assert "It has no data since" in Document(page).all("body")[0].words()
    assert "1 asset has late data" in client.get("/").text
    assert "orders is late" in client.get("/notifications").text
    assert client.get("/api/v1/asset?name=orders").json()["freshness"]["state"] == "late"
