"""The graph of assets as people see it: a part of it, with groups and fans folded, and what a failure reaches.

`graph_view` decides which nodes there are; where they lie is decided by whoever draws them. More than `MAX_OPEN`
assets at once are not read by anyone: groups fold by themselves then, and of what is left the first `MAX_NODES`
stand there, with the number of those that do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from flowstone.core.graph import AssetGraph
from flowstone.engine.insights.assets import AssetSummary, FailingPartition

_NOTHING: Mapping[str, str] = MappingProxyType({})
MAX_OPEN = 150
"""With more nodes than this, groups fold by themselves."""
MAX_NODES = 200
"""No more nodes than this are returned."""
MAX_FAN = 30
"""More assets than this that read the same and are read by the same are one node."""
STATES_OF_ASSETS = ("failed", "active", "unstarted", "stale", "partial", "missing", "committed")
"""The states of whole assets, what matters most first."""


@dataclass(frozen=True, slots=True)
class GraphNode:
    """One node: an asset, or several that are folded into one.

    Args:
        id: the asset; `group:name` for a folded group, `fan:name` for a bundle that begins with this asset.
        kind: `asset`, `group` or `fan`.
        name: what it is called.
        group: the group that it belongs to, if it has one.
        state: `failed`, `active`, `unstarted`, `stale`, `partial`, `missing` or `committed`: of several assets the
            one that matters most.
        says: its state in numbers, such as "2 failed of 93".
        assets: how many assets it stands for.
        reached: the nearest failed asset upstream of it that is why it may lack new data; None if there is none.
        members: the assets that are folded into it; empty for an asset.
        more_upstream: how many of its inputs are not in the picture.
        more_downstream: how many of its readers are not in the picture.
    """

    id: str
    kind: str
    name: str
    group: str | None
    state: str
    says: str
    assets: int
    reached: str | None
    members: tuple[str, ...] = ()
    more_upstream: int = 0
    more_downstream: int = 0


@dataclass(frozen=True, slots=True)
class GraphEdge:
    """What flows from one node to another.

    Args:
        upstream: id of the node that is read.
        downstream: id of the node that reads.
        assets: how many pairs of assets it stands for.
        reached: whether a failure lies behind it.
    """

    upstream: str
    downstream: str
    assets: int
    reached: bool


@dataclass(frozen=True, slots=True)
class GraphView:
    """A part of the graph of assets.

    Args:
        nodes: upstream first.
        edges: between them.
        assets: how many assets were chosen.
        total: how many the app has.
        folded: the groups that are one node, in their order.
        unfolded: the groups that could be one node.
        left_out: how many nodes do not stand here because they are too many.
    """

    nodes: tuple[GraphNode, ...]
    edges: tuple[GraphEdge, ...]
    assets: int
    total: int
    folded: tuple[str, ...]
    unfolded: tuple[str, ...]
    left_out: int


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An asset beside another one."""

    name: str
    state: str


@dataclass(frozen=True, slots=True)
class NodeDetails:
    """Why one node is in its state.

    Args:
        node: the node.
        why: sentences, the cause first.
        failures: what failed last in it, or upstream of it.
        upstream: what it reads directly.
        downstream: what reads it directly.
        members: the assets that are folded into it; empty for an asset.
        description: of the asset.
        where: file and line of the asset.
    """

    node: GraphNode
    why: tuple[str, ...]
    failures: tuple[FailingPartition, ...]
    upstream: tuple[Neighbour, ...]
    downstream: tuple[Neighbour, ...]
    members: tuple[Neighbour, ...]
    description: str
    where: str


def state_of(summary: AssetSummary, *, stale: bool = False) -> str:
    """Return the one state that says most of an asset; `stale` is whether versions of it are.

    Example:
        >>> state_of(AssetSummary("a", None, 10, 8, 2, 1, 0, 0, None))
        'failed'
    """
    for state, number in (
        ("failed", summary.failed),
        ("active", summary.active),
        ("unstarted", summary.unstarted),
    ):
        if number:
            return state
    if not summary.committed:
        return "missing"
    if stale:
        return "stale"
    return "partial" if summary.missing else "committed"


def says_of(summary: AssetSummary) -> str:
    """Return how an asset stands in numbers.

    Example:
        >>> says_of(AssetSummary("a", None, 1204, 1000, 204, 2, 0, 0, None))
        '2 failed, 1,000 of 1,204 committed'
    """
    parts = [
        f"{number:,} {state}"
        for state, number in (
            ("failed", summary.failed),
            ("active", summary.active),
            ("unstarted", summary.unstarted),
        )
        if number
    ]
    if summary.total == 1:
        words = [part.split(" ", 1)[1] for part in parts]
        return ", ".join(words + ["committed"] * bool(summary.committed)) or "missing"
    of = f" of {summary.total:,}" if summary.total is not None else ""
    return ", ".join([*parts, f"{summary.committed:,}{of} committed"])


