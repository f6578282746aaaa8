"""Tests of the shop, with a real PostgreSQL of the test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from fastapi_orders.assets import build
from fastapi_orders.shop import create_app
from flowstone import FlowStone
from flowstone.testing.workers import run_to_completion


@pytest.fixture
def flow(flowstone_database_url: str) -> Iterator[FlowStone]:
    with build(flowstone_database_url) as flow:
        yield flow


@pytest.fixture
def shop(flowstone_database_url: str) -> Iterator[TestClient]:
    with TestClient(create_app(flowstone_database_url)) as client:
        yield client


def test_an_order_and_its_invoice(flow: FlowStone, shop: TestClient) -> None:
    placed = shop.post("/orders", json={"customer": "Ann", "item": "tea", "cents": 1000, "currency": "USD"}).json()
    address = f"/orders/{placed['order']}/invoice"
    assert shop.get(address).status_code == 202
    run_to_completion(flow)
    assert shop.get(address).json() == {
        "number": f"R-{placed['order']:06d}",
        "customer": "Ann",
        "net": 1000,
        "tax": 190,
        "currency": "USD",
    }


def test_a_refused_order_leaves_no_run(flow: FlowStone, shop: TestClient) -> None:
    assert shop.post("/orders", json={"customer": "Bob", "item": "air", "cents": 0}).status_code == 422
    assert flow.runs.latest() == []
    assert shop.get("/orders/1/invoice").status_code == 404
