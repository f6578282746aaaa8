"""Approvals in the in-memory store."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count, islice

from flowstone import telemetry
from flowstone.core.actor import current_actor
from flowstone.core.approval import Approval, ApprovalState, decided_event
from flowstone.core.audit import AuditFilter, AuditRecord
from flowstone.core.clean import clean_text
from flowstone.core.outcome import Suspended
from flowstone.core.output import JsonValue
from flowstone.core.state import State
from flowstone.errors import ApprovalNotFoundError
from flowstone.protocols import ApprovalStore, AuditStore
from flowstone.stores.memory.tables import Propagation, StepRow, Tables

_NOTIFY_FOR = timedelta(days=1)


class MemoryApprovals(ApprovalStore):
    """Implements `flowstone.protocols.ApprovalStore` over dictionaries.

    Args:
        tables: the data of the store, whose lock makes a method a transaction.
        now: the clock that decides what is late; for tests.
    """

    def __init__(self, tables: Tables, *, now: Callable[[], datetime] | None = None) -> None:
        self._tables = tables
        self._now = now or (lambda: datetime.now(UTC))
        self._propagation = Propagation(tables)
        self._requests: dict[int, Approval] = {}
        self.by_step: dict[int, list[int]] = defaultdict(list)
        """The requests of each step that asked for something."""
        # when a change may be claimed again, by request
        self._unacknowledged: dict[int, datetime] = {}
        self._ids = count(1)

    def list(self, *, state: ApprovalState | None = None, limit: int = 100) -> Sequence[Approval]:
        with self._tables.changed:
            found = [one for one in self._requests.values() if state is None or one.state is state]
        if state is ApprovalState.PENDING:
            return sorted(found, key=lambda one: (one.expires_at, one.id))[:limit]
        return found[::-1][:limit]

    def get(self, approval_id: int) -> Approval | None:
        return self._requests.get(approval_id)

    def of_step(self, step_id: int) -> Sequence[Approval]:
        with self._tables.changed:
            return [self._requests[one] for one in self.by_step.get(step_id, ())]

    def forget(self, step_ids: Collection[int]) -> None:
        """Drop the requests of steps that are forgotten; called with the lock held."""
        for step_id in step_ids:
            for one in self.by_step.pop(step_id, ()):
                self._requests.pop(one, None)
                self._unacknowledged.pop(one, None)

    def erase(self, step_ids: Collection[int]) -> None:
        """Take out what requests say, and what the audit log quotes of it; called with the lock held."""
        subjects = set()
        for step_id in step_ids:
            for one in self.by_step.get(step_id, ()):
                request = self._requests[one]
                self._requests[one] = replace(request, message="erased", data=None, resume=None, comment=None)
                subjects.add(f"approval:{one}")
        if subjects:
            lines = self._tables.audit
            for at, line in enumerate(lines):
                if line.subject in subjects and line.details:
                    lines[at] = replace(line, details={"erased": True})

    def decide(self, approval_id: int, *, approve: bool, by: str, comment: str | None = None) -> Approval:
        with self._tables.changed:
            request = self._requests.get(approval_id)
            if request is None:
                raise ApprovalNotFoundError(approval_id)
            if not request.state.is_decided and request.expires_at <= self._now():
                request = self._settle(request, ApprovalState.EXPIRED)
            if request.state.is_decided:
                raise request.too_late()
            state = ApprovalState.APPROVED if approve else ApprovalState.REJECTED
            settled = self._settle(request, state, by=by, comment=comment)
        self._tables.emit_ended()
        return settled

    def expire_due(self, *, limit: int = 1000) -> int:
        with self._tables.changed:
            now = self._now()
            due = [one for one in self.list(state=ApprovalState.PENDING, limit=limit) if one.expires_at <= now]
            for one in due:
                self._settle(one, ApprovalState.EXPIRED)
        self._tables.emit_ended()
        return len(due)

    def claim_notifications(self, *, lease_seconds: float, limit: int = 10) -> Sequence[Approval]:
        with self._tables.changed:
            now = self._now()
            taken: tuple[Approval, ...] = ()
            for approval_id, due in tuple(self._unacknowledged.items()):
                one = self._requests[approval_id]
                if one.decided_at is not None and one.decided_at < now - _NOTIFY_FOR:
                    del self._unacknowledged[approval_id]
                elif due <= now and len(taken) < limit:
                    self._unacknowledged[approval_id] = now + timedelta(seconds=lease_seconds)
                    taken = (*taken, one)
            return taken

    def acknowledge_notification(self, approval: Approval) -> None:
        with self._tables.changed:
            if self._requests[approval.id].state is approval.state:
                self._unacknowledged.pop(approval.id, None)

    def release_notification(self, approval: Approval, *, retry_in_seconds: float) -> None:
        with self._tables.changed:
            if self._requests[approval.id].state is approval.state and approval.id in self._unacknowledged:
                self._unacknowledged[approval.id] = self._now() + timedelta(seconds=retry_in_seconds)

    # --- called by the ledger, with the lock held -----------------------------------------------------------

    def ask(self, row: StepRow, outcome: Suspended) -> None:
        """Record the request of a step whose attempt ends with it; the attempt is released."""
        now = self._now()
        one = Approval(
            id=next(self._ids),
            step_id=row.id,
            run_id=row.run_id,
            asset=row.asset,
            partition_key=row.partition_key,
            gate=outcome.gate,
            attempt=row.attempt,
            message=outcome.message,
            data=json.loads(outcome.data),
            resume=json.loads(outcome.resume),
            on_timeout=outcome.on_timeout,
            created_at=now,
            expires_at=now + timedelta(seconds=outcome.timeout_seconds),
        )
        self.by_step[row.id].append(one.id)
        row.attempt -= 1
        row.token = 0
        row.reason = outcome.reason
        row.scheduled_at = None
        row.state = State.AWAITING_APPROVAL
        details: dict[str, JsonValue] = {"gate": one.gate, "message": one.message}
        self._note(one, f"asset {one.asset}", "requested", details)
        if self._tables.watch is not None:
            self._tables.watch.requested(one.id, row, one.message)

    def cancel(self, row: StepRow, now: datetime) -> None:
        """Cancel a step, and the request that it may wait for; of one that runs a stop is requested."""
        if row.state is State.RUNNING:
            row.state = State.CANCELLING
        elif not row.state.is_terminal and row.state is not State.CANCELLING:
            waited = row.state is State.AWAITING_APPROVAL
            row.reason = "cancelled while it waited for approval" if waited else "cancelled before it started"
            if waited:
                self._withdraw(row)
            self._propagation.finish(row, State.CANCELLED, now)
            if telemetry.listening():
                about = {"asset": row.asset, "partition": row.partition_key, "run_id": row.run_id}
                self._tables.events.append(telemetry.Event("step.cancelled", {}, about | {"step_id": str(row.id)}))

    def _withdraw(self, row: StepRow) -> None:
        for one in self.of_step(row.id):
            if not one.state.is_decided:
                self._note(replace(one, state=ApprovalState.CANCELLED, decided_at=self._now()), "flowstone")

    def open_gates(self, row: StepRow) -> tuple[Approval, ...]:
        """Return the decisions that let a step go on."""
        return tuple(one for one in self.of_step(row.id) if one.approved)

    # --- pieces ---------------------------------------------------------------------------------------------

    def _settle(
        self, request: Approval, state: ApprovalState, *, by: str | None = None, comment: str | None = None
    ) -> Approval:
        decided = replace(
            request,
            state=state,
            decided_at=self._now(),
            decided_by=None if by is None else clean_text(by, limit=200),
            comment=clean_text(comment, limit=10_000) if comment else None,
        )
        details: dict[str, JsonValue] = {"comment": decided.comment} if decided.comment else {}
        self._note(decided, decided.decided_by or "flowstone", details=details)
        row = self._tables.steps[request.step_id]
        if decided.approved:
            row.state, row.reason = State.PENDING, None
        elif decided.rejected:
            row.error, row.error_type = decided.failure()
            self._propagation.finish(row, State.FAILED, self._now())
        else:
            row.reason = f"approval {decided.id} {decided.verdict()}"
            self._propagation.finish(row, State.SKIPPED, self._now())
        self._tables.announce()
        return decided

    def _note(
        self,
        one: Approval,
        actor: str,
        action: str | None = None,
        details: dict[str, JsonValue] | None = None,
    ) -> None:
        """Keep a new state of a request: to be announced, and in the log."""
        self._requests[one.id] = one
        self._unacknowledged[one.id] = self._now()
        if one.state is not ApprovalState.PENDING and telemetry.listening():
            self._tables.events.append(decided_event(one))
        decides = current_actor() if one.decided_by else None
        self._tables.audit.append(
            AuditRecord(
                id=next(self._tables.audit_ids),
                at=self._now(),
                actor=actor,
                action=f"approval.{action or one.state.value}",
                subject=f"approval:{one.id}",
                details=details or {},
                via=decides.via if decides else None,
            )
        )


class MemoryAudit(AuditStore):
    """Implements `flowstone.protocols.AuditStore` over a list.

    Args:
        tables: the data of the store.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def note(self, action: str, subject: str, details: Mapping[str, object] | None = None) -> None:
        with self._tables.changed:
            self._tables.note(action, subject, details)

    def lines(
        self, requested: AuditFilter | None = None, *, before: int | None = None, limit: int = 100
    ) -> list[AuditRecord]:
        found = requested or AuditFilter()
        with self._tables.changed:
            matching = (
                line
                for line in reversed(self._tables.audit)
                if (before is None or line.id < before) and found.matches(line)
            )
            return list(islice(matching, limit))
