"""What a worker node does with the jobs that it acquired: resolve, perform, commit in groups.

`NodeWork` resolves the inputs of a batch together and performs each job in a thread; `GroupCommitter` ends
attempts, one transaction for all that ended since the last one. Inline, `engine/inline` does the same step by
step.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from flowstone import telemetry
from flowstone.core.clean import clean_text, plain_text
from flowstone.core.context import CancellationToken
from flowstone.core.graph import AssetGraph
from flowstone.core.outcome import AttemptOutcome, Failed, Snoozed, Succeeded, succeeded
from flowstone.core.shape import Shapes
from flowstone.core.state import State
from flowstone.core.step import Attempt, AttemptResult, CommitResult, KnownAssets, Target, can_run, other_keys
from flowstone.engine.failures import failure
from flowstone.engine.inline import DEFAULT_RETRY
from flowstone.engine.runner import StepRunner
from flowstone.engine.values import InputReader, ResolvedInputs, waits_for
from flowstone.errors import DatabaseError, StepChangedError, UnknownAssetError
from flowstone.protocols import TargetStatuses

_PAUSE_SECONDS = 5.0
_SOON_SECONDS = 1.0
_SOON_PART = 10


type Prepared = ResolvedInputs | Exception
"""The exact versions that an attempt will read, or why it cannot be run as it was placed."""


class NodeWork:
    """Prepares and performs jobs for a worker node.

    Args:
        graph: the assets that this worker knows.
        reader: resolves inputs.
        runner: performs attempts.
        snooze_seconds: how long a step waits before it polls for missing inputs again; for inputs that are under
            way that is shorter at first.
        statuses: knows which of them are in flight.
        shapes: what is declared of the assets here.
        others: returns what the other living workers know.
        on_begin: called for each attempt whose function is about to be called.
    """

    def __init__(
        self,
        graph: AssetGraph,
        *,
        reader: InputReader,
        runner: StepRunner,
        snooze_seconds: float,
        target_statuses: TargetStatuses,
        shapes: Shapes,
        others: Callable[[], Sequence[KnownAssets]],
        on_begin: Callable[[Attempt], None] | None = None,
    ) -> None:
        self._on_begin = on_begin
        self._graph = graph
        self._reader = reader
        self._runner = runner
        self._snooze_seconds = snooze_seconds
        self._target_statuses = target_statuses
        self._shapes = shapes
        self._others = others

    def for_others(self, attempts: Sequence[Attempt]) -> list[tuple[Attempt, str]]:
        """Return the attempts that this worker leaves to others, with the reason.

        What cannot be run here as it was placed waits for a worker that can. When there is none, and the step has
        waited for as long as it may, a worker has to say so: it is not left then, and `perform` refuses it.
        """
        left = []
        others: Sequence[KnownAssets] | None = None
        for attempt in attempts:
            problem = self._shapes.problem(attempt)
            if problem is None:
                continue
            if attempt.age_seconds > attempt.deps_timeout_seconds:
                others = self._others() if others is None else others
                if not self._another_can(attempt, others):
                    continue
            left.append((attempt, f"left to a worker with the code that placed it: {_short(problem)}"))
        return left

    def known(self, asset: str) -> dict[str, Any] | None:
        """Return the shape of an asset, as others see it; None when it is not known here."""
        return self._shapes[asset].to_json() if asset in self._graph else None

    def _another_can(self, attempt: Attempt, others: Sequence[KnownAssets]) -> bool:
        mine = self.known(attempt.asset)
        if mine is None or attempt.shape not in (None, mine["digest"]):
            return can_run(others, attempt.asset, attempt.shape)
        return other_keys(others, attempt.asset, mine["partitions"])

    def prepare(self, attempts: Sequence[Attempt]) -> list[Prepared]:
        """Resolve the inputs of several attempts in one question to the catalog."""
        problems = [self._shapes.problem(attempt) for attempt in attempts]
        resolved = iter(
            self._reader.resolve(
                [attempt for attempt, problem in zip(attempts, problems, strict=True) if problem is None]
            )
        )
        return [next(resolved) if problem is None else problem for problem in problems]

    def perform(self, attempt: Attempt, prepared: Prepared, token: CancellationToken) -> AttemptResult:
        """Run one attempt; never raises."""
        try:
            return self._perform(attempt, prepared, token)
        except DatabaseError as error:
            pause = Snoozed(_PAUSE_SECONDS, clean_text(f"its worker could not ask the database: {error}"))
            return self._not_now(attempt, pause)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is a failure of this step
            return self._not_now(attempt, failure(error, None))

    def _perform(self, attempt: Attempt, prepared: Prepared, token: CancellationToken) -> AttemptResult:
        if isinstance(prepared, Exception):
            return self._not_now(attempt, failure(prepared, None))
        if prepared.missing and prepared.skip is None:
            return self._not_now(attempt, self._not_ready(attempt, prepared))
        policy = self._graph[attempt.asset].retry or DEFAULT_RETRY
        if self._on_begin is not None:
            self._on_begin(attempt)
        result = self._runner.perform(attempt, prepared, token, policy=policy)
        _let_go(result)
        return result

    def _not_now(self, attempt: Attempt, outcome: AttemptOutcome) -> AttemptResult:
        return AttemptResult(attempt, outcome, (), attempt.started_at)

    def _not_ready(self, attempt: Attempt, inputs: ResolvedInputs) -> AttemptOutcome:
        if self._may_wait(attempt, self._snooze_seconds):
            doing = self._under_way(inputs.missing)
            pause = self._snooze_seconds
            if len(doing) == len(inputs.missing):
                # it is being made: check soon, and less often the longer that takes
                pause = min(pause, max(_SOON_SECONDS, attempt.age_seconds / _SOON_PART))
            return Snoozed(pause, waits_for(inputs.missing, doing, self._graph.describe), for_inputs=True)
        target = attempt.asset, attempt.partition_key
        return failure(self._graph.not_ready(target, inputs.missing, attempt.started_at), None)

    def _under_way(self, targets: Sequence[Target]) -> dict[Target, State]:
        """Return the states of those targets of which a step is not over."""
        found = self._target_statuses.status(targets)
        newest = {target: one.newest for target, one in found.items() if one.newest is not None}
        return {target: step.state for target, step in newest.items() if not step.state.is_terminal}

    def _may_wait(self, attempt: Attempt, pause: float) -> bool:
        """Bounded by time, and by count in case a clock is set back."""
        maximum = 10 + 2 * attempt.deps_timeout_seconds / min(pause, _SOON_SECONDS)
        return attempt.age_seconds + pause <= attempt.deps_timeout_seconds and attempt.snoozes < maximum


def _short(problem: Exception) -> str:
    if isinstance(problem, StepChangedError):
        return f"here {problem.now}"
    return (
        f"the asset {problem.name!r} is not declared here"
        if isinstance(problem, UnknownAssetError)
        else str(problem)
    )


def _let_go(completion: AttemptResult) -> None:
    """Let go of the value and the error of an attempt: nobody here waits for them, the commit needs neither."""
    outcome = completion.outcome
    if isinstance(outcome, Failed):
        outcome.take_exception()
    elif isinstance(outcome, Succeeded):
        completion.outcome = succeeded(outcome.stored, None)


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
        commit: Callable[[Sequence[AttemptResult]], list[CommitResult]],
        *,
        on_commit: Callable[[Sequence[AttemptResult], Sequence[CommitResult]], None] | None = None,
    ) -> None:
        self._commit = commit
        self._on_commit = on_commit
        self._waiting: queue.SimpleQueue[AttemptResult | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="flowstone-committer", daemon=True)
        self._giving_up = threading.Event()
        self._apart: list[AttemptResult] = []

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, completion: AttemptResult) -> None:
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

    def _next_group(self) -> tuple[list[AttemptResult], bool]:
        group: list[AttemptResult] = []
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

    def _commit_group(self, group: list[AttemptResult]) -> None:
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

    def _round(self, parts: list[list[AttemptResult]], *, again: bool) -> list[list[AttemptResult]]:
        """Try each part once, as long as there is time; return what is left, first what was not tried."""
        started = time.monotonic()
        left: list[list[AttemptResult]] = []
        for at, part in enumerate(parts):
            if not self._try(part, again=again):
                left.append(part)
            if len(left) > at and time.monotonic() - started > _MAX_PAUSE_SECONDS:
                return parts[at + 1 :] + left
        return left

    def _try(self, group: list[AttemptResult], *, again: bool) -> bool:
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

    def _set_apart(self, stuck: list[AttemptResult]) -> None:
        for one in stuck:
            log.error(
                "Attempt %s of %s can be committed neither as it is nor as a failure, and is tried again beside "
                "others; as long as that fails, its step counts as running.",
                one.attempt.attempt,
                one.attempt.asset,
            )
        self._apart += stuck

    def _try_apart(self) -> None:
        self._apart = [one for one in self._apart if not self._try([one], again=True)]

    def _log_group(
        self, group: list[AttemptResult], committed: list[CommitResult], took: float, *, again: bool
    ) -> None:
        # a try that failed may have been committed all the same, when only its answer was lost
        message = (
            "Attempt %d of %s %s was committed by an earlier try or superseded; the step is %s."
            if again
            else "Attempt %d of %s %s was superseded; its result was not published, the step is %s."
        )
        for one, completion in zip(committed, group, strict=True):
            if not one.accepted and isinstance(completion.attempt, Attempt):
                attempt = completion.attempt
                log.warning(message, attempt.attempt, attempt.asset, attempt.partition_key, one.state.value)
        if telemetry.listening():
            telemetry.emit("commit.stop", {"duration_seconds": took, "attempts": len(group)}, {})
        if self._on_commit is not None:
            self._on_commit(group, committed)


def _halved(parts: list[list[AttemptResult]]) -> list[list[AttemptResult]]:
    halves = []
    for part in parts:
        middle = (len(part) + 1) // 2
        halves += [half for half in (part[:middle], part[middle:]) if half]
    return halves
