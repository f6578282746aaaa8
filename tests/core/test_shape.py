from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from flowstone import (
    AnyPartitions,
    DailyPartitions,
    DynamicPartitions,
    HourlyPartitions,
    LastN,
    MultiPartitions,
    StaticPartitions,
    asset,
    dep,
)
from flowstone.core.asset import Asset
from flowstone.core.graph import AssetGraph
from flowstone.core.shape import AssetShape, Shapes
from flowstone.core.step import Attempt, LeftToOthers
from flowstone.errors import StepChangedError, UnknownAssetError

DAYS = DailyPartitions(start=date(2024, 1, 1))


def made(*assets: Asset) -> Shapes:
    return Shapes(AssetGraph(assets), lambda one: one.io or "postgres")


def job(name: str, key: str = "", shape: str | None = None, keys: str | None = None) -> Attempt:
    claim = Attempt(1, "r", name, key, 1, 1, 1, datetime(2024, 1, 1, tzinfo=UTC))
    return replace(claim, job_id=1, deps_timeout_seconds=3600.0, shape=shape, keys=keys)


def one(partitions=None, io=None, deps=()):
    @asset(name="one", partitions=partitions, io=io, deps=deps)
    def declared(): ...

    return declared


@asset
def raw(): ...


@asset(partitions=DAYS)
def daily(): ...


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        (one(), one(), True),
        (one(DAYS), one(DailyPartitions(start=date(2023, 1, 1))), True),
        (one(StaticPartitions(["a"])), one(StaticPartitions(["a", "b"])), True),
        (one(DAYS), one(HourlyPartitions(start=datetime(2024, 1, 1))), False),
        (one(DAYS), one(DailyPartitions(start=date(2024, 1, 1), timezone="Europe/Berlin")), False),
        (one(), one(DAYS), False),
        (one(), one(deps=["raw"]), False),
        (one(io="filesystem"), one(), False),
        (one(DAYS, deps=["daily"]), one(DAYS, deps=[dep("daily", mapping=LastN(3))]), False),
    ],
)
def test_what_has_to_agree(left, right, same):
    digests = [made(each, raw, daily).digest("one") for each in (left, right)]
    assert (digests[0] == digests[1]) is same
    shapes = [made(each, raw, daily)["one"] for each in (left, right)]
    assert (shapes[0].difference(shapes[1]) == "") is same
    assert AssetShape.from_json(shapes[0].to_json()) == shapes[0]


@pytest.mark.parametrize(
    ("declared", "key", "problem"),
    [
        (one(), "", None),
        (one(), "x", "has no partitions now"),
        (one(DAYS), "", "has partitions now: DailyPartitions"),
        (one(DAYS), "d:2024-01-05", None),
        (one(DAYS), "d:2023-01-05", "the partitions are now"),
        (one(DAYS), "s:2024-01-05", "the partitions are now"),
        (one(StaticPartitions(["x"])), "s:y", "the partitions are now"),
        (one(DynamicPartitions("names")), "s:removed", None),
    ],
)
def test_a_key_that_left_the_definition(declared, key, problem):
    found = made(declared).problem(job("one", key))
    assert (found is None) if problem is None else (isinstance(found, StepChangedError) and problem in str(found))


class OwnPartitions(AnyPartitions):
    requested = 0

    def validate(self, value):
        type(self).requested += 1
        return super().validate(value)


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        (None, None, True),
        (None, DAYS, False),
        (DAYS, DailyPartitions(start=date(2024, 1, 1)), True),
        (DAYS, DailyPartitions(start=date(2023, 1, 1)), False),
        (StaticPartitions(["a"]), StaticPartitions(["a", "b"]), False),
        (StaticPartitions(["a"]), StaticPartitions([*"a"]), True),
        (StaticPartitions(["1"]), StaticPartitions([1]), False),
        (MultiPartitions(day=DAYS, of=AnyPartitions()), MultiPartitions(day=DAYS, of=AnyPartitions()), True),
        (MultiPartitions(day=DAYS, of=AnyPartitions()), MultiPartitions(of=AnyPartitions(), day=DAYS), False),
        (MultiPartitions(day=DAYS, of=AnyPartitions()), MultiPartitions(day=DAYS, of=DAYS), False),
    ],
)
def test_which_partitions_are_the_same(left, right, same):
    digests = [made(one(each)).keys_digest("one") for each in (left, right)]
    assert None not in digests
    assert (digests[0] == digests[1]) is same


def test_a_step_placed_with_the_same_declaration_is_not_asked_about():
    own = made(one(OwnPartitions()))
    assert own.keys_digest("one") is None  # what it says of itself may not be all
    assert made(one(MultiPartitions(of=OwnPartitions()))).keys_digest("one") is None
    OwnPartitions.requested = 0
    assert own.problem(job("one", "s:x", own.digest("one"), own.keys_digest("one"))) is None
    assert OwnPartitions.requested == 1

    now, before = made(one(StaticPartitions(["x"]))), made(one(StaticPartitions(["x", "y"])))
    declared = before.digest("one"), before.keys_digest("one")
    assert isinstance(now.problem(job("one", "s:y", *declared)), StepChangedError)
    assert now.problem(job("one", "s:x", *declared)) is None
    assert before.problem(job("one", "s:y", *declared)) is None


def test_an_asset_that_is_not_known():
    assert isinstance(made(raw).problem(job("rwa")), UnknownAssetError)


def test_who_disagrees_is_said_once_for_each_asset():
    mine, theirs = made(one(), raw), made(one(DAYS), raw)
    others = [("a", theirs.to_json()), ("b", theirs.to_json()), ("c", mine.to_json())]
    assert list(mine.disagreements(others)) == [
        f"asset 'one' is declared here with no partitions instead of {DAYS!r}, as a has it"
    ]


def test_what_is_left_to_others_is_forgotten_when_nobody_can():
    shapes = made(one(StaticPartitions(["x"])))
    mine = shapes["one"].to_json()
    left = LeftToOthers()
    assert not left
    left.add(job("gone"), None, now=10.0)
    left.add(job("one", "s:x", "another"), mine, now=10.0)
    left.add(job("one", "s:y", shapes.digest("one")), mine, now=10.0)
    kept = {"left": True, "left_assets": ["gone"], "left_runs": ["r one"], "left_steps": [1]}
    assert left.parameters() == kept
    wider = made(one(StaticPartitions(["x", "y"])))["one"].to_json()
    able = [{"gone": mine, "one": wider}, {"one": mine | {"digest": "another"}}]
    over = 10.0 + 3600.0
    left.forget(able, now=over)
    left.forget([{"one": mine}], now=over - 1)  # until their time is over, workers that can may still come
    assert left.parameters() == kept
    left.forget([{"one": mine}], now=over)
    assert not left
