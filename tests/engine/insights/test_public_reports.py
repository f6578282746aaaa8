"""What went wrong with such pages elsewhere, tried here: each test names the report."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.stores.conformance.case import Scene

from flowstone import FlowStone, StaticPartitions, asset
from flowstone.app.insights import InsightsView
from flowstone.core.asset import Asset
from flowstone.core.context import AssetContext

FAILING: set[str] = set()


def orders(*keys: str) -> Asset:
    @asset(name="orders", partitions=StaticPartitions(keys))
    def made(context: AssetContext) -> str:
        if context.partition in FAILING:
            raise ValueError(f"no {context.partition}")
        return str(context.partition)

    return made


@asset(partitions=StaticPartitions(["eu", "us"]))
def totals(context: AssetContext, orders: str) -> str:
    raise ValueError("no totals")


@pytest.fixture
def flow() -> Iterator[FlowStone]:
    FAILING.clear()
    with FlowStone.for_testing([orders("eu", "us"), totals]) as found:
        yield found
    FAILING.clear()


def codes(flow: FlowStone, name: str = "orders") -> str:
    return flow.insights.partitions(name).states.codes


def fail(flow: FlowStone, partition: str) -> None:
    FAILING.add(partition)
    with pytest.raises(ValueError, match="no "):
        flow.materialize("orders", partition=partition, force=True)
    FAILING.discard(partition)


def test_what_was_committed_in_a_run_that_failed_elsewhere_is_committed(flow: FlowStone) -> None:
    """dagster#21478: partitions made by runs with failures in other steps were shown as missing."""
    run = flow.backfill("+totals")
    assert run.state.value == "failed"
    assert (codes(flow), codes(flow, "totals")) == ("2c", "2f")


def test_what_failed_and_was_made_again_does_not_fail(flow: FlowStone) -> None:
    """dagster#14067: partitions whose retry succeeded stayed failed in the list."""
    fail(flow, "eu")
    assert codes(flow) == "fn"
    flow.materialize("orders", partition="eu")
    assert codes(flow) == "cn"
    assert flow.insights.failing() == ()


def test_what_was_made_and_failed_again_fails(flow: FlowStone) -> None:
    """dagster#10161: the bar stayed green when the last materialization had failed."""
    flow.backfill("orders")
    fail(flow, "us")
    assert codes(flow) == "cf"
    (one,) = [one for one in flow.insights.assets() if one.name == "orders"]
    assert (one.total, one.committed, one.missing, one.failed) == (2, 2, 0, 1)


def test_what_was_cancelled_changes_nothing(flow: FlowStone) -> None:
    """dagster#21442: a second materialization that was cancelled made a committed partition look failed."""
    flow.materialize("orders", partition="eu")

    scene = Scene(flow.parts.store)
    placed = scene.one("orders", "s:eu", run_id="again", forced=True)
    assert codes(flow) == "an"
    flow.parts.store.ledger.request_cancel(placed.id)
    assert codes(flow) == "cn"


def test_numbers_of_an_older_declaration_are_never_negative() -> None:
    """dagster#14227, #18369: fewer partitions than before gave negative missing ones and wrong sums."""
    store = FlowStone.for_testing([orders("eu", "us", "asia")])
    store.backfill("orders")
    smaller = FlowStone.for_testing([orders("eu", "africa")])
    smaller.parts.store = store.parts.store
    insights = InsightsView(smaller.parts)
    states = insights.partitions("orders").states
    assert (states.codes, states.undeclared) == ("cn", 2)
    assert sum(states.counts.values()) == states.total == 2
    (one,) = insights.assets()
    assert one.missing is not None
    assert one.missing >= 0
    assert one.committed <= (one.total or 0)


def test_made_and_failed_are_never_more_than_all(flow: FlowStone) -> None:
    """dagster#12570: materialized and failed partitions together were more than there are."""
    flow.backfill("orders")
    fail(flow, "eu")
    fail(flow, "us")
    states = flow.insights.partitions("orders").states
    assert states.counts["failed"] == states.total == 2
    assert sum(states.counts.values()) == 2
