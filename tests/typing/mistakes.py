"""Mistakes that a user makes: both type checkers must find each marked line, and nothing else."""

from __future__ import annotations

from datetime import date

from flowstone import (
    Asset,
    DailyPartitions,
    FlowStone,
    Gathered,
    Job,
    asset,
    check,
    scatter,
    sensor,
)


@asset
def numbers() -> list[int]:
    return [1, 2, 3]


@asset
async def later(numbers: list[int]) -> str:
    return str(numbers)


@asset(partitions=DailyPartitions("2024-01-01"))
def daily() -> float:
    return 1.0


@asset(tagz=["demo"])  # error: a misspelt option
def tagged() -> int:
    return 1


@asset(priority="high")  # error: an option of another type
def urgent() -> int:
    return 1


@asset(isolation="container")  # error: a word that the option does not know
def isolated() -> int:
    return 1


@scatter(each=len, max_concurency=3)  # error: a misspelt option of a scatter
def pages() -> list[str]:
    return ["a"]


@check(numbers, blockin=True)  # error: a misspelt option of a check
def not_empty(numbers: list[int]) -> bool:
    return bool(numbers)


@check(numbers, severity="bad")  # error: a word that the option does not know
def severe(numbers: list[int]) -> bool:
    return bool(numbers)


@sensor(evry=10)  # error: a misspelt option of a sensor
def inbox() -> None:
    return None


def gathered(results: Gathered) -> int:
    return results.totl  # error: a misspelt attribute


numbers([1])  # error: a function that takes nothing
print(numbers.nam)  # error: a misspelt attribute of an asset
wrong: Asset[..., str] = numbers  # error: it makes a list of numbers

flow = FlowStone([numbers, later, daily])
FlowStone([numbers], hoks=[])  # error: a misspelt option of the app
FlowStone(numbers)  # error: one asset in place of a list
FlowStone.for_testing([numbers], resorces={})  # error: a misspelt option of an app for tests

flow.materialise(numbers)  # error: a misspelt verb
flow.materialize(numbers, partion=1)  # error: a misspelt option of a verb
flow.materialize(numbers, force="yes")  # error: a switch that is text
flow.materialize([numbers])  # error: a list where one asset is needed
flow.materialize(5)  # error: no asset at all
print(flow.materialize(numbers).valu)  # error: a misspelt attribute of a result
text: str = flow.materialize(numbers).value  # error: a value of another type
words: list[str] = flow.load(later)  # error: a value of another type, from an asynchronous asset
flow.load(numbers, partition={"day": 1})  # error: what cannot be a partition
flow.materialize_all(numbers, waits=False)  # error: a misspelt switch
flow.materialize_all(numbers, wait=False, force_dep=True)  # error: a misspelt option beside wait=False
print(flow.materialize_all(numbers, wait=False).value)  # error: a handle has no value
flow.backfill(daily, partition=date(2024, 1, 1))  # error: backfill takes partitions
flow.backfill(daily, partitions=[date(2024, 1, 1)], max_concurrency="4")  # error: a number as text

job: Job[str] = flow.schedule(numbers)  # error: a job that makes something else
flow.schedule(numbers, scheduled_at="tomorrow")  # error: a time as text
flow.runs.wait_for(numbers)  # error: an asset where a job is needed
flow.runs.latst()  # error: a misspelt verb of a view
flow.runs.latest(limt=5)  # error: a misspelt option of a view
flow.run.latest()  # error: a misspelt view
flow.queues.scale("assets", "many")  # error: a number as text, in a view


async def main() -> None:
    flow.aio.materialise(numbers)  # error: a misspelt verb of the asynchronous face
    await flow.aio.materialize(numbers, forc=True)  # error: a misspelt option there
    count: int = (await flow.aio.materialize(numbers)).value  # error: a value of another type
    await flow.aio.run.latest()  # error: a misspelt view there
    await flow.aio.runs.latst()  # error: a misspelt verb of a view there
    await flow.aio.runs.latest(limit="5")  # error: a number as text there
    (await flow.aio.load(later)).appendd("x")  # error: a misspelt method of the value
    later([1]).upper()  # error: the call of an asynchronous asset gives a coroutine
    print(count)
