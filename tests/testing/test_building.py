from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest

from flowstone import AssetContext, DailyPartitions, asset
from flowstone.core.context import CancellationToken
from flowstone.errors import OptionsError, PartitionError, ResourceError, StepCancelledError
from flowstone.testing import build_context


@dataclass
class Limit:
    rows: int = 10


@asset(partitions=DailyPartitions("2024-01-01"), requires=["shop"], config=Limit)
def sales(context: AssetContext) -> tuple[Any, ...]:
    context.metadata["rows"] = 1
    context.cancellation.raise_if_cancelled("sales")
    return context.partition, context.resources.shop, context.config.rows, context.attempt, context.run.tags


@asset
def plain(context: AssetContext) -> str:
    return context.key


def test_a_function_gets_what_a_run_would_give_it() -> None:
    """dagster#10586, dagster#19407: with its partition and its declaration, also when called directly."""
    context = build_context(
        sales, partition="2024-02-01", resources={"shop": "kiosk"}, config={"rows": 3}, attempt=2, tags=["demo"]
    )
    assert sales(context) == (date(2024, 2, 1), "kiosk", 3, 2, ("demo",))
    assert context.metadata == {"rows": 1}
    assert context.asset is sales
    assert context.key == "d:2024-02-01"
    assert plain(build_context(plain)) == ""


def test_defaults_of_the_config_and_an_object_of_its_type() -> None:
    day = date(2024, 2, 1)
    assert build_context(sales, partition=day, resources={"shop": 1}).config == Limit()
    assert build_context(sales, partition=day, resources={"shop": 1}, config=Limit(5)).config == Limit(5)


def test_a_resource_is_used_as_it_is_although_it_can_be_called() -> None:
    """dagster#18757: a mock that is given as a resource is not called, or entered, to make one."""

    def shop() -> str:
        return "never called"

    assert build_context(sales, partition=date(2024, 2, 1), resources={"shop": shop}).resources.shop is shop


def test_a_stop_is_seen() -> None:
    token = CancellationToken()
    token.cancel("test")
    context = build_context(sales, partition=date(2024, 2, 1), resources={"shop": 1}, cancellation=token)
    with pytest.raises(StepCancelledError):
        sales(context)


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({}, PartitionError, "say which partition"),
        ({"partition": date(2023, 1, 1)}, PartitionError, "2023-01-01"),
        ({"partition": date(2024, 2, 1)}, ResourceError, "requires 'shop'"),
        ({"partition": date(2024, 2, 1), "resources": {"shap": 1}}, ResourceError, "Did you mean 'shop'"),
        ({"partition": date(2024, 2, 1), "resources": {"shop": 1}, "config": {"row": 1}}, OptionsError, "row"),
        ({"partition": date(2024, 2, 1), "resources": {"shop": 1}, "attempt": 0}, OptionsError, "above 0"),
    ],
)
def test_what_a_run_would_refuse_is_refused(given: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        build_context(sales, **given)


def test_config_where_none_is_taken_and_what_is_no_asset() -> None:
    with pytest.raises(OptionsError, match="takes no config"):
        build_context(plain, config={"rows": 1})
    with pytest.raises(OptionsError, match="as @asset makes them"):
        build_context(lambda context: 1)  # type: ignore[arg-type]
