"""The graph of assets as SVG: nodes as links with their state in shape and word, edges as curves of a few paths.

Places come from `web/graph_layout`, which keeps them: a page with new states has the same picture. Layers go from
left to right. The number of elements grows with the nodes only; all edges are three paths, all bands of groups are
one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby, pairwise

from flowstone.engine.insights.graph import GraphNode, GraphView
from flowstone.web.graph_layout import Layout, Place, Route, lay_out
from flowstone.web.states import glyph_path, shape, word
from flowstone.web.svg import Html, element, shortened

WIDTH, HEIGHT = 190, 44
_GAP_X, _PITCH, _MARGIN = 70, 62, 28
_NOTED = 120
"""With no more nodes than this, each has a note on hover, and says how much is left out beside it."""


def graph_picture(view: GraphView, here: Callable[..., str], chosen: str | None = None) -> Html:
    """Draw a part of the graph of assets.

    Args:
        view: its nodes and edges.
        here: `here` of a template: the address of this page with a field changed.
        chosen: the id of the node whose details are shown.

    Returns:
        The SVG.
    """
    groups = {node.id: node.group for node in view.nodes if node.group and node.kind == "asset"}
    layout = lay_out(
        (node.id for node in view.nodes),
        ((edge.upstream, edge.downstream) for edge in view.edges),
        groups=groups,
    )
    width = max(1, layout.layers) * (WIDTH + _GAP_X) - _GAP_X + 2 * _MARGIN
    height = layout.breadth * _PITCH + 2 * _MARGIN + (HEIGHT - _PITCH if not view.nodes else 0)
    reached = {(edge.upstream, edge.downstream) for edge in view.edges if edge.reached}
    noted = len(view.nodes) <= _NOTED
    number = {node.id: at for at, node in enumerate(view.nodes)}
    above: dict[str, list[int]] = {}
    below: dict[str, list[int]] = {}
    for edge in view.edges:
        above.setdefault(edge.downstream, []).append(number[edge.upstream])
        below.setdefault(edge.upstream, []).append(number[edge.downstream])
    return element(
        "svg",
        _bands(groups, layout),
        _ways(layout.routes, reached),
        [
            _node(
                node,
                layout.places[node.id],
                here,
                at=number[node.id],
                above=above.get(node.id, []),
                below=below.get(node.id, []),
                chosen=node.id == chosen,
                noted=noted,
            )
            for node in view.nodes
        ],
        class_="graph",
        viewBox=f"0 0 {width} {height:.0f}",
        width=width,
        height=round(height),
        role="group",
        aria_label=f"Graph of {len(view.nodes):,} nodes; arrow keys go along the edges",
    )


def _x(place: Place) -> float:
    return _MARGIN + place.layer * (WIDTH + _GAP_X)


def _y(place: Place) -> float:
    return _MARGIN + place.at * _PITCH


def _node(
    node: GraphNode,
    place: Place,
    here: Callable[..., str],
    *,
    at: int,
    above: list[int],
    below: list[int],
    chosen: bool,
    noted: bool,
) -> Html:
    x, y = _x(place), _y(place)
    name = shortened(node.name, 21)
    whole = f"{says_shortly(node)}, behind {node.reached}" if node.reached else says_shortly(node)
    says = shortened(whole, 28)
    # a name for screen readers begins with what is seen (WCAG 2.5.3), and has all of it
    label = f"{name} {says}" + (f"; in full: {node.name}, {whole}" if (name, says) != (node.name, whole) else "")
    tones = [shape(node.state).css, *(["reached"] if node.reached else []), *(["picked"] if chosen else [])]
    return element(
        "a",
        element("title", label) if noted else None,
        element("rect", x=x, y=y, width=WIDTH, height=HEIGHT, rx=20 if node.kind != "asset" else 6),
        glyph_path(node.state, x + 9, y + 8),
        element("text", name, x=x + 28, y=y + 18, class_="name"),
        " ",
        element("text", says, x=x + 10, y=y + 35),
        _beside(node.more_upstream if noted else 0, x - 4, y, "end"),
        _beside(node.more_downstream if noted else 0, x + WIDTH + 4, y, "start"),
        class_=" ".join(["node", *tones]),
        href=here(node=node.id),
        aria_label=label,
        aria_current="true" if chosen else None,
        id=f"node-{at}",
        data_node=at,
        data_up=" ".join(map(str, above)) or None,
        data_down=" ".join(map(str, below)) or None,
    )


def _beside(count: int, x: float, y: float, anchor: str) -> Html | None:
    """Return how many neighbours are not in the picture."""
    return element("text", f"+{count}", x=x, y=y + 26, text_anchor=anchor, aria_hidden="true") if count else None


def says_shortly(node: GraphNode) -> str:
    """Return the state of a node in one line, its word first."""
    if node.kind == "asset":
        return node.says if node.says.startswith(word(node.state)) or node.says[:1].isdigit() else word(node.state)
    return f"{node.assets:,} assets: {node.says}"


def _ways(routes: Iterable[Route], reached: set[tuple[str, str]]) -> list[Html]:
    """Return the edges: those behind a failure and those that go back apart; what they share is drawn once."""
    kinds: dict[str, dict[str, None]] = {"way": {}, "way reached": {}, "way back": {}}
    tips: dict[str, None] = {}
    for route in routes:
        kind = "way back" if route.turned else "way"
        if (route.upstream, route.downstream) in reached:
            kind = "way reached"
        pieces = kinds[kind]
        for index, (start, end) in enumerate(pairwise(route.places)):
            pieces[_curve(start, end, turned=route.turned)] = None
            if index:
                x, y = _x(start), _y(start) + HEIGHT / 2
                pieces[f"M{x:g} {y:g}h{WIDTH}"] = None
        tips[_tip(route.places[-1], turned=route.turned)] = None
    drawn = [element("path", class_=kind, d="".join(pieces)) for kind, pieces in kinds.items() if pieces]
    return [*drawn, element("path", class_="tip", d="".join(tips))] if tips else drawn


def _tip(end: Place, *, turned: bool) -> str:
    """Return the head of an arrow: before the left side of a node, or for an edge that goes back its right one."""
    y = _y(end) + HEIGHT / 2 - 4
    return f"M{_x(end) + WIDTH + 7:g} {y:.5g}l-7 4 7 4z" if turned else f"M{_x(end) - 7:g} {y:.5g}l7 4-7 4z"


def _curve(start: Place, end: Place, *, turned: bool) -> str:
    x0, y0 = _x(start) + (0 if turned else WIDTH), _y(start) + HEIGHT / 2
    x1, y1 = _x(end) + (WIDTH if turned else 0), _y(end) + HEIGHT / 2
    if abs(y0 - y1) < 0.5:
        return f"M{x0:g} {y0:.4g}H{x1:g}"
    middle = (x0 + x1) / 2
    return f"M{x0:g} {y0:.5g}C{middle:g} {y0:.5g} {middle:g} {y1:.5g} {x1:g} {y1:.5g}"


def _bands(groups: dict[str, str], layout: Layout) -> list[Html]:
    """Return what lies behind nodes of one group that are beside each other, with its name once."""
    if not groups:
        return []
    rows = sorted((layout.places[node].layer, layout.places[node].at, group) for node, group in groups.items())
    path = ""
    names: dict[str, tuple[float, float]] = {}
    for (layer, group), part in groupby(rows, key=lambda row: (row[0], row[2])):
        ats = [at for _, at, _ in part]
        first, last = Place(layer, ats[0]), Place(layer, ats[-1])
        x, y = _x(first) - 8, _y(first) - 14
        path += f"M{x:g} {y:.5g}h{WIDTH + 16}v{_y(last) - _y(first) + HEIGHT + 20:.5g}h-{WIDTH + 16}z"
        names.setdefault(group, (x, y))
    labels = [
        element("text", shortened(name, 30), x=x + 6, y=y + 11, class_="band-name")
        for name, (x, y) in names.items()
    ]
    return [element("path", class_="band", d=path), *labels]
