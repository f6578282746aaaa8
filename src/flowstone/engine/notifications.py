"""Sending notifications: claimed from the store, put into words, handed to a sender, acknowledged.

`Composer` makes the words; `Delivery` sends, at least once, in threads of its own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from urllib.parse import urlencode

from flowstone import telemetry
from flowstone.core.clean import clean_text
from flowstone.core.forks import renew_after_fork
from flowstone.core.notification import (
    BAD_EVENTS,
    Message,
    Notice,
    Notification,
    NotificationState,
    NotifyEvent,
)
from flowstone.core.partitions import PartitionKey
from flowstone.protocols import NotificationStore, Sender

log = logging.getLogger("flowstone.notifications")

_TIMEOUT_SECONDS = 60.0
_LEASE_SECONDS = 30.0
_POLL_SECONDS = 1.0
_IN_PLACE_SECONDS = 30.0
_CLOSE_SECONDS = 10.0
_FIRST_PAUSE_SECONDS = 5.0
_MAX_PAUSE_SECONDS = 900.0
MAX_ATTEMPTS = 25
"""So often is sending tried, within about five hours; then it is given up, and the audit log says so."""
_MAX_SUBJECT = 150
_MAX_HANGING = 5
"""So many threads of a rule are left to a sender that does not come back."""

_VERBS: Mapping[NotifyEvent, str] = {
    NotifyEvent.FAILED: "failed",
    NotifyEvent.UPSTREAM_FAILED: "not computed",
    NotifyEvent.CHECK_FAILED: "failed a check",
    NotifyEvent.CHECK_WARNED: "has a warning of a check",
    NotifyEvent.LATE: "late",
    NotifyEvent.DEADLINE: "takes too long",
    NotifyEvent.AUTOMATION_FAILED: "fails",
    NotifyEvent.APPROVAL: "waits for a decision",
    NotifyEvent.RECOVERED: "recovered",
    NotifyEvent.COMPLETED: "completed",
}
_PLURALS: Mapping[NotifyEvent, str] = {
    NotifyEvent.CHECK_FAILED: "checks failed",
    NotifyEvent.CHECK_WARNED: "checks with warnings",
}


class Composer:
    """Puts notifications into words.

    Args:
        describe: names an asset with its encoded partition, for people.
        project: the project of the app.
        dashboard_url: address of the dashboard; None when it is not known, and then there are no links.

    Example:
        >>> from datetime import UTC, datetime
        >>> at = datetime(2024, 1, 5, tzinfo=UTC)
        >>> notice = Notice(NotifyEvent.FAILED, "orders", at, text="ValueError: no rows", run_id="r1")
        >>> one = Notification(
        ...     id=7, rule="ops", key="run:r1", run_id="r1", counts={"failed": 1}, notices=(notice,), created_at=at
        ... )
        >>> Composer(lambda asset, key: asset, "default", None).compose(one).subject
        'orders failed: ValueError: no rows'
    """

    def __init__(
        self, describe: Callable[[str, PartitionKey], str], project: str, dashboard_url: str | None
    ) -> None:
        self._describe = describe
        self._project = project
        self._base = dashboard_url.rstrip("/") if dashboard_url else None

    def compose(self, one: Notification) -> Message:
        """Return the message of a notification."""
        good = not any(event.value in one.counts for event in (*BAD_EVENTS, NotifyEvent.UPSTREAM_FAILED))
        url = self._url(one)
        return Message(
            id=str(one.id),
            rule=one.rule,
            subject=self._subject(one),
            text=self._text(one, url),
            good=good and NotifyEvent.CHECK_WARNED.value not in one.counts,
            url=url,
            project=self._project,
            run_id=one.run_id,
            counts=one.counts,
            notices=tuple(one.notices),
            created_at=one.created_at,
        )

    def _subject(self, one: Notification) -> str:
        """Return a line that says the most, whatever names and errors are in it."""
        prefix = "" if self._project == "default" else f"[{self._project}] "
        if one.total == 1 and one.notices:
            line = self._line(one.notices[0])
        else:
            line = ", ".join(
                f"{number} {_PLURALS.get(NotifyEvent(event), _VERBS[NotifyEvent(event)])}"
                for event, number in _ordered(one.counts)
            )
            names = list(dict.fromkeys(notice.subject for notice in one.notices))
            line += f": {', '.join(names[:3])}{', …' if len(names) > 3 else ''}"
        return line_of(prefix + line, limit=_MAX_SUBJECT)

    def _line(self, notice: Notice) -> str:
        """Return a notice as one line."""
        if notice.event in (NotifyEvent.DEADLINE, NotifyEvent.COMPLETED):
            what = notice.text if notice.event is NotifyEvent.DEADLINE else f"completed: {notice.text}"
            return f"run {notice.subject}: {what}" if notice.event is NotifyEvent.DEADLINE else what
        name = self._describe(notice.subject, PartitionKey(notice.partition_key))
        verb = _VERBS[notice.event]
        if notice.event is NotifyEvent.LATE:
            verb = "is late"
        elif notice.event is NotifyEvent.UPSTREAM_FAILED:
            verb = "was not computed"
        check = f" ({notice.check})" if notice.check else ""
        return f"{name} {verb}{check}" + (f": {notice.text}" if notice.text else "")

    def _text(self, one: Notification, url: str | None) -> str:
        lines = [line_of(self._line(notice), limit=1000) for notice in one.notices]
        left = one.total - len(one.notices)
        if left > 0:
            lines.append(f"... and {left:,} more")
        text = "\n".join(f"- {line}" for line in lines)
        about = []
        if one.run_id:
            about.append(f"Run: {line_of(one.run_id)}")
        if url:
            about.append(f"Page: {url}")
        about.append(
            f"Notification {one.id} of the rule {line_of(one.rule)!r}, decided {one.created_at:%F %T} UTC"
        )
        return clean_text(f"{text}\n\n" + "\n".join(about) + "\n")

    def _url(self, one: Notification) -> str | None:
        if self._base is None:
            return None
        kind, _, name = one.key.partition(":")
        if kind == "approval":
            return f"{self._base}/approval?{urlencode({'id': name})}"
        if one.run_id:
            return f"{self._base}/run?{urlencode({'id': one.run_id})}"
        if kind == "automation":
            kind, _, name = name.partition(":")
            return f"{self._base}/automation/details?{urlencode({'kind': kind, 'name': name})}"
        if len(one.notices) == 1:
            return f"{self._base}/asset?{urlencode({'name': one.notices[0].subject})}"
        return f"{self._base}/notifications"


def _ordered(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    order = [one.value for one in NotifyEvent]
    return sorted(counts.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order))


def line_of(text: str, *, limit: int = 500) -> str:
    """Return any text as one line that ends nowhere else: no line feeds of any kind, no control characters.

    Example:
        >>> line_of("a\\r\\nBcc: all@example.com\\u2028b")
        'a Bcc: all@example.com b'
    """
    cleaned = clean_text(text, limit=4 * limit)
    line = " ".join("".join(one if one.isprintable() else " " for one in cleaned).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


class Delivery:
    """Sends the notifications of an app's rules, each at least once in the whole fleet.

    Each rule has a thread while it has something to send: a sender that hangs holds up no other.

    Args:
        store: keeps them.
        senders: by the name of their rule.
        compose: puts one into words.
        poll: called about once a second, for what only time decides.
        sends: whether anything is sent; an app for tests only decides and keeps.
        lease_seconds: after how long others take over from a process that died.
        timeout_seconds: after how long what a sender here did not finish is tried again, here or elsewhere.
        max_attempts: how often sending is tried.
        pause_seconds: how long after the first failure; it doubles.
    """

    def __init__(
        self,
        store: NotificationStore,
        senders: Mapping[str, Sender],
        compose: Callable[[Notification], Message],
        *,
        poll: Callable[[], None] = lambda: None,
        sends: bool = True,
        lease_seconds: float = _LEASE_SECONDS,
        timeout_seconds: float = _TIMEOUT_SECONDS,
        max_attempts: int = MAX_ATTEMPTS,
        pause_seconds: float = _FIRST_PAUSE_SECONDS,
    ) -> None:
        self._store = store
        self._senders = dict(senders) if sends else {}
        self._compose = compose
        self._poll = poll
        self._lease = lease_seconds
        self._timeout = timeout_seconds
        self._max_attempts = max_attempts
        self._pause = pause_seconds
        self.counts: Counter[str] = Counter()
        """What this process sent and could not send: `sent`, `failed`, `given_up`."""
        self._begin()
        renew_after_fork(self, Delivery._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._sending: dict[str, threading.Thread] = {}
        self._held: dict[str, tuple[Notification, float]] = {}
        self._hanging: Counter[str] = Counter()
        self._stopping = threading.Event()
        self._loop: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether it sends in the background."""
        return self._loop is not None

    def start(self) -> None:
        """Send what is due in the background, from now on."""
        with self._lock:
            if self._loop is None and not self._stopping.is_set():
                self._loop = threading.Thread(target=self._serve, name="flowstone-notifications", daemon=True)
                self._loop.start()

    def stop(self, *, timeout_seconds: float = 5.0) -> None:
        """End the background thread, and let what is being sent end; others send what is left, or later."""
        self._stopping.set()
        deadline = time.monotonic() + timeout_seconds
        for thread in (self._loop, *self._sending.values()):
            if thread is not None:
                thread.join(max(0.0, deadline - time.monotonic()))

    def after_run(self) -> None:
        """Send what a run that ended in this process decided; what cannot be sent now is sent later."""
        if not self._senders or not self._store.has_pending:
            return
        try:
            self.deliver()
            if self._store.pending(list(self._senders)):
                self.start()
        except Exception as error:  # noqa: BLE001 - the run ended as it did; a worker, or the next run, sends it
            log.warning("Notifications cannot be sent for now: %s", error)

    def close(self, *, shared: bool) -> None:
        """End with the app; what other processes do not see is tried once more.

        Args:
            shared: whether others see it.
        """
        if not shared and self._senders and self._store.has_pending and not self._stopping.is_set():
            pending = [one.id for one in self._store.newest(state=NotificationState.PENDING)]
            self._store.retry(pending)
            self.deliver(timeout_seconds=_CLOSE_SECONDS)
            if left := self._store.pending(list(self._senders)):
                log.warning("%d notifications were not sent, and are gone with this process.", left)
        self.stop()

    def deliver(self, *, timeout_seconds: float = _IN_PLACE_SECONDS) -> int:
        """Send what is due now, and wait for that; return how many were sent.

        Raises:
            FlowStoneError: the store does not answer; a failing sender is only logged, and tried again later.
        """
        before = self.counts["sent"]
        deadline = time.monotonic() + timeout_seconds
        for thread in self._dispatch():
            while self._is_sending(thread) and (left := deadline - time.monotonic()) > 0:
                thread.join(min(left, _POLL_SECONDS))
                self._renew()
        return self.counts["sent"] - before

    def _serve(self) -> None:
        failing = False
        while not self._stopping.wait(_POLL_SECONDS):
            try:
                self._renew()
                self._dispatch()
                self._poll()
            except Exception as error:  # noqa: BLE001 - goes on when the store answers again
                if not failing:
                    log.warning("Notifications cannot be sent for now: %s", error)
                failing = True
            else:
                failing = False

    def _dispatch(self) -> list[threading.Thread]:
        """Start a thread for each rule that has something to send; return those that send."""
        with self._lock:
            for rule, known in list(self._sending.items()):
                if not known.is_alive() or self._is_left(rule):
                    del self._sending[rule]
            for rule in self._store.due([one for one in self._senders if one not in self._sending]):
                if claimed := self._claim(rule):
                    thread = threading.Thread(
                        target=self._send_all, args=(rule, claimed), name="flowstone-sender", daemon=True
                    )
                    self._sending[rule] = thread
                    thread.start()
            return list(self._sending.values())

    def _is_sending(self, thread: threading.Thread) -> bool:
        return thread.is_alive() and thread in tuple(self._sending.values())

    def _is_left(self, rule: str) -> bool:
        """Whether the thread of a rule hangs in its sender and is left to that: another one goes on."""
        held = self._held.get(rule)
        if held is None or time.monotonic() < held[1] or self._hanging[rule] >= _MAX_HANGING:
            return False
        self._hanging[rule] += 1
        self._held.pop(rule, None)
        log.warning(
            "The sender of the rule %r has not come back for %g s with notification %d, which is tried again.",
            *(rule, self._timeout, held[0].id),
        )
        return True

    def _claim(self, rule: str) -> Notification | None:
        found = next(iter(self._store.claim([rule], lease_seconds=self._lease, limit=1)), None)
        if found is not None:
            self._held[rule] = found, time.monotonic() + self._timeout
        return found

    def _renew(self) -> None:
        """Keep what is being sent, unless its sender hangs."""
        now = time.monotonic()
        held = [one for one, until in list(self._held.values()) if now < until]
        if held:
            self._store.renew(held, lease_seconds=self._lease)

    def _send_all(self, rule: str, claimed: Notification) -> None:
        """Send what is due for a rule, one after the other."""
        following: Notification | None = claimed
        try:
            while following is not None:
                self._send(rule, following)
                if self._sending.get(rule) is not threading.current_thread():  # it hung, and was left
                    self._hanging[rule] -= 1
                    return
                self._held.pop(rule, None)
                following = None if self._stopping.is_set() else self._claim(rule)
        except Exception as error:  # noqa: BLE001 - its lease ends, and it is sent once more
            self._held.pop(rule, None)
            log.warning("Notifications of the rule %r cannot be sent for now: %s", rule, error)

    def _send(self, rule: str, one: Notification) -> None:
        about = {"rule": rule, "id": one.id, "counts": dict(one.counts)}
        try:
            self._senders[rule].send(self._compose(one))
        except BaseException as error:  # noqa: BLE001 - whatever a sender raises concerns nobody else
            self._failed(rule, one, error)
        else:
            self._store.acknowledge(one)
            self.counts["sent"] += 1
            telemetry.emit("notification.sent", {"attempts": one.attempts}, about)

    def _failed(self, rule: str, one: Notification, error: BaseException) -> None:
        text = clean_text(f"{type(error).__name__}: {error}", limit=500)
        if one.attempts >= self._max_attempts:
            self._store.give_up(one, error=text)
            self.counts["given_up"] += 1
            log.error(
                "Notification %d of the rule %r is given up after %d tries: %s", one.id, rule, one.attempts, text
            )
            about = {"rule": rule, "id": one.id, "error": text}
            telemetry.emit("notification.given_up", {"attempts": one.attempts}, about)
            return
        pause = min(_MAX_PAUSE_SECONDS, self._pause * 2.0 ** (one.attempts - 1))
        self._store.release(one, error=text, retry_in_seconds=pause)
        self.counts["failed"] += 1
        log.warning("Notification %d of the rule %r is sent again in %g s: %s", one.id, rule, pause, text)
