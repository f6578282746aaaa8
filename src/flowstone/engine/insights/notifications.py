"""What people are notified of, as pages and commands show it; and how old data are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from flowstone.core.notification import Freshness, NotificationState
from flowstone.engine.freshness import explained
from flowstone.engine.notifications import Composer
from flowstone.protocols import NotificationStore, Sender


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationLine:
    """One notification.

    Args:
        id: names it.
        rule: name of the rule.
        state: `pending`, `sent` or `given_up`.
        subject: what it says.
        text: all of it.
        events: its events with how often each happened.
        run_id: the run that it is about.
        created_at: when it was decided.
        sent_at: when it was sent.
        attempts: how often that was tried.
        error: what went wrong the last time.
    """

    id: int
    rule: str
    state: str
    subject: str
    text: str
    events: tuple[tuple[str, int], ...]
    run_id: str | None
    created_at: datetime
    sent_at: datetime | None
    attempts: int
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleLine:
    """One rule.

    Args:
        name: names it.
        events: what it is about.
        assets: how many assets it is about; None for all.
        sender: what sends its messages; empty when only other processes know that.
    """

    name: str
    events: tuple[str, ...]
    assets: int | None
    sender: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationOverview:
    """What people are notified of.

    Args:
        rules: by name.
        notifications: the newest first.
        pending: how many are not sent yet.
        given_up: how many could not be sent.
    """

    rules: tuple[RuleLine, ...]
    notifications: tuple[NotificationLine, ...]
    pending: int
    given_up: int


def notification_overview(
    store: NotificationStore,
    composer: Composer,
    senders: Mapping[str, Sender],
    *,
    state: NotificationState | None,
    limit: int,
) -> NotificationOverview:
    """Return what people are notified of; see `flow.insights.notifications`."""
    counts = store.counts()
    return NotificationOverview(
        rules=_rules(store, senders),
        notifications=tuple(
            NotificationLine(
                id=one.id,
                rule=one.rule,
                state=one.state.value,
                subject=(message := composer.compose(one)).subject,
                text=message.text,
                events=tuple(sorted(one.counts.items())),
                run_id=one.run_id,
                created_at=one.created_at,
                sent_at=one.sent_at,
                attempts=one.attempts,
                error=one.error,
            )
            for one in store.newest(state=state, limit=limit)
        ),
        pending=counts.get(NotificationState.PENDING, 0),
        given_up=counts.get(NotificationState.GIVEN_UP, 0),
    )


def _rules(store: NotificationStore, senders: Mapping[str, Sender]) -> tuple[RuleLine, ...]:
    own: Sequence[RuleLine] = [
        RuleLine(
            name=one.name,
            events=tuple(sorted(event.value for event in one.events)),
            assets=None if one.assets is None else len(one.assets),
            sender=senders[one.name].name if one.name in senders else "",
        )
        for one in store.rules()
    ]
    return tuple(sorted(own, key=lambda one: one.name))


@dataclass(frozen=True, slots=True, kw_only=True)
class FreshnessLine:
    """How old the data of an asset are.

    Args:
        asset: its name.
        state: `late` or `ok`.
        says: a sentence about it.
        within_seconds: how old they may be.
        data_at: from when they are.
        late_since: since when they are too old.
    """

    asset: str
    state: str
    says: str
    within_seconds: float
    data_at: datetime | None
    late_since: datetime | None


def freshness_line(one: Freshness) -> FreshnessLine:
    """Return how old the data of an asset are, for people."""
    says = explained(one)
    return FreshnessLine(
        asset=one.asset,
        state="late" if one.is_late else "ok",
        says=says[0].upper() + says[1:] + ".",
        within_seconds=one.within_seconds,
        data_at=one.data_at,
        late_since=one.late_since,
    )
