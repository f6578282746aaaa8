"""What an app declares: `ls`, `graph`, `plan`; the graph as a tree for terminals or as Mermaid for documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from flowstone.app import FlowStone
from flowstone.app.targets import (
    all_targets,
    find_asset,
    leaves,
    parse_one,
    parse_several,
    read_recorded,
    recorded_asset,
    recorded_target,
)
from flowstone.cli.known_names import offers
from flowstone.cli.output import Column, moment, one_line
from flowstone.cli.partitions import First, Last, One, Several, label
from flowstone.cli.run_options import ConfigFile, ConfigValues, read_about
from flowstone.cli.session import Session
from flowstone.core.graph import AssetGraph
from flowstone.core.selection import select
from flowstone.engine.insights.plans import PlanGroup, grouped
from flowstone.engine.planner import Plan
from flowstone.errors import OptionsError


def as_tree(graph: AssetGraph, names: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a tree, sources first; an asset with several inputs is spelled out once.

    Args:
        graph: all assets.
        names: those to draw, upstream first.

    Example:
        >>> from flowstone.core.asset import asset
        >>> @asset
        ... def a(): ...
        >>> @asset
        ... def b(a): ...
        >>> print(*as_tree(AssetGraph([a, b]), ["a", "b"]), sep="\\n")
        a
        └── b
    """
    chosen = set(names)
    below = {name: [other for other in names if _reads(graph, other, name)] for name in names}
    roots = [
        name for name in names if not any(d.asset in chosen and d.asset != name for d in graph[name].dependencies)
    ]
    drawn: set[str] = set()
    # an explicit stack: a chain may be deeper than Python's recursion limit
    stack = [(name, "", "") for name in reversed(roots)]
    while stack:
        name, head, indent = stack.pop()
        repeated = name in drawn and below[name]
        yield f"{head}{one_line(name)}{' (see above)' if repeated else ''}"
        if repeated:
            continue
        drawn.add(name)
        children = below[name]
        for position, child in reversed(list(enumerate(children))):
            last = position == len(children) - 1
            stack.append((child, indent + ("└── " if last else "├── "), indent + ("    " if last else "│   ")))


