from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from flowstone import eager, on_cron
from flowstone.core.automation.facts import (
    CommittedVersion,
    DataVersion,
    InputFacts,
    NewestStep,
    TargetFacts,
    TargetStatus,
)
from flowstone.core.state import State
from flowstone.errors import DefinitionError

DECLARED = datetime(2024, 1, 1, 12, tzinfo=UTC)


def served(at: datetime, state: State = State.COMPLETED) -> TargetStatus:
    """Stand for a target that was asked for, and was over, at this moment."""
    newest = NewestStep(1, state, None, at, at, at, "run")
    return TargetStatus(CommittedVersion(DataVersion(1), at) if state is State.COMPLETED else None, newest)


def target(status: TargetStatus | None = None) -> TargetFacts:
    return TargetFacts(asset="b", partition_key="", status=status or TargetStatus(), since=DECLARED)


def test_ticks_before_the_declaration_do_not_count() -> None:
    daily = on_cron("0 6 * * *")
    decision = daily.evaluate(target(), DECLARED)
    assert not decision.requested
    assert decision.reason == "tick 2024-01-02 06:00+00:00 is not reached"
    assert not daily.evaluate(target(), datetime(2024, 1, 2, 5, 59, tzinfo=UTC)).requested
    assert daily.evaluate(target(), datetime(2024, 1, 2, 6, tzinfo=UTC)).requested


def test_once_per_tick_whoever_asked() -> None:
    daily = on_cron("0 6 * * *")
    facts = target(served(datetime(2024, 1, 3, 6, 0, 1, tzinfo=UTC)))
    assert not daily.evaluate(facts, datetime(2024, 1, 4, 5, tzinfo=UTC)).requested
    later = daily.evaluate(facts, datetime(2024, 1, 9, 7, tzinfo=UTC))
    assert later.requested
    assert "tick 2024-01-09 06:00+00:00 passed" in later.reason, "of several that were missed, the latest"


def test_a_tick_asks_again_for_what_failed() -> None:
    daily = on_cron("0 6 * * *")
    facts = target(served(datetime(2024, 1, 3, 6, 1, tzinfo=UTC), State.FAILED))
    assert not daily.evaluate(facts, datetime(2024, 1, 3, 23, tzinfo=UTC)).requested
    assert daily.evaluate(facts, datetime(2024, 1, 4, 6, tzinfo=UTC)).requested
    assert not eager().evaluate(facts, datetime(2024, 1, 4, 6, tzinfo=UTC)).requested


@pytest.mark.parametrize(
    ("day", "hours"),
    [("2024-03-31", 23), ("2024-10-27", 25), ("2024-06-01", 24)],
)
def test_each_day_has_one_tick_when_the_clock_is_changed(day: str, hours: int) -> None:
    """Every quarter of an hour is looked at; being asked for serves the tick."""
    zone = ZoneInfo("Europe/Berlin")
    nightly = on_cron("30 2 * * *", timezone="Europe/Berlin")
    start = datetime.fromisoformat(day).replace(tzinfo=zone).astimezone(UTC)
    facts = replace(target(), since=start)
    ticks = 0
    for quarter in range(4 * hours):
        now = start + timedelta(minutes=15 * quarter)
        if nightly.evaluate(facts, now).requested:
            ticks += 1
            facts = replace(facts, status=served(now))
    assert ticks == 1
    end = start + timedelta(hours=hours)
    assert end.astimezone(zone).hour == 0, "that was the whole day"


def test_inputs_are_waited_for() -> None:
    now = datetime(2024, 1, 2, 7, tzinfo=UTC)
    daily = on_cron("0 6 * * *", inputs_updated=True)
    old, new = served(datetime(2024, 1, 2, 5, tzinfo=UTC)), served(datetime(2024, 1, 2, 6, 30, tzinfo=UTC))
    facts = replace(target(), inputs=(InputFacts(("a", ""), old), InputFacts(("c", ""), new)))
    decision = daily.evaluate(facts, now)
    assert not decision.requested
    assert decision.reason == "not committed since the tick: a"
    assert on_cron("0 6 * * *").evaluate(facts, now).requested
    facts = replace(facts, inputs=(InputFacts(("a", ""), new), InputFacts(("c", ""), new)))
    assert daily.evaluate(facts, now).requested


def test_only_the_newest_partition_unless_reported() -> None:
    now = datetime(2024, 1, 2, 7, tzinfo=UTC)
    older = replace(target(), partition_key="d:2023-12-31", is_newest=False)
    assert not on_cron("0 6 * * *").evaluate(older, now).requested
    assert on_cron("0 6 * * *", all_partitions=True).evaluate(older, now).requested


def test_expressions_and_zones_are_checked_when_they_are_declared() -> None:
    with pytest.raises(DefinitionError):
        on_cron("61 * * * *")
    with pytest.raises(DefinitionError):
        on_cron("0 6 * * *", timezone="Europe/Bärlin")


def test_they_are_written_as_they_are_said() -> None:
    text = "on_cron('0 6 * * *', timezone='UTC', inputs_updated=True, all_partitions=True)"
    assert repr(on_cron("0 6 * * *", inputs_updated=True, all_partitions=True)) == text
