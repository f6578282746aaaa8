"""The list of runs, by one filter; and what can be done to all that match it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from flowstone.core.bulk import BulkAction, BulkPreview
from flowstone.core.paging import Page
from flowstone.core.run_filter import RUN_STATES, RunFilter
from flowstone.engine.insights.runs import RunLine
from flowstone.errors import OptionsError
from flowstone.web.fields import number
from flowstone.web.problems import Problem
from flowstone.web.registry import ActionCall, Confirm, Done, PageRequest, Role, action, page, url

_ROWS = 100
_QUICK = (
    ("Running", "state:running"),
    ("Failed today", "state:failed since:24h"),
    ("Backfills", "kind:backfill"),
    ("Asked for by people", "-automation:*"),
    ("Automation", "automation:*"),
)


@dataclass(frozen=True, slots=True)
class RunsQuery:
    """Which runs are listed.

    Args:
        filter: words such as `state:failed -kind:backfill asset:orders since:24h`.
        limit: how many on a page.
        next: the cursor of a page.
    """

    filter: str = ""
    limit: int = number(50, minimum=1, maximum=_ROWS)
    next: str | None = None


@dataclass(frozen=True, slots=True)
class QuickFilter:
    """A filter that people often want.

    Args:
        label: what it is called.
        filter: its words.
        is_chosen: whether it is the present one.
    """

    label: str
    filter: str
    is_chosen: bool


@dataclass(frozen=True, slots=True)
class RunsModel:
    """A page of the list.

    Args:
        runs: the runs.
        filter: the filter in its one spelling.
        problem: what is wrong with the filter; empty when nothing is.
        quick: filters that people often want.
        suggestions: what one could write into the filter.
        with_tag: the filter with each of the tags that are shown besides.
        can_end: whether runs that are not over may match, and how many match.
        can_retry: whether runs that can be retried may match.
    """

    runs: Page[RunLine]
    filter: str
    problem: str
    quick: tuple[QuickFilter, ...]
    suggestions: tuple[str, ...]
    with_tag: Mapping[str, str]
    can_end: bool
    can_retry: bool


@page("/runs", template="runs.html", title="Runs", query=RunsQuery, role=Role.VIEWER, rail="Runs")
def runs(request: PageRequest[RunsQuery]) -> RunsModel:
    """Return the newest runs that match."""
    query = request.query
    found: Page[RunLine] = Page((), None, 0)
    requested, problem = RunFilter(), ""
    try:
        requested = RunFilter.parse(query.filter)
        found = request.insights.runs(requested, cursor=query.next, limit=query.limit)
    except OptionsError as error:
        problem = str(error)
    words = str(requested)
    return RunsModel(
        runs=found,
        filter=words,
        problem=problem,
        quick=tuple(QuickFilter(label, text, text == words) for label, text in _QUICK),
        suggestions=_suggestions(request),
        with_tag={
            tag: str(replace(requested, tag=tuple(dict.fromkeys((*requested.tag, tag)))))
            for line in found.items
            for tag in line.tags[:3]
        },
        can_end=bool(found.items) and _may_be(requested, "running"),
        can_retry=bool(found.items) and (_may_be(requested, "failed") or _may_be(requested, "cancelled")),
    )


def _may_be(requested: RunFilter, state: str) -> bool:
    return state not in requested.not_state and (not requested.state or state in requested.state)


def _suggestions(request: PageRequest[RunsQuery]) -> tuple[str, ...]:
    names = sorted(request.flow.graph.assets)[:100]
    states = [f"state:{one}" for one in RUN_STATES]
    return (*states, "kind:backfill", "since:24h", "since:7d", *(str(RunFilter(asset=(name,))) for name in names))


@dataclass(frozen=True, slots=True)
class BulkForm:
    """All runs that match.

    Args:
        filter: the filter, as the preview spells it.
        expected: how many the preview said; the action is refused when it is another number by then.
    """

    filter: str = ""
    expected: int | None = number(None, maximum=1_000_000)


@dataclass(frozen=True, slots=True)
class PriorityOfAllForm:
    """All runs that match, and a priority.

    Args:
        filter: the filter, as the preview spells it.
        priority: 0 (first) to 9.
        expected: how many the preview said.
    """

    filter: str = ""
    priority: int = number(4, maximum=9)
    expected: int | None = number(None, maximum=1_000_000)


def _preview(call: ActionCall[BulkForm], what: BulkAction) -> BulkPreview:
    return call.flow.bulk.preview(what, call.form.filter)


def _confirm(
    what: BulkAction, verb: str, *more: str, danger: bool = False
) -> Callable[[ActionCall[BulkForm]], Confirm]:
    def confirm(call: ActionCall[BulkForm]) -> Confirm:
        preview = _preview(call, what)
        return Confirm(
            f"{verb} {_runs(preview.number)}?",
            f"{verb} {_runs(preview.number)}",
            details=(f"All that match: {preview.filter}", *more),
            form=BulkForm(preview.filter, preview.number),
            danger=danger,
        )

    return confirm


def _confirm_priority(call: ActionCall[PriorityOfAllForm]) -> Confirm:
    preview = call.flow.bulk.preview(BulkAction.PRIORITY, call.form.filter)
    return Confirm(
        f"Give {_runs(preview.number)} the priority {call.form.priority}?",
        f"Change {_runs(preview.number)}",
        details=(f"All that match: {preview.filter}", "0 comes first, 9 last; what runs goes on."),
        form=PriorityOfAllForm(preview.filter, call.form.priority, preview.number),
    )


def _runs(number_of: int) -> str:
    return "1 run" if number_of == 1 else f"{number_of:,} runs"


def _expected(call: ActionCall[BulkForm] | ActionCall[PriorityOfAllForm]) -> int:
    """Return the number that a person agreed to.

    Raises:
        Problem: none was given.
    """
    if call.form.expected is None:
        raise Problem(422, "How many runs are meant?", "Send expected: the number that the preview said.")
    return call.form.expected


@action(
    "/runs/cancel",
    title="Cancel all runs that match",
    form=BulkForm,
    role=Role.OPERATOR,
    confirm=_confirm(
        BulkAction.CANCEL,
        "Cancel",
        "Their steps that have not started never will; those that run are stopped.",
        danger=True,
    ),
)
def cancel_runs(call: ActionCall[BulkForm]) -> Done:
    """Cancel all runs that match."""
    done = call.flow.bulk.cancel(call.form.filter, expected=_expected(call))
    return Done(f"Cancelled {_runs(done.number)}.", url("runs", filter=done.filter), done)


@action(
    "/runs/retry",
    title="Retry all runs that match",
    form=BulkForm,
    role=Role.OPERATOR,
    confirm=_confirm(BulkAction.RETRY, "Retry", "Each becomes a new run of what was not done, and only that."),
)
def retry_runs(call: ActionCall[BulkForm]) -> Done:
    """Retry all runs that match."""
    done = call.flow.bulk.retry(call.form.filter, expected=_expected(call))
    left = f" Not of all: {done.skipped[0]}" if done.skipped else ""
    return Done(f"Retried {_runs(done.number)}.{left}", url("runs", filter="kind:retry"), done)


@action(
    "/runs/priority",
    title="Change the priority of all runs that match",
    form=PriorityOfAllForm,
    role=Role.OPERATOR,
    confirm=_confirm_priority,
)
def prioritize_runs(call: ActionCall[PriorityOfAllForm]) -> Done:
    """Give all runs that match another priority."""
    form = call.form
    done = call.flow.bulk.set_priority(form.filter, form.priority, expected=_expected(call))
    return Done(
        f"{_runs(done.number)} now have the priority {form.priority}.", url("runs", filter=done.filter), done
    )
