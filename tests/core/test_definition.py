from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstone.core.definition import StaticPartitions
from flowstone.core.partitions import Partition, encode_partition
from flowstone.core.partitions_by_key import MultiPartitions
from flowstone.core.partitions_by_time import DailyPartitions
from flowstone.errors import DefinitionError, PartitionError, UnknownPartitionError

NOW = datetime(2024, 1, 4, tzinfo=UTC)
keys = st.one_of(st.text("ab|\\1", max_size=4), st.integers(0, 3), st.booleans(), st.dates(), st.just((1, "a")))
key_lists = st.lists(keys, min_size=1, max_size=6, unique_by=encode_partition)


@given(key_lists)
def test_static_labels_round_trip(values: list[Partition]) -> None:
    definition = StaticPartitions(values)
    for value in values:
        back = definition.parse(definition.label(value))
        assert encode_partition(back) == encode_partition(value)
        assert value in definition
    assert list(definition.keys(NOW)) == values


@given(key_lists, key_lists)
def test_multi_labels_round_trip(one: list[Partition], other: list[Partition]) -> None:
    definition = MultiPartitions(one=StaticPartitions(one), other=StaticPartitions(other))
    found = list(definition.keys(NOW))
    assert len(found) == len(one) * len(other)
    assert len({definition.label(key) for key in found}) == len(found)
    for key in found:
        assert encode_partition(definition.parse(definition.label(key))) == encode_partition(key)


def test_static_membership_reports_types_apart() -> None:
    definition = StaticPartitions([1, "2024-01-01"])
    assert True not in definition
    assert "1" not in definition
    assert date(2024, 1, 1) not in definition
    assert None not in definition
    assert [] not in definition


def test_static_suggests_what_was_meant() -> None:
    with pytest.raises(UnknownPartitionError, match=r"Did you mean 'europe'.*partitions are: europe, asia"):
        StaticPartitions(["europe", "asia"]).parse("europ")


def test_static_ranges_follow_the_declared_order() -> None:
    definition = StaticPartitions(["c", "a", "b"])
    assert list(definition.between("c", "a", NOW)) == ["c", "a"]
    assert list(definition.between("a", None, NOW)) == ["a", "b"]
    assert definition.last(NOW) == "b"
    with pytest.raises(PartitionError, match="Swap"):
        definition.between("b", "c", NOW)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StaticPartitions([]), "at least one"),
        (lambda: StaticPartitions(["a", "a"]), "'a' twice"),
        (lambda: StaticPartitions(["a", None]), "not partitioned"),
        (lambda: StaticPartitions([1.5]), "cannot be a partition"),  # type: ignore[list-item]
        (lambda: StaticPartitions("abc"), r"Write \['abc'\]"),
        (lambda: StaticPartitions(None), "give a list of keys"),  # type: ignore[arg-type]
        (MultiPartitions, "needs dimensions"),
        (lambda: MultiPartitions(a=["x"]), "dimension 'a'"),  # type: ignore[arg-type]
    ],
)
def test_misdeclared_definitions(make: Callable[[], object], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        make()


def test_equal_looking_keys_get_unmistakable_labels() -> None:
    definition = StaticPartitions([1, "1"])
    assert [definition.label(key) for key in (1, "1")] == ["i:1", "s:1"]


def grid() -> MultiPartitions:
    return MultiPartitions(date=DailyPartitions("2024-01-01"), region=StaticPartitions(["eu", "us"]))


def test_multi_keys_are_lazy_tuples_in_the_declared_order() -> None:
    far = datetime(9000, 1, 1, tzinfo=UTC)
    assert list(islice(grid().keys(far), 3)) == [
        (date(2024, 1, 1), "eu"),
        (date(2024, 1, 1), "us"),
        (date(2024, 1, 2), "eu"),
    ]
    assert len(list(grid().keys(NOW))) == 6
    assert grid().last(NOW) == (date(2024, 1, 3), "us")
    assert grid().last(datetime(2020, 1, 1, tzinfo=UTC)) is None


def test_multi_accepts_a_mapping_and_text() -> None:
    key = (date(2024, 1, 2), "eu")
    assert grid().validate({"region": "eu", "date": date(2024, 1, 2)}) == key
    assert grid().validate("2024-01-02|eu") == key
    assert grid().label(key) == "2024-01-02|eu"


@pytest.mark.parametrize(
    "value", [None, "eu", (date(2024, 1, 1),), (date(2024, 1, 1), "as"), {"date": 1}, 5, "a|b|c"]
)
def test_multi_explains_wrong_keys(value: object) -> None:
    with pytest.raises(UnknownPartitionError, match="region"):
        grid().validate(value)


def test_multi_ranges_hold_in_every_dimension() -> None:
    found = list(grid().between((date(2024, 1, 1), "us"), (date(2024, 1, 2), "us"), NOW))
    assert found == [(date(2024, 1, 1), "us"), (date(2024, 1, 2), "us")]
    with pytest.raises(PartitionError, match="Swap"):
        grid().between((date(2024, 1, 1), "us"), (date(2024, 1, 2), "eu"), NOW)
    assert list(grid().between(None, None, NOW)) == list(grid().keys(NOW))


def test_equality_counts_the_order_of_dimensions_and_survives_json() -> None:
    a, b = StaticPartitions(["x"]), StaticPartitions(["y"])
    assert MultiPartitions(a=a, b=b) == MultiPartitions(a=a, b=b)
    assert MultiPartitions(a=a, b=b) != MultiPartitions(b=b, a=a)
    assert json.loads(json.dumps(grid().to_json())) == grid().to_json()
