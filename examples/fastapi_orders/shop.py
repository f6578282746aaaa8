"""The web shop: `POST /orders` writes the order and the run of its invoice in one transaction."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Response
from psycopg_pool import AsyncConnectionPool
from pydantic import BaseModel, Field

from fastapi_orders.assets import SCHEMA, build
from flowstone import FlowStone, Settings, State
from flowstone.errors import ConfigurationError, NotMaterializedError


class Order(BaseModel):
    """What a customer sends."""

    customer: Annotated[str, Field(min_length=1)]
    item: Annotated[str, Field(min_length=1)]
    cents: int
    currency: str = "EUR"


def create_app(database_url: str) -> FastAPI:
    """Make the application of the shop.

    Args:
        database_url: PostgreSQL, for the orders and for FlowStone.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        with build(database_url) as flow:
            async with AsyncConnectionPool(database_url, open=False, max_size=10) as pool:
                async with pool.connection() as connection:
                    await connection.execute(SCHEMA)
                app.state.flow, app.state.pool = flow, pool
                yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/orders", status_code=201)
    async def place(order: Order) -> dict[str, Any]:
        """Write an order and ask for its invoice."""
        flow: FlowStone = app.state.flow
        async with app.state.pool.connection() as connection, connection.transaction():
            cursor = await connection.execute(
                "INSERT INTO orders (customer, item, cents) VALUES (%s, %s, %s) RETURNING id",
                [order.customer, order.item, max(order.cents, 1)],
            )
            (number,) = await cursor.fetchone()
            job = await flow.aio.schedule(
                "invoice",
                partition=number,
                config={"currency": order.currency},
                metadata={"customer": order.customer},
                connection=connection,
            )
            if order.cents <= 0:  # found late, as such things are: the order and the run vanish together
                raise HTTPException(422, "An order costs something.")
        return {"order": number, "job": job.id}

    @app.get("/orders/{number}/invoice")
    async def read_invoice(number: int, response: Response) -> Any:
        """Return the invoice, or 202 while it is being made."""
        flow: FlowStone = app.state.flow
        try:
            return await flow.aio.load("invoice", partition=number)
        except NotMaterializedError:
            async with app.state.pool.connection() as connection:
                cursor = await connection.execute("SELECT 1 FROM orders WHERE id = %s", [number])
                if await cursor.fetchone() is None:
                    raise HTTPException(404, "There is no such order.") from None
            response.status_code = 202
            return {"state": State.PENDING}

    return app


def from_environment() -> FastAPI:
    """Make the application for `uvicorn --factory fastapi_orders.shop:from_environment`."""
    database_url = Settings.load().database_url
    if database_url is None:
        raise ConfigurationError("Set FLOWSTONE_DATABASE_URL: orders and runs lie in one database.")
    return create_app(database_url)
