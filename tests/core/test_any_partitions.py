from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from enum import IntEnum
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstone import (
    AllPartitions,
    AnyPartitions,
    DailyPartitions,
    FlowStone,
    MultiPartitions,
    Schedule,
    StaticPartitions,
    asset,
    eager,
)
from flowstone.core.definition import read_partition, write_partition
from flowstone.core.mappings import SameKey, default_mapping
from flowstone.core.partitions import Partition, encode_partition
from flowstone.errors import DefinitionError, PartitionError, UnknownPartitionError

NOW = datetime(2024, 2, 1, tzinfo=UTC)
DAY = date(2024, 1, 1)
VALUES = st.recursive(
    st.booleans()
    | st.integers()
    | st.text(max_size=20)
    | st.dates()
    | st.sampled_from(
        ["7", "true", "2024-01-01", "d:2024-01-01", "a,b", "a|b", "s:", "n:", "-1", "", "1\n", "(s:a)"]
    )
    | st.datetimes(timezones=st.sampled_from([UTC, ZoneInfo("Europe/Berlin"), timezone(timedelta(hours=1))])),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=5,
)


class Color(IntEnum):
    RED = 1


@given(VALUES)
def test_a_label_is_read_back_as_exactly_this_value(value: Partition) -> None:
    anything = AnyPartitions()
    key = encode_partition(value)
    for text in (anything.label(value), key, write_partition(anything, key)):
        assert encode_partition(read_partition(anything, text)) == key


@given(VALUES)
def test_no_two_values_share_a_label(value: Partition) -> None:
    assert AnyPartitions(type(value)).parse(AnyPartitions(type(value)).label(value)) == value


def test_the_type_decides_how_a_text_is_read() -> None:
    assert AnyPartitions().parse("2024-01-01") == DAY
    assert AnyPartitions(str).parse("2024-01-01") == "2024-01-01"
    assert AnyPartitions(str).parse("7") == "7"
    assert AnyPartitions([int, str]).parse("7") == 7
    assert AnyPartitions().parse("us_east|2024-01-01") == ("us_east", DAY)
    assert AnyPartitions().parse("s:7") == "7"


@pytest.mark.parametrize("value", [None, 1.5, Color.RED, datetime(2024, 1, 1), b"x", {"a": 1}, "x" * 3000])
def test_what_has_no_exact_text_is_refused(value: object) -> None:
    with pytest.raises(PartitionError):
        AnyPartitions().validate(value)


def test_a_type_is_exact() -> None:
    with pytest.raises(UnknownPartitionError, match="partitions of type date, not datetime"):
        AnyPartitions(date).validate(datetime(2024, 1, 1, tzinfo=UTC))
    assert True not in AnyPartitions(int)
    for wrong in (float, "date", ()):
        with pytest.raises(DefinitionError, match="is not the type of a partition"):
            AnyPartitions(wrong)  # type: ignore[arg-type]


def test_definitions_of_the_same_types_are_equal() -> None:
    assert AnyPartitions() == AnyPartitions()
    assert AnyPartitions(int) != AnyPartitions()


@pytest.mark.parametrize(
    "other", [DailyPartitions("2024-01-01"), AnyPartitions(date), StaticPartitions([DAY, "eu"])]
)
def test_the_default_is_the_same_key_on_both_sides(other: AnyPartitions | DailyPartitions) -> None:
    for downstream, upstream in ((AnyPartitions(), other), (other, AnyPartitions())):
        mapping = default_mapping(downstream, upstream)
        assert isinstance(mapping, SameKey)
        mapping.validate(downstream, upstream)
        assert mapping.upstream(DAY, downstream=downstream, upstream=upstream, now=NOW) == [DAY]
        assert mapping.downstream(DAY, downstream=downstream, upstream=upstream, now=NOW) == [DAY]
    with pytest.raises(UnknownPartitionError):
        SameKey().upstream("xx", downstream=AnyPartitions(), upstream=other, now=NOW)
    assert SameKey().downstream("xx", downstream=other, upstream=AnyPartitions(), now=NOW) == []


def test_nobody_can_list_them() -> None:
    @asset(partitions=AnyPartitions())
    def one(context: object) -> int:
        return 1

    @asset
    def total(one: object) -> int:
        return 1

    flow = FlowStone.for_testing([one])
    asks: list[Callable[[], object]] = [
        lambda: flow.backfill("one"),
        lambda: flow.materialize_all("one"),
        lambda: flow.plan("one"),
        lambda: flow.invalidate("one"),
    ]
    for ask in asks:
        with pytest.raises(PartitionError, match=r"Say which ones are meant: partition=\.\.\., partitions="):
            ask()
    with pytest.raises(DefinitionError, match="cannot list the partitions of AnyPartitions"):
        FlowStone.for_testing([one, total])
    with pytest.raises(DefinitionError, match="Pass partition="):
        FlowStone.for_testing([one], schedules=[Schedule("one", "0 6 * * *")])
    with pytest.raises(DefinitionError, match="cannot list the partitions"):
        AllPartitions().validate(None, AnyPartitions())

    @asset(partitions=AnyPartitions(), automation=eager())
    def watched(context: object) -> int:
        return 1

    with pytest.raises(DefinitionError, match="'watched' has a condition"):
        FlowStone.for_testing([watched])


def test_all_verbs_take_them() -> None:
    @asset(partitions=AnyPartitions())
    def raw(context) -> str:  # type: ignore[no-untyped-def]
        return repr(context.partition)

    @asset(partitions=AnyPartitions())
    def report(raw: str) -> str:
        return raw.upper()

    keys: list[Partition] = ["eu", 7, "7", ("us_east", DAY), DAY, False]
    flow = FlowStone.for_testing(
        [raw, report], schedules=[Schedule("raw", "0 6 * * *", partition=lambda at: at.date())]
    )
    done = flow.backfill(["raw", "report"], partitions=keys)
    assert (done.ok, done.total) == (True, 12)
    assert flow.load("report", partition="7") == "'7'"
    assert flow.load("report", partition=7) == "7"
    assert flow.exists("report", partition=("us_east", DAY))
    assert not flow.exists("report", partition=("us_east", "2024-01-01"))
    assert len(flow.history("raw", partition=7)) == 1
    tick = flow.schedules.run_now("raw")
    assert tick is not None
    assert tick.state.value == "requested"
    assert flow.materialize_all("report", partition="new").succeeded == 2


def test_a_dimension_may_be_any() -> None:
    grid = MultiPartitions(day=DailyPartitions("2024-01-01"), customer=AnyPartitions(str))
    key = (DAY, "a|b")
    assert grid.parse(grid.label(key)) == key
    assert grid.is_complete(key, NOW)
    assert not grid.is_complete((date(2024, 2, 1), "x"), NOW)
    with pytest.raises(PartitionError, match="cannot be listed"):
        list(grid.keys(NOW))


def test_an_asset_without_partitions_names_them() -> None:
    @asset
    def plain() -> int:
        return 1

    flow = FlowStone.for_testing([plain])
    for ask in (
        lambda: flow.materialize("plain", partition=DAY),
        lambda: flow.backfill("plain", partitions=[DAY]),
    ):
        with pytest.raises(PartitionError, match=r"partitions=AnyPartitions\(\)"):
            ask()
