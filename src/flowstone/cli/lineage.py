"""What a value was really made from, and what was made from it: `lineage`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flowstone.app.targets import read_recorded, recorded_asset
from flowstone.cli.known_names import offers
from flowstone.cli.output import Column, one_line
from flowstone.cli.partitions import One
from flowstone.cli.session import Session
from flowstone.errors import OptionsError, command, selected

if TYPE_CHECKING:
    from flowstone.app.lineage import Version


def lineage(
    session: Session,
    asset: Annotated[
        str,
        typer.Argument(
            metavar="ASSET", help="An asset, also one that is declared no more.", autocompletion=offers("assets")
        ),
    ],
    *,
    partition: One = None,
    downstream: Annotated[bool, typer.Option("--downstream", help="What was made from it instead.")] = False,
    impact: Annotated[
        bool, typer.Option("--impact", help="Only what is in use and was made from it: what a change would reach.")
    ] = False,
    depth: Annotated[int | None, typer.Option("--depth", min=1, help="How many steps away at most.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many versions, nearest first.")] = 200,
) -> None:
    """Show the exact versions that the version in use was made from, as read; --downstream what read it."""
    flow = session.records
    session.warn_of_memory_store()
    if impact and (downstream or depth is not None):
        raise OptionsError("--impact looks downstream at any distance: leave --downstream and --depth out.")
    catalog = flow.parts.store.catalog
    found = recorded_asset(flow.graph, catalog, asset)
    key = None if partition is None else read_recorded(found, partition, catalog)
    if impact:
        versions = flow.lineage.impact(found, partition=key)
    elif downstream:
        versions = flow.lineage.downstream(found, partition=key, depth=depth)
    else:
        versions = flow.lineage.upstream(found, partition=key, depth=depth)
    shown = versions[:limit]
    if session.out.as_json:
        document = {"asset": found.name, "total": len(versions), "versions": [one.to_json() for one in shown]}
        session.out.json(document)
        return
    session.note_project(flow.settings)
    if not versions:
        what = "Nothing in use was made from it." if impact else "Nothing of it is committed."
        session.out.note(f"{what} `{command('why', found.name)}` says what it is doing.")
        return
    session.out.table(_COLUMNS, [_row(one) for one in shown])
    if len(shown) < len(versions):
        session.out.note(f"The nearest {len(shown):,} of {len(versions):,} versions; --limit shows more.")
    if not impact and not downstream:
        see = command("plan", selected(found.name, upstream=True))
        session.out.note(f"What would be computed anew today: `{see}`", style="dim")


_COLUMNS = (
    Column("VERSION"),
    Column("AWAY", rank=3, right=True),
    Column("ASSET"),
    Column("PARTITION", rank=1),
    Column("IN USE"),
    Column("CODE", rank=5),
    Column("DATA", rank=6),
    Column("READS", rank=2),
    Column("RUN", rank=4),
)
_READS = 5


def _row(one: Version) -> list[str]:
    reads = ", ".join(map(str, one.reads[:_READS])) + (
        f" and {len(one.reads) - _READS:,} more" if len(one.reads) > _READS else ""
    )
    return [
        str(one.step_id),
        str(one.depth),
        one_line(one.asset),
        one.label,
        "yes" if one.current else "",
        one.code_version or "",
        (one.data_version or "")[:12],
        reads,
        one.run_id,
    ]
