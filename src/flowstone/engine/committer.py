"""Commits the ends of attempts in groups: one transaction for all that ended since the last one."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence

from flowstone import telemetry
from flowstone.core.step import Claim, Committed, Completion
from flowstone.core.text import plain_text

log = logging.getLogger("flowstone.committer")

_MAX = 500
_FIRST_PAUSE_SECONDS = 0.1
_MAX_PAUSE_SECONDS = 2.0
_WHOLE_TRIES = 3
_TRIED_AGAIN = "%d results could not be committed and are tried again: %s"


class GroupCommitter:
    """A thread that commits completions in groups.

    A group is whatever arrived while the previous one was being committed: alone, a completion is committed
    at once; under load groups grow by themselves. When the database is away, a group is tried again until
    it is back; attempts that were replaced meanwhile are refused by their fencing tokens.

    Args:
        commit: `Ledger.commit`.
        on_commit: called after each group.

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
        on_commit: Callable[[Sequence[Completion], Sequence[Committed]], None] | None = None,
    ) -> None:
        self._commit = commit
        self._on_commit = on_commit
        self._waiting: queue.SimpleQueue[Completion | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="flowstone-committer", daemon=True)
        self._giving_up = threading.Event()
        self._apart: list[Completion] = []

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
            if self._apart:
                self._try_apart()
            if last:
                return
            del group  # its values and errors; the wait for the next one may be long

    def _next_group(self) -> tuple[list[Completion], bool]:
        group: list[Completion] = []
        try:
            item = self._waiting.get(timeout=_MAX_PAUSE_SECONDS if self._apart else None)
        except queue.Empty:
            return group, False
        while item is not None:
            group.append(item)
            if len(group) == _MAX:
                return group, False
            try:
                item = self._waiting.get_nowait()
            except queue.Empty:
                return group, False
        return group, True

    def _commit_group(self, group: list[Completion]) -> None:
        """Commit a group; what holds it up is set apart, so that the others do not wait for it."""
        pause = _FIRST_PAUSE_SECONDS
        failures = 0
        parts = [group]
        while parts and not self._giving_up.is_set():
            left = self._round(parts, again=failures > 0)
            if not left:
                if failures:
                    log.warning("%d results were committed after %d more tries.", len(group), failures)
                return
            failures += 1
            if len(left) < len(parts):
                # something could be committed beside it: not the database is at fault
                self._set_apart([part[0] for part in left if len(part) == 1])
                parts = _halved([part for part in left if len(part) > 1])
                continue
            parts = _halved(left) if failures >= _WHOLE_TRIES else left
            self._giving_up.wait(pause)
            pause = min(_MAX_PAUSE_SECONDS, pause * 2)

    def _round(self, parts: list[list[Completion]], *, again: bool) -> list[list[Completion]]:
        """Try each part once, as long as there is time; return what is left, first what was not tried."""
        started = time.monotonic()
        left: list[list[Completion]] = []
        for at, part in enumerate(parts):
            if not self._try(part, again=again):
                left.append(part)
            if len(left) > at and time.monotonic() - started > _MAX_PAUSE_SECONDS:
                return parts[at + 1 :] + left
        return left

    def _try(self, group: list[Completion], *, again: bool) -> bool:
        started = time.perf_counter()
        try:
            committed = self._commit(group)
        except BaseException as error:  # noqa: BLE001 - a group is never dropped while there is hope
            if not again:
                log.warning(_TRIED_AGAIN, len(group), plain_text(error))
            return False
        try:
            self._log_group(group, committed, time.perf_counter() - started, again=again)
        except BaseException:
            log.exception("Logging %d committed results failed; they are committed all the same.", len(group))
        return True

    def _set_apart(self, stuck: list[Completion]) -> None:
        for one in stuck:
            log.error(
                "Attempt %s of %s can be committed neither as it is nor as a failure, and is tried again beside "
                "others; as long as that fails, its step counts as running.",
                one.claim.attempt,
                one.claim.asset,
            )
        self._apart += stuck

    def _try_apart(self) -> None:
        self._apart = [one for one in self._apart if not self._try([one], again=True)]

    def _log_group(self, group: list[Completion], committed: list[Committed], took: float, *, again: bool) -> None:
        # a try that failed may have been committed all the same, when only its answer was lost
        message = (
            "Attempt %d of %s %s was committed by an earlier try or superseded; the step is %s."
            if again
            else "Attempt %d of %s %s was superseded; its result was not published, the step is %s."
        )
        for one, completion in zip(committed, group, strict=True):
            if not one.accepted and isinstance(completion.claim, Claim):
                claim = completion.claim
                log.warning(message, claim.attempt, claim.asset, claim.partition, one.state.value)
        if telemetry.listening():
            telemetry.emit("commit.stop", {"duration_seconds": took, "attempts": len(group)}, {})
        if self._on_commit is not None:
            self._on_commit(group, committed)


def _halved(parts: list[list[Completion]]) -> list[list[Completion]]:
    halves = []
    for part in parts:
        middle = (len(part) + 1) // 2
        halves += [half for half in (part[:middle], part[middle:]) if half]
    return halves
