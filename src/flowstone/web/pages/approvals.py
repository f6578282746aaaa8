"""Approvals: what waits for a person, by time left, with what silence will do; and what was decided, by whom."""

from __future__ import annotations

from dataclasses import dataclass

from flowstone.core.paging import Page
from flowstone.engine.insights.decisions import ApprovalCard
from flowstone.web.fields import number, text
from flowstone.web.registry import ActionCall, Confirm, Done, PageRequest, Role, action, page, url


@dataclass(frozen=True, slots=True)
class ApprovalsQuery:
    """Which requests are shown.

    Args:
        next: where the page of decided ones begins.
        limit: how many of each.
    """

    next: str | None = None
    limit: int = number(30, minimum=1, maximum=100)


@dataclass(frozen=True, slots=True)
class ApprovalsModel:
    """The inbox and the history.

    Args:
        waiting: what waits for a decision, the most urgent first.
        decided: what is over, the newest first.
    """

    waiting: Page[ApprovalCard]
    decided: Page[ApprovalCard]


@page("/approvals", template="approvals.html", query=ApprovalsQuery, role=Role.VIEWER, title="Approvals",
      rail="Approvals")  # fmt: skip
def approvals(request: PageRequest[ApprovalsQuery]) -> ApprovalsModel:
    """Return what waits for a decision, and what was decided."""
    query, insights = request.query, request.insights
    return ApprovalsModel(
        insights.approvals(limit=query.limit),
        insights.approvals_decided(cursor=query.next, limit=min(query.limit, 20)),
    )


@dataclass(frozen=True, slots=True)
class OneApproval:
    """Which request is shown.

    Args:
        id: of the request.
    """

    id: int


@page("/approval", template="approval.html", query=OneApproval, role=Role.VIEWER, title="Approval",
      rail="Approvals")  # fmt: skip
def approval(request: PageRequest[OneApproval]) -> ApprovalCard:
    """Return one request for approval with its data and its decision."""
    return request.insights.approval(request.query.id)


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person decides.

    Args:
        id: of the request.
        comment: what to say about it; the step can read it.
    """

    id: int
    comment: str | None = text(None, maximum=5_000)


def _question(call: ActionCall[Decision], verb: str, effect: str) -> Confirm:
    found = call.flow.approvals.get(call.form.id)
    comment = () if call.form.comment is None else (f"Comment: {call.form.comment}",)
    return Confirm(
        f"{verb} “{found.message[:200]}” of {found.asset}?", verb, (effect, *comment), danger=verb == "Reject"
    )


def _approving(call: ActionCall[Decision]) -> Confirm:
    return _question(call, "Approve", "The step goes on with what it left, as soon as a worker has room.")


def _rejecting(call: ActionCall[Decision]) -> Confirm:
    return _question(call, "Reject", "The step fails for good, and what needs its value fails with it.")


@action("/approvals/approve", title="Approve", form=Decision, role=Role.APPROVER, confirm=_approving)
def approve(call: ActionCall[Decision]) -> Done:
    """Approve a request: its step goes on. The first decision counts; a later one learns who made it."""
    decided = call.flow.approvals.approve(call.form.id, comment=call.form.comment, by=call.person.name)
    return Done(f"Approved request {decided.id} of {decided.asset}.", url("approvals"))


@action("/approvals/reject", title="Reject", form=Decision, role=Role.APPROVER, confirm=_rejecting)
def reject(call: ActionCall[Decision]) -> Done:
    """Reject a request: its step fails for good. The first decision counts; a later one learns who made it."""
    decided = call.flow.approvals.reject(call.form.id, comment=call.form.comment, by=call.person.name)
    return Done(f"Rejected request {decided.id} of {decided.asset}.", url("approvals"))
