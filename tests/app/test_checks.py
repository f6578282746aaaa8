"""`flow.checks` on the store in memory; the conformance suites hold the rest."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import flowstone
from flowstone import CheckContext, CheckResult, FlowStone, Severity, StaticPartitions, asset, check
from flowstone.errors import (
    CheckFailedError,
    DependencyNotReadyError,
    DuplicateCheckError,
    PartitionError,
    StorageError,
    UnknownAssetError,
    UnknownCheckedAssetError,
    UnknownPartitionError,
)

DATA: dict[str, Any] = {}


@asset(partitions=StaticPartitions(["eu", "us"]))
def orders(context: Any) -> list[int]:
    context.metadata["rows"] = len(DATA[context.partition])
    return list(DATA[context.partition])


@asset
def unchecked() -> int:
    return 1


@check(orders, blocking=True)
def not_empty(orders: list[int]) -> bool:
    return len(orders) > 0


@check(orders, severity="warning")
def enough(context: CheckContext) -> CheckResult:
    rows = context.metadata["rows"]
    assert isinstance(rows, int)
    return CheckResult(rows > 2, metadata={"rows": rows, "partition": context.partition})


@pytest.fixture
def flow() -> FlowStone:
    DATA.update(eu=[1, 2, 3], us=[1])
    return FlowStone.for_testing([orders, unchecked], checks=[not_empty, enough])


def test_results_and_latest(flow: FlowStone) -> None:
    assert flow.checks.declared("orders") == (not_empty, enough)
    assert flow.checks.declared(unchecked) == ()
    flow.backfill("orders")
    assert [(one.partition, one.check, one.passed) for one in flow.checks.latest()] == [
        ("s:eu", "enough", True),
        ("s:eu", "not_empty", True),
        ("s:us", "enough", False),
        ("s:us", "not_empty", True),
    ]
    assert [one.metadata for one in flow.checks.latest(failed=True)] == [{"rows": 1, "partition": "us"}]
    assert flow.checks.latest("orders", partition="eu", failed=True) == []
    assert len(flow.checks.results(orders, partition="us")) == 2
    assert [one.check for one in flow.checks.results("orders", check="enough", limit=1)] == ["enough"]
    assert flow.checks.results("orders", failed=True) == flow.checks.latest(failed=True)
    assert flow.checks.results("unchecked") == []


def test_a_blocked_partition_disturbs_no_other(flow: FlowStone) -> None:
    DATA["us"] = []
    result = flow.backfill("orders")
    assert (result.succeeded, result.failed) == (1, 1)
    assert "'orders' [us] did not pass the blocking check 'not_empty'" in result.errors["orders", "s:us"]
    with pytest.raises(CheckFailedError) as caught:
        flow.materialize("orders", partition="us")
    assert (caught.value.partition, isinstance(caught.value, ValueError)) == ("us", True)


def test_checks_run_again_on_what_is_committed(flow: FlowStone) -> None:
    done = flow.materialize("orders", partition="us")
    DATA["us"] = []
    with pytest.raises(CheckFailedError):
        flow.materialize("orders", partition="us", force=True)
    assert flow.checks.results("orders")[0].blocks
    again = flow.checks.run("orders", partition="us")
    assert [(one.check, one.passed, one.step_id) for one in again] == [
        ("not_empty", True, done.step_id),
        ("enough", False, done.step_id),
    ]
    assert [one.passed for one in flow.history("orders")[0].checks] == [True, False]
    assert flow.load("orders", partition="us") == [1]
    flow.materialize("unchecked")
    assert flow.checks.run("unchecked") == []


def test_a_blocking_check_that_fails_later_unpublishes_nothing() -> None:
    verdict = [True]

    @check(unchecked, blocking=True)
    def moody(unchecked: int) -> bool:
        return verdict[0]

    flow = FlowStone.for_testing([unchecked], checks=[moody])
    flow.materialize("unchecked")
    verdict[0] = False
    (record,) = flow.checks.run("unchecked")
    assert (record.blocks, flow.load("unchecked")) == (True, 1)
    assert not flow.history("unchecked")[0].checks[0].passed


def test_what_cannot_be_checked(flow: FlowStone) -> None:
    with pytest.raises(DependencyNotReadyError):
        flow.checks.run("orders", partition="us")
    with pytest.raises(PartitionError, match="say which partition"):
        flow.checks.run("orders")
    with pytest.raises(UnknownPartitionError):
        flow.checks.results("orders", partition="mars")
    for ask in (flow.checks.results, flow.checks.latest, flow.checks.run, flow.checks.declared):
        with pytest.raises(UnknownAssetError, match="Did you mean 'orders'"):
            ask("ordres")


def test_a_value_that_is_gone_learns_and_nothing_is_recorded(flow: FlowStone) -> None:
    done = flow.materialize("orders", partition="eu")
    assert done.stored is not None
    flow.parts.managers["memory"].discard(done.stored)
    with pytest.raises(StorageError):
        flow.checks.run("orders", partition="eu")
    assert len(flow.checks.results("orders")) == 2


def test_checks_must_fit_the_app() -> None:
    with pytest.raises(UnknownCheckedAssetError, match="Did you mean"):
        FlowStone.for_testing([unchecked], checks=[check("uncheckd")(not_empty.function)])
    with pytest.raises(DuplicateCheckError):
        FlowStone.for_testing([orders], checks=[not_empty, check(orders)(not_empty.function)])
    assert FlowStone.for_testing([orders], checks=iter([not_empty])).checks.declared("orders") == (not_empty,)


def test_awaitable(flow: FlowStone) -> None:
    async def main() -> list[Any]:
        await flow.aio.materialize("orders", partition="eu")
        return await flow.aio.checks.run("orders", partition="eu")

    assert [one.passed for one in asyncio.run(main())] == [True, True]


def test_to_json_carries_the_results(flow: FlowStone) -> None:
    found = flow.materialize("orders", partition="us").to_json()["checks"]
    assert isinstance(found, list)
    assert [one["check"] for one in found if isinstance(one, dict)] == ["not_empty", "enough"]


def test_public_names() -> None:
    assert {"check", "CheckResult", "CheckContext", "Severity"} <= set(flowstone.__all__)
    assert Severity.ERROR == "error"
