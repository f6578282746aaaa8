"""What assets want by themselves: `automation`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from flowstone.app import FlowStone
from flowstone.cli.automation import show_ticks
from flowstone.cli.output import Column, one_line
from flowstone.cli.partitions import One, parse_one
from flowstone.cli.session import Session
from flowstone.core.automation.decision import Decision
from flowstone.core.automation.record import AutomationRecord
from flowstone.errors import OptionsError


def automation(
    session: Session,
    asset: Annotated[str | None, typer.Argument(metavar="[ASSET]", help="An asset with a condition.")] = None,
    *,
    partition: One = None,
    ticks: Annotated[bool, typer.Option("--ticks", help="What it asked for so far.")] = False,
    pause: Annotated[bool, typer.Option("--pause", help="Ask for nothing on its behalf.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with it.")] = False,
) -> None:
    """Show for each asset with a condition whether it would be requested now, and why; nothing is started."""
    session.warn_of_memory_store()
    flow = session.flow
    if asset is None:
        if partition is not None or ticks or pause or resume:
            raise OptionsError("Which asset? `flowstone automation ASSET ...`; `flowstone automation` lists them.")
        _list(session, flow)
    elif pause and resume:
        raise OptionsError("--pause and --resume: give one of them.")
    elif pause or resume:
        _pause(session, flow, asset, paused=pause)
    elif ticks:
        show_ticks(session, flow.conditions.ticks(asset))
    else:
        _explain(session, flow, asset, partition)


def _list(session: Session, flow: FlowStone) -> None:
    records = flow.conditions.list()
    decisions = {record.id.name: flow.conditions.evaluate(record.id.name) for record in records}
    if session.out.as_json:
        found = [_json(flow, one, decisions[one.id.name][:1], decisions[one.id.name]) for one in records]
        session.out.json({"automation": found})
        return
    columns = [
        Column("ASSET"),
        Column("CONDITION", rank=2),
        Column("PAUSED", rank=1),
        Column("REQUESTED"),
        Column("NEWEST", rank=3),
    ]
    session.out.table(columns, [_row(flow, one, decisions[one.id.name]) for one in records])
    if not records:
        session.out.note("No asset of this app has a condition. Give it one: @asset(automation=eager()).")


def _row(flow: FlowStone, record: AutomationRecord, decisions: Sequence[Decision]) -> list[str]:
    name = record.id.name
    number_requested = sum(one.requested for one in decisions)
    number = (
        f"{number_requested} of {len(decisions)}"
        if flow.graph[name].partitions
        else ("yes" if number_requested else "no")
    )
    condition = repr(flow.graph[name].automation)
    return [name, condition, "yes" if record.paused else "", number, decisions[0].reason if decisions else ""]


def _explain(session: Session, flow: FlowStone, asset: str, partition: str | None) -> None:
    chosen = None if partition is None else [parse_one(flow.graph, [asset], partition)]
    decisions = flow.conditions.evaluate(asset, partitions=chosen)
    (record,) = [one for one in flow.conditions.list() if one.id.name == asset]
    if session.out.as_json:
        session.out.json(_json(flow, record, decisions, decisions))
        return
    session.out.line(f"{one_line(asset)}: {flow.graph[asset].automation!r}{' (paused)' if record.paused else ''}")
    for line in decisions[0].explain() if decisions else ["none of its partitions is complete yet"]:
        session.out.line(f"  {one_line(line)}")
    if len(decisions) > 1:
        number_requested = sum(one.requested for one in decisions)
        session.out.line(
            f"{number_requested} of the {len(decisions)} newest would be requested; --partition explains others."
        )


def _json(
    flow: FlowStone, record: AutomationRecord, shown: Sequence[Decision], decisions: Sequence[Decision]
) -> dict[str, object]:
    name = record.id.name
    return {
        "asset": name,
        "condition": repr(flow.graph[name].automation),
        "paused": record.paused,
        "evaluated": len(decisions),
        "requested": sum(one.requested for one in decisions),
        "wanted": sum(one.requested for one in decisions),  # deprecated
        "decisions": [one.to_json() for one in shown],
    }


def _pause(session: Session, flow: FlowStone, asset: str, *, paused: bool) -> None:
    changed = flow.conditions.pause(asset) if paused else flow.conditions.resume(asset)
    if session.out.as_json:
        session.out.json({"kind": "condition", "name": asset, "paused": paused, "changed": changed})
        return
    was = "" if changed else "already "
    text = f"{was}paused; no worker asks for it" if paused else f"{was}going on"
    session.out.line(f"condition of {one_line(asset)}: {text}.")
