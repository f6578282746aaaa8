"""Versions of an asset: `versions ls`, `show`, `restore`, `undo`, `erase`."""

from __future__ import annotations

from typing import Annotated

import typer

from flowstone.app import FlowStone
from flowstone.app.erasing import Erased
from flowstone.app.targets import read_recorded, recorded_asset
from flowstone.app.version_choice import VersionInfo
from flowstone.cli.output import Column, moment, one_line
from flowstone.cli.partitions import One
from flowstone.cli.session import Session
from flowstone.core.partitions import Partition
from flowstone.core.selection import select
from flowstone.errors import PartitionError, command

Asset = Annotated[str, typer.Argument(metavar="ASSET", help="An asset, also one that is declared no more.")]
Number = Annotated[str, typer.Argument(metavar="VERSION", help="Number of a version; `versions ls` lists them.")]
Reason = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why, for the audit log.")]
By = Annotated[
    str | None, typer.Option("--by", metavar="WHO", help="Who does it; by default the user of this system.")
]
Force = Annotated[
    bool, typer.Option("--force", help="Also while a step is not over; what that commits later wins.")
]


def ls(
    session: Session,
    asset: Asset,
    *,
    partition: One = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many, newest first.")] = 20,
    after: Annotated[str | None, typer.Option(metavar="CURSOR", help="`next` of the page before.")] = None,
) -> None:
    """List the versions of an asset, or of one partition: which is in use, and which can be again."""
    flow = session.records
    session.warn_of_memory_store()
    name, key = _target(flow, asset, partition)
    page = flow.versions.list(name, key, limit=limit, after=after)
    if session.out.as_json:
        versions = [one.to_json() for one in page.items]
        session.out.json({"asset": name, "versions": versions, "total": page.total, "next": page.next})
        return
    columns = [
        Column("VERSION", right=True),
        Column("STATE"),
        Column("COMMITTED"),
        Column("CODE VERSION", rank=3),
        Column("HASH", rank=2),
        Column("BYTES", right=True, rank=4),
        Column("STORED", rank=2),
        Column("BY", rank=3),
        Column("RUN", rank=1),
    ]
    session.out.table(columns, [_row(one) for one in page.items])
    if page.next is not None:
        session.out.note(f"{page.summary}; go on with --after {page.next}")


def show(session: Session, version: Number) -> None:
    """Show one version: what made it, where it lies, and what people did to it."""
    flow = session.records
    session.warn_of_memory_store()
    one = flow.versions.get(version)
    if session.out.as_json:
        session.out.json(one.to_json())
        return
    session.out.line(f"version {one.step_id} of {one_line(_name(one))} is {_state(one)}")
    stored = one.stored
    fields = {
        "run": f"{one.run_id}{f' ({one.kind})' if one.kind else ''}",
        "asked by": one.requested_by or "",
        "committed": moment(one.finished_at),
        "in use since": moment(one.since) if one.since else "",
        "restored": _restored(one),
        "invalidated": moment(one.invalidated_at) if one.invalidated_at else "",
        "erased": moment(one.erased_at) if one.erased_at else "",
        "code version": one.code_version or "",
        "hash": one.data_version or "",
        "size": f"{stored.size_bytes:,} bytes" if stored and stored.size_bytes is not None else "",
        "place": f"{stored.io}: {stored.location}" if stored else "",
        "stored": "" if one.is_stored is None else ("yes" if one.is_stored else "no"),
        "metadata": ", ".join(f"{name}: {value}" for name, value in stored.metadata.items()) if stored else "",
    }
    for name, field in fields.items():
        if field:
            session.out.line(f"  {name + ':':<13} {one_line(field)}")
    if one.state in ("earlier", "invalidated"):
        verb = command("versions restore", one.asset, str(one.step_id), partition=one.label or None)
        session.out.note(f"Put it in use again with: {verb}")


def restore(
    session: Session,
    asset: Asset,
    version: Number,
    *,
    partition: One = None,
    expect: Annotated[
        str | None, typer.Option("--expect", metavar="VERSION", help="Refuse unless this version is in use now.")
    ] = None,
    reason: Reason = None,
    by: By = None,
    force: Force = False,
) -> None:
    """Put an earlier version in use again; what was made from the one before becomes stale."""
    flow = session.flow
    session.warn_of_memory_store()
    name, key = _target(flow, asset, partition)
    done = flow.versions.restore(name, key, version, reason=reason, by=by, expect=expect, force=force)
    if session.out.as_json:
        stale = [one.to_json() for one in done.stale]
        session.out.json(
            {
                "asset": done.asset,
                "partition": done.label or None,
                "version": str(done.version),
                "before": None if done.before is None else str(done.before),
                "changed": done.changed,
                "stale": stale,
            }
        )
        return
    session.out.line(f"{one_line(str(done))}.")
    if done.stale:
        session.out.note(f"Stale now: {one_line(_some([str(one) for one in done.stale]))}")


def undo(
    session: Session,
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run whose versions go out of use.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    reason: Reason = None,
    by: By = None,
    force: Force = False,
) -> None:
    """Undo what a run published: put in use again what was in use before it, all of it or nothing."""
    flow = session.flow
    session.warn_of_memory_store()
    done = flow.versions.undo(run, reason=reason, by=by, force=force, dry_run=dry_run)
    if session.out.as_json:
        session.out.json(
            {
                "run_id": done.run_id,
                "restored": done.restored,
                "out_of_use": done.out_of_use,
                "left": done.left,
                "targets": list(done.targets),
                "dry_run": done.dry_run,
            }
        )
        return
    would = "would be " if dry_run else ""
    restored = _count(done.restored, "earlier version")
    session.out.line(f"run {one_line(done.run_id)}: {restored} {would}in use again.")
    if done.out_of_use:
        session.out.line(
            f"{_count(done.out_of_use, 'target')} with nothing in use before: {would}nothing in use now."
        )
    if done.left:
        session.out.note(f"{_count(done.left, 'version')} of it had been replaced already, and stay as they are.")
    if done.targets:
        session.out.note(one_line(_some(list(done.targets))))


