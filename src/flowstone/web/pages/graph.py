"""The graph of assets: what depends on what, what is broken, and what a failure reaches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flowstone.engine.insights.asset_list import suggestions, term
from flowstone.engine.insights.graph import GraphView, NodeDetails
from flowstone.errors import SelectionError
from flowstone.web.fields import number
from flowstone.web.registry import PageRequest, Role, page

_EMPTY = GraphView((), (), 0, 0, (), (), 0)


@dataclass(frozen=True, slots=True)
class GraphQuery:
    """Which part of the graph, and what is chosen in it.

    Args:
        asset: the asset in the middle; with it `up` and `down` count.
        up: how many steps upstream of it are shown.
        down: how many steps downstream.
        select: an expression of the selection language, or a part of a name.
        opened: groups and fans that stay open.
        closed: groups that are folded.
        node: the node whose details are shown.
        view: as a picture, or as a table.
    """

    asset: str | None = None
    up: int = number(1, maximum=99)
    down: int = number(1, maximum=99)
    select: str = ""
    opened: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()
    node: str | None = None
    view: Literal["graph", "table"] = "graph"


@dataclass(frozen=True, slots=True)
class GraphModel:
    """The part of the graph that is shown.

    Args:
        view: its nodes and edges.
        details: why the chosen node is in its state; None when none is chosen.
        selection: the expression that chooses the same assets.
        problem: what is wrong with the filter; empty when nothing is.
        suggestions: what one could write into the filter.
    """

    view: GraphView
    details: NodeDetails | None
    selection: str
    problem: str
    suggestions: tuple[str, ...]


@page("/graph", template="graph.html", title="Graph", query=GraphQuery, role=Role.VIEWER, rail="Assets")
def graph(request: PageRequest[GraphQuery]) -> GraphModel:
    """Return the chosen part of the graph."""
    query, insights = request.query, request.insights
    selection = _around(query) if query.asset else query.select
    problem = ""
    try:
        view = insights.graph(selection, opened=query.opened, closed=query.closed)
    except SelectionError as error:
        view, problem = _EMPTY, str(error)
    chosen = query.node or query.asset
    details = insights.node(view, chosen) if chosen else None
    return GraphModel(view, details, selection, problem, suggestions(request.flow.graph))


def _around(query: GraphQuery) -> str:
    """Return the expression for an asset and its neighbourhood."""
    name = term(str(query.asset))
    up = f"{query.up}+" if query.up else ""
    down = f"+{query.down}" if query.down else ""
    return f"{up}{name}{down}"
