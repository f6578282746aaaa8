"""Values after their commit: `prune` deletes old ones, `publications` lists what others do not see yet."""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer

from flowstone.cli.calls import DONE, FAILED
from flowstone.cli.output import Column, duration, moment, one_line
from flowstone.cli.session import Session
from flowstone.errors import OptionsError, command

_AGE = re.compile(r"(?P<number>\d{1,9})\s*(?P<unit>s|min|m|h|d|w)")

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def prune(
    session: Session,
    *,
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than", metavar="AGE", help="Such as 30d or 12h; default: the setting retention_days."
        ),
    ] = None,
    asset: Annotated[
        str | None,
        typer.Option("--asset", metavar="NAME", help="All that is recorded of an asset that is declared no more."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
) -> None:
    """Delete the history of runs that ended long ago, with their values; what is needed is kept."""
    flow = session.records
    session.warn_of_memory_store()
    if asset is not None:
        if older_than is not None:
            raise OptionsError("Give --asset or --older-than: all of an asset that is gone, or what is old.")
        gone = flow.retention.prune_asset(asset, dry_run=dry_run)
        if session.out.as_json:
            session.out.json({**asdict(gone), "asset": asset})
            return
        done = "Would delete" if dry_run else "Deleted"
        values = f"{gone.values:,} values of {gone.size_bytes:,} bytes"
        session.out.line(f"{done} {gone.steps:,} steps of {one_line(asset)} with {values}.")
        return
    age = timedelta(days=flow.settings.retention_days) if older_than is None else read_age(older_than)
    pruned = flow.retention.prune(older_than=age, dry_run=dry_run)
    if session.out.as_json:
        session.out.json({**asdict(pruned), "older_than_seconds": age.total_seconds()})
        return
    done = "Would delete" if dry_run else "Deleted"
    counts = f"{pruned.steps:,} steps and {pruned.runs:,} runs"
    session.out.line(f"{done} {counts} that ended more than {duration(age.total_seconds())} ago,")
    session.out.line(f"with {pruned.values:,} values of {pruned.size_bytes:,} bytes, and {pruned.ticks:,} ticks.")
    if dry_run:
        session.out.note("Not counted: leftovers of attempts that died while they stored a value.")
    if pruned.leftovers:
        session.out.line(
            f"Deleted {pruned.leftovers:,} leftovers of attempts that died while they stored a value."
        )
    for name, number in pruned.out_of_reach.items():
        declared = name in flow.parts.managers
        why = "it failed, see the log" if declared else "this app does not declare it"
        session.out.line(
            f"Out of reach: {number:,} values of the IO manager {name!r} stay where they are ({why})."
        )
    if pruned.not_swept:
        names = ", ".join(map(repr, pruned.not_swept))
        session.out.line(f"Not looked at: leftovers of the IO manager {names}, which has no sweep().")


def publications(
    session: Session,
    *,
    publish: Annotated[
        bool, typer.Option("--publish", help="Try now; needs --app, whose IO managers publish.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many, oldest first.")] = 50,
) -> int:
    """List what is committed and not yet visible where others read it."""
    flow = session.flow if publish else session.records
    session.warn_of_memory_store()
    published = flow.retention.publish() if publish else None
    found = flow.insights.unpublished(limit=limit)
    if session.out.as_json:
        # whether the app declares the IO manager is not known without importing the app
        listed = [{key: value for key, value in asdict(one).items() if key != "declared"} for one in found]
        session.out.json({"unpublished": listed, "published": published})
    else:
        if published is not None:
            session.out.line(f"{published} published.")
        columns = [
            Column("ASSET"),
            Column("PARTITION"),
            Column("IO"),
            Column("READERS ARE TO SEE"),
            Column("COMMITTED", rank=1),
            Column("LOCATION", rank=2),
        ]
        rows = [
            [
                one.asset,
                one.partition,
                one.io,
                "this version" if one.in_use else "nothing",
                moment(one.since),
                one.location,
            ]
            for one in found
        ]
        if rows:
            session.out.table(columns, rows)
        elif published is None:
            session.out.line("Readers see everything that is committed.")
        if found and not publish:
            session.out.note(f"Try now with: {command('publications', publish=True)}")
    return FAILED if publish and found else DONE


def read_age(text: str) -> timedelta:
    """Read an age such as `30d`.

    Args:
        text: a whole number and s, min (or m), h, d or w.

    Raises:
        OptionsError: it is something else.

    Example:
        >>> read_age("12h")
        datetime.timedelta(seconds=43200)
    """
    match = _AGE.fullmatch(text.strip().lower())
    if match is None:
        raise OptionsError(f"--older-than {text!r}: give a number and s, min, h, d or w, such as 30d.")
    # no calendar goes further back
    return timedelta(seconds=min(int(match["number"]) * _UNITS[match["unit"]], 10_000 * 365 * 86400))
