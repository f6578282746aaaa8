"""The list of assets: how each stands, filtered by the selection language; and invalidating what is selected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flowstone.core.paging import Page
from flowstone.engine.insights.asset_list import AssetRow, expression_of, select_names, suggestions
from flowstone.engine.insights.graph import STATES_OF_ASSETS
from flowstone.errors import SelectionError
from flowstone.web.fields import number
from flowstone.web.problems import Problem
from flowstone.web.registry import ActionCall, Confirm, Done, PageRequest, Role, action, page, url

_MOVED_SHARE = 0.1
"""A count that moved by more than this since it was confirmed is asked again."""


@dataclass(frozen=True, slots=True)
class AssetsQuery:
    """What is listed, and in which order.

    Args:
        select: an expression of the selection language, or a part of a name.
        state: only assets in these states.
        sort: what the list goes by.
        descending: the other way round.
        limit: how many on a page.
        next: the cursor of a page.
    """

    select: str = ""
    state: tuple[Literal["failed", "active", "unstarted", "stale", "partial", "missing", "committed"], ...] = ()
    sort: Literal["name", "order", "state", "committed", "failed", "partitions"] = "name"
    descending: bool = False
    limit: int = number(50, minimum=1, maximum=100)
    next: str | None = None


@dataclass(frozen=True, slots=True)
class AssetsModel:
    """A page of the list.

    Args:
        rows: the assets.
        selection: the expression that chooses exactly what is listed, on all pages; empty when that is nothing.
        states: the states to choose from.
        problem: what is wrong with the filter; empty when nothing is.
        suggestions: what one could write into the filter.
    """

    rows: Page[AssetRow]
    selection: str
    states: tuple[str, ...]
    problem: str
    suggestions: tuple[str, ...]


@page("/assets", template="assets.html", title="Assets", query=AssetsQuery, role=Role.VIEWER, rail="Assets")
def assets(request: PageRequest[AssetsQuery]) -> AssetsModel:
    """Return the assets that match."""
    query, graph = request.query, request.flow.graph
    rows: Page[AssetRow] = Page((), None, 0)
    problem = ""
    try:
        rows = request.insights.asset_list(
            query.select,
            states=query.state,
            sort=query.sort,
            descending=query.descending,
            cursor=query.next,
            limit=query.limit,
        )
    except SelectionError as error:
        problem = str(error)
    selection = "" if problem else _expression(request, rows)
    return AssetsModel(rows, selection, STATES_OF_ASSETS, problem, suggestions(graph))


def _expression(request: PageRequest[AssetsQuery], rows: Page[AssetRow]) -> str:
    """Return an expression for all that match, on every page; empty where a filter by state has several pages."""
    query, graph = request.query, request.flow.graph
    if not rows.items:
        return ""
    if not query.state:
        return expression_of(graph, query.select, select_names(graph, query.select))
    return "" if rows.next or query.next else expression_of(graph, "", [one.name for one in rows.items])


@dataclass(frozen=True, slots=True)
class InvalidateForm:
    """Which versions are taken out of use.

    Args:
        select: an expression of the selection language, or a part of a name.
        versions: how many versions were shown when it was confirmed; None when they were not.
    """

    select: str
    versions: int | None = number(None)


def _selected(call: ActionCall[InvalidateForm]) -> tuple[tuple[str, ...], int]:
    """Return the selected assets, and how many versions of them are in use."""
    names = select_names(call.flow.graph, call.form.select)
    if not call.form.select.strip() or not names:
        raise Problem(422, f"The selection {call.form.select!r} selects no asset.", "Write a name, or * for all.")
    counts = {one.name: one.committed for one in call.flow.insights.assets()}
    return names, sum(counts.get(name, 0) for name in names)


def _confirm(call: ActionCall[InvalidateForm]) -> Confirm:
    names, versions = _selected(call)
    listed = ", ".join(names[:10]) + (f" and {len(names) - 10:,} more" if len(names) > 10 else "")
    return Confirm(
        f"Invalidate {versions:,} versions of {len(names):,} assets?",
        button="Invalidate",
        details=(
            f"Selected by {call.form.select}: {listed}.",
            "They are taken out of use: what depends on them waits, until they are computed again.",
            "Their values stay stored, and can be restored from the page of each version.",
        ),
        form=InvalidateForm(call.form.select, versions),
        danger=True,
    )


@action(
    "/assets/invalidate", title="Invalidate versions", form=InvalidateForm, role=Role.OPERATOR, confirm=_confirm
)
def invalidate(call: ActionCall[InvalidateForm]) -> Done:
    """Take all versions of the selected assets out of use."""
    names, versions = _selected(call)
    shown = call.form.versions
    if shown is not None and abs(versions - shown) > max(_MOVED_SHARE * shown, 0):
        raise Problem(
            409,
            f"{shown:,} versions were confirmed, and there are {versions:,} by now.",
            "Confirm again with the new number.",
        )
    done = sum(call.flow.invalidate(name) for name in names)
    return Done(f"Invalidated {done:,} versions of {len(names):,} assets.", url("assets", select=call.form.select))
