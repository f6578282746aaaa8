"""Misspelt options and wrong types are answered in words of whoever wrote them, before anything happens."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from enum import Enum
from typing import Any

import numpy
import pytest

from flowstone import (
    CircuitBreaker,
    CronPartitions,
    DailyPartitions,
    FlowStone,
    RateLimited,
    RetryPolicy,
    RunRequest,
    Schedule,
    Settings,
    StaticPartitions,
    asset,
    dep,
)
from flowstone.errors import FlowStoneError, OptionsError, VersionNotFoundError
from flowstone.executors.inline import AsyncExecutor, SerialExecutor, SyncExecutor
from flowstone.io import MemoryIO

DAY = date(2024, 1, 2)


@asset(partitions=DailyPartitions("2024-01-01", end="2024-02-01"))
def daily() -> int:
    return 1


@asset
def one() -> int:
    return 1


@asset(partitions=StaticPartitions(["eu", "us"]))
def region() -> int:
    return 1


foreign = asset(name="foreign")(lambda: 2)
namesake = asset(name="one")(lambda: 3)


@pytest.fixture
def flow() -> FlowStone:
    return FlowStone.for_testing([daily, one, region])


OPTS = "executor_opts"
MESSAGE: list[tuple[Callable[[FlowStone], Any], str]] = [
    # misspelt
    (lambda f: f.materialize("one", forse=True), "materialize() has no option 'forse'. Did you mean 'force'?"),
    # words of other tools
    (lambda f: f.backfill("one", max_parallel=2), "no option 'max_parallel'. Did you mean 'max_concurrency'?"),
    (lambda f: f.materialize_all("one", workers=2), "no option 'workers'. Did you mean 'max_concurrency'?"),
    (lambda f: f.materialize("one", retries=2), "no option 'retries'. Retries are declared, @asset(retry="),
    (lambda f: f.materialize("one", timeout=2), "executor_opts={'timeout_seconds': 60}"),
    (lambda f: f.materialize(asset_name="one"), "no option 'asset_name'. Did you mean 'asset'?"),
    (lambda f: f.materialize("region", partition_key="eu"), "Did you mean 'partition'?"),
    (lambda f: f.runs.wait("x", timeout=2), "Did you mean 'timeout_seconds'?"),
    (lambda f: asset(retries=3)(lambda: 1), "no option 'retries'. Did you mean 'retry'?"),
    (lambda f: RetryPolicy(retries=3), "no option 'retries'. Did you mean 'max_attempts'?"),
    (lambda f: f.run("one"), "flow has no 'run'. Did you mean 'materialize'?"),
    # places
    (
        lambda f: FlowStone([one], "postgresql://x"),
        "FlowStone(): too many positional arguments; options",
    ),
    (
        lambda f: Schedule("s", "0 0 * * *", "one"),
        "Schedule(...): too many positional arguments. Give",
    ),
    (lambda f: CronPartitions(3, "2024-01-01T00:00"), "cron=3: give five fields"),  # type: ignore[arg-type]
    (lambda f: FlowStone(), "FlowStone(): missing a required argument: 'assets'."),
    (lambda f: f.materialize_all(), "flow.materialize_all(): missing a required argument: 'selection'."),
    (
        lambda f: f.materialize("region", "eu"),
        "flow.materialize(): too many positional arguments; options are given",
    ),
    (lambda f: f.materialize("region"), "is partitioned by StaticPartitions(['eu', 'us']);"),
    (lambda f: f.schedule("one", sheduled_at=None), "Did you mean 'scheduled_at'?"),
    (lambda f: f.plan("one", forse=True), "flow.plan() has no option 'forse'. Did you mean 'force'?"),
    (lambda f: f.load("one", partion=1), "flow.load() has no option 'partion'. Did you mean 'partition'?"),
    (lambda f: f.runs.latest(limt=5), "flow.runs.latest() has no option 'limt'. Did you mean 'limit'?"),
    (lambda f: f.runs.get(), "flow.runs.get(): missing a required argument: 'run_id'."),
    (lambda f: f.runs.get("a", "b"), "flow.runs.get(): too many positional arguments."),
    (lambda f: f.approvals.approve(1, coment="x"), "flow.approvals.approve() has no option 'coment'."),
    (lambda f: FlowStone([one], resource={}), "FlowStone() has no option 'resource'. Did you mean 'resources'?"),
    (lambda f: FlowStone.for_testing([one], hook=[]), "FlowStone.for_testing() has no option 'hook'."),
    (lambda f: RetryPolicy(max_attemps=3), "RetryPolicy(...): there is no option 'max_attemps'."),
    (lambda f: Settings(databse_url="x"), "Settings(...): there is no option 'databse_url'."),
    (lambda f: RunRequest("one", partiton=1), "RunRequest(...): there is no option 'partiton'."),
    (lambda f: AsyncExecutor(max_paralel=3), "AsyncExecutor(...): there is no option 'max_paralel'."),
    (lambda f: dep("x", mapp=1), "dep(): there is no option 'mapp'. Did you mean 'mapping'?"),
    # no such thing
    (lambda f: f.materialize(5), "5 is no asset: give one that @asset made, or its name."),
    (lambda f: f.materialize(["one"]), "['one'] is no asset"),
    (lambda f: f.materialize(foreign), "There is no asset named 'foreign'."),
    (lambda f: f.materialize(namesake), "This asset 'one' ("),
    (lambda f: f.backfill(namesake), "is not the one of this app"),
    (lambda f: f.backfill(5), "give a name, an expression, an asset, or a list of these."),
    (lambda f: f.backfill([5]), "give a name, an expression or an asset."),
    (lambda f: f.why(3), "3 is no asset"),
    (lambda f: f.lineage.upstream(None), "None is no asset"),
    # partitions
    (lambda f: f.materialize("region", partition=DAY), "2024-01-02 is not a partition"),
    (lambda f: f.materialize("region", partition=["eu"]), "['eu']"),
    (lambda f: f.materialize("region", partition={"eu"}), "{'eu'}"),
    (lambda f: f.materialize("daily", partition=5), "5 is not a partition"),
    (lambda f: f.exists("region", partition=["eu"]), "['eu']"),
    (lambda f: f.history("region", partition=["eu"]), "['eu']"),
    (lambda f: f.why("region", ["eu"]), "['eu']"),
    (lambda f: f.backfill("daily", partitions=5), "partitions=5: pass a list of partitions."),
    (lambda f: f.backfill("daily", partitions=DAY), "is one partition; pass a list: [datetime.date(2024, 1, 2)]"),
    (lambda f: f.backfill("region", partitions="eu"), "is one partition; pass a list: ['eu']"),
    (lambda f: f.backfill("region", partitions=[["eu"]]), "['eu']"),
    (lambda f: f.invalidate("region", partitions="eu"), "is one partition"),
    (lambda f: f.plan("daily", partitions=5), "partitions=5: pass a list"),
    # numbers, times, functions
    (lambda f: f.backfill("one", max_concurrency="3"), "max_concurrency='3': give a whole number"),
    (lambda f: f.backfill("one", max_concurrency=0), "max_concurrency=0: give a whole number"),
    (lambda f: f.backfill("one", on_progress="x"), "on_progress='x': give a function"),
    (lambda f: f.schedule("one", scheduled_at="2024"), "scheduled_at='2024': give a datetime with a time zone"),
    (lambda f: f.schedule("one", scheduled_at=datetime(2024, 1, 1)), "has no time zone"),
    (lambda f: f.history("region", limit="5"), "limit='5': give a whole number from 1"),
    (lambda f: f.history("region", limit=10**30), "give a whole number from 1"),
    (lambda f: f.runs.steps("x", state="complete"), "Did you mean 'completed'?"),
    (lambda f: f.runs.wait_for(f.schedule("one"), timeout_seconds=-1), "timeout_seconds=-1: give a timedelta"),
    (lambda f: f.runs.wait_for(f.schedule("one"), timeout_seconds=float("inf")), "timeout_seconds=inf"),
    (lambda f: f.retention.prune(older_than="30d"), "older_than='30d': give a timedelta"),
    (lambda f: f.approvals.get(10**30), "There is no request for approval"),
    (
        lambda f: f.materialize("one", executor="serial", executor_opts={"on_step": "x"}),
        "give a function of one",
    ),
    (
        lambda f: f.materialize("one", executor="serial", executor_opts={"pause_between": 1000}),
        "pause_between=1000 is 16.7 minutes, more than 10.0 minutes: it is in seconds, not milli",
    ),
    (
        lambda f: f.materialize("one", executor="sync", executor_opts={"timeout_seconds": float("nan")}),
        "timeout_seconds=nan: give a number of seconds above 0",
    ),
    (lambda f: SerialExecutor(pause_between=timedelta(hours=1)), "more than 10.0 minutes"),
    (lambda f: AsyncExecutor(max_concurrency="3"), "max_concurrency='3': give a whole number"),
    (lambda f: RateLimited("sync", "10/minute"), "RateLimited('sync', ...): give an executor object"),
    # what an app is made of
    (lambda f: FlowStone(one), "give a list of assets, as @asset makes them"),
    (lambda f: FlowStone("one"), "FlowStone(assets='one'): give a list"),
    (lambda f: FlowStone([one], executors={"x": 5}), "FlowStone(executors={'x': 5}): give an executor"),
    (lambda f: FlowStone([one], io={"x": 5}), "FlowStone(io={'x': 5}): give an IO manager object"),
    (lambda f: FlowStone([one], hooks=3), "hooks=3: give a list of hooks"),
    (lambda f: FlowStone([one], default_io=["x"]), "FlowStone(default_io=['x']): give the name of an IO manager"),
    (lambda f: FlowStone([one], observers=None), "FlowStone(observers=None): give a list of observers"),
    (lambda f: FlowStone([one], resources=[5]), "FlowStone(resources=[5]): give a mapping"),
    (lambda f: FlowStone([one], notifiers=[5]), "give a list of functions"),
    (lambda f: FlowStone([one], notifiers=""), "FlowStone(notifiers=''): give a list of functions"),
    (lambda f: FlowStone([one], io={"a\0b": MemoryIO("a\0b")}), "give a line of text as the name"),
    # arrays and frames are not just equal or not, empty or not
    (lambda f: f.materialize("one", tags=numpy.array(["a", "b"]), metadata=""), "metadata: give a dict of names"),
    (lambda f: f.materialize("one", tags=numpy.array([1, 2])), "is no tag"),
    (lambda f: f.materialize("one", tags=[["a"]]), "['a'] is no tag"),
    (lambda f: f.materialize("one", hooks=[["a"]]), "hooks"),
    (lambda f: f.materialize("one", metadata=[]), "metadata"),
    (lambda f: f.materialize("one", metadata=numpy.array([1, 2])), "metadata"),
    (lambda f: f.backfill("region", priority=numpy.array([1, 2])), "priority=array([1, 2]): give a whole number"),
    (lambda f: f.schedule("one", scheduled_at=datetime.min.replace(tzinfo=UTC)), "give a time of the years"),
    (lambda f: f.schedule("one", scheduled_at=datetime.max.replace(tzinfo=UTC)), "give a time of the years"),
    # what empties, erases and cancels takes no text for a list or for yes and no
    (lambda f: f.versions.erase("one", dry_run="no"), "dry_run='no': give True or False"),
    (lambda f: f.versions.erase("one", by=5), "by=5: give a text"),
    (lambda f: f.versions.erase("one", reason="a\0b"), "reason='a\\x00b': give a text"),
    (lambda f: f.runs.retry("r", wait="no"), "wait='no': give True or False"),
    (lambda f: f.conditions.run(now=datetime(2024, 1, 1)), "give a datetime with a time zone"),
    (lambda f: f.audit.latest(actor="a\0b"), "actor='a\\x00b': give text"),
    (lambda f: f.insights.audit(since=datetime(2024, 1, 1)), "give a datetime with a time zone"),
    (lambda f: f.checks.results("one", failed="no"), "failed='no': give True or False"),
    (lambda f: f.load("a\0b"), "'a\\x00b'"),
    (lambda f: f.schedules.pause(["nightly"]), "['nightly']"),
    (lambda f: f.partitions.add(["k"], ["a"]), "no dynamic partitions named ['k']"),
    (lambda f: f.runs.steps("r", state=["failed"]), "state=['failed']: give a State"),
    (lambda f: f.insights.runs(cursor=["a"]), "is no place in this list"),
    (lambda f: f.insights.runs(cursor=5), "is no place in this list"),
    (lambda f: FlowStone([one], schedules=[5]), "FlowStone(schedules=[5]): give a list of Schedule objects"),
    (lambda f: FlowStone([one], settings={}), "FlowStone(settings={}): give Settings(...)"),
    (lambda f: FlowStone([one], settings=Settings(beat_seconds=-1)), "beat_seconds=-1 must be a number above 0"),
]


@pytest.mark.parametrize(("call", "text"), MESSAGE, ids=[str(number) for number in range(len(MESSAGE))])
def test_wrong_words_get_ours(flow: FlowStone, call: Callable[[FlowStone], Any], text: str) -> None:
    with pytest.raises((FlowStoneError, AttributeError), match=re.escape(text)) as caught:
        call(flow)
    assert not re.search(r"\b(\w+View|How|Order|AssembledApp|CommittedValues)\b", str(caught.value))
    assert flow.runs.latest() == [] or "schedule" in str(call.__code__.co_names)


def test_a_verb_that_does_not_exist(flow: FlowStone) -> None:
    with pytest.raises(AttributeError, match=r"flow has no 'materialise'\. Did you mean 'materialize'"):
        flow.materialise("one")  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"flow\.runs has no 'gets'\. Did you mean 'get'"):
        flow.runs.gets("x")  # type: ignore[attr-defined]


@pytest.mark.parametrize("number", [60_000, 300_000, 3_600_000])
def test_what_looks_like_milliseconds_is_warned_about(flow: FlowStone, number: int) -> None:
    with pytest.warns(UserWarning, match=rf"timeout_seconds={number} is .*: it is in seconds, not milliseconds"):
        flow.schedule("one", executor="async", executor_opts={"timeout_seconds": number})
    with pytest.warns(UserWarning, match=f"Asset 'x': timeout={number} is ") as warned:
        asset(name="x", timeout=number)(lambda: 1)
    assert [one.filename for one in warned] == [__file__]


@pytest.mark.parametrize("value", [3600, 43_200, 86_400, timedelta(seconds=60_000), 9000])
@pytest.mark.filterwarnings("error")
def test_long_times_are_fine(flow: FlowStone, value: Any) -> None:
    flow.schedule("one", executor="async", executor_opts={"timeout_seconds": value})
    asset(name="x", timeout=value)(lambda: 1)


def test_the_wrappers_still_report_what_they_do() -> None:
    assert FlowStone.materialize.__doc__
    assert FlowStone.load.__name__ == "load"
    assert CircuitBreaker(SyncExecutor(), reset_seconds=5.0).name == "sync"


def test_a_tag_is_the_value_of_a_member_of_an_enumeration(flow: FlowStone) -> None:
    """Also of one that is shown by its name, as each that is no StrEnum."""

    class Team(str, Enum):  # noqa: UP042 - that is meant
        OPS = "ops"

    run = flow.materialize("one", tags=[Team.OPS]).run_id
    assert flow.runs.get(run).details.tags == ("ops",)


def test_one_name_is_no_list_of_names(flow: FlowStone) -> None:
    """Its letters would be the names, and nothing, or another asset, would be meant in silence."""
    run = flow.materialize("one").run_id
    words: Any = "one"
    for call in (
        lambda: flow.runs.retry(run, assets=words),
        lambda: flow.bulk.count_steps(run, assets=words),
        lambda: flow.bulk.count_steps(run, states=words),
        lambda: flow.bulk.cancel_steps(run, assets=words, expected=0),
    ):
        with pytest.raises(OptionsError, match="give a list of names"):
            call()
    with pytest.raises(OptionsError, match=r"no step has such a state\. Did you mean 'failed'"):
        flow.bulk.count_steps(run, states=["faild"])  # type: ignore[list-item]


@pytest.mark.parametrize("hours", [14, -14])
def test_a_time_at_the_edge_of_the_calendar(flow: FlowStone, hours: int) -> None:
    """It is before the year 1, or after 9999, in UTC."""
    flow.materialize("one")
    edge = datetime.min if hours > 0 else datetime.max
    as_of = edge.replace(tzinfo=timezone(timedelta(hours=hours)))
    if hours > 0:
        with pytest.raises(VersionNotFoundError):
            flow.load("one", as_of=as_of)
    else:
        assert flow.load("one", as_of=as_of) == 1
