"""An asset that asks before it pays. Run with `python examples/approvals.py`."""

from __future__ import annotations

from flowstone import Approval, AssetContext, AwaitApproval, FlowStone, asset
from flowstone.errors import ApprovalDecidedError


@asset
def invoices() -> list[int]:
    """What is to be paid."""
    return [40, 60]


@asset
def payment(context: AssetContext, invoices: list[int]) -> str:
    """Adds up, asks, and goes on after the decision without adding up again."""
    if context.approval is None:
        print("adding up")
        total = sum(invoices)
        raise AwaitApproval(f"Pay {len(invoices)} invoices?", data={"total": total}, resume=total)
    return f"{context.approval.resume} paid, approved by {context.approval.decided_by}"


def notify(approval: Approval) -> None:
    """Stands for a message to Ann, who decides at once; `flowstone approve ID` would do the same."""
    if approval.state == "pending":
        print("asked:", approval.message, approval.data)
        flow.approvals.approve(approval.id, by="ann", comment="checked")


flow = FlowStone.for_testing([invoices, payment], notifiers=[notify])

if __name__ == "__main__":
    print(flow.materialize_all("payment").value)

    (approval,) = flow.approvals.list(state="approved")
    try:
        flow.approvals.reject(approval.id, by="bob")
    except ApprovalDecidedError as error:
        print("bob reads:", error.state, "by", error.decided_by)

    for line in reversed(flow.audit.latest()):
        print(line.subject, line.action, "-", line.actor)
