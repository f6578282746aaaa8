"""Partitions that are not over: who computes them, who reads them, and the end of what was computed early."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta

import pytest

from flowstone import (
    DailyPartitions,
    FlowStone,
    HourlyPartitions,
    MonthlyPartitions,
    MultiPartitions,
    Schedule,
    StaticPartitions,
    TimeWindowOverlap,
    asset,
    dep,
    eager,
)
from flowstone.core.definition import PartitionsDefinition
from flowstone.core.partitions import Partition, encode_partition
from flowstone.engine.run_spec import RunSpec
from flowstone.errors import (
    DependencyNotReadyError,
    IncompletePartitionError,
    PartitionError,
    StepFailedError,
    UnknownPartitionError,
)

NOW = datetime.now(UTC)
TODAY = NOW.date()
DAYS = DailyPartitions(TODAY - timedelta(days=3))
HOURS = HourlyPartitions(datetime(TODAY.year, TODAY.month, TODAY.day, tzinfo=UTC) - timedelta(days=3))


class Until(PartitionsDefinition):
    """Partitions that are over at the moment that is their key."""

    def __init__(self, *ends: datetime) -> None:
        self.ends = ends

    def keys(self, now: datetime) -> Iterator[Partition]:
        return (end for end in self.ends if end <= now)

    def validate(self, value: object) -> Partition:
        if value not in self.ends:
            raise UnknownPartitionError(value)
        return value  # type: ignore[return-value]

    def parse(self, text: str) -> Partition:
        return self.validate(datetime.fromisoformat(text))

    def label(self, value: Partition) -> str:
        assert isinstance(value, datetime)
        return value.isoformat()

    def between(self, start: Partition, end: Partition, now: datetime) -> Iterator[Partition]:
        return self.keys(now)

    def last(self, now: datetime) -> Partition | None:
        return max((end for end in self.ends if end <= now), default=None)

    def complete_at(self, key: Partition) -> datetime | None:
        assert isinstance(key, datetime)
        return key

    def to_json(self) -> dict[str, object]:
        return {"type": "until", "ends": [end.isoformat() for end in self.ends]}


def until(moment: datetime) -> None:
    while (left := (moment - datetime.now(UTC)).total_seconds()) > 0:
        time.sleep(left)


@asset(partitions=DAYS)
def raw(context) -> date:  # type: ignore[no-untyped-def]
    return context.partition  # type: ignore[no-any-return]


@asset(partitions=DAYS)
def clean(raw: date) -> date:
    return raw


@asset(partitions=MonthlyPartitions(TODAY.replace(day=1)))
def month(clean: dict[date, date]) -> int:
    return len(clean)


@asset(partitions=HOURS)
def hourly(context) -> datetime:  # type: ignore[no-untyped-def]
    return context.partition  # type: ignore[no-any-return]


@asset(partitions=DAYS)
def daily(hourly: dict[datetime, datetime]) -> int:
    return len(hourly)


@asset(partitions=HOURS, deps=[dep("hourly", mapping=TimeWindowOverlap(end_offset=1))])
def forecast(hourly: dict[datetime, datetime]) -> int:
    return len(hourly)


@asset(partitions=HOURS)
def published(forecast: int) -> int:
    return forecast


ALL = [raw, clean, month, hourly, daily, forecast, published]


@pytest.fixture
def flow() -> FlowStone:
    return FlowStone.for_testing(ALL)


def committed(flow: FlowStone, name: str) -> list[Partition]:
    return [step.partition for step in flow.history(name)]


def test_every_verb_refuses_a_partition_that_is_not_over(flow: FlowStone) -> None:
    requested: list[Callable[[], object]] = [
        lambda: flow.materialize("raw", partition=TODAY),
        lambda: flow.schedule("raw", partition=TODAY, executor="async"),
        lambda: flow.materialize_all("clean", partition=TODAY),
        lambda: flow.backfill("raw", partitions=[TODAY - timedelta(days=1), TODAY]),
        lambda: flow.backfill("+clean", partitions=[TODAY]),
        lambda: flow.plan("raw", partition=TODAY),
        lambda: flow.plan("raw", partitions=[TODAY]),
    ]
    for ask in requested:
        with pytest.raises(IncompletePartitionError, match=r"not over until .* allow_incomplete=True") as caught:
            ask()
        assert isinstance(caught.value, PartitionError)
    assert flow.runs.latest() == []


def test_it_is_computed_when_that_is_said(flow: FlowStone) -> None:
    assert flow.materialize("raw", partition=TODAY, allow_incomplete=True).value == TODAY
    assert flow.materialize_all("clean", partition=TODAY, allow_incomplete=True).value == {TODAY: TODAY}
    assert flow.backfill("+clean", partitions=[TODAY], allow_incomplete=True).ok
    assert flow.plan("clean", partition=TODAY, allow_incomplete=True).runs == 2


def test_what_is_placed_for_later_has_to_be_over_then(flow: FlowStone) -> None:
    midnight = datetime(TODAY.year, TODAY.month, TODAY.day, tzinfo=UTC) + timedelta(days=1)
    spec = RunSpec(
        kind="schedule", selection="raw", targets=[("raw", encode_partition(TODAY))], expand=None, explicit=["raw"]
    )
    with pytest.raises(IncompletePartitionError):
        flow.parts.planner.plan(spec, now=NOW, present=midnight - timedelta(1))
    assert flow.parts.planner.plan(spec, now=NOW, present=midnight).runs == 1


def test_derived_partitions_that_are_not_over_are_left_out(flow: FlowStone) -> None:
    result = flow.backfill("+month")
    assert result.ok
    assert not flow.exists("month", partition=TODAY.replace(day=1))
    assert not flow.exists("raw", partition=TODAY)
    assert flow.exists("clean", partition=TODAY - timedelta(days=1))
    assert flow.materialize_all("month").total == 0


def test_a_schedule_and_a_sensor_ask_the_same_question() -> None:
    nightly = Schedule("+month", "0 3 * * *", name="nightly")
    today = Schedule("raw", "0 3 * * *", name="today", partition=lambda at: TODAY)
    allowed = Schedule("raw", "0 3 * * *", name="allowed", partition=lambda at: TODAY, allow_incomplete=True)
    flow = FlowStone.for_testing(ALL, schedules=[nightly, today, allowed])
    flow.schedules.run_now("nightly")
    assert not flow.exists("month", partition=TODAY.replace(day=1))
    with pytest.raises(IncompletePartitionError):
        flow.schedules.run_now("today")
    flow.schedules.run_now("allowed")
    assert flow.load("raw", partition=TODAY) == TODAY


def test_of_several_partitions_those_that_are_over_are_read(flow: FlowStone) -> None:
    over = sum(1 for key in HOURS.keys(NOW) if key.date() == TODAY)
    if datetime.now(UTC).hour != NOW.hour or not over:
        pytest.skip("the hour ended just now, or it is midnight")
    result = flow.materialize_all("daily", partition=TODAY, allow_incomplete=True)
    assert result.value == {TODAY: over}
    assert result.total == over + 1


def test_what_is_missing_before_something_that_is_there_is_an_error(flow: FlowStone) -> None:
    hours = [key for key in HOURS.keys(NOW) if key.date() == TODAY]
    if len(hours) < 2:
        pytest.skip("the day is too young")
    flow.materialize("hourly", partition=hours[-1])
    with pytest.raises(DependencyNotReadyError, match="--allow-incomplete") as caught:
        flow.materialize("daily", partition=TODAY, allow_incomplete=True)
    assert ("hourly", encode_partition(hours[0])) in caught.value.missing


def test_a_partition_that_reads_one_that_is_not_over_waits_for_it(flow: FlowStone) -> None:
    """The newest complete hour reads the next one, which is going on: it is left out, and refused by name."""
    last = list(HOURS.keys(NOW))[-1]
    result = flow.backfill("+published")
    if datetime.now(UTC).hour != NOW.hour:
        pytest.skip("the hour ended just now")
    assert result.ok
    assert flow.exists("hourly", partition=last)
    assert not flow.exists("forecast", partition=last)
    assert not flow.exists("published", partition=last)
    assert flow.exists("published", partition=last - timedelta(hours=1))
    for name in ("forecast", "published"):
        with pytest.raises(IncompletePartitionError, match=rf"hourly \[.*\] is not over.*{name} \[.*\] reads it"):
            flow.materialize_all(name, partition=last)


def test_what_was_computed_early_is_never_reused_when_it_is_over() -> None:
    end = datetime.now(UTC) + timedelta(seconds=0.4)
    slots = Until(end)
    seen: list[str] = []

    @asset(partitions=slots)
    def source(context) -> int:  # type: ignore[no-untyped-def]
        seen.append("source")
        return len(seen)

    @asset(partitions=slots, automation=eager())
    def reader(source: int) -> int:
        seen.append("reader")
        return source

    @asset
    def total(reader: dict[datetime, int]) -> int:
        return sum(reader.values())

    flow = FlowStone.for_testing([source, reader, total])
    assert flow.conditions.evaluate("reader", partitions=[end])[0].reason.startswith("it is not over until")
    assert flow.materialize_all("reader", partition=end, allow_incomplete=True).ok
    assert flow.materialize_all("reader", partition=end, allow_incomplete=True).reused == 0
    assert seen == ["source", "reader"] * 2
    assert flow.plan("total").runs == 1  # nothing of it is over, so it reads nothing
    until(end)
    plan = flow.plan("total")
    assert (plan.runs, plan.reuses) == (3, 0)
    with pytest.raises(DependencyNotReadyError):  # what is committed says nothing final
        flow.materialize("reader", partition=end)
    (decision,) = flow.conditions.evaluate("reader")
    assert not decision.requested
    assert "source" in decision.reason
    flow.materialize("source", partition=end)
    (decision,) = flow.conditions.evaluate("reader")
    assert decision.requested
    assert "computed before its partition was over" in decision.reason
    assert flow.materialize_all("total").value == 5
    assert flow.materialize_all("total").reused == 1


def test_an_asset_may_allow_it_once_and_for_all() -> None:
    computed: list[Partition] = []

    @asset(partitions=DAYS, allow_incomplete=True, automation=eager())
    def so_far(context) -> int:  # type: ignore[no-untyped-def]
        computed.append(context.partition)
        return len(computed)

    @asset(partitions=DAYS, automation=eager())
    def final(so_far: int) -> int:
        return so_far

    flow = FlowStone.for_testing([so_far, final])
    assert flow.materialize("so_far", partition=TODAY).value == 1
    with pytest.raises(IncompletePartitionError, match="final"):
        flow.materialize("final", partition=TODAY)
    decisions = {one.partition_key: one for one in flow.conditions.evaluate("so_far")}
    assert decisions[encode_partition(TODAY)].reason.startswith("no input changed")
    assert encode_partition(TODAY) not in {one.partition_key for one in flow.conditions.evaluate("final")}
    (today,) = flow.conditions.evaluate("final", partitions=[TODAY])
    assert (today.requested, today.reason.startswith("it is not over until")) == (False, True)
    flow.conditions.run()
    assert computed.count(TODAY) == 1
    assert len(computed) == 4
    assert flow.backfill("so_far", force=True).total == 3  # all complete ones


def test_each_dimension_has_to_be_over() -> None:
    @asset(partitions=MultiPartitions(day=DAYS, region=StaticPartitions(["eu"])))
    def sales(context) -> int:  # type: ignore[no-untyped-def]
        return 1

    flow = FlowStone.for_testing([sales])
    with pytest.raises(IncompletePartitionError, match=rf"sales \[{TODAY}\|eu\] is not over until"):
        flow.materialize("sales", partition=(TODAY, "eu"))
    assert flow.materialize("sales", partition=(TODAY - timedelta(days=1), "eu")).value == 1


def test_a_retry_asks_no_more() -> None:
    tries: list[int] = []

    @asset(partitions=DAYS)
    def flaky(context) -> int:  # type: ignore[no-untyped-def]
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("no")
        return 1

    flow = FlowStone.for_testing([flaky])
    result = flow.backfill("flaky", partitions=[TODAY], allow_incomplete=True)
    with pytest.raises(StepFailedError):
        result.raise_for_failures()
    assert flow.runs.retry(result.run_id).ok
