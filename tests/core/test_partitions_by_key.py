from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstone import (
    AllPartitions,
    DailyPartitions,
    DynamicPartitions,
    FunctionMapping,
    LastN,
    MultiPartitions,
    SameDimension,
    SameKey,
    StaticPartitions,
)
from flowstone.core.mappings import default_mapping
from flowstone.core.partitions import KeyState, KnownKeys, Partition, encode_partition, partition_label
from flowstone.core.partitions_by_key import encode_key
from flowstone.errors import DefinitionError, PartitionError, UnknownPartitionError

NOW = datetime(2024, 1, 10, tzinfo=UTC)
KEYS = st.one_of(
    st.integers(), st.text(max_size=5), st.booleans(), st.dates(), st.tuples(st.text(max_size=2), st.integers())
)


class Source:
    """Keys that are changed by hand; counts the questions."""

    def __init__(self, *keys: Partition) -> None:
        self.cached = self.stored = KnownKeys()
        self.reads = 0
        self.add(*keys)
        self.cached = self.stored

    def add(self, *keys: Partition) -> None:
        for key in keys:
            at = self.stored.revision + 1
            self.stored = self.stored.after([KeyState(encode_partition(key), at, at)])

    def remove(self, *keys: Partition) -> None:
        for key in keys:
            encoded = encode_partition(key)
            state = KeyState(encoded, self.stored.positions[encoded], self.stored.revision + 1)
            self.stored = self.stored.after([state])

    def known(self, name: str, *, fresh: bool = False) -> KnownKeys:
        assert name == "customers"
        if fresh:
            self.reads += 1
            self.cached = self.stored
        return self.cached


def bound(*keys: Partition) -> tuple[DynamicPartitions, Source]:
    source = Source(*keys)
    return DynamicPartitions("customers").bound(source), source


def test_keys_in_the_order_of_their_addition() -> None:
    customers, source = bound("b", "a", 3)
    assert list(customers.keys(NOW)) == ["b", "a", 3]
    assert customers.last(NOW) == 3
    source.remove("b")
    source.add("b")
    assert customers.validate("b") == "b"
    source.known("customers", fresh=True)
    assert list(customers.keys(NOW)) == ["a", 3, "b"]
    assert DynamicPartitions("customers").bound(Source()).last(NOW) is None


def test_definitions_are_equal_by_name() -> None:
    customers, _ = bound("a")
    assert customers == DynamicPartitions("customers") == customers.with_removed()
    assert customers != DynamicPartitions("products")
    assert customers != StaticPartitions(["a"])
    assert len({customers, DynamicPartitions("customers")}) == 1
    assert customers.to_json() == {"type": "dynamic", "name": "customers"}
    assert repr(customers) == "DynamicPartitions(name='customers')"


@pytest.mark.parametrize("name", ["", "  ", "two\nlines", "x" * 101, None, 5])
def test_names_that_cannot_be_used(name: object) -> None:
    with pytest.raises(DefinitionError, match="printable characters"):
        DynamicPartitions(name)  # type: ignore[arg-type]


def test_a_declaration_holds_no_keys_and_says_so() -> None:
    unbound = DynamicPartitions("customers")
    grid = MultiPartitions(day=DailyPartitions("2024-01-01"), customer=unbound)
    for question in (
        lambda: list(unbound.keys(NOW)),
        lambda: unbound.validate("a"),
        lambda: unbound.parse("a"),
        lambda: unbound.last(NOW),
        lambda: unbound.between(None, None, NOW),
        lambda: "a" in unbound,
        lambda: grid.validate((date(2024, 1, 1), "a")),
        lambda: list(grid.keys(NOW)),
    ):
        with pytest.raises(DefinitionError, match=r"is a declaration and holds no keys.*flow\.partitions"):
            question()


def test_a_miss_asks_the_store_and_a_hit_does_not() -> None:
    customers, source = bound("a")
    assert all("a" in customers for _ in range(100))
    assert source.reads == 0
    source.add("b")
    assert "b" in customers
    assert source.reads == 1
    assert "c" not in customers
    assert source.reads == 2


def test_unknown_and_removed_keys_are_distinguished() -> None:
    customers, source = bound("acme", "globex")
    source.remove("acme")
    source.known("customers", fresh=True)
    with pytest.raises(UnknownPartitionError, match=r"was removed.*can be read.*flow\.partitions\.add"):
        customers.validate("acme")
    with pytest.raises(UnknownPartitionError, match="was removed"):
        customers.parse("acme")
    with pytest.raises(UnknownPartitionError, match="Did you mean 'globex'"):
        customers.parse("globx")
    with pytest.raises(UnknownPartitionError, match="has 1 keys"):
        customers.validate(["no", "partition"])
    readable = customers.with_removed()
    assert (readable.validate("acme"), readable.parse("acme"), readable.label("acme")) == ("acme",) * 3
    assert list(readable.keys(NOW)) == ["globex"]
    with pytest.raises(UnknownPartitionError):
        readable.validate("nobody")


