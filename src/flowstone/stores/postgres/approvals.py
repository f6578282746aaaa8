"""Approvals in PostgreSQL: recorded with the attempt that asks, decided with everything that follows.

`PostgresApprovals` is what people use, a transaction for each call. The functions below it run inside the
transactions of others: `request` in a commit, `expire_due` in a sweep, `cancel` with a step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from flowstone import telemetry
from flowstone.core.actor import current_actor
from flowstone.core.approval import Approval, ApprovalState, decided_event
from flowstone.core.clean import clean_text
from flowstone.core.notification import Notice, NotifyEvent, quoted
from flowstone.core.outcome import Suspended
from flowstone.core.state import State
from flowstone.core.step import Attempt
from flowstone.errors import ApprovalNotFoundError
from flowstone.protocols import ApprovalStore
from flowstone.sql import load_sql
from flowstone.stores.postgres import outbox
from flowstone.stores.postgres.commit import propagate, resume
from flowstone.stores.postgres.database import Database, in_transaction, note_ended
from flowstone.stores.postgres.oban_jobs import EXPIRY_WORKER
from flowstone.stores.postgres.rows import MovedStep, ReleasedStep, to_json
from flowstone.stores.postgres.sql import fetch_all, fetch_column, fetch_one

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow


class PostgresApprovals(ApprovalStore):
    """Implements `flowstone.protocols.ApprovalStore` on PostgreSQL.

    Args:
        database: where.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self, *, state: ApprovalState | None = None, limit: int = 100) -> Sequence[Approval]:
        with self._database.connection() as connection:
            if state is ApprovalState.PENDING:
                return fetch_all(connection, Approval, "approvals/pending", {"limit": limit})
            return fetch_all(connection, Approval, "approvals/newest", {"state": state, "limit": limit})

    def get(self, approval_id: int) -> Approval | None:
        with self._database.connection() as connection:
            return fetch_one(connection, Approval, "approvals/get", {"ids": [approval_id]})

    def of_step(self, step_id: int) -> Sequence[Approval]:
        with self._database.connection() as connection:
            return fetch_all(connection, Approval, "approvals/of_steps", {"steps": [step_id]})

    def decide(self, approval_id: int, *, approve: bool, by: str, comment: str | None = None) -> Approval:
        state = ApprovalState.APPROVED if approve else ApprovalState.REJECTED
        decided = self._decide(approval_id, state, by=by, comment=comment)
        if decided:
            return decided[0]
        # too late by the clock of the database, though nobody has noted that yet
        self._decide(approval_id, ApprovalState.EXPIRED)
        found = self.get(approval_id)
        if found is None:
            raise ApprovalNotFoundError(approval_id)
        raise found.too_late()

    def expire_due(self, *, limit: int = 1000) -> int:
        durable = self._database.durable
        return in_transaction(
            self._database, lambda connection: expire_due(connection, durable=durable, limit=limit)
        )

    def claim_notifications(self, *, lease_seconds: float, limit: int = 10) -> Sequence[Approval]:
        parameters = {"lease_seconds": lease_seconds, "limit": limit}
        with self._database.connection() as connection:
            return fetch_all(connection, Approval, "approvals/claim_notifications", parameters)

    def acknowledge_notification(self, approval: Approval) -> None:
        self._execute("acknowledge_notification", {"id": approval.id, "state": approval.state})

    def release_notification(self, approval: Approval, *, retry_in_seconds: float) -> None:
        parameters = {"id": approval.id, "state": approval.state, "retry_in_seconds": retry_in_seconds}
        self._execute("release_notification", parameters)

    def _decide(
        self, approval_id: int, state: ApprovalState, *, by: str | None = None, comment: str | None = None
    ) -> Sequence[Approval]:
        durable = self._database.durable

        def run(connection: Connection[TupleRow]) -> Sequence[Approval]:
            return decide(connection, [approval_id], state, durable=durable, by=by, comment=comment)

        return in_transaction(self._database, run)

    def _execute(self, statement: str, parameters: dict[str, object]) -> None:
        with self._database.connection() as connection:
            connection.execute(load_sql(f"approvals/{statement}"), parameters)


EXPIRY_QUEUE = "checkpoints"


def request(
    connection: Connection[TupleRow],
    asking: Sequence[tuple[Attempt, Suspended]],
    suspended: Collection[int],
    *,
    durable: bool,
) -> None:
    """Record the requests of steps that the same transaction has suspended.

    Args:
        connection: with that transaction.
        asking: the attempts that ended with a request, superseded ones perhaps among them.
        suspended: the steps that were really suspended.
        durable: whether there is a queue.
    """
    newest = {attempt.step_id: (attempt, outcome) for attempt, outcome in sorted(asking, key=_token)}
    requests = [
        {
            "step_id": attempt.step_id,
            "attempt": attempt.attempt,
            "gate": outcome.gate,
            "message": outcome.message,
            "data": outcome.data,
            "resume": outcome.resume,
            "timeout_seconds": outcome.timeout_seconds,
            "on_timeout": outcome.on_timeout,
        }
        for attempt, outcome in newest.values()
        if attempt.step_id in suspended
    ]
    recorded = fetch_column(connection, int, "approvals/request", {"requests": to_json(requests)})
    if (watch := outbox.under_way.get()) is not None and watch.rules(connection):
        outbox.note_approvals(connection, _notices(connection, recorded))
    if durable:
        parameters = {"ids": recorded, "queue": EXPIRY_QUEUE, "worker": EXPIRY_WORKER}
        connection.execute(load_sql("approvals/place_expiry"), parameters)


