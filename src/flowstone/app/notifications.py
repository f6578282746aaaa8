"""`flow.notifications`: what people are notified of, what was sent, what could not be; and how fresh data are.

`declare` turns what an app was given into rules, by which the store decides, and senders, which deliver.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import entry_points
from typing import Any

from flowstone.app.asynchronous import AsyncFlowStone, awaitable
from flowstone.core.automation.record import shown_id
from flowstone.core.automation.schedule import Schedule
from flowstone.core.automation.sensor import Sensor
from flowstone.core.declaring import shown, view, whole_number
from flowstone.core.graph import AssetGraph
from flowstone.core.notification import (
    Freshness,
    Message,
    Notice,
    Notices,
    Notification,
    NotificationState,
    Notify,
    NotifyEvent,
    NotifyRule,
    Recipient,
    name_of_sender,
)
from flowstone.core.selection import select
from flowstone.engine.freshness import FreshnessReader, TimeWatch
from flowstone.engine.notifications import Composer, Delivery
from flowstone.errors import ConfigurationError, OptionsError, did_you_mean
from flowstone.protocols import NotificationStore, Sender

ENTRY_POINT_GROUP = "flowstone.notifiers"


@dataclass(frozen=True, slots=True)
class _FunctionSender:
    """A plain function in place of a sender."""

    function: Any
    name: str

    def send(self, message: Message) -> object:
        return self.function(message)


@dataclass(frozen=True, slots=True)
class Notifications:
    """What an app needs to notify people.

    Args:
        store: keeps notifications.
        rules: those of the app.
        senders: by the name of their rule.
        composer: puts notifications into words.
        freshness: knows how old data are.
        watch: notes what only time decides.
        delivery: sends.
    """

    store: NotificationStore
    rules: Sequence[NotifyRule]
    senders: Mapping[str, Sender]
    composer: Composer
    freshness: FreshnessReader
    watch: TimeWatch
    delivery: Delivery

    @property
    def in_use(self) -> bool:
        """Whether there is anything to do in the background."""
        return bool(self.rules or self.freshness.assets)


def declare(
    notify: Iterable[Notify], graph: AssetGraph, schedules: Iterable[Schedule], sensors: Iterable[Sensor]
) -> tuple[list[NotifyRule], dict[str, Sender]]:
    """Turn what an app was given into rules and senders, one of each for each recipient.

    Raises:
        ConfigurationError: a recipient is registered nowhere, or cannot be one.
        SelectionError: a selection cannot be read, or selects nothing.
    """
    rules: list[NotifyRule] = []
    senders: dict[str, Sender] = {}
    automated: list[tuple[str, tuple[str, ...] | None]] = [
        *((shown_id(one.id), select(graph, one.selection)) for one in schedules),
        *((shown_id(one.id), None if one.selection is None else select(graph, one.selection)) for one in sensors),
        *((f"condition:{one.name}", (one.name,)) for one in graph if one.automation),
    ]
    for one in notify:
        assets = None if one.selection is None else frozenset(select(graph, one.selection))
        for recipient in one.to:
            sender = _sender(recipient)
            name = _free_name(one.name or sender.name, senders)
            senders[name] = sender
            automations = None
            if assets is not None:
                automations = frozenset(
                    one_id for one_id, about in automated if about is None or not assets.isdisjoint(about)
                )
            rules.append(
                NotifyRule(
                    name=name,
                    events=frozenset(NotifyEvent(event) for event in one.events),
                    assets=assets,
                    automations=automations,
                    wait_seconds=one.wait_seconds,
                    deadline_seconds=one.deadline_seconds,
                )
            )
    return rules, senders


def _free_name(name: str, taken: Mapping[str, object]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free


def _sender(given: Recipient) -> Sender:
    made: Any = _registered(given) if isinstance(given, str) else given
    send = getattr(made, "send", None)
    function = send if callable(send) else made
    if inspect.iscoroutinefunction(function):
        raise ConfigurationError(
            f"notify=[Notify(to={name_of_sender(made)})]: give a plain function; asyncio.run calls coroutines."
        )
    if callable(send):
        return (
            made if isinstance(getattr(made, "name", None), str) else _FunctionSender(send, name_of_sender(made))
        )
    return _FunctionSender(made, name_of_sender(made))


def _registered(name: str) -> Any:
    """Return the sender that a package registers under a name."""
    points = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if name not in points:
        known = f" Registered: {', '.join(sorted(points))}." if points else " No package registers one."
        raise ConfigurationError(
            f"notify=[Notify(to={name!r})]: no sender of this name is registered in the entry point group "
            f"{ENTRY_POINT_GROUP!r}.{did_you_mean(name, points)}{known}"
        )
    try:
        made = points[name].load()
        made = made() if isinstance(made, type) or not callable(getattr(made, "send", None)) else made
    except Exception as error:
        raise ConfigurationError(
            f"notify=[Notify(to={name!r})]: its entry point {points[name].value!r} failed with "
            f"{type(error).__name__}: {error}"
        ) from error
    if not callable(getattr(made, "send", None)):
        raise ConfigurationError(
            f"notify=[Notify(to={name!r})]: {points[name].value!r} made {shown(made)}, which has no send(message)."
        )
    return made


@dataclass(frozen=True, slots=True)
class Tested:
    """What came of a test message.

    Args:
        rule: name of the rule.
        sender: what kind of sender it has.
        error: why it could not be sent; None when it was.
    """

    rule: str
    sender: str
    error: str | None = None


@view("flow.notifications")
class NotificationsView:
    """What people are notified of, what was sent, what could not be; and how fresh data are.

    Example:
        >>> from flowstone import FlowStone, Notify, asset
        >>> @asset
        ... def orders():
        ...     raise ValueError("no rows")
        >>> flow = FlowStone.for_testing([orders], notify=[Notify(to=print, on="failed")])
        >>> flow.materialize("orders")
        Traceback (most recent call last):
        ...
        ValueError: no rows
        >>> [flow.notifications.message(one.id).subject for one in flow.notifications.list()]
        ['orders failed: ValueError: no rows']
    """

    def __init__(self, parts: Notifications) -> None:
        self._parts = parts
        self._store = parts.store

    def list(self, *, state: NotificationState | str | None = None, limit: int = 100) -> Sequence[Notification]:
        """Return notifications, the newest first.

        Args:
            state: only those in this state: `pending`, `sent`, `given_up`.
            limit: how many at most.

        Raises:
            OptionsError: there is no such state, or the limit is less than 1.
        """
        known = [one.value for one in NotificationState]
        if state is not None and state not in known:
            hint = did_you_mean(str(state), known)
            raise OptionsError(f"state={shown(state)}: there is no such state.{hint} States: {', '.join(known)}.")
        if whole_number(limit, minimum=1, maximum=100_000) is None:
            raise OptionsError(f"limit={shown(limit)}: give a whole number from 1 to 100000.")
        return self._store.newest(state=None if state is None else NotificationState(state), limit=limit)

    def get(self, notification: int | str) -> Notification:
        """Return a notification.

        Raises:
            OptionsError: there is none of this id.
        """
        return self._found(notification)

    def message(self, notification: int | str | Notification) -> Message:
        """Return the message of a notification, as senders get it.

        Raises:
            OptionsError: there is none of this id.
        """
        one = notification if isinstance(notification, Notification) else self._found(notification)
        return self._parts.composer.compose(one)

    def rules(self) -> Sequence[NotifyRule]:
        """Return the rules that hold: those of this app, and those that workers of the project declared."""
        return self._store.rules()

    def senders(self) -> Mapping[str, str]:
        """Return the kind of sender of each rule of this app."""
        return {rule: sender.name for rule, sender in self._parts.senders.items()}

    def test(self, rule: str | None = None) -> Sequence[Tested]:
        """Send a test message through the sender of a rule, or of each, here and now.

        Raises:
            OptionsError: this app declares no such rule.
        """
        senders = self._parts.senders
        if rule is not None and rule not in senders:
            declared = ", ".join(senders) or "none"
            raise OptionsError(f"{rule!r} is no rule of this app.{did_you_mean(rule, senders)} Rules: {declared}.")
        found = []
        for name in senders if rule is None else [rule]:
            error = None
            try:
                senders[name].send(self._test_message(name))
            except Exception as raised:  # noqa: BLE001 - it is what the caller wants to know
                error = f"{type(raised).__name__}: {raised}"
            found.append(Tested(name, senders[name].name, error))
        return found

    def deliver(self) -> int:
        """Note what only time decides, send what is due, and wait for that; return how many were sent.

        Workers do that by themselves, about once a second.
        """
        self._parts.watch.check()
        return self._parts.delivery.deliver()

    def retry(self, *notifications: int | str) -> Sequence[int]:
        """Have notifications sent now that were given up, or wait for another try; return which.

        Args:
            *notifications: their ids; none means all that were given up.

        Raises:
            OptionsError: there is none of an id, or it was sent.
        """
        if not notifications:
            ids = [one.id for one in self._store.newest(state=NotificationState.GIVEN_UP, limit=10_000)]
            return self._store.retry(ids) if ids else []
        found = [self._found(one) for one in notifications]
        for one in found:
            if one.state is NotificationState.SENT:
                raise OptionsError(f"Notification {one.id} was sent already.")
        return self._store.retry([one.id for one in found])

    def counts(self) -> Mapping[NotificationState, int]:
        """Return how many there are in each state."""
        return self._store.counts()

    def freshness(self, *assets: str) -> Sequence[Freshness]:
        """Return how old the data are of assets that declare `fresh_within`.

        Args:
            *assets: their names; none means all.
        """
        reader = self._parts.freshness
        return [*reader.read(assets or reader.assets, datetime.now(UTC)).values()]

    def _found(self, given: object) -> Notification:
        text = str(given)
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 18 else None
        found = None if number is None else self._store.get(number)
        if found is None:
            raise OptionsError(f"There is no notification {shown(given)}; `flowstone notifications` lists them.")
        return found

    def _test_message(self, rule: str) -> Message:
        now = datetime.now(UTC)
        notice = Notice(NotifyEvent.RECOVERED, "test", now, text="this is a test; nothing happened")
        one = Notification(
            id=0, rule=rule, key="test:", counts={"recovered": 1}, notices=Notices([notice]), created_at=now
        )
        return self._parts.composer.compose(one)


class AsyncNotificationsView(AsyncFlowStone):
    """`flow.aio.notifications`: the verbs of `flow.notifications`, awaitable."""

    list = awaitable(NotificationsView.list)
    get = awaitable(NotificationsView.get)
    message = awaitable(NotificationsView.message)
    rules = awaitable(NotificationsView.rules)
    senders = awaitable(NotificationsView.senders)
    test = awaitable(NotificationsView.test)
    deliver = awaitable(NotificationsView.deliver)
    retry = awaitable(NotificationsView.retry)
    counts = awaitable(NotificationsView.counts)
    freshness = awaitable(NotificationsView.freshness)
