"""What asset checks found, and running them again: `checks`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from flowstone.app import FlowStone
from flowstone.app.targets import find_asset, parse_one
from flowstone.cli.calls import FAILED
from flowstone.cli.output import Column, duration, moment
from flowstone.cli.partitions import One, label
from flowstone.cli.session import Session
from flowstone.core.clean import error_line
from flowstone.core.step import CheckRecord, Severity
from flowstone.errors import OptionsError

_RUN = "run"
_SHOWN = 100  # characters of what a check found

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[run] [ASSET]", help="An asset; after the word run, its checks are run now on what is committed."
    ),
]


def checks(
    session: Session,
    words: Words = None,
    *,
    partition: One = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only those whose newest result is a failure.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 1000,
) -> int:
    """Show the newest result of each check, or run the checks of an asset again; 1 when one of those failed."""
    flow = session.flow
    session.warn_of_memory_store()
    again, asset = _read(words or [])
    if asset is None:
        if partition is not None:
            raise OptionsError("--partition needs an asset: flowstone checks ASSET --partition P")
        _show(session, flow, flow.checks.latest(failed=failed, limit=limit))
        return 0
    found = find_asset(flow.graph, asset)
    key = parse_one(flow.graph, [found.name], partition)
    if not again:
        _show(session, flow, flow.checks.latest(found, partition=key, failed=failed, limit=limit))
        return 0
    records = flow.checks.run(found, partition=key)
    _show(session, flow, [one for one in records if not (failed and one.passed)])
    return FAILED if any(not one.passed and one.severity is Severity.ERROR for one in records) else 0


def _read(words: Sequence[str]) -> tuple[bool, str | None]:
    """Return whether checks are to be run, and the asset; an asset called `run` is `run run`, or alone itself."""
    again = len(words) == 2 and words[0] == _RUN
    if len(words) > 2 or (len(words) == 2 and not again):
        raise OptionsError("Write: flowstone checks, flowstone checks ASSET, or flowstone checks run ASSET.")
    return again, words[-1] if words else None


def _show(session: Session, flow: FlowStone, records: Sequence[CheckRecord]) -> None:
    if session.out.as_json:
        listed = [one.to_json() | {"partition": _label(flow, one) or None} for one in records]
        session.out.json({"checks": listed})
        return
    columns = [
        Column("ASSET"),
        Column("PARTITION", rank=1),
        Column("CHECK"),
        Column("RESULT"),
        Column("BLOCKING", rank=4),
        Column("FOUND", rank=2),
        Column("AT", rank=3),
        Column("TOOK", rank=6, right=True),
        Column("STEP", rank=5, right=True),
    ]
    session.out.table(columns, [_row(flow, one) for one in records])


def _row(flow: FlowStone, one: CheckRecord) -> list[str]:
    found = one.description or error_line(one.error) or ", ".join(f"{k}={v!r}" for k, v in one.metadata.items())
    return [
        one.asset,
        _label(flow, one),
        one.check,
        result_word(one),
        "yes" if one.blocking else "",
        found if len(found) <= _SHOWN else f"{found[: _SHOWN - 1]}…",
        moment(one.started_at),
        duration(one.took_seconds),
        str(one.step_id),
    ]


def result_word(one: CheckRecord) -> str:
    """Return a result as one word: `ok`, `warn` or `fail`.

    Args:
        one: the result.
    """
    if one.passed:
        return "ok"
    return "fail" if one.severity is Severity.ERROR else "warn"


def _label(flow: FlowStone, one: CheckRecord) -> str:
    return label(one.partition_key, flow.graph.assets.get(one.asset))