def _notices(connection: Connection[TupleRow], recorded: Sequence[int]) -> list[Notice]:
    """Return what a notification says of requests."""
    found = fetch_all(connection, Approval, "approvals/get", {"ids": list(recorded)})
    return [
        Notice(
            NotifyEvent.APPROVAL,
            one.asset,
            one.created_at,
            one.partition_key,
            quoted(one.message),
            one.step_id,
            one.run_id,
            str(one.id),
        )
        for one in found
    ]


def _token(asking: tuple[Attempt, Suspended]) -> int:
    return asking[0].token


def open_gates(connection: Connection[TupleRow], steps: Sequence[int]) -> Mapping[int, tuple[Approval, ...]]:
    """Return the decisions that let each of these steps go on."""
    found: dict[int, tuple[Approval, ...]] = defaultdict(tuple)
    if steps:
        for one in fetch_all(connection, Approval, "approvals/of_steps", {"steps": list(steps)}):
            if one.approved:
                found[one.step_id] += (one,)
    return found


def decide(
    connection: Connection[TupleRow],
    ids: Sequence[int],
    state: ApprovalState,
    *,
    durable: bool,
    by: str | None = None,
    comment: str | None = None,
) -> list[Approval]:
    """Decide those of some requests that can be decided so, with all that follows.

    Args:
        connection: with a transaction open.
        ids: the requests.
        state: what they become; `expired` only those whose time is over, anything else only the others.
        durable: whether there is a queue.
        by: who decides.
        comment: what they say about it.

    Returns:
        Those that were decided now.
    """
    if not ids:
        return []
    locked = {"ids": list(ids)}
    if durable:
        connection.execute(load_sql("approvals/lock_jobs"), locked)
    decision = {
        "state": state,
        "by": None if by is None else clean_text(by, limit=200),
        "comment": clean_text(comment, limit=10_000) if comment else None,
        "via": None if by is None or (actor := current_actor()) is None else actor.via,
    }
    decided = fetch_all(connection, Approval, "approvals/decide", locked | decision)
    if decided:
        if telemetry.listening():
            note_ended([decided_event(one) for one in decided])
        _propagate_decisions(connection, decided, durable=durable)
    return decided


def expire_due(connection: Connection[TupleRow], *, durable: bool, limit: int) -> int:
    """End the requests whose time is over; return how many."""
    due = fetch_column(connection, int, "approvals/due", {"limit": limit})
    return len(decide(connection, due, ApprovalState.EXPIRED, durable=durable))


def expire_jobs(connection: Connection[TupleRow], jobs: Sequence[int]) -> None:
    """Do what jobs that a worker took are for: end the time of their requests."""
    ids = fetch_column(connection, int, "approvals/of_jobs", {"jobs": list(jobs)})
    decide(connection, ids, ApprovalState.EXPIRED, durable=True)
    connection.execute(load_sql("approvals/settle_jobs"), {"jobs": list(jobs)})


def cancel(connection: Connection[TupleRow], steps: Sequence[int], *, durable: bool) -> None:
    """Cancel the open requests of steps that the same transaction cancelled while they waited."""
    if not steps:
        return
    ended = fetch_column(connection, int, "approvals/cancel", {"steps": list(steps)})
    if durable:
        _end_jobs(connection, ended)


def _propagate_decisions(connection: Connection[TupleRow], decided: Sequence[Approval], *, durable: bool) -> None:
    """Move the steps of decided requests, and everything that depends on them."""
    verdicts = to_json([_verdict(one) for one in decided])
    moved = fetch_all(connection, ReleasedStep, "approvals/move_steps", {"verdicts": verdicts})
    if durable:
        _end_jobs(connection, [one.id for one in decided])
    over = [MovedStep(step.id, step.run_id, step.state, None) for step in moved if step.state is not State.PENDING]
    propagate(connection, over, {}, durable=durable)
    resume(connection, [step for step in moved if step.state is State.PENDING], durable=durable)


def _end_jobs(connection: Connection[TupleRow], requests: Sequence[int]) -> None:
    """End what stood on the queue for requests that are over: the resting jobs of their steps, and their times."""
    ids = {"ids": list(requests)}
    connection.execute(load_sql("approvals/end_jobs"), ids)
    connection.execute(load_sql("approvals/drop_expiries"), ids)


def _verdict(one: Approval) -> dict[str, object]:
    if one.approved:
        return {"step_id": one.step_id, "state": State.PENDING}
    if one.rejected:
        error, kind = one.failure()
        return {"step_id": one.step_id, "state": State.FAILED, "error": error, "error_type": kind}
    return {"step_id": one.step_id, "state": State.SKIPPED, "reason": f"approval {one.id} {one.verdict()}"}
