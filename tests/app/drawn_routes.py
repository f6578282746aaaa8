"""Graphs with routers and optional inputs, drawn at random, and the rules of the end of their assets."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from flowstone import Asset, Route, Skip, State, asset, dep


@dataclass
class Node:
    """One asset: what it reads (and whether it can do without), what it may choose and chooses, what it does."""

    name: str
    reads: dict[str, bool]
    does: str
    routes: list[str] = field(default_factory=list)
    chosen: list[str] = field(default_factory=list)


@dataclass
class Drawn:
    nodes: dict[str, Node]
    calls: Counter[str] = field(default_factory=Counter)

    def assets(self) -> list[Asset]:
        return [self._asset(node) for node in self.nodes.values()]

    def leaves(self) -> list[str]:
        read = {name for node in self.nodes.values() for name in node.reads}
        return [name for name in self.nodes if name not in read]

    def _asset(self, node: Node) -> Asset:
        def function(**inputs: Any) -> object:
            self.calls[node.name] += 1
            if node.does == "skip":
                raise Skip("nothing to do")
            if node.does == "fail":
                raise ValueError(f"{node.name} fails")
            value = [node.name, [name for name, given in sorted(inputs.items()) if given is not None]]
            return Route(*node.chosen, value=value) if node.routes else value

        parameters = ", ".join(node.reads)
        made = eval(f"lambda {parameters}: function({', '.join(f'{one}={one}' for one in node.reads)})", locals())
        deps = [dep(name, optional=optional) for name, optional in node.reads.items()]
        return asset(name=node.name, deps=deps, routes=node.routes)(made)

    # --- the rules ----------------------------------------------------------------------------------------

    def allowed(self, name: str, states: dict[str, State]) -> set[State]:
        """What may become of an asset, given how it ended with those that it reads.

        Two different causes may race: whichever comes first decides.
        """
        node = self.nodes[name]
        causes = set()
        if any(states[read] in (State.FAILED, State.UPSTREAM_FAILED) for read in node.reads):
            causes.add(State.UPSTREAM_FAILED)
        skipped = [read for read in node.reads if states[read] is State.SKIPPED]
        if any(not node.reads[read] for read in skipped) or (skipped and len(skipped) == len(node.reads)):
            causes.add(State.SKIPPED)
        if any(self.excludes(read, name) and states[read] is State.COMPLETED for read in node.reads):
            causes.add(State.SKIPPED)
        does = {"skip": State.SKIPPED, "fail": State.FAILED, "value": State.COMPLETED}
        return causes or {does[node.does]}

    def excludes(self, router: str, name: str) -> bool:
        node = self.nodes[router]
        return name in node.routes and name not in node.chosen


@st.composite
def routed_graphs(draw: st.DrawFn, *, prefix: str = "n", max_size: int = 8, failures: bool = True) -> Drawn:
    names = [f"{prefix}{number}" for number in range(draw(st.integers(2, max_size)))]
    does = ["value"] * 6 + ["skip"] + (["fail"] if failures else [])
    nodes = {}
    for position, name in enumerate(names):
        reads = draw(st.sets(st.sampled_from(names[:position]), max_size=4)) if position else set()
        optional = {read: draw(st.booleans()) for read in sorted(reads)}
        nodes[name] = Node(name, optional, draw(st.sampled_from(does)))
    for node in nodes.values():
        below = [other.name for other in nodes.values() if node.name in other.reads]
        if below and draw(st.booleans()):
            node.routes = sorted(draw(st.sets(st.sampled_from(below), min_size=1)))
            node.chosen = sorted(draw(st.sets(st.sampled_from(node.routes))))
    return Drawn(nodes)
