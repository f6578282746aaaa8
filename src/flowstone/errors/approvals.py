"""Errors of approvals."""

from __future__ import annotations

from datetime import datetime

from flowstone.errors.root import FlowStoneError, command


class ApprovalNotFoundError(FlowStoneError, LookupError):
    """No request for approval carries this id."""

    def __init__(self, identifier: int | str) -> None:
        self.identifier = str(identifier)
        super().__init__(
            f"There is no request for approval with id {self.identifier!r}. "
            "`flowstone approvals --all` lists them."
        )


class ApprovalDecidedError(FlowStoneError, RuntimeError):
    """A decision came too late: the first one counts.

    Args:
        approval_id: the request.
        state: what it is: approved, rejected, expired, cancelled.
        verdict: the same in words, with who, when and why.
        decided_by: who decided; None when nobody did.
        decided_at: when.
    """

    def __init__(
        self, approval_id: int, *, state: str, verdict: str, decided_by: str | None, decided_at: datetime | None
    ) -> None:
        self.approval_id = approval_id
        self.state = state
        self.decided_by = decided_by
        self.decided_at = decided_at
        super().__init__(
            f"Approval {approval_id} is over, so this decision changes nothing: it was {verdict}. "
            f"See `{command('approvals', 'show', str(approval_id))}`; to ask again, run the step again."
        )


class GateRepeatedError(FlowStoneError, RuntimeError):
    """An asset asked again at a gate through which it had been let already.

    Args:
        asset: asset name.
        gate: the gate.
        verdict: the decision that it ignored.
    """

    def __init__(self, asset: str, gate: str, verdict: str) -> None:
        self.asset = asset
        self.gate = gate
        super().__init__(
            f"Asset {asset!r} asked again at the gate {gate!r}, which was {verdict}. Ask only while "
            f"context.approvals.get({gate!r}) is None; a second question needs AwaitApproval(..., gate=...) with "
            "another name."
        )
