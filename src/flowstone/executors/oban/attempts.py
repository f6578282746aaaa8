"""The attempts that a worker node has in its hands, by fencing token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from flowstone.core.context import CancellationToken
from flowstone.core.step import Claim


@dataclass(slots=True)
class Running:
    """An attempt at work.

    Args:
        claim: the attempt.
        token: signals its function to stop.
        prepared: what performs it.
    """

    claim: Claim
    token: CancellationToken
    prepared: Any


class UnstartedAttempts(Protocol):
    """Where a worker notes which attempts it has taken and not started, for when it is killed."""

    def add(self, tokens: Iterable[int]) -> None:
        """Note attempts that were taken."""

    def remove(self, tokens: Iterable[int]) -> None:
        """Forget attempts that start, or were released."""


class Attempts:
    """Knows what runs here and what waits to be committed; each method may be called from any thread.

    Keyed by token, because one step may be here twice: an attempt that lost its lease still runs when the
    next one of the same step starts.

    Args:
        unstarted: outlives this process, if there is such a place.

    Example:
        >>> attempts = Attempts()
        >>> attempts.running()
        []
    """

    def __init__(self, unstarted: UnstartedAttempts | None = None) -> None:
        self._unstarted = unstarted
        self._running: dict[int, Running] = {}
        self._submitted: set[int] = set()
        self._suspects: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._running)

    def taken(self, claims: Sequence[Claim]) -> None:
        """Note that attempts were started in the tables; none of them has begun here."""
        if self._unstarted is not None:
            self._unstarted.add([one.token for one in claims])

    def begun(self, claims: Sequence[Claim]) -> None:
        """Note that the functions of attempts are called, or never will be."""
        if self._unstarted is not None:
            self._unstarted.remove([one.token for one in claims])

    def started(self, running: Running) -> None:
        """Take an attempt up."""
        self._running[running.claim.token] = running

    def submitted(self, running: Running) -> None:
        """Note that an attempt is over and waits for its commit."""
        self._submitted.add(running.claim.token)
        self._running.pop(running.claim.token, None)

    def released(self, running: Running) -> None:
        """Note that an attempt is released without having started."""
        self.begun([running.claim])
        self._running.pop(running.claim.token, None)

    def running(self) -> list[Running]:
        """Return what runs."""
        return list(self._running.values())

    def of_steps(self, steps: Sequence[int]) -> list[Running]:
        """Return the attempts of some steps that run."""
        requested = set(steps)
        return [one for one in self.running() if one.claim.step_id in requested]

    def unknown(self, held: Sequence[Claim]) -> list[Claim]:
        """Return the attempts that the tables say are here, and are not.

        Args:
            held: what the tables say.
        """
        self._submitted.intersection_update([claim.token for claim in held])
        return [one for one in held if one.token not in self._running and one.token not in self._submitted]

    def forgotten(self, held: Sequence[Claim]) -> list[Claim]:
        """Return what was unknown the last time too: its start was committed, and the news of it was lost.

        Args:
            held: what the tables say.
        """
        unknown = self.unknown(held)
        # once is no proof: an attempt may have been taken up, or its commit made, since the tables were asked
        forgotten = [one for one in unknown if one.token in self._suspects]
        self._suspects = {one.token for one in unknown}
        return forgotten
