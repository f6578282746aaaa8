"""A web shop places work inside its own transactions: an order and its invoice exist together, or neither does.

With connections that are awaited: `await flow.aio.schedule(..., connection=connection)`.
"""

import os
import tempfile
from dataclasses import dataclass
from typing import Any

import psycopg

from flowstone import AnyPartitions, FlowStone, asset
from flowstone.core.job import Job
from flowstone.stores.postgres.store import PostgresStore


@dataclass
class Invoice:
    currency: str = "EUR"


@asset(partitions=AnyPartitions(int), config=Invoice)
def invoice(context: Any) -> str:
    """A worker makes it, as soon as the order is committed."""
    return f"invoice {context.partition} in {context.config.currency}"


def place_order(flow: FlowStone, connection: psycopg.Connection, item: str) -> Job:
    """What `POST /orders` does."""
    row = connection.execute("INSERT INTO shop (item) VALUES (%s) RETURNING id", [item]).fetchone()
    assert row is not None
    message: dict[str, Any] = {"config": {"currency": "USD"}, "metadata": {"item": item}}
    job = flow.schedule("invoice", partition=row[0], connection=connection, **message)
    if item == "nothing":
        raise ValueError("an order of nothing")
    return job


def main(database_url: str) -> None:
    with FlowStone([invoice], database_url=database_url) as flow:
        store = flow.parts.store
        assert isinstance(store, PostgresStore)
        with psycopg.connect(store.database.dsn, autocommit=True) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS shop (id bigserial PRIMARY KEY, item text)")
            with connection.transaction():
                job = place_order(flow, connection, "tea")
                print("before the commit:", flow.job_status(job).value)
            print("after the commit:", flow.job_status(job).value, job.metadata)
            try:
                with connection.transaction():
                    place_order(flow, connection, "nothing")
            except ValueError as error:
                print("rolled back:", error)
            print("runs:", len(flow.runs.latest()))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        main(os.environ.get("FLOWSTONE_DATABASE_URL") or f"embedded:{directory}")