def as_mermaid(graph: AssetGraph, names: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a Mermaid flowchart.

    Args:
        graph: all assets.
        names: those to draw, upstream first.
    """
    number = {name: index for index, name in enumerate(names)}
    yield "flowchart LR"
    for name in names:
        text = (
            one_line(name).replace("&", "#amp;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")
        )
        yield f'    a{number[name]}["{text}"]'
    for name in names:
        for dependency in graph[name].dependencies:
            if dependency.asset in number:
                yield f"    a{number[dependency.asset]} --> a{number[name]}"


def _reads(graph: AssetGraph, name: str, upstream: str) -> bool:
    return any(dependency.asset == upstream != name for dependency in graph[name].dependencies)


Everything = Annotated[
    str,
    typer.Argument(
        metavar="SELECTION",
        help="Which assets, such as: name, +name, tag:x, 'a or b'.",
        autocompletion=offers("selection"),
    ),
]
SelectionArgument = Annotated[
    str,
    typer.Argument(
        metavar="SELECTION",
        help="Which assets, such as: name, +name, tag:x.",
        autocompletion=offers("selection"),
    ),
]
_SPANS = 5  # ranges of an asset in a plan that are written out
_SHOWN = 20  # targets that lack something


class Format(StrEnum):
    """How the graph is drawn."""

    TREE = "tree"
    MERMAID = "mermaid"


def ls(session: Session, selection: Everything = "*") -> None:
    """List assets: group, tags, partitions, where values go, how much is committed, and where they are written."""
    flow = session.flow
    names = select(flow.graph, selection)
    totals, committed = _counts(flow, names)
    fresh = {one.asset: one for one in flow.insights.freshness(*names)} if names else {}
    if session.out.as_json:
        described = [_described(flow, name, totals[name], committed[name]) for name in names]
        for document in described:
            known = fresh.get(str(document["name"]))
            document["freshness"] = None if known is None else asdict(known)
        session.out.json({"assets": described})
        return
    columns = [
        Column("ASSET"),
        Column("GROUP", rank=2),
        Column("TAGS", rank=4),
        Column("PARTITIONS", rank=3),
        Column("IO", rank=5),
        Column("COMMITTED", rank=1, right=True),
        Column("WHERE", rank=6),
    ]
    session.out.table(columns, [_row(flow, name, totals[name], committed[name]) for name in names])
    for one in fresh.values():
        if one.late_since is not None:
            session.out.note(f"{one_line(one.asset)} is late. {one_line(one.says)}")


def graph(
    session: Session,
    selection: Everything = "*",
    *,
    drawn: Annotated[Format, typer.Option("--format", help="tree or mermaid.")] = Format.TREE,
) -> None:
    """Draw assets and their dependencies."""
    found = session.flow.graph
    names = select(found, selection)
    if session.out.as_json:
        edges: list[object] = [
            {"from": dependency.asset, "to": name, "mapping": repr(found.mapping(name, dependency.asset))}
            for name in names
            for dependency in found[name].dependencies
            if dependency.asset in names
        ]
        session.out.json({"assets": list(names), "edges": edges})
        return
    for line in as_mermaid(found, names) if drawn is Format.MERMAID else as_tree(found, names):
        session.out.line(line)


def plan(
    session: Session,
    selection: SelectionArgument,
    *,
    partition: One = None,
    partitions: Several = None,
    first: First = None,
    last: Last = None,
    force: Annotated[bool, typer.Option("--force", help="As if nothing selected was committed.")] = False,
    force_deps: Annotated[bool, typer.Option("--force-deps", help="The same for what is upstream.")] = False,
    allow_incomplete: Annotated[
        bool, typer.Option("--allow-incomplete", help="Also what is not over, from what is there so far.")
    ] = False,
    config: ConfigValues = None,
    config_file: ConfigFile = None,
) -> None:
    """Show what materialize (or, with several partitions, backfill) would run, without running it."""
    flow = session.flow
    names = select(flow.graph, selection)
    several = parse_several(flow.graph, names, listed=partitions, first=first, last=last)
    if several is not None and partition is not None:
        raise OptionsError("Give either --partition, or --partitions, or --from and --to.")
    made = flow.plan(
        selection,
        partition=parse_one(flow.graph, leaves(flow.graph, names), partition),
        partitions=several,
        force=force,
        force_deps=force_deps,
        allow_incomplete=allow_incomplete,
        config=read_about(config, config_file, None, None).get("config"),
    )
    groups = grouped(made, flow.graph, datetime.now(UTC))
    if session.out.as_json:
        session.out.json({"groups": [asdict(one) for one in groups], **_plan_json(flow, made)})
    else:
        _show_plan(session, flow, made, groups)


def _counts(flow: FlowStone, names: tuple[str, ...]) -> tuple[dict[str, int | None], dict[str, int | None]]:
    """Return, for each asset, how many complete partitions it has and how many of them are committed.

    None stands for partitions that nobody can list.
    """
    totals: dict[str, int | None] = {}
    committed: dict[str, int | None] = {}
    now = datetime.now(UTC)
    for name in names:
        definition = flow.graph[name].partitions
        if definition is not None and not definition.listable:
            totals[name] = committed[name] = None
            continue
        targets = all_targets(flow.graph, [name], None, now)
        totals[name] = len(targets)
        committed[name] = len(flow.parts.store.catalog.current(targets))
    return totals, committed


def _described(flow: FlowStone, name: str, total: int | None, committed: int | None) -> dict[str, object]:
    asset = flow.graph[name]
    return {
        "name": name,
        "group": asset.group,
        "tags": sorted(asset.tags),
        "description": asset.description,
        "partitions": asset.partitions.to_json() if asset.partitions else None,
        "io": flow.parts.values.manager(asset).name,
        "queue": asset.queue,
        "dependencies": [dependency.asset for dependency in asset.dependencies],
        "complete_partitions": total,
        "committed_partitions": committed,
        "where": asset.where,
    }


def _row(flow: FlowStone, name: str, total: int | None, committed: int | None) -> list[str]:
    asset = flow.graph[name]
    kind = type(asset.partitions).__name__.removesuffix("Partitions").lower() if asset.partitions else ""
    count = f"{committed}/{total}" if asset.partitions else ("yes" if committed else "no")
    if total is None:
        count = "any"
    tags = ", ".join(sorted(asset.tags))
    return [name, asset.group or "", tags, kind, flow.parts.values.manager(asset).name, count, _short(asset.where)]


def _short(where: str) -> str:
    """Return a place relative to the current directory when it lies in it."""
    path, colon, line = where.rpartition(":")
    return (
        f"{Path(path).relative_to(Path.cwd())}:{line}"
        if colon and Path(path).is_relative_to(Path.cwd())
        else where
    )


def _plan_json(flow: FlowStone, made: Plan) -> dict[str, object]:
    graph = flow.graph
    return {
        "runs": made.runs,
        "reuses": made.reuses,
        "steps": [
            {
                "asset": step.asset,
                "partition": label(step.partition_key, graph[step.asset]) or None,
                "action": "skip" if step.skip else "run" if step.reuse is None else "reuse",
                "forced": step.forced,
                "inputs": list(step.inputs),
                "reuses_step": None if step.reuse is None else str(step.reuse),
                "skip": step.skip,
            }
            for step in made.steps
        ],
        "missing": [
            {
                "asset": target[0],
                "partition": label(target[1], graph[target[0]]) or None,
                "inputs": [{"asset": name, "partition": label(key, graph[name]) or None} for name, key in missing],
            }
            for target, missing in made.missing.items()
        ],
    }


def _show_plan(session: Session, flow: FlowStone, made: Plan, groups: Sequence[PlanGroup]) -> None:
    """Write a plan by asset and range: thousands of steps are a few lines."""
    rows = []
    for one in groups:
        shown = [str(span) for span in one.spans[:_SPANS]]
        if len(one.spans) > _SPANS:
            shown.append(f"and {len(one.spans) - _SPANS:,} more ranges")
        text = one.reason if one.action == "skip" else ", ".join(one.after)
        rows.append([one.asset, one.action, f"{one.count:,}", ", ".join(shown), text])
    columns = [
        Column("ASSET"),
        Column("ACTION"),
        Column("STEPS", right=True),
        Column("PARTITIONS", rank=1),
        Column("AFTER", rank=2),
    ]
    session.out.table(columns, rows)
    session.out.line(f"{made.runs:,} to run, {made.reuses:,} to reuse.")
    shown_missing = list(made.missing.items())[:_SHOWN]
    for (name, key), missing in shown_missing:
        listed = ", ".join(f"{one} {label(k, flow.graph[one])}".strip() for one, k in missing[:5])
        more = f" and {len(missing) - 5:,} more" if len(missing) > 5 else ""
        target = f"{name} {label(key, flow.graph[name])}".strip()
        session.out.line(
            f"{target} lacks {listed}{more}: not committed and not in this plan.", style="yellow", hang=2
        )
    if len(made.missing) > _SHOWN:
        session.out.line(f"... and {len(made.missing) - _SHOWN:,} more that lack something; --json lists them.")


def why(
    session: Session,
    asset: Annotated[
        str, typer.Argument(metavar="ASSET", help="Name of an asset.", autocompletion=offers("assets"))
    ],
    *,
    partition: One = None,
) -> None:
    """Say why an asset (or one partition of it) does not run, or what it is doing."""
    flow = session.flow
    session.warn_of_memory_store()
    found = find_asset(flow.graph, asset)
    catalog = flow.parts.store.catalog
    requested = None if partition is None else read_recorded(found, partition, catalog)
    reasons = flow.why(found, requested)
    shown = label(recorded_target(found, requested, catalog)[1], found)
    if session.out.as_json:
        session.out.json({"asset": asset, "partition": shown or None, "reasons": reasons})
        return
    session.out.line(f"{one_line(f'{asset} {shown}'.strip())}: {one_line(reasons[0])}", hang=2)
    for reason in reasons[1:]:
        session.out.line(f"  {one_line(reason)}", hang=4)


def history(
    session: Session,
    asset: Annotated[
        str,
        typer.Argument(
            metavar="ASSET", help="An asset, also one that is declared no more.", autocompletion=offers("assets")
        ),
    ],
    *,
    partition: One = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
) -> None:
    """List the committed versions of an asset, or of one partition, newest first."""
    flow = session.flow
    session.warn_of_memory_store()
    found = recorded_asset(flow.graph, flow.parts.store.catalog, asset)
    key = None if partition is None else read_recorded(found, partition, flow.parts.store.catalog)
    versions = flow.history(found.name, partition=key, limit=limit)
    if session.out.as_json:
        listed = [one.to_json() for one in versions]
        session.out.json({"asset": found.name, "declared": found.name in flow.graph, "versions": listed})
        return
    session.note_project(flow.settings)
    if found.name not in flow.graph:
        session.out.note(f"{one_line(found.name)} is declared no more.")
    columns = [
        Column("STEP"),
        Column("PARTITION"),
        Column("COMMITTED"),
        Column("CODE VERSION", rank=1),
        Column("RUN", rank=2),
    ]
    rows = [
        [
            str(one.step_id),
            label(one.key, found),
            moment(one.finished_at),
            one.code_version or "",
            one.run_id,
        ]
        for one in versions
    ]
    session.out.table(columns, rows)
