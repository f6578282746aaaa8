"""Notifications: what a person is to hear of, decided where it happens and sent later.

`Notify` is what an app declares. Of it a store needs only the `NotifyRule`: what happens in a transaction becomes
a `Notice`, and the notices of one run, to one rule, are one `Notification`. `Message` is what a sender gets of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, Self

from flowstone.core.clean import clean_text
from flowstone.core.declaring import checks_options, duration, is_text, shown
from flowstone.core.selection import Selection
from flowstone.errors import DefinitionError, did_you_mean

MAX_NOTICES = 20
"""Notices that a notification quotes; of more it keeps the number."""
MAX_TEXT = 500
"""Characters of an error that a notice quotes."""
UNDECLARED = "no process declares its rule any more"
"""What is recorded of a notification that nobody can send."""
DEFAULT_WAIT = timedelta(minutes=15)
_MAX_NAME = 100


class NotifyEvent(StrEnum):
    """What a person can be notified of.

    Example:
        >>> NotifyEvent("late").value
        'late'
    """

    FAILED = "failed"
    """A step failed, after its last attempt, or will never be computed because an input failed."""
    UPSTREAM_FAILED = "upstream_failed"
    """A step will never be computed because an input ended without a result; part of `failed`."""
    CHECK_FAILED = "check_failed"
    """A check of severity `error` did not pass."""
    CHECK_WARNED = "check_warned"
    """A check of severity `warning` did not pass."""
    LATE = "late"
    """The data of an asset are older than its `fresh_within`."""
    DEADLINE = "deadline"
    """A run takes longer than the `deadline` of the rule."""
    AUTOMATION_FAILED = "automation_failed"
    """A schedule, a sensor or a condition began to fail."""
    APPROVAL = "approval"
    """A step waits for a person's decision."""
    RECOVERED = "recovered"
    """What had failed, or was late, is well again."""
    COMPLETED = "completed"
    """A run ended, and everything in it is well."""


_GOOD = frozenset({NotifyEvent.RECOVERED, NotifyEvent.COMPLETED})
BAD_EVENTS = tuple(
    one for one in NotifyEvent if one not in {*_GOOD, NotifyEvent.CHECK_WARNED, NotifyEvent.UPSTREAM_FAILED}
)
_DEFAULT = ("failed", "check_failed", "late", "automation_failed", "recovered")


class Notice(NamedTuple):
    """One thing that happened.

    Args:
        event: what.
        subject: to what: an asset, `sensor:inbox`, or a run.
        at: when.
        partition_key: encoded partition; empty without.
        text: more about it, such as the last line of the error; cleaned, secrets masked.
        step_id: the step, when there is one.
        run_id: the run, when there is one.
        check: name of the check, when it is about one.
    """

    event: NotifyEvent
    subject: str
    at: datetime
    partition_key: str = ""
    text: str = ""
    step_id: int | None = None
    run_id: str | None = None
    check: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON, without what is empty."""
        found = {name: value for name, value in self._asdict().items() if value not in (None, "")}
        return found | {"event": self.event.value, "at": self.at.isoformat()}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Return what `to_json` made plain."""
        event, at = NotifyEvent(found["event"]), datetime.fromisoformat(found["at"])
        return cls(**dict(found) | {"event": event, "at": at})


class Notices(tuple[Notice, ...]):
    """Some notices, as a column of JSON holds them."""

    @classmethod
    def from_json(cls, found: Iterable[Mapping[str, Any]]) -> Self:
        """Return what a column of JSON holds."""
        return cls(Notice.from_json(one) for one in found)


def quoted(text: str | None) -> str:
    """Return what a notice says of an error: a line of its own, cleaned, with secrets masked."""
    return clean_text(text or "", limit=MAX_TEXT)


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifyRule:
    """What a store knows of a `Notify`: which events of what become a notification.

    Args:
        name: names it in the app and in the tables.
        events: what it is about.
        assets: of which assets; None for all.
        automations: of which automations, such as `sensor:inbox`; None for all.
        wait_seconds: a run that goes on is reported so long after the first event at the latest.
        deadline_seconds: runs that take longer are reported.

    Example:
        >>> rule = NotifyRule(name="ops", events=frozenset({NotifyEvent.FAILED}), assets=frozenset({"orders"}))
        >>> rule.wants(NotifyEvent.UPSTREAM_FAILED, "orders"), rule.wants(NotifyEvent.FAILED, "other")
        (True, False)
    """

    name: str
    events: frozenset[NotifyEvent]
    assets: frozenset[str] | None = None
    automations: frozenset[str] | None = None
    wait_seconds: float = DEFAULT_WAIT.total_seconds()
    deadline_seconds: float | None = None

    def has(self, event: NotifyEvent) -> bool:
        """Whether it is about an event."""
        return event in self.events or (event is NotifyEvent.UPSTREAM_FAILED and NotifyEvent.FAILED in self.events)

    def wants(self, event: NotifyEvent, asset: str) -> bool:
        """Whether it is about an event of an asset."""
        return (self.assets is None or asset in self.assets) and self.has(event)

    def wants_of(self, event: NotifyEvent, automation: str) -> bool:
        """Whether it is about an event of an automation."""
        return (self.automations is None or automation in self.automations) and self.has(event)


