"""The writing side of the PostgreSQL store: each method is one transaction."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

from flowstone import telemetry
from flowstone.core.clean import clean_text
from flowstone.core.outcome import Failed
from flowstone.core.recordable import NOWHERE, can_be_committed, failed, make_recordable
from flowstone.core.run_details import RunInfo
from flowstone.core.state import State
from flowstone.core.step import (
    Attempt,
    AttemptResult,
    CheckRecord,
    CommitResult,
    NewRun,
    NewStep,
    PlacedStep,
    Target,
    WorkerRoom,
    make_commit_result,
)
from flowstone.errors import DatabaseError, RunNotFoundError
from flowstone.protocols import Ledger, Publisher
from flowstone.sql import load_sql
from flowstone.stores.audit import new_line, of_targets
from flowstone.stores.postgres import approvals, outbox, placing, publications
from flowstone.stores.postgres.audit import note
from flowstone.stores.postgres.catalog import insert_checks
from flowstone.stores.postgres.commit import propagate
from flowstone.stores.postgres.counters import Stopping, scattered_rows
from flowstone.stores.postgres.database import Database, in_transaction, note_ended
from flowstone.stores.postgres.here import BeginHere
from flowstone.stores.postgres.placing import HolderLostError, Placing
from flowstone.stores.postgres.queue import end_lost
from flowstone.stores.postgres.recent import RecentVersions
from flowstone.stores.postgres.rows import CancelledStep, EndedRows, MovedStep, StartedStep, newest_of_each
from flowstone.stores.postgres.scatters import stop_items
from flowstone.stores.postgres.sql import fetch_all, fetch_column, fetch_value

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

log = logging.getLogger(__name__)

_LOST_TRIES = 3
_OUTDATED_TRIES = 3


@dataclass(slots=True)
class _ClaimedRow(StartedStep):
    """A step whose attempt starts in this process.

    Args:
        run_id: its run.
        has_approvals: whether it has had requests for approval.
        kind: kind of its run.
        details: details of its run, as JSON.
    """

    run_id: str
    has_approvals: bool
    kind: str
    details: Mapping[str, Any] | None


class _StateRow(NamedTuple):
    """A step and its state."""

    id: int
    state: State


class PostgresLedger(Ledger):
    """Implements `flowstone.protocols.Ledger` on PostgreSQL.

    Args:
        database: where.
        worker_id: returns the lease under which this process claims steps and drives runs itself.
        recent: keeps what is committed for those that read it next.
    """

    def __init__(
        self, database: Database, worker_id: Callable[[], str], *, recent: RecentVersions | None = None
    ) -> None:
        self._database = database
        self._worker_id = worker_id
        self._recent = recent
        self.publisher: Publisher | None = None
        """Publishes what is committed; None as long as no IO manager of the app does."""

    def open_run(self, run: NewRun, steps: Sequence[NewStep]) -> list[PlacedStep]:
        driver = None if run.durable else self._worker_id()
        tries = count()
        lost_tries = _LOST_TRIES

        def place(connection: Connection[TupleRow]) -> list[PlacedStep]:
            again = next(tries) > 0
            return Placing(connection, run, steps, driver, again=again, joins_lost=not lost_tries).place()

        while True:
            try:
                return in_transaction(self._database, place, outdated_tries=_OUTDATED_TRIES)
            except HolderLostError:
                # it ends at once, unless another process is just ending it
                end_lost(self._database)
                lost_tries -= 1

    def claim(self, step_ids: Sequence[int], now: datetime) -> list[Attempt]:
        parameters = {"ids": list(step_ids), "worker": self._worker_id(), "now": now}

        def claim(connection: Connection[TupleRow]) -> list[Attempt]:
            claimed = fetch_all(connection, _ClaimedRow, "ledger/claim", parameters)
            gates = approvals.open_gates(connection, [row.step_id for row in claimed if row.has_approvals])
            return [
                row.started(
                    RunInfo.from_json(row.details, id=row.run_id, kind=row.kind),
                    approvals=gates.get(row.step_id, ()),
                )
                for row in claimed
            ]

        return self._transaction(claim)

    def commit(
        self, completions: Sequence[AttemptResult], *, room: WorkerRoom | None = None
    ) -> list[CommitResult]:
        """Commit a group of attempts in one transaction.

        A group that cannot be committed is halved until the completion at fault is alone; that one is committed
        as a failure, so that it can never hold up the others.
        """
        ready = [make_recordable(one) if can_be_committed(one) else None for one in completions]
        committed = iter(self._commit_group([one for one in ready if one is not None], room))
        done = [NOWHERE if one is None else next(committed) for one in ready]
        if self.publisher is not None:
            self.publisher.after(
                [(one.attempt.asset, one.attempt.partition_key) for one in ready if one is not None]
            )
        return done

    def _commit_group(self, completions: Sequence[AttemptResult], room: WorkerRoom | None) -> list[CommitResult]:
        if not completions:
            return []
        try:
            committed = self._stopping(
                lambda connection, stop: self._commit(
                    connection, completions, stop, BeginHere.of(room, completions)
                )
            )
        except Exception as error:
            if _is_away(error):
                raise
            if len(completions) > 1:
                half = len(completions) // 2
                return self._commit_group(completions[:half], room) + self._commit_group(completions[half:], None)
            # whether it was to blame shows in this: a failure of the same attempt can be committed
            return [self._commit_refusal(completions[0], error)]
        if self._recent is not None:
            ended = zip(completions, committed, strict=True)
            self._recent.add([one for one, end in ended if end.accepted and end.state is State.COMPLETED])
        return committed

    def release(self, attempts: Sequence[Attempt], *, delay_seconds: float = 0.0, reason: str = "") -> list[int]:
        parameters = {
            "ids": [attempt.step_id for attempt in attempts],
            "tokens": [attempt.token for attempt in attempts],
            "delay_seconds": delay_seconds,
            "reason": clean_text(reason, limit=1000),
        }

        def release(connection: Connection[TupleRow]) -> list[int]:
            moved = fetch_all(connection, MovedStep, "ledger/release_attempts", parameters)
            steps = [step.id for step in moved]
            delays = dict.fromkeys(steps, delay_seconds or None)
            propagate(connection, moved, delays, durable=self._database.durable)
            return steps

        return self._transaction(release)

    def request_cancel(self, step_id: int) -> State:

        def cancel(connection: Connection[TupleRow], stopping: Stopping) -> State:
            cancelled = cancel_steps(connection, [step_id], stopping, durable=self._database.durable)
            state = self._states(connection, [step_id]).get(step_id)
            if state is None:
                raise RunNotFoundError("step", str(step_id))
            if cancelled:
                note(connection, "step.cancelled", f"step:{step_id}", {"run": cancelled[0].run_id})
            return state

        return self._stopping(cancel)

    def invalidate(self, targets: Sequence[Target]) -> int:
        subject, details = of_targets(targets)
        parameters = {
            "assets": [asset for asset, _ in targets],
            "partitions": [key for _, key in targets],
            "actor": new_line("versions.invalidated", subject).actor,
        }

        publisher = self.publisher

        def invalidate(connection: Connection[TupleRow]) -> int:
            gone = [] if publisher is None else publications.in_use(connection, publisher, targets)
            number = connection.execute(load_sql("ledger/invalidate"), parameters).rowcount
            if number:
                note(connection, "versions.invalidated", subject, {"versions": number, **details})
            if publisher is not None:
                publications.retracted(connection, publisher, gone)
            return number

        number = self._transaction(invalidate)
        if publisher is not None:
            publisher.after(targets)
        return number

    def cancel_run(self, run_id: str) -> list[int]:

        def cancel(connection: Connection[TupleRow], stopping: Stopping) -> list[int]:
            steps = fetch_column(connection, int, "ledger/steps_of_run", {"run_id": run_id})
            unstarted = placing.cancel(connection, run_id) if self._database.durable else 0
            cancelled = cancel_steps(connection, steps, stopping, durable=self._database.durable)
            # the run after its steps, as everybody locks them
            if fetch_value(connection, str, "ledger/mark_cancelled", {"run_id": run_id}) is None:
                raise RunNotFoundError("run", run_id)
            number = unstarted + len(cancelled)
            if number:
                note(connection, "run.cancelled", f"run:{run_id}", {"steps": number})
            return [step.id for step in cancelled if step.state is State.CANCELLING]

        return self._stopping(cancel)

    def _commit(
        self,
        connection: Connection[TupleRow],
        completions: Sequence[AttemptResult],
        stopping: Stopping,
        here: BeginHere | None = None,
    ) -> list[CommitResult]:
        current = newest_of_each(completions)
        ended = EndedRows.of(current)
        moved = fetch_all(connection, MovedStep, "finish", ended.parameters())
        if self.publisher is not None:
            # before anything that many wait for, such as the row of a run, is locked
            publications.committed(connection, self.publisher, current, moved)
        durable = self._database.durable
        if ended.asking:
            suspended = {step.id for step in moved if step.state is State.AWAITING_APPROVAL}
            approvals.request(connection, ended.asking, suspended, durable=durable)
        released = propagate(
            connection,
            moved,
            ended.delays,
            durable=durable,
            deciding=ended.deciding,
            scattered=scattered_rows(current),
            stopping=stopping,
            here=here,
        )
        states = {step.id: step.state for step in moved}
        self._record_checks(connection, current, states)
        refused = [one.attempt.step_id for one in completions if one.attempt.step_id not in states]
        now = self._states(connection, refused)
        accepted = {one.attempt.token for one in current if one.attempt.step_id in states}
        # which of them was the last input of a released step is not asked for: the caller takes all
        first = next((one.attempt.token for one in current if one.attempt.token in accepted), None)
        begun = () if here is None else tuple(here.begun)
        return [
            make_commit_result(
                completion.attempt.step_id,
                states.get(completion.attempt.step_id) or now.get(completion.attempt.step_id, State.NOT_FOUND),
                accepted=completion.attempt.token in accepted,
                released=tuple(released) if completion.attempt.token == first else (),
                begun=begun if completion.attempt.token == first else (),
            )
            for completion in completions
        ]

    def _record_checks(
        self, connection: Connection[TupleRow], completions: Sequence[AttemptResult], accepted: Mapping[int, State]
    ) -> None:
        found = [one for ended in completions if ended.attempt.step_id in accepted for one in ended.checks]
        if found:
            insert_checks(connection, found)
            outbox.note_checks(connection, *_checks_of_ended(completions, accepted))

    def _states(self, connection: Connection[TupleRow], steps: list[int]) -> dict[int, State]:
        if not steps:
            return {}
        return {row.id: row.state for row in fetch_all(connection, _StateRow, "ledger/states", {"ids": steps})}

    def _commit_refusal(self, completion: AttemptResult, error: Exception) -> CommitResult:
        log.warning("The database refused the result of step %s: %s", completion.attempt.step_id, error)
        text = clean_text(f"The database refused to record this result: {error}")
        refused = Failed(text, f"{type(error).__module__}.{type(error).__qualname__}", retryable=False)
        # without its checks and inputs: whatever was refused must not be refused again
        ended = replace(failed(completion.attempt, error), outcome=refused, finished_at=completion.finished_at)
        return self._stopping(lambda connection, stop: self._commit(connection, [ended], stop))[0]

    def _stopping[T](self, work: Callable[[Connection[TupleRow], Stopping], T]) -> T:
        """Run one transaction, and others that cancel the items that it leaves without a purpose."""
        stopping = Stopping()
        done = self._transaction(lambda connection: work(connection, stopping))
        if stopping:
            stop_items(self._database, stopping)
        return done

    def _transaction[T](self, work: Callable[[Connection[TupleRow]], T]) -> T:
        return in_transaction(self._database, work)


def _checks_of_ended(
    completions: Sequence[AttemptResult], accepted: Mapping[int, State]
) -> tuple[list[CheckRecord], dict[int, str]]:
    """Return what checks found in steps that are over, not about to be tried again, and the runs of these."""
    over = [one for one in completions if (found := accepted.get(one.attempt.step_id)) and found.is_terminal]
    return [check for one in over for check in one.checks], {
        one.attempt.step_id: one.attempt.run_id for one in over
    }


def cancel_steps(
    connection: Connection[TupleRow], steps: list[int], stopping: Stopping, *, durable: bool
) -> list[CancelledStep]:
    """Cancel steps; return those that were not over: they are now, or run and are to stop."""
    # workers lock the job before the step; taking both in that order cannot deadlock with them
    if durable:
        connection.execute(load_sql("ledger/job_of_step"), {"ids": steps})
    cancelled = fetch_all(connection, CancelledStep, "ledger/cancel_steps", {"ids": steps})
    over = [step for step in cancelled if step.state is State.CANCELLED]
    if telemetry.listening():
        note_ended([step.event() for step in over])
    approvals.cancel(connection, [step.id for step in over if step.had_requested], durable=durable)
    propagate(connection, [step.moved for step in over], {}, durable=durable, stopping=stopping)
    return cancelled


def _is_away(error: Exception) -> bool:
    """Whether the database can commit nothing just now, whatever it is asked: the group is tried again then."""
    from psycopg import InterfaceError, OperationalError, errors

    if isinstance(error, errors.ProgramLimitExceeded):  # an OperationalError that is about the result
        return False
    away = (OperationalError, InterfaceError, errors.ReadOnlySqlTransaction, DatabaseError, OSError)
    return isinstance(error, away)
