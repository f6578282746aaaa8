"""What approvals ask of a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from flowstone.core.approval import Approval, ApprovalState, AuditRecord


class ApprovalStore(Protocol):
    """Keeps requests for approval and decides them; every method is one transaction.

    The transaction that ends the attempt of a suspended step records the request (`Ledger.commit`), the one that
    cancels the step cancels it. A decision and what follows from it, such as placing the step again or failing
    everything downstream, are one transaction as well. The store's clock decides what is late.
    """

    def list(self, *, state: ApprovalState | None = None, limit: int = 100) -> Sequence[Approval]:
        """Return requests of one state or all; pending ones by the end of their time, else newest first."""

    def get(self, approval_id: int) -> Approval | None:
        """Return a request."""

    def of_step(self, step_id: int) -> Sequence[Approval]:
        """Return the requests of a step in the order in which they were made."""

    def decide(self, approval_id: int, *, approve: bool, by: str, comment: str | None = None) -> Approval:
        """Decide a request; the first decision wins.

        Args:
            approval_id: the request.
            approve: whether the step goes on; otherwise it fails for good.
            by: who decides.
            comment: what they say about it.

        Raises:
            ApprovalNotFoundError: there is no such request.
            ApprovalDecidedError: it was decided, cancelled, or its time was over; says who and when.
        """

    def expire_due(self, *, limit: int = 1000) -> int:
        """End the requests whose time is over as their `on_timeout` says; return how many."""

    def claim_notifications(self, *, lease_seconds: float, limit: int = 10) -> Sequence[Approval]:
        """Claim requests whose state is not announced yet; until the lease is over nobody else gets them.

        Of two changes in a row only the later one is announced. A decision is announced for a day, a pending
        request as long as it is pending.
        """

    def acknowledge_notification(self, approval: Approval) -> None:
        """Acknowledge that this state of a request was announced."""

    def release_notification(self, approval: Approval, *, retry_in_seconds: float) -> None:
        """Release a state of a request that could not be announced, and say when to try again."""

    def audit(self, *, subject: str | None = None, limit: int = 100) -> Sequence[AuditRecord]:
        """Return the newest lines of the audit log, of one subject or of all, newest first."""