def erase(
    session: Session,
    selection: Annotated[
        str, typer.Argument(metavar="SELECTION", help="Assets, or the name of one that is declared no more.")
    ],
    *,
    partition: One = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; else only say what would be erased.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be erased.")] = False,
    reason: Reason = None,
    by: By = None,
) -> int:
    """Erase a partition for good: values, errors, metadata, logs. The fact stays; nothing undoes it."""
    flow = session.flow
    session.warn_of_memory_store()
    name, key = selection, _partition(flow, selection, partition)
    erased = flow.versions.erase(name, partition=key, reason=reason, by=by, dry_run=dry_run or not yes)
    if session.out.as_json:
        session.out.json(_erased_document(flow, erased))
        return 0 if erased.dry_run or erased.is_complete else 1
    targets = one_line(_some([flow.graph.describe(*target) for target in erased.targets]))
    verb = "would be erased" if erased.dry_run else "is erased"
    session.out.line(f"{targets}: {_count(erased.steps, 'step')} with {_count(erased.values, 'value')} {verb}.")
    if erased.earlier:
        session.out.note(f"{_count(erased.earlier, 'step')} of these had been erased before.")
    if erased.downstream:
        more = "more than " if erased.more_downstream else ""
        made = one_line(_some([str(one) for one in erased.downstream]))
        session.out.note(f"Made from it, and left as they are, {more}{len(erased.downstream)}: {made}")
    if erased.elsewhere:
        places = one_line(_some(list(erased.elsewhere)))
        session.out.note(f"Published from elsewhere, and still there, yours to delete: {places}")
    for io, number in erased.out_of_reach.items():
        session.out.error(
            f"{_count(number, 'value')} of the IO manager {io!r} could not be deleted. Erase again where it is "
            "declared and can be reached."
        )
    if erased.dry_run and not dry_run:
        session.out.note("Nothing was erased. Add --yes to do it; nothing undoes it.")
    return 0 if erased.dry_run or erased.is_complete else 1


def _target(flow: FlowStone, asset: str, partition: str | None) -> tuple[str, Partition]:
    """Return the name of an asset and the partition that a person wrote."""
    catalog = flow.parts.store.catalog
    found = recorded_asset(flow.graph, catalog, asset)
    return found.name, None if partition is None else read_recorded(found, partition, catalog)


def _partition(flow: FlowStone, selection: str, partition: str | None) -> Partition:
    """Return the partition that a person wrote, read by the first selected asset that has such partitions."""
    if partition is None:
        return None
    catalog = flow.parts.store.catalog
    if selection in flow.graph or catalog.history(selection, None, limit=1):
        return _target(flow, selection, partition)[1]
    partitioned = [name for name in select(flow.graph, selection) if flow.graph[name].partitions is not None]
    if not partitioned:
        return _target(flow, select(flow.graph, selection)[0], partition)[1]
    for name in partitioned[:-1]:
        try:
            return _target(flow, name, partition)[1]
        except PartitionError:
            continue
    return _target(flow, partitioned[-1], partition)[1]


def _name(one: VersionInfo) -> str:
    return f"{one.asset}{f' [{one.label}]' if one.label else ''}"


def _state(one: VersionInfo) -> str:
    by = f" by {one.changed_by}" if one.changed_by else ""
    return "in use" if one.is_current else f"{one.state}{by}"


def _restored(one: VersionInfo) -> str:
    if one.restored is None:
        return ""
    reason = f": {one.restored.reason}" if one.restored.reason else ""
    return f"{moment(one.restored.at)}{one.restored.by}{reason}"


def _row(one: VersionInfo) -> list[str]:
    size = one.stored.size_bytes if one.stored else None
    is_restored = one.is_current and one.restored is not None and one.restored.at == one.since
    state = "restored" if is_restored else one.state
    return [
        str(one.step_id),
        state,
        moment(one.finished_at),
        one.code_version or "",
        (one.data_version or "")[:8],
        "" if size is None else f"{size:,}",
        "" if one.is_stored is None else ("yes" if one.is_stored else "no"),
        one.requested_by or "",
        one.run_id,
    ]


def _erased_document(flow: FlowStone, erased: Erased) -> dict[str, object]:
    return {
        "targets": [
            {"asset": asset, "partition": flow.graph.label(asset, key) if key else None}
            for asset, key in erased.targets
        ],
        "steps": erased.steps,
        "values": erased.values,
        "size_bytes": erased.size_bytes,
        "attempts": erased.attempts,
        "checks": erased.checks,
        "approvals": erased.approvals,
        "items": erased.items,
        "logs": erased.logs,
        "earlier": erased.earlier,
        "downstream": [one.to_json() for one in erased.downstream],
        "more_downstream": erased.more_downstream,
        "out_of_reach": dict(erased.out_of_reach),
        "elsewhere": list(erased.elsewhere),
        "left_out": list(erased.left_out),
        "dry_run": erased.dry_run,
    }


def _count(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number:,} {what}s"


def _some(texts: list[str], limit: int = 10) -> str:
    listed = ", ".join(texts[:limit])
    return listed if len(texts) <= limit else f"{listed} and {len(texts) - limit:,} more"
