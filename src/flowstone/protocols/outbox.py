"""What transactions note and others send later: notifications with their senders, and the feed of attempts.

Both are sent at least once, by whoever claims them (decisions 31 and 32 in docs/adr).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from flowstone.core.notification import Message, Notification, NotificationState, NotifyRule
from flowstone.core.output import StoredOutput
from flowstone.core.step import AttemptRecord, StepRecord, Target


class Sender(Protocol):
    """Sends messages to people; `Notify(to=...)` takes one.

    What it raises is recorded, and the message is sent again later, less and less often. It may be called more
    than once with the same message: `message.id` stays the same. A package registers senders in the entry point
    group `flowstone.notifiers`: an object of this protocol, or a function that makes one without arguments.
    """

    @property
    def name(self) -> str:
        """What kind of sender this is, such as `email`; shown to people, so without addresses and secrets."""

    def send(self, message: Message) -> object:
        """Send a message, or raise why it cannot be sent; what is returned does not matter."""


class NotificationStore(Protocol):
    """Keeps notifications, which the transactions of the store decide on, until they are sent."""

    def watch(self, rules: Sequence[NotifyRule]) -> None:
        """Decide by these rules from now on, in this process."""

    def declare(self, assets: Sequence[str]) -> None:
        """Have the rules of this process hold in all others too, in place of earlier ones over these assets."""

    def rules(self) -> list[NotifyRule]:
        """Return the rules that hold: those of this process, and those that others declared."""

    @property
    def has_pending(self) -> bool:
        """Whether there may be something to send that this process decided on; costs nothing."""

    def pending(self, rules: Sequence[str]) -> int:
        """Return how many notifications of some rules are not sent yet."""

    def due(self, rules: Sequence[str]) -> list[str]:
        """Return those of some rules that have something to send now; only reads."""

    def claim(self, rules: Sequence[str], *, lease_seconds: float, limit: int = 10) -> list[Notification]:
        """Claim notifications of some rules that are due, for as long as a lease; each counts as a try.

        One about a run is due when the run is over, or has gone on for the time that the rule waits.
        """

    def renew(self, notifications: Sequence[Notification], *, lease_seconds: float) -> None:
        """Prolong claims that are still held: their senders are at it."""

    def acknowledge(self, notification: Notification) -> None:
        """Note that one was sent; nothing when others claimed it meanwhile."""

    def release(self, notification: Notification, *, error: str, retry_in_seconds: float) -> None:
        """Note that one could not be sent, and when to try again."""

    def give_up(self, notification: Notification, *, error: str) -> None:
        """Note that one cannot be sent, in the audit log as well."""

    def newest(self, *, state: NotificationState | None = None, limit: int = 100) -> list[Notification]:
        """Return notifications, the newest first."""

    def get(self, notification_id: int) -> Notification | None:
        """Return a notification."""

    def retry(self, notification_ids: Sequence[int]) -> list[int]:
        """Have notifications that were given up, or wait for another try, sent now; return which."""

    def counts(self) -> dict[NotificationState, int]:
        """Return how many there are in each state."""

    def newest_commits(self, assets: Sequence[str]) -> dict[str, datetime]:
        """Return when the newest of the versions in use of each asset was committed."""

    def seen_since(self, assets: Sequence[str], *, note: bool = True) -> dict[str, datetime]:
        """Return since when assets without data are known.

        Args:
            assets: the assets.
            note: whether those that were not known are known from now on; else they are left out.
        """

    def set_late(self, late: Mapping[str, str], fresh: Mapping[str, str]) -> list[str]:
        """Note which assets are late and which are not, and decide on notifications for those that changed.

        Args:
            late: name of asset to what a message says of it.
            fresh: the same of assets that are not late.

        Returns:
            Those that became late.
        """

    def overdue(self) -> int:
        """Decide on notifications for runs that take longer than a rule allows; return how many."""

    def keep_rules(self, *, for_seconds: float) -> list[Notification]:
        """Keep the rules of this process declared, and forget those that no process has declared for so long.

        What has waited so long for a rule that nobody declares is given up, in the audit log as well.

        Returns:
            What was given up.
        """

    def prune(self, *, older_than_seconds: float) -> int:
        """Forget notifications that were sent, or given up, so long ago; return how many."""


class FeedEntry(NamedTuple):
    """An attempt that is over and was not reported yet.

    Args:
        id: of the entry.
        step_id: the step.
        attempt: number of the attempt.
        tries: how often it was claimed.
    """

    id: int
    step_id: int
    attempt: int
    tries: int


class EndedAttempt(NamedTuple):
    """What is recorded of an attempt that is over.

    Args:
        step: its step.
        attempt: the attempt.
        run_kind: which verb requested its run.
    """

    step: StepRecord
    attempt: AttemptRecord
    run_kind: str


class AttemptFeed(Protocol):
    """Attempts that are over, noted for programs that report them elsewhere; each at least once.

    Nothing is noted, and nothing costs anything, before the first one subscribes.
    """

    def subscribe(self, name: str) -> None:
        """Have attempts noted that end from now on, for as long as they are claimed once a week."""

    def unsubscribe(self, name: str) -> None:
        """Forget a feed, and what was noted for it."""

    def claim(self, name: str, *, lease_seconds: float, limit: int) -> list[FeedEntry]:
        """Return entries to report; who dies with them leaves them to others when the lease is over."""

    def read(self, attempts: Sequence[tuple[int, int]]) -> list[EndedAttempt]:
        """Return what is recorded of attempts, named by their step and number; without what is not any more."""

    def targets(self, step_ids: Sequence[int]) -> dict[int, Target]:
        """Return what steps are of."""

    def stored(self, step_ids: Sequence[int]) -> dict[int, StoredOutput | None]:
        """Return where the outputs of steps lie."""

    def acknowledge(self, entries: Sequence[FeedEntry]) -> None:
        """Take off what was reported."""

    def release(self, entries: Sequence[FeedEntry], *, retry_in_seconds: float) -> None:
        """Have entries claimed again later."""

    def waiting(self, name: str, *, limit: int = 10_000) -> int:
        """Return how many entries wait, counted to a limit."""
