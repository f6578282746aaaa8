"""The conditions that users combine: `eager`, `on_missing`, `code_changed`, `on_cron` and the others.

Each is a function that names a leaf or a combination; the private function of the same subject below it judges one
target by its facts. `on_cron`, at the end, also needs the tick that it holds for.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from flowstone.core.automation.condition import Condition, Leaf, Named, Verdict, listed
from flowstone.core.automation.facts import TargetFacts
from flowstone.core.cron import Cron
from flowstone.errors import DefinitionError


def eager() -> Condition:
    """Hold when an input was updated since this was computed, or nothing is committed yet.

    It waits while an input is in progress, so that several inputs that are computed together are read together.
    The same as `(any_input_updated() | on_missing()) & ~any_input_in_progress()`.

    Example:
        >>> eager() & ~code_changed()
        eager() & ~code_changed()
    """
    return Named("eager()", (any_input_updated() | on_missing()) & ~any_input_in_progress())


def on_missing() -> Condition:
    """Hold while nothing is committed."""
    return Leaf("on_missing()", _missing)


def any_input_updated() -> Condition:
    """Hold when an input is other data than the committed version had read.

    An input that was computed again to the same bytes was not updated. Where no hash is known (the IO manager
    encodes nothing, such as `memory`), every new version counts.
    """
    return Leaf("any_input_updated()", _updated)


def all_inputs_ready() -> Condition:
    """Hold when all inputs are committed. That always has to hold; say it under `~` or for the explanation."""
    return Leaf("all_inputs_ready()", _ready)


def any_input_in_progress() -> Condition:
    """Hold while an input is being computed, or is placed for it."""
    return Leaf("any_input_in_progress()", _input_active)


def in_progress() -> Condition:
    """Hold while the target itself is placed or running. Nothing is ever asked for then."""
    return Leaf("in_progress()", _active)


def code_changed() -> Condition:
    """Hold when the asset's declared `code_version` differs from that of the committed version."""
    return Leaf("code_changed()", _code)


def newest_partition() -> Condition:
    """Hold for the newest complete partition of an asset that is partitioned by time, and for all other assets."""
    return Leaf("newest_partition()", _newest)


def when_stale(max_lag: timedelta | None = None) -> Condition:
    """Hold when nothing is committed, inputs or code changed since, or the version is older than a limit.

    Args:
        max_lag: longest time since it was committed; None for no limit of age.

    Raises:
        DefinitionError: `max_lag` is not a positive timedelta.

    Example:
        >>> when_stale(max_lag=timedelta(hours=6))
        when_stale(max_lag=6:00:00)
    """
    stale = on_missing() | any_input_updated() | code_changed()
    if max_lag is None:
        return Named("when_stale()", stale)
    lag = _positive("when_stale", "max_lag", max_lag)

    def older(facts: TargetFacts, now: datetime) -> Verdict:
        committed = facts.status.committed
        if committed is None:
            return Verdict(False, "nothing is committed that could be too old")
        is_older = now - committed.committed_at > lag
        at = moment(committed.committed_at)
        return Verdict(is_older, f"it was committed at {at}, {'more' if is_older else 'not more'} than {lag} ago")

    return Named(f"when_stale(max_lag={lag})", stale | Leaf(f"older than {lag}", older))


def last_try_failed() -> Condition:
    """Hold when the newest step of the target committed nothing: it failed, was skipped or cancelled."""
    return Leaf("last_try_failed()", _without_result)


def retry_failed(after: timedelta) -> Condition:
    """Hold when the newest step committed nothing and ended a while ago: the same state is then tried again.

    Without it a target whose step failed is asked for again only when an input or the code changes.

    Args:
        after: time since the step ended.

    Raises:
        DefinitionError: `after` is not a positive timedelta.

    Example:
        >>> eager() | retry_failed(after=timedelta(minutes=30))
        eager() | retry_failed(after=0:30:00)
    """
    pause = _positive("retry_failed", "after", after)

    def over(facts: TargetFacts, now: datetime) -> Verdict:
        ended = facts.status.without_result
        if ended is None or ended.finished_at is None:
            return Verdict(False, "its newest step did not fail")
        due = now - ended.finished_at >= pause
        text = f"its newest step ended as {ended.state.value} at {moment(ended.finished_at)}"
        return Verdict(due, f"{text}, {'at least' if due else 'less than'} {pause} ago", retries=due)

    return Leaf(f"retry_failed(after={pause})", over)


def when(text: str, test: Callable[[TargetFacts, datetime], bool]) -> Condition:
    """Return a condition of your own.

    Args:
        text: the condition for people.
        test: takes the facts and the time, returns whether it holds. It is called often and must be quick.

    Example:
        >>> eager() & when("on a weekday", lambda facts, now: now.weekday() < 5)
        eager() & on a weekday
    """
    return Leaf(text, lambda facts, now: Verdict(bool(test(facts, now)), text))


def _missing(facts: TargetFacts, _now: datetime) -> Verdict:
    committed = facts.status.committed
    if committed is None:
        early = "it was computed before its partition was over"
        return Verdict(True, early if facts.early else "nothing is committed")
    return Verdict(False, f"it is committed since {moment(committed.committed_at)}")


def _updated(facts: TargetFacts, _now: datetime) -> Verdict:
    changes = facts.changes
    if not changes and facts.is_missing:
        return Verdict(False, "nothing is committed that inputs could have changed since")
    return Verdict(bool(changes), listed(changes) or "no input changed since it was computed")


def _ready(facts: TargetFacts, _now: datetime) -> Verdict:
    unready = facts.unready
    return Verdict(not unready, listed(unready) or "all inputs are committed")


def _input_active(facts: TargetFacts, _now: datetime) -> Verdict:
    active = [
        f"input {one.name} is {one.status.active.state.value}"
        for one in facts.inputs
        if one.status.active is not None
    ]
    return Verdict(bool(active), listed(active) or "no input is in progress")


def _active(facts: TargetFacts, _now: datetime) -> Verdict:
    active = facts.status.active
    return Verdict(active is not None, f"it is {active.state.value}" if active else "it is not in progress")


def _code(facts: TargetFacts, _now: datetime) -> Verdict:
    change = facts.code_change
    return Verdict(
        change is not None, change or f"code version {facts.declared_code or 'undeclared'} is unchanged"
    )


def _newest(facts: TargetFacts, _now: datetime) -> Verdict:
    text = "it is the newest partition" if facts.is_newest else "there is a newer partition"
    return Verdict(facts.is_newest, text if facts.partition_key else "it has no partitions")


def _without_result(facts: TargetFacts, _now: datetime) -> Verdict:
    ended = facts.status.without_result
    text = f"its newest step ended as {ended.state.value}" if ended else "its newest step did not fail"
    return Verdict(ended is not None, text)


def _positive(name: str, option: str, value: object) -> timedelta:
    if not isinstance(value, timedelta) or value <= timedelta(0):
        raise DefinitionError(
            f"{name}({option}={value!r}): give a positive timedelta, such as timedelta(hours=6)."
        )
    return value


def moment(at: datetime) -> str:
    """Return an instant as the explanations write it.

    Example:
        >>> from datetime import UTC
        >>> moment(datetime(2024, 1, 1, 6, tzinfo=UTC))
        '2024-01-01 06:00+00:00'
    """
    return at.isoformat(sep=" ", timespec="minutes")


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