class NotificationState(StrEnum):
    """Where a notification stands.

    Example:
        >>> NotificationState("sent").value
        'sent'
    """

    PENDING = "pending"
    """It collects notices, or is about to be sent, perhaps once more."""
    SENT = "sent"
    """Its sender has taken it."""
    GIVEN_UP = "given_up"
    """Its sender refused it too often; `flowstone notifications retry` sends it again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """What one rule reports of one run, automation or asset.

    Args:
        id: names it, for `flowstone notifications retry ID`.
        rule: name of the rule.
        key: what its notices have in common, such as `run:ID`.
        run_id: the run, when they are of one.
        state: where it stands.
        counts: how many notices there are, by event.
        notices: the first of them.
        created_at: when the first of them was decided.
        attempts: how often sending was tried.
        error: what went wrong the last time.
        sent_at: when it was sent.
        token: the right to say how the try that is under way ended.
    """

    id: int
    rule: str
    key: str
    run_id: str | None = None
    state: NotificationState = NotificationState.PENDING
    counts: Mapping[str, int] = field(default_factory=dict)
    notices: Notices = field(default_factory=Notices)
    created_at: datetime
    attempts: int = 0
    error: str | None = None
    sent_at: datetime | None = None
    token: int = 0

    @property
    def total(self) -> int:
        """How many notices there are."""
        return sum(self.counts.values())


def added(known: Notification, more: Sequence[Notice]) -> Notification:
    """Return a notification with further notices.

    Example:
        >>> from datetime import UTC
        >>> at = datetime(2024, 1, 5, tzinfo=UTC)
        >>> one = Notification(id=1, rule="ops", key="late:orders", created_at=at)
        >>> added(one, [Notice(NotifyEvent.LATE, "orders", at)]).counts
        {'late': 1}
    """
    counts = dict(known.counts)
    for one in more:
        counts[one.event.value] = counts.get(one.event.value, 0) + 1
    return replace(known, counts=counts, notices=Notices((*known.notices, *more)[:MAX_NOTICES]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What a sender gets to send.

    Args:
        id: of the notification: the same when it is sent once more, so that a receiver knows it.
        rule: name of the rule.
        subject: one line, without anything that could end it.
        text: the message, plain text.
        good: whether all of it is good news.
        url: the page about it, when the address of the dashboard is known.
        project: the project of the app.
        run_id: the run, when it is about one.
        counts: how many notices there are, by event.
        notices: the first of them.
        created_at: when the first of them was decided.
    """

    id: str
    rule: str
    subject: str
    text: str
    good: bool = False
    url: str | None = None
    project: str = "default"
    run_id: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    notices: tuple[Notice, ...] = ()
    created_at: datetime

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON: what a webhook posts."""
        return {
            "id": self.id,
            "rule": self.rule,
            "project": self.project,
            "subject": self.subject,
            "text": self.text,
            "good": self.good,
            "url": self.url,
            "run_id": self.run_id,
            "counts": dict(self.counts),
            "events": [one.to_json() for one in self.notices],
            "created_at": self.created_at.isoformat(),
        }


class SendsMessages(Protocol):
    """What `Notify(to=...)` takes; see `flowstone.protocols.Sender`."""

    @property
    def name(self) -> str:
        """What kind of sender this is."""

    def send(self, message: Message) -> object:
        """Send it, or raise."""


type Recipient = SendsMessages | Callable[[Message], object] | str
"""A sender, a function of a message, or the name of a sender that a package registers."""


@checks_options
class Notify:
    """Who is notified of what.

    Args:
        to: a sender such as `email(...)`, a function of a `Message`, the name of a sender that a package
            registers, or a list of these.
        on: the events: `failed` (after the last attempt, and what is not computed for it), `upstream_failed`,
            `check_failed`, `check_warned`, `late`, `deadline`, `automation_failed`, `approval`, `recovered`,
            `completed`.
        selection: of which assets, and of what automates them; all by default.
        name: names the rule in tables and commands; by default the kind of its sender.
        wait: the events of a run are one message when it is over; of one that goes on there is one so long after
            its first event.
        deadline: runs that take longer than this are an event; needs `deadline` in `on`, or nothing there.

    Raises:
        DefinitionError: an option cannot work; says which, and what to give.

    Example:
        >>> Notify(to=print, on="failed", selection="tag:gold").events
        ('failed',)
    """

    def __init__(
        self,
        to: Recipient | Sequence[Recipient],
        *,
        on: str | Iterable[str] | None = None,
        selection: Selection | None = None,
        name: str | None = None,
        wait: timedelta | float = DEFAULT_WAIT,
        deadline: timedelta | float | None = None,
    ) -> None:
        given: Iterable[object] = to if isinstance(to, list | tuple | set | frozenset | Iterator) else (to,)
        self.to: tuple[Recipient, ...] = tuple(_recipient(one) for one in given)
        if not self.to:
            raise DefinitionError('Notify(to=[]): give a sender, such as email("ann@example.com", ...).')
        self.deadline_seconds = _seconds("deadline", deadline)
        self.wait_seconds: float = _seconds("wait", wait) or 0.0
        default = (*_DEFAULT, "deadline") if self.deadline_seconds else _DEFAULT
        self.events = tuple(one.value for one in _events(default if on is None else on))
        if "deadline" in self.events and not self.deadline_seconds:
            raise DefinitionError(
                'Notify(on="deadline"): say how long a run may take: deadline=timedelta(hours=2).'
            )
        if self.deadline_seconds and "deadline" not in self.events:
            raise DefinitionError('Notify(deadline=...): name "deadline" in on=[...] as well, or leave on= out.')
        if name is not None and (not is_text(name) or len(name) > _MAX_NAME or not name.isprintable()):
            raise DefinitionError(
                f"Notify(name={shown(name)}): give a line of text, at most {_MAX_NAME} characters."
            )
        self.name = name
        self.selection = selection

    def __repr__(self) -> str:
        to = ", ".join(one if isinstance(one, str) else name_of_sender(one) for one in self.to)
        return f"Notify(to={to}, on={self.events!r})"


def name_of_sender(one: object) -> str:
    """Return what a sender, or a function in place of one, is called."""
    name = getattr(one, "name", None) or getattr(one, "__name__", None)
    return name if isinstance(name, str) and name else type(one).__name__


def _recipient(one: object) -> Recipient:
    if isinstance(one, str):
        if is_text(one):
            return one
    elif isinstance(one, type):
        raise DefinitionError(f"Notify(to={one.__name__}): this is a class; make one: {one.__name__}(...).")
    elif callable(getattr(one, "send", None)) or callable(one):
        return one  # type: ignore[return-value]
    raise DefinitionError(
        f"Notify(to={shown(one)}): give a sender such as email(...) or webhook(...), a function of a message, or "
        "the name of a registered sender."
    )


def _events(given: object) -> list[NotifyEvent]:
    listed = (given,) if isinstance(given, str) else given
    known = [one.value for one in NotifyEvent]
    if isinstance(listed, Mapping | bytes) or not isinstance(listed, Iterable):
        raise DefinitionError(f"Notify(on={shown(given)}): give events by name: {', '.join(known)}.")
    found: dict[NotifyEvent, None] = {}
    for one in listed:
        if not isinstance(one, str) or one not in known:
            hint = did_you_mean(one, known) if isinstance(one, str) else ""
            raise DefinitionError(f"Notify(on=[{shown(one)}]): no such event.{hint} Events: {', '.join(known)}.")
        found[NotifyEvent(one)] = None
    if not found:
        raise DefinitionError(f"Notify(on=[]): name at least one event: {', '.join(known)}.")
    return list(found)


def _seconds(option: str, given: object) -> float | None:
    if given is None:
        return None
    seconds = duration(given)
    if seconds is None or (option == "deadline" and not seconds):
        raise DefinitionError(f"Notify({option}={shown(given)}): give a timedelta, or seconds, at most a year.")
    return seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """How old the data of an asset are, beside how old they may be.

    Args:
        asset: its name.
        within_seconds: how old they may be; see `fresh_within` of `@asset`.
        data_at: from when they are: the end of the newest partition that is committed, or the newest commit; None
            without any, and then `since` says from when on that counts.
        since: when the asset was first seen without data.
        late_since: since when they are too old; None while they are not.
    """

    asset: str
    within_seconds: float
    data_at: datetime | None = None
    since: datetime | None = None
    late_since: datetime | None = None

    @property
    def is_late(self) -> bool:
        """Whether they are too old."""
        return self.late_since is not None
