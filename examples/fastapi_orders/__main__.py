"""Shows the whole: a database, a worker, the shop, two orders. `python -m fastapi_orders`."""

from __future__ import annotations

import tempfile

from fastapi.testclient import TestClient

from fastapi_orders.assets import build
from fastapi_orders.shop import create_app
from flowstone import Settings
from flowstone.stores.postgres.store import PostgresStore
from flowstone.testing.workers import run_to_completion


def main(database_url: str) -> None:
    """Place an order that is good and one that is not, and read the invoice."""
    with build(database_url) as flow:
        store = flow.parts.store
        assert isinstance(store, PostgresStore)
        with TestClient(create_app(store.database.dsn)) as shop:
            good = shop.post("/orders", json={"customer": "Ann", "item": "tea", "cents": 1200})
            print("ordered:", good.status_code, good.json())
            bad = shop.post("/orders", json={"customer": "Bob", "item": "air", "cents": 0})
            print("refused:", bad.status_code, bad.json()["detail"])
            address = f"/orders/{good.json()['order']}/invoice"
            print("before a worker came:", shop.get(address).status_code)
            run_to_completion(flow)
            print("invoice:", shop.get(address).json())
        print("runs:", len(flow.runs.latest()))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        main(Settings.load().database_url or f"embedded:{directory}")
