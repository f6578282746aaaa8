"""The documented forms, as a project in strict mode writes them: both type checkers must find these types."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, assert_type

from flowstone import (
    Asset,
    AssetContext,
    AsyncAsset,
    AwaitApproval,
    CheckContext,
    CheckResult,
    DailyPartitions,
    FlowStone,
    Gathered,
    Job,
    JobStatus,
    LastN,
    Materialization,
    RetryLater,
    RetryPolicy,
    Route,
    Schedule,
    SensorContext,
    Skip,
    asset,
    check,
    dep,
    eager,
    scatter,
    sensor,
)
from flowstone.app.results import RunHandle, RunResult


@dataclass
class Limits:
    rows: int = 10


@asset
def numbers() -> list[int]:
    return [1, 2, 3]


@asset
def doubled(numbers: list[int]) -> list[int]:
    return [2 * n for n in numbers]


@asset(tags=["demo"], retry=RetryPolicy(max_attempts=5), timeout=timedelta(minutes=1), concurrency={"db": 4})
def total(doubled: list[int], *, start: int = 0) -> int:
    return start + sum(doubled)


@asset
async def fetched(context: AssetContext) -> dict[str, int]:
    context.logger.info("%s", context.run_id)
    context.resources.db.execute("SELECT 1")
    return {"a": 1}


@asset(name="orders", partitions=DailyPartitions("2024-01-01"), config=Limits, automation=eager())
async def daily(context: AssetContext) -> str | Skip:
    return Skip("nothing today") if context.partition == date(2024, 1, 1) else "orders"


@asset(deps={"recent": dep(daily, mapping=LastN(3))}, partitions=DailyPartitions("2024-01-01"))
def weekly(recent: dict[date, str]) -> int | RetryLater | AwaitApproval:
    return len(recent) or RetryLater(60)


@asset(routes=["full_load"])
def router(numbers: list[int]) -> Route:
    return Route("full_load", value=len(numbers))


@asset(deps=[router])
def full_load() -> None:
    return None


def length(page: str) -> int:
    return len(page)


@scatter(each=length, max_concurrency=10, tags=["demo"])
def pages(numbers: list[int]) -> Iterator[str]:
    yield from map(str, numbers)


@pages.gather
def lengths(results: Gathered) -> dict[str, int]:
    return {str(result.key): result.value for result in results}


@check(numbers, blocking=True)
def not_empty(numbers: list[int]) -> bool:
    return bool(numbers)


@check("orders", severity="warning")
def fresh(context: CheckContext, orders: str) -> CheckResult:
    return CheckResult(bool(orders), description=context.run_id or "")


@sensor(every=10, selection="orders")
def inbox(context: SensorContext) -> object:
    return context.request(run_key="a.csv", priority=2, tags=["inbox"])


assert_type(numbers, Asset[[], list[int]])
assert_type(numbers(), list[int])
assert_type(total([1], start=2), int)
assert_type(lengths.name, str)
listed: list[Asset] = [numbers, doubled, total, fetched, daily, weekly, router, full_load, pages]
one_of_many: Asset[..., object] = numbers
awaited: AsyncAsset[..., dict[str, int]] = fetched

flow = FlowStone(
    listed,
    checks=[not_empty, fresh],
    schedules=[Schedule("orders", "0 2 * * *", name="nightly")],
    sensors=[inbox],
)

assert_type(flow.materialize(numbers), Materialization[list[int]])
assert_type(flow.materialize(total, force=True, executor="serial").value, int)
assert_type(flow.materialize(fetched).value, dict[str, int])
assert_type(flow.materialize(daily, partition=date(2024, 1, 2)).value, str)
assert_type(flow.materialize(weekly, partition=date(2024, 1, 2)).value, int)
assert_type(flow.materialize(router).value, Any)
assert_type(flow.materialize(lengths).value, dict[str, int])
assert_type(flow.materialize("numbers").value, Any)
assert_type(flow.load(total), int)
assert_type(flow.load("total"), Any)
assert_type(flow.history(total), list[Materialization[int]])

job = flow.schedule(total)
assert_type(job, Job[int])
assert_type(flow.runs.wait_for(job), Materialization[int])
assert_type(flow.runs.wait_for(job, timeout_seconds=timedelta(seconds=5)).value, int)
assert_type(flow.runs.status(job), JobStatus[int])

assert_type(flow.materialize_all(total), RunResult)
assert_type(flow.materialize_all("+total and not tag:demo", max_concurrency=4), RunResult)
assert_type(flow.materialize_all(total, wait=False, priority=3, tags=["x"]), RunHandle)
assert_type(flow.backfill([daily, "weekly"], partitions=[date(2024, 1, 2)]), RunResult)
assert_type(flow.backfill(daily, wait=False, max_concurrency=10), RunHandle)
assert_type(flow.runs.retry(job, wait=False, executor="oban"), RunHandle)


async def main(context: AssetContext) -> None:
    assert_type(await fetched(context), dict[str, int])
    assert_type(await flow.aio.materialize(total), Materialization[int])
    assert_type((await flow.aio.materialize("total")).value, Any)
    assert_type(await flow.aio.load(fetched), dict[str, int])
    assert_type(await flow.aio.load("fetched"), Any)
    later = await flow.aio.schedule(total, priority=1)
    assert_type(later, Job[int])
    assert_type(await flow.aio.runs.wait_for(later), Materialization[int])
    assert_type(await flow.aio.materialize_all(total), RunResult)
    assert_type(await flow.aio.backfill(daily, wait=False), RunHandle)
    for version in await flow.aio.lineage.upstream(total):
        print(version.asset, version.depth)
    for queue in await flow.aio.queues.list():
        await flow.aio.queues.scale(queue.name, 5)
    await flow.aio.approvals.approve(1, comment="fine")
