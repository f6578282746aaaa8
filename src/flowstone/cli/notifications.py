"""What people are notified of: `notifications ls`, `show`, `test`, `retry`."""

from __future__ import annotations

from typing import Annotated

import typer

from flowstone.app import FlowStone
from flowstone.cli.calls import FAILED
from flowstone.cli.output import Column, moment, one_line
from flowstone.cli.session import Session
from flowstone.core.notification import Notification, NotificationState
from flowstone.errors import OptionsError, command

Id = Annotated[
    str, typer.Argument(metavar="ID", help="Id of a notification, as `flowstone notifications` lists them.")
]
_STATES = ", ".join(NotificationState)


def ls(
    session: Session,
    *,
    state: Annotated[str | None, typer.Option("--state", help=f"Only those in this state: {_STATES}.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 50,
) -> None:
    """List what people were notified of, or will be, the newest first."""
    flow = session.records
    session.warn_of_memory_store()
    found = flow.notifications.list(state=state, limit=limit)
    late = [one for one in flow.insights.freshness() if one.late_since is not None]
    if session.out.as_json:
        counts = {one.value: number for one, number in flow.notifications.counts().items()}
        listed = [_document(flow, one) for one in found]
        session.out.json({"notifications": listed, "counts": counts, "late": [one.asset for one in late]})
        return
    columns = [
        Column("ID", right=True),
        Column("STATE"),
        Column("WHAT"),
        Column("RULE", rank=1),
        Column("DECIDED", rank=2),
        Column("TRIES", rank=4, right=True),
        Column("ERROR", rank=3),
    ]
    session.out.table(columns, [_row(flow, one) for one in found])
    for one in late:
        session.out.note(f"{one_line(one.asset)} is late. {one_line(one.says)}")


def show(session: Session, notification: Id) -> None:
    """Show a notification with its message."""
    flow = session.records
    session.warn_of_memory_store()
    one = flow.notifications.get(notification)
    if session.out.as_json:
        session.out.json(_document(flow, one))
        return
    message = flow.notifications.message(one)
    session.out.line(f"notification {one.id} is {one.state.value}: {message.subject}")
    for line in message.text.splitlines():
        session.out.line(f"  {one_line(line)}")
    if one.error:
        session.out.line(f"  error: {one_line(one.error)} ({one.attempts} tries)")
        session.out.note(f"Send it again with: {command('notifications', 'retry', str(one.id))}")


def send_test(
    session: Session,
    rule: Annotated[
        str | None, typer.Argument(metavar="[RULE]", help="Only through the sender of this rule.")
    ] = None,
) -> int:
    """Send a test message through the sender of each rule, here and now; 1 when one could not be sent."""
    flow = session.flow
    if not flow.notifications.senders():
        raise OptionsError(
            "This app declares no rule: FlowStone(notify=[Notify(...)]), see docs/notifications.md."
        )
    tested = flow.notifications.test(rule)
    if session.out.as_json:
        session.out.json(
            {"tests": [{"rule": one.rule, "sender": one.sender, "error": one.error} for one in tested]}
        )
    else:
        columns = [Column("RULE"), Column("SENDER"), Column("RESULT")]
        session.out.table(columns, [[one.rule, one.sender, one.error or "sent"] for one in tested])
    return FAILED if any(one.error for one in tested) else 0


def retry(
    session: Session,
    notifications: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID...]", help="Ids of notifications; without any, all that were given up."),
    ] = None,
) -> None:
    """Have notifications sent now that were given up, or wait for another try; workers send them."""
    flow = session.records
    session.warn_of_memory_store()
    again = flow.notifications.retry(*(notifications or ()))
    if session.out.as_json:
        session.out.json({"retried": list(again)})
        return
    session.out.line(f"{len(again)} notifications are sent again." if again else "There is nothing to send again.")


def _row(flow: FlowStone, one: Notification) -> list[str]:
    return [
        str(one.id),
        one.state.value,
        flow.notifications.message(one).subject,
        one.rule,
        moment(one.created_at),
        str(one.attempts),
        one.error or "",
    ]


def _document(flow: FlowStone, one: Notification) -> dict[str, object]:
    message = flow.notifications.message(one)
    return {
        **message.to_json(),
        "id": one.id,
        "state": one.state.value,
        "attempts": one.attempts,
        "error": one.error,
        "sent_at": one.sent_at,
    }
