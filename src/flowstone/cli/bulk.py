"""Cancel, retry and reprioritize runs: one by its id, or all that match a filter, after asking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from flowstone.cli.calls import DONE
from flowstone.cli.known_names import offers
from flowstone.cli.output import one_line
from flowstone.cli.runs import read_filter
from flowstone.cli.session import Session
from flowstone.core.bulk import BulkAction, BulkDone, BulkPreview
from flowstone.errors import OptionsError

if TYPE_CHECKING:
    from flowstone.app import FlowStone

RunsOrFilter = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN|FILTER...",
        help="Id of a run, or words of a filter, such as state:failed asset:orders since:24h.",
        autocompletion=offers("runs"),
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask: do it to all runs that match.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say how many runs match.")]
Expect = Annotated[
    int | None,
    typer.Option("--expect", min=0, metavar="N", help="Refuse when over a tenth more or fewer match."),
]
_VERBS = {BulkAction.CANCEL: "Cancel", BulkAction.RETRY: "Retry", BulkAction.PRIORITY: "Change the priority of"}
_DONE = {BulkAction.CANCEL: "cancelled", BulkAction.RETRY: "placed again", BulkAction.PRIORITY: "changed"}


def filter_in(words: Sequence[str]) -> str | None:
    """Return the text of a filter; None when the words are one id.

    Raises:
        OptionsError: it is neither one id nor a filter.

    Example:
        >>> filter_in(["20240131-x"]), filter_in(["state:failed", "tag:a b"])
        (None, 'state:failed tag:"a b"')
    """
    if len(words) == 1 and ":" not in words[0]:
        return None
    found = str(read_filter(words))
    if not found:
        raise OptionsError("An empty filter means all runs. Say which: state:running, since:24h, kind:backfill...")
    return found


def all_matching(
    session: Session,
    flow: FlowStone,
    action: BulkAction,
    text: str,
    *,
    yes: bool,
    dry_run: bool,
    expect: int | None,
    priority: int = 0,
) -> int:
    """Do something to all runs that match, once a person has agreed to their number."""
    preview = flow.bulk.preview(action, text)
    if dry_run:
        if session.out.as_json:
            session.out.json({"action": preview.action, "filter": preview.filter, "runs": preview.number})
        else:
            session.out.line(f"{preview.number:,} runs match {one_line(preview.filter)}.", hang=2)
        return DONE
    if not yes:
        _agree(session, action, preview)
    expected = preview.number if expect is None else expect
    if action is BulkAction.CANCEL:
        done = flow.bulk.cancel(preview.filter, expected=expected)
    elif action is BulkAction.RETRY:
        done = flow.bulk.retry(preview.filter, expected=expected)
    else:
        done = flow.bulk.set_priority(preview.filter, priority, expected=expected)
    _report(session, action, done)
    return DONE


def _agree(session: Session, action: BulkAction, preview: BulkPreview) -> None:
    """Ask the person at the terminal; without one the answer has to be in the command.

    Raises:
        OptionsError: nobody is there to be asked.
        Abort: the answer was no.
    """
    what = f"{_VERBS[action]} {preview.number:,} runs that match {one_line(preview.filter)}"
    if session.out.as_json or not session.out.is_interactive:
        raise OptionsError(f"{what}? Say so with --yes; --dry-run only counts.")
    typer.confirm(f"{what}?", abort=True, err=True)


def _report(session: Session, action: BulkAction, done: BulkDone) -> None:
    if session.out.as_json:
        session.out.json(
            {
                "action": done.action,
                "filter": done.filter,
                "runs": done.number,
                "new_runs": list(done.runs),
                "skipped": list(done.skipped),
            }
        )
        return
    session.out.line(f"{done.number:,} runs {_DONE[action]} that matched {one_line(done.filter)}.", hang=2)
    for run in done.runs[:20]:
        session.out.line(f"  {run}")
    if len(done.runs) > 20:
        session.out.line(f"  and {len(done.runs) - 20:,} more")
    for reason in done.skipped:
        session.out.note(f"Left out: {one_line(reason)}")
