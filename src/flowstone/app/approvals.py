"""`flow.approvals` and `flow.audit`: what waits for a person's decision, and who decided what."""

from __future__ import annotations

import getpass
import os
from collections.abc import Sequence

from flowstone.app.async_face import AsyncFlowStone, awaitable
from flowstone.app.requests import whole_number
from flowstone.app.wiring import Parts
from flowstone.core.approval import Approval, ApprovalState, AuditRecord
from flowstone.core.declaring import view
from flowstone.errors import ApprovalNotFoundError, OptionsError


@view("flow.approvals")
class ApprovalsView:
    """Requests for approval: steps that stopped with `AwaitApproval` until a person decides.

    Example:
        >>> from flowstone import AwaitApproval, FlowStone, asset
        >>> @asset
        ... def letter(context):
        ...     if context.approval is None:
        ...         raise AwaitApproval("Send it?", resume={"text": "Dear Ann"})
        ...     return context.approval.resume["text"] + "!"
        >>> def say_yes(approval):
        ...     if approval.state == "pending":
        ...         flow.approvals.approve(approval.id, by="ann")
        >>> flow = FlowStone([letter], notifiers=[say_yes])
        >>> flow.materialize("letter").value
        'Dear Ann!'
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def list(
        self, *, state: ApprovalState | str | None = ApprovalState.PENDING, limit: int = 100
    ) -> Sequence[Approval]:
        """Return requests: pending ones by the end of their time; of other states, or all, the newest first.

        Args:
            state: `pending`, `approved`, `rejected`, `expired` or `cancelled`; None for all.
            limit: how many at most.

        Raises:
            OptionsError: there is no such state.
        """
        try:
            requested = None if state is None else ApprovalState(state)
        except ValueError:
            known = ", ".join(ApprovalState)
            raise OptionsError(f"state={state!r} is not a state of approvals; give one of {known}.") from None
        return self._parts.store.approvals.list(state=requested, limit=whole_number("limit", limit))

    def get(self, approval_id: int | str) -> Approval:
        """Return a request with its decision, if there is one.

        Raises:
            ApprovalNotFoundError: there is no such request.
        """
        found = self._parts.store.approvals.get(_number(approval_id))
        if found is None:
            raise ApprovalNotFoundError(approval_id)
        return found

    def of_step(self, step_id: int | str) -> Sequence[Approval]:
        """Return the requests of a step in the order in which they were made."""
        return self._parts.store.approvals.of_step(int(step_id))

    def approve(self, approval_id: int | str, *, comment: str | None = None, by: str | None = None) -> Approval:
        """Let a step go on; its function finds the decision in `context.approval`.

        Args:
            approval_id: the request.
            comment: kept with the decision, for the function and for whoever asks later.
            by: who decides; the user of the operating system by default.

        Raises:
            ApprovalNotFoundError: there is no such request.
            ApprovalDecidedError: it was decided before, its time was over, or its step was cancelled.
        """
        return self._decide(approval_id, approve=True, comment=comment, by=by)

    def reject(self, approval_id: int | str, *, comment: str | None = None, by: str | None = None) -> Approval:
        """Fail a step for good, and everything downstream of it.

        Args:
            approval_id: the request.
            comment: becomes part of the step's error.
            by: who decides; the user of the operating system by default.

        Raises:
            ApprovalNotFoundError: there is no such request.
            ApprovalDecidedError: it was decided before, its time was over, or its step was cancelled.
        """
        return self._decide(approval_id, approve=False, comment=comment, by=by)

    def _decide(self, approval_id: int | str, *, approve: bool, comment: str | None, by: str | None) -> Approval:
        number = _number(approval_id)
        if by is not None and not by.strip():
            raise OptionsError("by='': say who decides, or leave it out for the user of the operating system.")
        approvals = self._parts.store.approvals
        return approvals.decide(number, approve=approve, by=by or current_user(), comment=comment)


class AsyncApprovalsView(AsyncFlowStone):
    """`flow.aio.approvals`: the verbs of `flow.approvals`, awaitable."""

    list = awaitable(ApprovalsView.list)
    get = awaitable(ApprovalsView.get)
    of_step = awaitable(ApprovalsView.of_step)
    approve = awaitable(ApprovalsView.approve)
    reject = awaitable(ApprovalsView.reject)


@view("flow.audit")
class AuditView:
    """The audit log: who did what to what, and when. It only grows."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def latest(self, *, subject: str | None = None, limit: int = 100) -> Sequence[AuditRecord]:
        """Return the newest lines, newest first.

        Args:
            subject: only those about this, such as `approval:7`.
            limit: how many at most.
        """
        return self._parts.store.approvals.audit(subject=subject, limit=whole_number("limit", limit))


class AsyncAuditView(AsyncFlowStone):
    """`flow.aio.audit`: the verbs of `flow.audit`, awaitable."""

    latest = awaitable(AuditView.latest)


def current_user() -> str:
    """Return the name of the user of the operating system, or their number when they have no name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return f"uid {os.getuid()}"


def _number(approval_id: int | str) -> int:
    text = str(approval_id)
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise ApprovalNotFoundError(text)
    return int(text)
