"""Partitions that are packed come back as they were given, each once."""

from __future__ import annotations

import tracemalloc
from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from flowstone.app.targets import PackedKeys, PartitionTargets
from flowstone.core.partitions import encode_partition


@given(st.lists(st.text(max_size=6) | st.integers() | st.dates()))
def test_packed_keys_are_the_given_ones_each_once(values: list[str | int | date]) -> None:
    keys = [encode_partition(value) for value in values]
    packed = PackedKeys(iter(keys))
    assert list(packed.read()) == list(dict.fromkeys(keys))
    assert list(packed.read()) == list(dict.fromkeys(keys))


def test_a_key_that_comes_again_in_a_later_chunk_is_left_out() -> None:
    keys = [encode_partition(number) for number in (*range(2500), 7, *range(2500))]
    assert len(list(PackedKeys(keys).read())) == 2500


def test_a_rising_range_costs_little_more_than_its_text() -> None:
    def keys() -> list[str]:
        return [encode_partition(date(2000, 1, 1) + timedelta(days=n)) for n in range(20_000)]

    text = sum(map(len, keys()))
    tracemalloc.start()
    packed = PackedKeys(encode_partition(date(2000, 1, 1) + timedelta(days=n)) for n in range(20_000))
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(list(packed.read())) == 20_000
    assert size < 1.5 * text


@given(st.integers(0, 30), st.integers(-35, 35))
def test_targets_are_a_sequence(number: int, index: int) -> None:
    keys = [f"i:{n}" for n in range(number)]
    targets = PartitionTargets("a", lambda: keys)
    listed = [("a", key) for key in keys]
    assert (list(targets), len(targets), bool(targets)) == (listed, number, bool(listed))
    assert (targets[:index], targets[index:], targets[::-1]) == (listed[:index], listed[index:], listed[::-1])
    try:
        expected = listed[index]
    except IndexError:
        expected = None
    try:
        found = targets[index]
    except IndexError:
        found = None
    assert found == expected
