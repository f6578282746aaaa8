"""What people decide: `approvals`, `approve`, `reject`, and the log of it: `audit`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from flowstone.app import FlowStone
from flowstone.cli.output import Column, moment, one_line
from flowstone.cli.partitions import label
from flowstone.cli.session import Session
from flowstone.core.approval import Approval, ApprovalState
from flowstone.errors import OptionsError, command

Id = Annotated[str, typer.Argument(metavar="ID", help="Id of a request, as `flowstone approvals` lists them.")]
Comment = Annotated[
    str | None, typer.Option("--comment", metavar="TEXT", help="Kept with the decision, and shown to the asset.")
]
By = Annotated[
    str | None, typer.Option("--by", metavar="WHO", help="Who decides; by default the user of this system.")
]


def approvals(
    session: Session,
    action: Annotated[str | None, typer.Argument(metavar="[show]", help="`show ID` shows one request.")] = None,
    approval: Annotated[str | None, typer.Argument(metavar="[ID]", help="Id of a request.")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Also those that are decided.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 50,
) -> None:
    """List the requests that wait for a decision, or show one: `flowstone approvals show ID`."""
    flow = session.records
    session.warn_of_memory_store()
    if action is not None:
        if action != "show" or approval is None:
            raise OptionsError("Say `flowstone approvals` or `flowstone approvals show ID`.")
        _show(session, flow, flow.approvals.get(approval))
        return
    found = flow.approvals.list(state=None if everything else ApprovalState.PENDING, limit=limit)
    if session.out.as_json:
        session.out.json({"approvals": [_document(flow, one) for one in found]})
        return
    columns = [
        Column("ID", right=True),
        Column("ASSET"),
        Column("PARTITION", rank=1),
        Column("GATE", rank=4),
        Column("STATE", rank=2),
        Column("MESSAGE"),
        Column("ASKED", rank=3),
        Column("UNTIL", rank=2),
    ]
    session.out.table(columns, [_row(flow, one) for one in found])


def approve(session: Session, approval: Id, *, comment: Comment = None, by: By = None) -> None:
    """Let a step that waits for approval go on."""
    flow = session.records
    session.warn_of_memory_store()
    _answer(session, flow.approvals.approve(approval, comment=comment, by=by), "goes on")


def reject(session: Session, approval: Id, *, comment: Comment = None, by: By = None) -> None:
    """Fail a step that waits for approval, for good, and everything downstream of it."""
    flow = session.records
    session.warn_of_memory_store()
    _answer(session, flow.approvals.reject(approval, comment=comment, by=by), "has failed")


def audit(
    session: Session,
    subject: Annotated[
        str | None, typer.Argument(metavar="[SUBJECT]", help="Only lines about this, such as approval:7.")
    ] = None,
    *,
    actor: Annotated[str | None, typer.Option(help="Only what this person or program did.")] = None,
    action: Annotated[
        str | None, typer.Option(help="Only this action, such as run.cancelled, or all of a kind, such as run.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 50,
) -> None:
    """List who did what to what, newest first; this log only grows."""
    flow = session.records
    session.warn_of_memory_store()
    found = flow.audit.latest(actor=actor, action=action, subject=subject, limit=limit)
    if session.out.as_json:
        lines = [
            {
                "id": line.id,
                "at": line.at.isoformat(),
                "actor": line.actor,
                "via": line.via,
                "action": line.action,
                "subject": line.subject,
                "details": dict(line.details),
            }
            for line in found
        ]
        session.out.json({"audit": lines})
        return
    columns = [
        Column("AT"),
        Column("ACTOR"),
        Column("VIA", rank=2),
        Column("ACTION"),
        Column("SUBJECT"),
        Column("DETAILS", rank=1),
    ]
    rows = [
        [
            moment(line.at),
            line.actor,
            line.via or "",
            line.action,
            line.subject,
            ", ".join(f"{name}: {value}" for name, value in line.details.items()),
        ]
        for line in found
    ]
    session.out.table(columns, rows)


def _answer(session: Session, decided: Approval, consequence: str) -> None:
    if session.out.as_json:
        session.out.json(_document(session.records, decided))
        return
    target = one_line(session.records.graph.describe(decided.asset, decided.partition_key))
    session.out.line(f"approval {decided.id}: {one_line(decided.verdict())}; {target} {consequence}.")


def _show(session: Session, flow: FlowStone, one: Approval) -> None:
    if session.out.as_json:
        session.out.json(_document(flow, one))
        return
    session.out.line(f"approval {one.id} is {one.state.value}")
    fields = {
        "asset": flow.graph.describe(one.asset, one.partition_key),
        "message": one.message,
        "data": json.dumps(one.data, ensure_ascii=False) if one.data is not None else "",
        "gate": one.gate,
        "step": str(one.step_id),
        "run": one.run_id,
        "asked": moment(one.created_at),
        "until": f"{moment(one.expires_at)}, then: {one.on_timeout}",
        "decided": one.verdict() if one.state.is_decided else "",
    }
    for name, field in fields.items():
        if field:
            session.out.line(f"  {name + ':':<9} {one_line(field)}")
    if not one.state.is_decided:
        session.out.note(f"Decide with: {command('approve', str(one.id))}, or: {command('reject', str(one.id))}")


def _row(flow: FlowStone, one: Approval) -> list[str]:
    return [
        str(one.id),
        one.asset,
        _label(flow, one),
        one.gate,
        one.state.value,
        one.message,
        moment(one.created_at),
        moment(one.expires_at),
    ]


def _document(flow: FlowStone, one: Approval) -> dict[str, object]:
    return {
        "id": one.id,
        "asset": one.asset,
        "partition": _label(flow, one) or None,
        "gate": one.gate,
        "state": one.state.value,
        "message": one.message,
        "data": one.data,
        "step_id": one.step_id,
        "run_id": one.run_id,
        "on_timeout": one.on_timeout,
        "created_at": one.created_at,
        "expires_at": one.expires_at,
        "decided_at": one.decided_at,
        "decided_by": one.decided_by,
        "comment": one.comment,
    }


def _label(flow: FlowStone, one: Approval) -> str:
    return label(one.partition_key, flow.graph.assets.get(one.asset))
