"""A condition that holds once per tick of a cron expression."""

from __future__ import annotations

from datetime import UTC, datetime

from flowstone.core.automation.condition import Condition, Leaf, Named
from flowstone.core.automation.cron import Cron
from flowstone.core.automation.decision import Verdict, listed
from flowstone.core.automation.facts import TargetFacts
from flowstone.core.automation.leaves import moment, newest_partition

_EVER = datetime(1970, 1, 1, tzinfo=UTC)


def on_cron(
    cron: str, *, timezone: str = "UTC", inputs_updated: bool = False, all_partitions: bool = False
) -> Condition:
    """Hold once per tick of a cron expression: a tick passed since this was last asked for or committed.

    It does not matter who asked: computing the asset by hand after the tick serves it. Ticks before the condition
    was first declared do not count, and of several that were missed only one is made up for. A tick asks again
    for what failed before.

    Args:
        cron: five fields, such as `0 6 * * *`; read as those of a schedule.
        timezone: IANA name of the zone whose clock decides, through changes of the clock.
        inputs_updated: wait until every input was committed since the tick.
        all_partitions: hold for every partition; else, of an asset partitioned by time, for the newest only.

    Raises:
        DefinitionError: expression or zone cannot be used.

    Example:
        >>> on_cron("0 6 * * *", timezone="Europe/Berlin", inputs_updated=True)
        on_cron('0 6 * * *', timezone='Europe/Berlin', inputs_updated=True)
    """
    schedule = Cron(cron, timezone)
    parts: Condition = Leaf("a tick passed", lambda facts, now: _ticked(schedule, facts, now))
    options = ""
    if inputs_updated:
        parts &= Leaf("inputs updated since", lambda facts, now: _fed(schedule, facts, now))
        options += ", inputs_updated=True"
    if all_partitions:
        options += ", all_partitions=True"
    else:
        parts &= newest_partition()
    return Named(f"on_cron({cron!r}, timezone={timezone!r}{options})", parts)


def _tick(schedule: Cron, facts: TargetFacts, now: datetime) -> datetime | None:
    """Return the latest tick since the target was last asked for."""
    requested = [at for at in (facts.last_requested_at, facts.since) if at is not None]
    return schedule.last(max(requested, default=_EVER), now)


def _ticked(schedule: Cron, facts: TargetFacts, now: datetime) -> Verdict:
    tick = _tick(schedule, facts, now)
    if tick is not None:
        return Verdict(True, f"tick {_local(schedule, tick)} passed since it was last asked for", retries=True)
    following = schedule.next(now, 1)
    text = f"tick {_local(schedule, following[0])} is not reached" if following else "there is no tick to come"
    return Verdict(False, text)


def _fed(schedule: Cron, facts: TargetFacts, now: datetime) -> Verdict:
    tick = _tick(schedule, facts, now)
    versions = [(one.name, one.committed) for one in facts.inputs if not one.is_skipped]
    late = [name for name, version in versions if version is None or (tick and version.committed_at < tick)]
    if tick is None:
        return Verdict(False, "there is no tick that inputs could have been updated since")
    return Verdict(not late, f"not committed since the tick: {listed(late)}" if late else "all inputs are newer")


def _local(schedule: Cron, tick: datetime) -> str:
    return moment(tick.astimezone(schedule.zone))
