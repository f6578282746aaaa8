"""Attempts that are over, for programs that report them elsewhere (decision 31 in docs/adr)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


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

    def acknowledge(self, entries: Sequence[FeedEntry]) -> None:
        """Take off what was reported."""

    def release(self, entries: Sequence[FeedEntry], *, retry_in_seconds: float) -> None:
        """Have entries claimed again later."""

    def waiting(self, name: str, *, limit: int = 10_000) -> int:
        """Return how many entries wait, counted to a limit."""