def graph_view(
    graph: AssetGraph,
    summaries: Iterable[AssetSummary],
    names: Sequence[str],
    *,
    stale: Mapping[str, str] = _NOTHING,
    opened: Iterable[str] = (),
    closed: Iterable[str] = (),
) -> GraphView:
    """Return the nodes and edges of some assets.

    Args:
        graph: all assets.
        summaries: how they stand.
        names: the chosen assets.
        stale: why assets are stale, of those that are.
        opened: groups and fans that stay open although there are many nodes.
        closed: groups that are folded although there are few.
    """
    known = {one.name: one for one in summaries}
    chosen = [name for name in names if name in known and not graph[name].hidden]
    fold = _Fold(graph, known, chosen, frozenset(opened), frozenset(closed), stale)
    nodes = fold.nodes()
    shown = nodes[:MAX_NODES]
    ids = {node.id for node in shown}
    edges = tuple(one for one in fold.edges() if one.upstream in ids and one.downstream in ids)
    groups = {graph[name].group for name in chosen} - {None}
    return GraphView(
        nodes=tuple(shown),
        edges=edges,
        assets=len(chosen),
        total=sum(not one.hidden for one in graph),
        folded=tuple(sorted(fold.folded)),
        unfolded=tuple(sorted(str(one) for one in groups - fold.folded if fold.size_of(one) > 1)),
        left_out=len(nodes) - len(shown),
    )


def node_details(
    graph: AssetGraph,
    view: GraphView,
    summaries: Iterable[AssetSummary],
    node_id: str,
    failing: Callable[[Sequence[str]], Sequence[FailingPartition]],
    stale: Mapping[str, str] = _NOTHING,
) -> NodeDetails | None:
    """Return why a node is in its state; None when it is not in the picture.

    Args:
        graph: all assets.
        view: the picture.
        summaries: how the assets stand.
        node_id: the node.
        failing: returns what failed last of some assets.
        stale: why assets are stale, of those that are.
    """
    node = next((one for one in view.nodes if one.id == node_id), None)
    if node is None:
        return None
    known = {one.name: one for one in summaries}
    members = node.members or (node.id,)
    inside = set(members)
    above = dict.fromkeys(d.asset for name in members for d in graph[name].dependencies if d.asset not in inside)
    below = dict.fromkeys(
        other
        for name in members
        for other in sorted(graph.downstream(name, depth=1))
        if other not in inside and not graph[other].hidden
    )
    failed = [name for name in members if state_of(known[name]) == "failed"]
    causes = failed or ([node.reached] if node.reached else [])
    failures = tuple(failing(causes)) if causes else ()
    single = graph[node.id] if node.kind == "asset" else None
    return NodeDetails(
        node=node,
        why=_why(node, known, members, failed, failures, stale),
        failures=failures,
        upstream=_neighbours(above, known, stale),
        downstream=_neighbours(below, known, stale),
        members=() if node.kind == "asset" else _neighbours(members, known, stale),
        description=(single.description or "") if single is not None else "",
        where=str(single.where) if single is not None else "",
    )


