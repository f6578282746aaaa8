"""What begins with a commit: the committer asks what the node has room for, and hands over what began.

A step whose last input is committed here can begin with that very commit, instead of being written as ready,
announced and fetched (decision 33 in docs/adr). The committer has its own thread and knows nothing of queues; the
node knows nothing of commits. This is all that they know of each other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from flowstone.core.step import BegunStep, CommitResult, WorkerRoom

log = logging.getLogger("flowstone.worker")


class AtCommit:
    """Between the committer and the node: what the node has room for, and what began with a commit.

    Until a node runs there is no room.

    Example:
        >>> AtCommit().room() is None
        True
    """

    def __init__(self) -> None:
        self._room: Callable[[], WorkerRoom | None] = lambda: None
        self._take_up: Callable[[Sequence[BegunStep]], None] = lambda begun: None

    def connect(
        self, room: Callable[[], WorkerRoom | None], take_up: Callable[[Sequence[BegunStep]], None]
    ) -> None:
        """Ask a node from now on.

        Args:
            room: returns what it has room for.
            take_up: takes up what began.
        """
        self._room, self._take_up = room, take_up

    def room(self) -> WorkerRoom | None:
        """Return what the worker may begin with the next commit; None when that is nothing. Never raises."""
        try:
            return self._room()
        except Exception as error:  # noqa: BLE001 - a commit does not depend on it
            log.debug("What there is room for is not known: %s", error)
            return None

    def take_up(self, committed: Sequence[CommitResult]) -> None:
        """Run what began with a commit."""
        begun = [step for one in committed for step in one.begun]
        if begun:
            self._take_up(begun)
