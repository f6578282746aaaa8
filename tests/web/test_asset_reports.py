"""What people reported about asset pages, versions and wiping elsewhere, tried on ours; each names the report."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from tests.web.conftest import by_header
from tests.web.markup import Document, faults

from flowstone import DynamicPartitions, FlowStone, StaticPartitions, asset
from flowstone.core.state import State
from flowstone.core.step import NewRun, NewStep
from flowstone.io import FilesystemIO
from flowstone.web.application import create_app

KEYS = StaticPartitions(["zebra", "ant", "mole"])


class Shop:
    """An app with a page."""

    def __init__(self, directory: Path) -> None:
        numbers = count(1)
        self.customers = DynamicPartitions("customers")

        @asset(partitions=KEYS, io="files")
        def prices(context: Any) -> int:
            context.metadata["rows"] = next(numbers)
            return 1

        @asset
        def source() -> int:
            return next(numbers)

        @asset
        def total(source: int) -> int:
            return source

        @asset(partitions=self.customers, io="files")
        def profile() -> str:
            return "Ann Smith"

        files = FilesystemIO(directory, name="files")
        self.flow = FlowStone.for_testing([prices, source, total, profile], io={"files": files})
        headers = {"sec-fetch-site": "same-origin", "x-role": "admin"}
        self.client = TestClient(
            create_app(self.flow, identify=by_header), base_url="http://localhost", headers=headers
        )

    def page(self, path: str, **query: Any) -> str:
        answer = self.client.get(path, params=query)
        assert answer.status_code == 200, answer.text[:500]
        assert faults(answer.text) == []
        return Document(answer.text).all("main")[0].words()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    found = Shop(tmp_path)
    yield found
    found.flow.close()


def test_numbers_of_static_partitions_are_plotted(shop: Shop) -> None:
    """dagster#12478, #24600: no plots for partitions that are no times, or while the newest one is missing."""
    for key in ("zebra", "ant"):
        shop.flow.materialize("prices", partition=key)
    (series,) = shop.flow.insights.asset_history("prices").numbers
    assert [(one.partition, one.value) for one in series.points] == [("zebra", 1.0), ("ant", 2.0)]
    assert "rows" in shop.page("/asset", name="prices", tab="numbers")


def test_wiping_deletes_the_data_and_what_is_read_afterwards(shop: Shop, tmp_path: Path) -> None:
    """dagster#15526, #14749, #15806, #25674: wiping left files, knew no partitions, was ignored."""
    shop.flow.partitions.add("customers", ["ann", "bob"])
    for key in ("ann", "bob"):
        shop.flow.materialize("profile", partition=key)
    shop.flow.versions.erase("profile", partition="ann")
    assert len([one for one in tmp_path.rglob("*") if one.is_file()]) == 1
    assert not shop.flow.exists("profile", partition="ann")
    assert shop.flow.exists("profile", partition="bob")
    (gone,) = shop.flow.history("profile", partition="ann")
    assert gone.stored is None
    assert "Smith" not in shop.page("/partition", asset="profile", partition="ann")
    again = shop.flow.materialize("profile", partition="ann")
    assert again.state is State.COMPLETED, "it is computed anew, not reused"


def test_inputs_are_those_that_were_read(shop: Shop) -> None:
    """dagster#14001, #21436, #14883: the page showed the next version of an input, not the one that was read."""
    shop.flow.materialize_all("total")
    read = shop.flow.history("source")[0].step_id
    shop.flow.materialize("source", force=True)
    newer = shop.flow.history("source")[0].step_id
    version = shop.flow.insights.version(shop.flow.history("total")[0].step_id)
    assert [(one.version, one.in_use) for one in version.reads] == [(read, newer)]
    assert f"now {newer}" in shop.page("/partition", asset="total")


def test_stale_ends_with_the_next_commit(shop: Shop) -> None:
    """dagster#19823: "X has a new data version" stayed for ever."""
    shop.flow.materialize_all("total")
    shop.flow.materialize("source", force=True)
    assert "stale" in shop.page("/asset", name="total")
    shop.flow.materialize("total", force=True)
    assert shop.flow.insights.asset("total").state == "current"


def test_a_cancelled_repetition_does_not_make_a_version_fail(shop: Shop) -> None:
    """dagster#21442: an accidental second run, cancelled, left the partition red."""
    done = shop.flow.materialize("source")
    run = NewRun(id="again", kind="test", selection="source", executor="sync", created_at=done.finished_at)  # type: ignore[arg-type]
    (step,) = shop.flow.parts.store.ledger.open_run(run, [NewStep("source", "", forced=True)])  # type: ignore[arg-type]
    assert shop.flow.insights.asset("source").state == "active"
    shop.flow.parts.store.ledger.request_cancel(step.id)
    assert shop.flow.insights.asset("source").state == "current"
    assert "in use" in shop.page("/partition", asset="source")


def test_counts_are_never_negative(shop: Shop) -> None:
    """dagster#14227: -3 missing partitions after the definition had changed."""
    for key in ("zebra", "ant", "mole"):
        shop.flow.materialize("prices", partition=key)
    shop.flow.parts.graph["prices"].partitions = StaticPartitions(["zebra"])
    found = shop.flow.insights.asset("prices")
    assert all(number >= 0 for _, number in found.counts)
    shop.page("/asset", name="prices")
    shop.page("/asset", name="prices", tab="partitions")


def test_an_input_without_a_version_is_named(shop: Shop) -> None:
    """dagster#14006: "new materialization" of an input that had none at all."""
    shop.flow.materialize_all("total")
    shop.flow.invalidate("source")
    assert "input source was invalidated" in shop.page("/asset", name="total")
