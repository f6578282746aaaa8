"""Graphs of assets drawn at random, with the plain facts they were made from."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from flowstone.core.asset import Asset, asset


@dataclass
class Drawn:
    """Names with their inputs; `assets` in a random order of declaration."""

    reads: dict[str, set[str]]
    assets: list[Asset]

    def upstream(self, name: str, depth: int | None = None) -> set[str]:
        return reach(self.reads, name, depth)

    def downstream(self, name: str, depth: int | None = None) -> set[str]:
        readers: dict[str, set[str]] = {one: set() for one in self.reads}
        for one, inputs in self.reads.items():
            for read in inputs:
                readers[read].add(one)
        return reach(readers, name, depth)


def reach(edges: dict[str, set[str]], name: str, depth: int | None) -> set[str]:
    """Breadth first, written in the most naive way."""
    found: set[str] = set()
    frontier = {name}
    steps = len(edges) if depth is None else depth
    for _ in range(steps):
        frontier = set().union(*(edges[one] for one in frontier))
        found |= frontier
    return found


def make(name: str, reads: set[str], **options) -> Asset:
    return asset(name=name, deps=sorted(reads), **options)(lambda: name)


@st.composite
def graphs(draw, *, tags: tuple[str, ...] = (), max_size: int = 9) -> Drawn:
    names = [f"n{number}" for number in range(draw(st.integers(1, max_size)))]
    reads = {
        name: draw(st.sets(st.sampled_from(names[:position]), max_size=3)) if position else set()
        for position, name in enumerate(names)
    }
    assets = []
    for name in names:
        chosen = draw(st.sets(st.sampled_from(tags))) if tags else set()
        group = draw(st.sampled_from([None, "g1", "g2"])) if tags else None
        assets.append(make(name, reads[name], tags=sorted(chosen), group=group))
    return Drawn(reads, draw(st.permutations(assets)))