def test_values_are_distinguished_by_type() -> None:
    customers, _ = bound(1, "1", True, 0, "", False)
    assert [type(customers.validate(one)) for one in (1, "1", True)] == [int, str, bool]
    assert [customers.validate(one) for one in (0, "", False)] == [0, "", False]
    assert [customers.label(one) for one in (1, "1", True)] == ["i:1", "s:1", "true"]
    assert 2 not in customers


@given(st.lists(KEYS, unique_by=encode_partition), st.data())
def test_labels_are_read_back(keys: list[Partition], data: st.DataObject) -> None:
    customers, source = bound(*keys)
    removed = data.draw(st.lists(st.sampled_from(keys), unique_by=encode_partition)) if keys else []
    source.remove(*removed)
    source.known("customers", fresh=True)
    labels = [customers.with_removed().label(key) for key in keys]
    assert len(set(labels)) == len(keys)
    for key, label in zip(keys, labels, strict=True):
        found = customers.with_removed().parse(label)
        assert encode_partition(found) == encode_partition(key)
        assert label in (partition_label(key), encode_partition(key))
        assert (key in customers) == (encode_partition(key) not in map(encode_partition, removed))


@given(st.lists(st.integers(0, 20), unique=True, min_size=1), st.data())
def test_ranges_follow_the_order(keys: list[int], data: st.DataObject) -> None:
    customers, source = bound(*keys)
    gone = data.draw(st.lists(st.sampled_from(keys), unique=True))
    source.remove(*gone)
    source.known("customers", fresh=True)
    left = [key for key in keys if key not in gone]
    assert list(customers.between(None, None, NOW)) == left
    if left:
        first = data.draw(st.integers(0, len(left) - 1))
        last = data.draw(st.integers(first, len(left) - 1))
        assert list(customers.between(left[first], left[last], NOW)) == left[first : last + 1]
        number = data.draw(st.integers(1, 25))
        assert customers.until(left[last], number) == left[: last + 1][-number:]
        assert customers.until(None, number) == left[-number:]
        if first < last:
            with pytest.raises(PartitionError, match="ends before it begins"):
                customers.between(left[last], left[first], NOW)
    for key in gone:  # a step that was placed before the removal still knows its place
        place = keys.index(key)
        expected = [one for one in keys[:place] if one not in gone] + [key]
        assert customers.with_removed().until(key, 3) == expected[-3:]


def test_mappings_between_assets_with_the_same_keys() -> None:
    customers, source = bound("a", "b", "c")
    other = DynamicPartitions("customers").bound(source)
    between = {"downstream": customers, "upstream": other, "now": NOW}
    assert isinstance(default_mapping(customers, other), SameKey)
    assert SameKey().upstream("b", **between) == ["b"]
    assert AllPartitions().upstream("b", **between) == ["a", "b", "c"]
    LastN(2).validate(customers, other)
    assert LastN(2).upstream("c", **between) == ["b", "c"]
    assert LastN(2).downstream("b", **between) == ["b", "c"]
    assert LastN(2).upstream(None, downstream=None, upstream=other, now=NOW) == ["b", "c"]
    assert FunctionMapping(lambda key: "a").upstream("b", **between) == ["a"]
    assert FunctionMapping(lambda key: "a").downstream("a", **between) == ["a", "b", "c"]
    assert AllPartitions().downstream("a", downstream=None, upstream=other, now=NOW) == [None]
    assert customers.is_complete("a", NOW)
    with pytest.raises(UnknownPartitionError):
        FunctionMapping(lambda key: "z").upstream("b", **between)
    with pytest.raises(DefinitionError, match="same keys downstream"):
        LastN(2).validate(StaticPartitions(["a"]), other)
    with pytest.raises(DefinitionError, match="no natural mapping"):
        default_mapping(customers, DynamicPartitions("products"))


def test_a_dimension_with_dynamic_keys() -> None:
    source = Source("a", "b")
    declared = MultiPartitions(customer=DynamicPartitions("customers"), tier=StaticPartitions([1, 2]))
    grid = declared.bound(source)
    assert grid == declared
    assert list(grid.keys(NOW)) == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
    assert grid.parse("b|2") == ("b", 2)
    customers = DynamicPartitions("customers").bound(source)
    assert default_mapping(grid, customers).upstream(("b", 2), downstream=grid, upstream=customers, now=NOW) == [
        "b"
    ]
    assert SameDimension().upstream("a", downstream=customers, upstream=grid, now=NOW) == [("a", 1), ("a", 2)]
    source.remove("a")
    source.known("customers", fresh=True)
    assert list(grid.keys(NOW)) == [("b", 1), ("b", 2)]
    assert ("a", 1) not in grid
    assert grid.with_removed().validate(("a", 1)) == ("a", 1)
    plain = MultiPartitions(tier=StaticPartitions([1]))
    assert plain.bound(source) is plain
    assert plain.with_removed() is plain


def test_what_can_become_a_key() -> None:
    assert encode_key("customers", ("eu", 5)) == "(s:eu|i:5)"
    for value, why in ((None, "not partitioned"), (2.5, "cannot be a partition"), ("x" * 3000, "bytes as text")):
        with pytest.raises(PartitionError, match=why):
            encode_key("customers", value)
