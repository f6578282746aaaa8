"""A request is checked when it is built; partitions that are packed come back as they were given, each once."""

from __future__ import annotations

import tracemalloc
from dataclasses import FrozenInstanceError
from datetime import date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstone.core.partitions import encode_partition
from flowstone.engine.run_spec import PackedKeys, PartitionTargets, RunSpec
from flowstone.errors import OptionsError

TARGETS = [("b", "i:1"), ("a", ""), ("b", "i:2")]


def test_a_request_is_never_changed() -> None:
    spec = RunSpec(kind="backfill", selection="a, b", targets=TARGETS)
    assert spec.assets == ("b", "a")
    with pytest.raises(FrozenInstanceError):
        spec.priority = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("force", 1),
        ("wait_for_inputs", "yes"),
        ("priority", 10),
        ("priority", True),
        ("max_concurrency", 0),
        ("run_id", ""),
        ("executor_opts", ["retry"]),
        ("scheduled_at", "tomorrow"),
        ("scheduled_at", datetime(2024, 1, 1)),
    ],
)
def test_what_cannot_work_is_refused_by_name(option: str, value: object) -> None:
    with pytest.raises(OptionsError, match=option):
        RunSpec(kind="materialize", selection="a", targets=[("a", "")], **{option: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given_options", "is_plain"),
    [
        ({}, True),
        ({"tags": None}, True),
        ({"config": {}}, False),
        ({"tags": ["nightly"]}, False),
        ({"io": "x"}, False),
    ],
)
def test_a_plain_request_says_nothing_about_how_it_computes(
    given_options: dict[str, object], is_plain: bool
) -> None:
    spec = RunSpec(kind="materialize", selection="a", targets=[("a", "")], **given_options)  # type: ignore[arg-type]
    assert spec.is_plain is is_plain


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
