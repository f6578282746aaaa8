"""What is made of orders: an invoice for each, made by workers as soon as its order is committed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row

from flowstone import AnyPartitions, AssetContext, FlowStone, RetryPolicy, asset
from flowstone.stores.postgres.store import PostgresStore

SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (
    id bigserial PRIMARY KEY,
    customer text NOT NULL,
    item text NOT NULL,
    cents bigint NOT NULL CHECK (cents > 0)
)
"""


@dataclass
class InvoiceConfig:
    """What the shop says about an invoice when it asks for it."""

    currency: str = "EUR"


@asset(
    partitions=AnyPartitions(int),  # ids of orders, which nobody can list beforehand
    config=InvoiceConfig,
    requires=["shop_url"],
    retry=RetryPolicy(max_attempts=5, backoff_seconds=1),
)
def invoice(context: AssetContext) -> dict[str, Any]:
    """The invoice of an order: a worker reads the order and adds the tax."""
    with psycopg.connect(context.resources["shop_url"]) as connection:
        cursor = connection.cursor(row_factory=dict_row)
        order = cursor.execute("SELECT * FROM orders WHERE id = %s", [context.partition]).fetchone()
    assert order is not None, "the run exists only together with its order"
    return {
        "number": f"R-{order['id']:06d}",
        "customer": order["customer"],
        "net": order["cents"],
        "tax": round(order["cents"] * 0.19),
        "currency": context.config.currency,
    }


def build(database_url: str | None = None) -> FlowStone:
    """Assemble the app; workers load `fastapi_orders.assets:build`, the shop calls it at its start."""

    def shop_url() -> str:
        store = flow.parts.store
        assert isinstance(store, PostgresStore), "orders and runs share a database: set FLOWSTONE_DATABASE_URL"
        return store.database.dsn

    flow = FlowStone([invoice], database_url=database_url, resources={"shop_url": shop_url})
    return flow
