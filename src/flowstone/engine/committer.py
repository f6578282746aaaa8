"""Commits the ends of attempts in groups: one transaction for all that ended since the last one."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence

from flowstone import telemetry
from flowstone.core.step import Committed, Completion

log = logging.getLogger("flowstone.committer")

_MOST = 500
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0


class GroupCommitter:
    """A thread that commits completions in groups.

    A group is whatever arrived while the previous one was being committed: alone, a completion is committed
    at once; under load groups grow by themselves. When the database is away, a group is tried again until
    it is back; attempts that were replaced meanwhile are refused by their fencing tokens.

    Args:
        commit: `Ledger.commit`.
        on_commit: told after each group.

    Example:
        >>> committer = GroupCommitter(lambda group: [])
        >>> committer.start()
        >>> committer.stop(timeout_seconds=5.0)
        True
    """

    def __init__(
        self,
        commit: Callable[[Sequence[Completion]], list[Committed]],
        *,
        on_commit: Callable[[Sequence[Committed]], None] | None = None,
    ) -> None:
        self._commit = commit
        self._on_commit = on_commit
        self._waiting: queue.SimpleQueue[Completion | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="flowstone-committer", daemon=True)
        self._giving_up = threading.Event()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, completion: Completion) -> None:
        """Have a completion committed with the next group; returns at once."""
        self._waiting.put(completion)

    def stop(self, *, timeout_seconds: float) -> bool:
        """Commit what was submitted and end the thread; return whether that was possible in time."""
        self._waiting.put(None)
        self._thread.join(timeout_seconds)
        over = not self._thread.is_alive()
        self._giving_up.set()
        return over

    def _serve(self) -> None:
        while True:
            group, last = self._next_group()
            if group:
                self._commit_group(group)
            if last:
                return
            del group  # its values and errors; the wait for the next one may be long

    def _next_group(self) -> tuple[list[Completion], bool]:
        group: list[Completion] = []
        item = self._waiting.get()
        while item is not None:
            group.append(item)
            if len(group) == _MOST:
                return group, False
            try:
                item = self._waiting.get_nowait()
            except queue.Empty:
                return group, False
        return group, True

    def _commit_group(self, group: list[Completion]) -> None:
        pause = _FIRST_PAUSE_SECONDS
        failures = 0
        while not self._giving_up.is_set():
            started = time.perf_counter()
            try:
                committed = self._commit(group)
            except Exception as error:  # noqa: BLE001 - a group is never dropped while there is hope
                failures += 1
                if failures == 1:
                    log.warning("%d results could not be committed and are tried again: %s", len(group), error)
                self._giving_up.wait(pause)
                pause = min(_LONGEST_PAUSE_SECONDS, pause * 2)
                continue
            if failures:
                log.warning("%d results were committed after %d more tries.", len(group), failures)
            self._tell(group, committed, time.perf_counter() - started, again=failures > 0)
            return

    def _tell(self, group: list[Completion], committed: list[Committed], took: float, *, again: bool) -> None:
        # a try that failed may have been committed all the same, when only its answer was lost
        message = (
            "Attempt %d of %s %s was committed by an earlier try or superseded; the step is %s."
            if again
            else "Attempt %d of %s %s was superseded; its result was not published, the step is %s."
        )
        for one, completion in zip(committed, group, strict=True):
            if not one.accepted:
                claim = completion.claim
                log.warning(message, claim.attempt, claim.asset, claim.partition, one.state.value)
        if telemetry.listening():
            telemetry.emit("commit.stop", {"duration_seconds": took, "attempts": len(group)}, {})
        if self._on_commit is not None:
            self._on_commit(committed)
