"""What the project promises: functions alone, the graph, the nights, and the queue."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from shop_numbers.customers import best_customers
from shop_numbers.flow import build
from shop_numbers.orders import amounts_are_possible, orders
from shop_numbers.resources import Rates
from shop_numbers.sample import write
from shop_numbers.settings import ShopSettings

from flowstone.testing import build_context, run_to_completion

DAY = date(2024, 3, 10)


@pytest.fixture
def settings(tmp_path: Path) -> ShopSettings:
    """Ten days of orders in a directory of this test's own."""
    write(tmp_path, [DAY - timedelta(days=number) for number in range(10)])
    return ShopSettings(orders=tmp_path)


def test_orders_are_cleaned_and_converted() -> None:
    context = build_context(orders, partition=DAY, resources={"rates": Rates("EUR")})
    paid = {"id": "1", "customer": "ann", "amount": 100.0, "currency": "CHF", "state": "paid"}
    assert orders(context, [paid, paid, {**paid, "id": "2", "state": "cancelled"}]) == [
        {"id": "1", "customer": "ann", "amount": 105.0}
    ]
    assert context.metadata == {"left_out": 2}


def test_how_many_are_best_is_config() -> None:
    week = {DAY: [{"customer": name, "amount": amount} for name, amount in [("a", 1.0), ("b", 2.0), ("a", 4.0)]]}
    assert best_customers(build_context(best_customers, partition=DAY), week) == [("a", 5.0), ("b", 2.0)]
    assert best_customers(build_context(best_customers, partition=DAY, config={"best": 1}), week) == [("a", 5.0)]


def test_a_negative_amount_is_never_published() -> None:
    assert not amounts_are_possible([{"id": "1", "amount": -1.0}]).passed


def test_the_whole_graph(flow: Any, settings: ShopSettings) -> None:
    app = build(flow, settings=settings)
    result = app.materialize_all("letter", partition=DAY)
    assert result.ok
    assert result.value[DAY].startswith("Dear friends of 2024-03-10\n")
    inputs = app.lineage.upstream("letter", partition=DAY)
    assert {one.asset for one in inputs} == {"letter", "best_customers", "orders", "raw_orders"}


def test_what_does_not_answer_is_tried_again(flow: Any, settings: ShopSettings, flowstone_faults: Any) -> None:
    flowstone_faults.fail("raw_orders", TimeoutError("no answer"), partition=DAY)
    app = build(flow, settings=settings)
    done = app.materialize("raw_orders", partition=DAY, executor_opts={"retry": True})
    assert (done.attempt, len(done.value)) == (2, 8)


def test_nights(flow: Any, settings: ShopSettings, flowstone_clock: Any) -> None:
    flowstone_clock.move_to("2024-03-10T22:00")
    app = build(flow, settings=settings)
    app.sensors.pause("new_orders")
    (tick,) = flowstone_clock.advance(days=1)
    assert f"{tick.at:%H:%M}" == "05:00"  # six in Berlin
    assert app.exists("letter", partition=DAY)


def test_files_are_taken_as_they_come(flow: Any, settings: ShopSettings, flowstone_clock: Any) -> None:
    flowstone_clock.move_to("2024-03-11T08:00")
    app = build(flow, settings=settings)
    app.schedules.pause("nightly")
    (tick,) = flowstone_clock.tick()
    assert len(tick.run_ids) == 10
    write(settings.orders, [DAY + timedelta(days=1)])
    flowstone_clock.advance(days=1)
    assert app.exists("orders", partition=DAY + timedelta(days=1))


def test_on_the_queue(flow_postgres: Any, settings: ShopSettings) -> None:
    app = build(flow_postgres, settings=settings)
    run = app.materialize_all("letter", partition=DAY, executor="oban", wait=False)
    result = run_to_completion(app, run)
    assert result is not None
    assert result.ok
