"""What is recorded as the reason of a step that never started is read back."""

from __future__ import annotations

import pytest

from flowstone import FlowStone, MonthlyPartitions, Skip, StaticPartitions, asset
from flowstone.core.causes import ended_input, readable_reason
from flowstone.core.state import State


@pytest.mark.parametrize(
    ("reason", "assets", "target"),
    [
        ("input a ended as failed", {"a"}, ("a", "")),
        ("input a b ended as failed", {"a", "a b"}, ("a b", "")),
        ("input a s:x y ended as failed", {"a"}, ("a", "s:x y")),
        ("input a ended as failed ended as failed", {"a ended as failed"}, ("a ended as failed", "")),
        ("input gone d:2024-01-01 ended as failed", set(), ("gone", "d:2024-01-01")),
        ("input my gone d:2024-01-01 ended as failed", set(), ("my gone", "d:2024-01-01")),
    ],
)
def test_the_input_is_found(reason: str, assets: set[str], target: tuple[str, str]) -> None:
    assert ended_input(reason, assets) == (target, State.FAILED)


@pytest.mark.parametrize(
    "reason", [None, "", "input  ended as failed", "input a ended as odd", "input b ended as failed"]
)
def test_what_names_no_input_stays_as_it_is(reason: str | None) -> None:
    assert ended_input(reason, {"a"}) is None
    assert readable_reason(reason, {"a"}, lambda name, key: name) == (reason or "")


def test_why_leads_with_the_root_cause_however_far_upstream_it_is() -> None:
    """Nobody reads a chain of twenty upstream failures backwards (dagster#12741, airflow's "upstream_failed")."""
    months = MonthlyPartitions("2024-01", end="2024-03")

    @asset(partitions=months)
    def first() -> int:
        raise ValueError("no [prices] today\nand more")

    chain = [first]
    for number in range(20):
        chain.append(
            asset(name=f"step {number}", partitions=months, deps={"one": chain[-1].name})(lambda one: one)
        )

    flow = FlowStone.for_testing(chain)
    assert flow.backfill('+"step 19"', partitions=["2024-01"]).failed == 21
    reasons = flow.why("step 19", "2024-01")
    assert reasons[0].startswith(
        "first [2024-01] ended as failed: ValueError: no [prices] today (`flowstone status "
    )
    assert reasons[1] == "it is over: upstream_failed (input step 18 [2024-01] ended as upstream_failed)"


def test_an_input_that_was_cancelled_or_skipped_is_the_cause() -> None:
    @asset(partitions=StaticPartitions(["eu"]))
    def source() -> object:
        return Skip("closed on Sundays")

    @asset(partitions=StaticPartitions(["eu"]))
    def below(source: object) -> object:
        return source

    flow = FlowStone.for_testing([source, below])
    flow.materialize_all("+below", partition="eu")
    assert flow.why("below", "eu")[0].startswith("source [eu] ended as skipped: closed on Sundays")