class _Fold:
    """Which assets stand for themselves, and which are folded into a group or a fan."""

    def __init__(
        self,
        graph: AssetGraph,
        known: Mapping[str, AssetSummary],
        chosen: Sequence[str],
        opened: frozenset[str],
        closed: frozenset[str],
        stale: Mapping[str, str],
    ) -> None:
        self._stale = stale
        self._graph, self._known, self._chosen = graph, known, chosen
        self._sizes: dict[str, int] = {}
        for name in chosen:
            if (group := graph[name].group) is not None:
                self._sizes[group] = self._sizes.get(group, 0) + 1
        automatic = len(chosen) > MAX_OPEN
        self.folded = {
            group
            for group, size in self._sizes.items()
            if size > 1 and (group in closed or (automatic and group not in opened))
        }
        self._node_of = {name: self._group_node(name) or name for name in chosen}
        self._bundle(opened)
        self._members: dict[str, list[str]] = {}
        for name in chosen:
            self._members.setdefault(self._node_of[name], []).append(name)
        self._causes = _reached(graph, known)

    def size_of(self, group: str | None) -> int:
        return self._sizes.get(group or "", 0)

    def nodes(self) -> list[GraphNode]:
        return [self._node(node, members) for node, members in self._members.items()]

    def edges(self) -> list[GraphEdge]:
        found: dict[tuple[str, str], list[bool]] = {}
        for name, upstream in self._pairs():
            ends = self._node_of[upstream], self._node_of[name]
            if ends[0] != ends[1]:
                failed = upstream in self._causes or state_of(self._known[upstream]) == "failed"
                found.setdefault(ends, []).append(failed)
        return [GraphEdge(a, b, len(pairs), any(pairs)) for (a, b), pairs in found.items()]

    def _pairs(self) -> Iterable[tuple[str, str]]:
        for name in self._chosen:
            for upstream in dict.fromkeys(d.asset for d in self._graph[name].dependencies):
                if upstream != name and upstream in self._node_of:
                    yield name, upstream

    def _group_node(self, name: str) -> str | None:
        group = self._graph[name].group
        return f"group:{group}" if group in self.folded else None

    def _bundle(self, opened: frozenset[str]) -> None:
        """Fold assets that read the same and are read by the same, when they are many."""
        above: dict[str, set[str]] = {name: set() for name in self._chosen}
        below: dict[str, set[str]] = {name: set() for name in self._chosen}
        for name, upstream in self._pairs():
            above[name].add(self._node_of[upstream])
            below[upstream].add(self._node_of[name])
        alike: dict[tuple[frozenset[str], frozenset[str]], list[str]] = {}
        for name in self._chosen:
            if self._node_of[name] == name and (above[name] or below[name]):
                alike.setdefault((frozenset(above[name]), frozenset(below[name])), []).append(name)
        for names in alike.values():
            if len(names) > MAX_FAN and f"fan:{names[0]}" not in opened:
                self._node_of.update(dict.fromkeys(names, f"fan:{names[0]}"))

    def _node(self, node: str, members: Sequence[str]) -> GraphNode:
        graph, first = self._graph, members[0]
        states = [state_of(self._known[name], stale=name in self._stale) for name in members]
        state = min(states, key=STATES_OF_ASSETS.index)
        if len(members) == 1 and node == first:
            kind, name, says = "asset", first, says_of(self._known[first])
        else:
            kind = node.partition(":")[0]
            name = str(graph[first].group) if kind == "group" else f"{first} and {len(members) - 1:,} like it"
            says = ", ".join(f"{states.count(one):,} {one}" for one in STATES_OF_ASSETS if one in states)
        reached = [cause for name in members if (cause := self._causes.get(name)) and cause not in members]
        inside = set(members)
        inputs = {d.asset for one in members for d in graph[one].dependencies} - inside
        readers = {one for name in members for one in graph.downstream(name, depth=1)} - inside
        return GraphNode(
            id=node,
            kind=kind,
            name=name,
            group=graph[first].group,
            state=state,
            says=says,
            assets=len(members),
            members=() if kind == "asset" else tuple(members),
            reached=reached[0] if reached and state != "failed" else None,
            more_upstream=len([one for one in inputs if one not in self._node_of and not graph[one].hidden]),
            more_downstream=len([one for one in readers if one not in self._node_of and not graph[one].hidden]),
        )


def _reached(graph: AssetGraph, known: Mapping[str, AssetSummary]) -> dict[str, str]:
    """Return for each asset behind a failed one the failed asset that is nearest to it."""
    causes: dict[str, str] = {}
    for name in graph.order:
        for dependency in graph[name].dependencies:
            upstream = dependency.asset
            if upstream == name or name in causes:
                continue
            if upstream in known and state_of(known[upstream]) == "failed":
                causes[name] = upstream
            elif upstream in causes:
                causes[name] = causes[upstream]
    return causes


def _why(
    node: GraphNode,
    known: Mapping[str, AssetSummary],
    members: Sequence[str],
    failed: Sequence[str],
    failures: Sequence[FailingPartition],
    stale: Mapping[str, str],
) -> tuple[str, ...]:
    """Return in sentences why a node is in its state, the cause first."""
    found = []
    if failed and failures:
        first = failures[0]
        where = f"{first.asset} [{first.partition}]" if first.partition else first.asset
        if first.state == "upstream_failed":
            found.append(f"{where} has not run, since an input of it failed: {first.error}")
        else:
            found.append(f"{where} failed: {first.error}")
    if node.reached:
        cause = f": {failures[0].error}" if failures and not failed else "; what depends on it may lack new data."
        found.append(f"{node.reached} failed upstream{cause}")
    missing = [name for name in members if state_of(known[name]) == "missing"]
    if missing:
        what = "Nothing" if len(members) == 1 else f"Nothing of {len(missing):,} of {len(members):,} assets"
        found.append(f"{what} has been committed yet.")
    found += [f"{name} is stale: {stale[name]}." for name in [name for name in members if name in stale][:5]]
    for name in members if len(members) == 1 else ():
        one = known[name]
        if one.active:
            found.append(f"{one.active:,} {'step is' if one.active == 1 else 'steps are'} not over.")
        if one.unstarted:
            found.append(f"{one.unstarted:,} wait in a large backfill.")
        if one.committed and one.missing:
            found.append(f"{one.missing:,} of {one.total:,} partitions have never been committed.")
    return tuple(found) or ("Everything is committed, and nothing failed.",)


def _neighbours(
    names: Iterable[str], known: Mapping[str, AssetSummary], stale: Mapping[str, str]
) -> tuple[Neighbour, ...]:
    return tuple(Neighbour(name, state_of(known[name], stale=name in stale)) for name in names if name in known)
