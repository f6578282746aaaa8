"""Approvals inside of transactions: recorded with the attempt that asks, decided with all that follows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from flowstone.core.approval import Approval, ApprovalState
from flowstone.core.outcome import Suspended
from flowstone.core.state import State
from flowstone.core.step import Claim
from flowstone.core.text import clean_text
from flowstone.stores.postgres.following import propagate, resume
from flowstone.stores.postgres.rows import MovedStep, ReleasedStep, to_json
from flowstone.stores.postgres.sql import fetch_all, fetch_column, load_sql
from flowstone.stores.postgres.transport import EXPIRY_WORKER

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

EXPIRY_QUEUE = "checkpoints"


def request(
    connection: Connection[TupleRow],
    asking: Sequence[tuple[Claim, Suspended]],
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
    newest = {claim.step_id: (claim, outcome) for claim, outcome in sorted(asking, key=_token)}
    requests = [
        {
            "step_id": claim.step_id,
            "attempt": claim.attempt,
            "gate": outcome.gate,
            "message": outcome.message,
            "data": outcome.data,
            "resume": outcome.resume,
            "timeout_seconds": outcome.timeout_seconds,
            "on_timeout": outcome.on_timeout,
        }
        for claim, outcome in newest.values()
        if claim.step_id in suspended
    ]
    recorded = fetch_column(connection, int, "approvals/request", {"requests": to_json(requests)})
    if durable:
        parameters = {"ids": recorded, "queue": EXPIRY_QUEUE, "worker": EXPIRY_WORKER}
        connection.execute(load_sql("approvals/place_expiry"), parameters)


def _token(asking: tuple[Claim, Suspended]) -> int:
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
    }
    decided = fetch_all(connection, Approval, "approvals/decide", locked | decision)
    if decided:
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
