"""Automations as the stores know them: whether they run, when next, and what each tick came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from flowstone.core.step import NewRun, NewStep


class AutomationKind(StrEnum):
    """What kind of thing evaluates."""

    SCHEDULE = "schedule"
    SENSOR = "sensor"
    CONDITION = "condition"


class AutomationId(NamedTuple):
    """Kind and name: unique in an app."""

    kind: AutomationKind
    name: str


class TickState(StrEnum):
    """What a tick came to."""

    REQUESTED = "requested"
    """Runs were placed."""
    SKIPPED = "skipped"
    """There was nothing to do; the reason says why."""
    FAILED = "failed"
    """The evaluation raised or took too long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AutomationRecord:
    """One automation in the store.

    Args:
        id: kind and name.
        paused: whether nothing of it is evaluated.
        cursor: text that the evaluation before left for the next one; None at first.
        since: when it was first declared, by the store's clock: nothing before that was missed.
        due_at: when it is evaluated next; None when it waits for nothing but a person.
        last_tick_at: instant of its newest tick that was not made by hand.
        failures: evaluations that failed in a row.
    """

    id: AutomationId
    paused: bool
    cursor: str | None
    since: datetime
    due_at: datetime | None
    last_tick_at: datetime | None = None
    failures: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenAutomation:
    """The right to evaluate an automation once.

    Args:
        record: the automation as it was when taken.
        token: fencing token; only the newest one can conclude.
        now: the store's clock at that moment: the only clock that evaluations go by.
        by_hand: whether a person asked for it; the tick is then recorded beside the regular ones.
    """

    record: AutomationRecord
    token: int
    now: datetime
    by_hand: bool = False


class PreparedRun(NamedTuple):
    """A run that is planned and checked, but not recorded."""

    run: NewRun
    steps: Sequence[NewStep]
    run_key: str | None = None


class PartitionChange(NamedTuple):
    """A key, encoded, to add to or remove from a dynamic partitions definition."""

    definition: str
    key: str
    remove: bool = False


class RunKey(NamedTuple):
    """A run key that a sensor has used: it triggers no second run until a person allows it.

    Args:
        run_key: the key.
        run_id: the run that it triggered last.
        used_at: when.
    """

    run_key: str
    run_id: str
    used_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTick:
    """A tick to be recorded, with everything it asks for.

    Args:
        at: instant of the tick: the scheduled one for a schedule, else when it was evaluated.
        state: what it came to.
        reason: why nothing was asked for, or a note for people.
        error: cleaned text of what the evaluation raised.
        runs: what it asks for. Of those whose run key this automation used before, none is placed.
        partitions: changes of dynamic partitions, made before the runs are placed.
        run_ids: runs that were made for it already.
        took_seconds: how long the evaluation took.
        repeatable: whether, when the newest tick was skipped for the same reason, that one is counted on instead
            of recording another: a sensor that finds nothing every second must not fill the tables.
    """

    at: datetime
    state: TickState
    reason: str | None = None
    error: str | None = None
    runs: Sequence[PreparedRun] = ()
    partitions: Sequence[PartitionChange] = ()
    run_ids: Sequence[str] = ()
    took_seconds: float = 0.0
    repeatable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """The end of an evaluation, or of a part of it: committed in one transaction, or not at all.

    Args:
        ticks: what happened; none when nothing is worth recording.
        cursor: the new cursor.
        due_at: when to evaluate next; None for not before a person asks.
        failures: evaluations that failed in a row by now.
        goes_on: whether the evaluation keeps its right because more is to come.
        wakes: other automations that are due now because of this, unless they wait for a person.
    """

    ticks: Sequence[NewTick] = ()
    cursor: str | None
    due_at: datetime | None
    failures: int = 0
    goes_on: bool = False
    wakes: Sequence[AutomationId] = ()


class Concluded(NamedTuple):
    """What the store made of a conclusion.

    Args:
        accepted: False when another worker had taken over; nothing of it was recorded then.
        run_ids: the runs that were placed.
        known_keys: run keys that were left out because they had run before.
    """

    accepted: bool
    run_ids: tuple[str, ...] = ()
    known_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TickRecord:
    """A tick that happened; see `NewTick` for what the fields mean.

    `repeats` counts the further evaluations that came to the same; `evaluated_at` is the last of them.
    """

    id: int
    automation: AutomationId
    at: datetime
    state: TickState
    reason: str | None = None
    error: str | None = None
    run_ids: tuple[str, ...] = ()
    evaluated_at: datetime
    took_seconds: float = 0.0
    by_hand: bool = False
    worker: str | None = None
    repeats: int = 0
    metadata: dict[str, str] = field(default_factory=dict)


def is_repeatable(taken: TakenAutomation, tick: NewTick) -> bool:
    """Return whether a tick may be counted onto the one before it.

    Example:
        >>> from datetime import UTC
        >>> now = datetime(2024, 1, 1, tzinfo=UTC)
        >>> inbox = AutomationRecord(
        ...     id=AutomationId(AutomationKind.SENSOR, "inbox"), paused=False, cursor=None, since=now, due_at=now
        ... )
        >>> taken = TakenAutomation(record=inbox, token=1, now=now)
        >>> is_repeatable(taken, NewTick(at=now, state=TickState.SKIPPED, repeatable=True))
        True
    """
    asks = tick.runs or tick.partitions
    return tick.repeatable and tick.state is TickState.SKIPPED and not asks and not taken.by_hand


class Health(NamedTuple):
    """How an evaluation left an automation.

    Args:
        error: what its newest tick failed with; None when it is well.
    """

    error: str | None


def health_after(taken: TakenAutomation, conclusion: Conclusion) -> Health | None:
    """Return how an evaluation left an automation; None when it says nothing, as those that people ask for.

    Example:
        >>> from datetime import UTC
        >>> now = datetime(2024, 1, 1, tzinfo=UTC)
        >>> inbox = AutomationRecord(
        ...     id=AutomationId(AutomationKind.SENSOR, "inbox"), paused=False, cursor=None, since=now, due_at=now
        ... )
        >>> taken = TakenAutomation(record=inbox, token=1, now=now)
        >>> tick = NewTick(at=now, state=TickState.FAILED, error="boom")
        >>> health_after(taken, Conclusion(ticks=[tick], cursor=None, due_at=now))
        Health(error='boom')
    """
    if taken.by_hand or not conclusion.ticks:
        return None
    newest = conclusion.ticks[-1]
    return Health(newest.error or "it failed") if newest.state is TickState.FAILED else Health(None)


def shown_id(automation: AutomationId) -> str:
    """Return an automation as notifications name it.

    Example:
        >>> shown_id(AutomationId(AutomationKind.SENSOR, "inbox"))
        'sensor:inbox'
    """
    return f"{automation.kind.value}:{automation.name}"


def settled(tick: NewTick, placed: Sequence[str]) -> tuple[TickState, str | None]:
    """Return state and reason of a tick once it is known which of its runs were placed.

    Example:
        >>> from datetime import UTC
        >>> tick = NewTick(at=datetime(2024, 1, 1, tzinfo=UTC), state=TickState.REQUESTED)
        >>> settled(tick, [])
        (<TickState.SKIPPED: 'skipped'>, 'everything it asked for had run before')
    """
    if tick.state is TickState.REQUESTED and not placed:
        return TickState.SKIPPED, tick.reason or "everything it asked for had run before"
    return tick.state, tick.reason
