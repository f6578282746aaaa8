from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstone import DailyPartitions, MultiPartitions, PartitionsDefinition, StaticPartitions
from flowstone.engine.automation.conditions import every, scope

NOW = datetime(2024, 2, 1, tzinfo=UTC)
DEFINITIONS = (
    DailyPartitions("2024-01-01"),
    StaticPartitions([f"k{number}" for number in range(31)]),
    MultiPartitions(day=DailyPartitions("2024-01-29"), region=StaticPartitions(["eu", "us"])),
)


def test_without_partitions() -> None:
    assert scope(None, NOW).partitions == [""]
    assert every(None, NOW) == [""]


def test_before_the_first_partition_is_complete() -> None:
    assert scope(DailyPartitions("2030-01-01"), NOW) == ([], None)


@pytest.mark.parametrize("definition", DEFINITIONS, ids=["daily", "static", "multi"])
@given(newest=st.integers(1, 40), older=st.integers(1, 40))
def test_every_partition_is_looked_at_in_turn(definition: PartitionsDefinition, newest: int, older: int) -> None:
    total = every(definition, NOW)
    seen: set[str] = set()
    resume = None
    for _ in range(-(-len(total) // older) + 1):
        found = scope(definition, NOW, resume, newest=newest, older=older)
        assert found.partitions[:newest] == total[:newest]
        assert len(found.partitions) <= newest + older
        assert found.partitions == sorted(found.partitions, key=total.index), "the newest first"
        seen |= set(found.partitions)
        resume = found.resume
        if resume is None:
            break
    assert seen == set(total)
    assert resume is None, "and then anew"


def test_a_partition_that_is_not_there_any_more_begins_anew() -> None:
    found = scope(DEFINITIONS[1], NOW, "s:removed", newest=1, older=1)
    assert found.partitions == ["s:k30", "s:k29"]


def test_a_short_look_costs_the_same_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DailyPartitions, "keys", lambda *_: pytest.fail("it lists all of them"))
    found = scope(DailyPartitions("0001-01-02"), NOW, newest=2, older=2)
    assert found.partitions == ["d:2024-01-31", "d:2024-01-30", "d:2024-01-29", "d:2024-01-28"]
