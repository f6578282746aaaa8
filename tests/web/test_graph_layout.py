"""The layout of a graph: every edge goes on, nothing overlaps, few edges cross, in whatever order it is given."""

from __future__ import annotations

import random
import time
from bisect import bisect_right, insort
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstone.web.graph_layout import Layout, lay_out

REFERENCE = {(300, 442, 20): 1776, (300, 442, 50): 4062, (1000, 1618, 50): 27303, (2000, 3305, 50): 68363}
"""Crossings of fast-sugiyama 0.5.3 (`ranking_type="up"`, barycenter, transpose) on the graphs of `drawn`."""


def drawn(nodes: int, edges: int, width: int, *, seed: int = 1) -> list[tuple[str, str]]:
    """A random layered graph: 85 % of its edges go to the next layer, the others one or two further."""
    dice = random.Random(seed)
    layers = max(3, nodes // width)
    layer = [dice.randrange(layers) for _ in range(nodes)]
    rows: list[list[int]] = [[] for _ in range(layers)]
    for node, its in enumerate(layer):
        rows[its].append(node)
    found: set[tuple[int, int]] = set()
    while len(found) < edges:
        node = dice.randrange(nodes)
        below = layer[node] + (1 if dice.random() < 0.85 else dice.randint(2, 3))
        if below < layers and rows[below]:
            found.add((node, dice.choice(rows[below])))
    return [(str(a), str(b)) for a, b in sorted(found)]


def crossings(layout: Layout) -> int:
    """Count crossings from the picture alone, each edge by itself."""
    gaps: dict[int, list[tuple[float, float]]] = {}
    for route in layout.routes:
        for one, other in pairwise(sorted(route.places, key=lambda place: place.layer)):
            assert other.layer == one.layer + 1
            gaps.setdefault(one.layer, []).append((one.at, other.at))
    total = 0
    for segments in gaps.values():
        passed: list[float] = []
        starts: dict[float, list[float]] = {}
        for start, end in sorted(segments):
            starts.setdefault(start, []).append(end)
        for ends in starts.values():
            total += sum(len(passed) - bisect_right(passed, end) for end in ends)
            for end in ends:
                insort(passed, end)
    return total


def check(layout: Layout) -> None:
    taken: dict[int, list[float]] = {}
    for place in layout.places.values():
        taken.setdefault(place.layer, []).append(place.at)
    for row in taken.values():
        assert all(b - a >= 0.999 for a, b in pairwise(sorted(row))), "nodes overlap"
    assert all(0 <= place.at <= layout.breadth for place in layout.places.values())
    for route in layout.routes:
        ends = layout.places[route.upstream], layout.places[route.downstream]
        assert (route.places[0], route.places[-1]) == ends
        assert (ends[1].layer > ends[0].layer) is not route.turned


@pytest.mark.parametrize(("nodes", "edges", "width"), [(300, 442, 20), (300, 442, 50), (1000, 1618, 50)])
def test_edges_cross_seldom(nodes: int, edges: int, width: int) -> None:
    layout = lay_out(map(str, range(nodes)), drawn(nodes, edges, width))
    check(layout)
    assert crossings(layout) / REFERENCE[nodes, edges, width] <= 1.3
    # the share of pairs of edges that cross, in words of the numbers measured here; 1.0 would be the reference
    assert crossings(layout) / REFERENCE[nodes, edges, width] <= 0.8


def test_two_thousand_nodes_take_a_fraction_of_a_second() -> None:
    edges = drawn(2000, 3305, 50)
    begun = time.process_time()
    layout = lay_out(map(str, range(2000)), edges)
    first = time.process_time() - begun
    check(layout)
    assert crossings(layout) / REFERENCE[2000, 3305, 50] <= 0.8
    begun = time.process_time()
    for _ in range(20):
        lay_out(map(str, reversed(range(2000))), reversed(edges))
    again = (time.process_time() - begun) / 20
    assert again < first / 5, "the layout of an equal graph comes from memory"


def test_a_chain_of_two_thousand() -> None:
    names = [f"n{number:04}" for number in range(2000)]
    layout = lay_out(names, pairwise(names))
    check(layout)
    assert layout.layers == 2000
    assert {place.at for place in layout.places.values()} == {0.0}, "a chain is straight"
    circle = lay_out(names, [*pairwise(names), (names[-1], names[0])])
    check(circle)
    assert [route.turned for route in circle.routes].count(True) == 1


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[str], list[tuple[str, str]], dict[str, str]]:
    names = [f"n{number}" for number in range(draw(st.integers(0, 14)))]
    pairs = st.tuples(st.sampled_from(names), st.sampled_from(names)) if names else st.nothing()
    edges = draw(st.lists(pairs, max_size=25)) if names else []
    groups = {name: draw(st.sampled_from(["", "g", "h"])) for name in names}
    return names, edges, {name: group for name, group in groups.items() if group}


@given(graphs(), st.randoms(use_true_random=False))
def test_any_graph_can_be_laid_out(graph: tuple[list[str], list[tuple[str, str]], dict[str, str]], dice) -> None:
    names, edges, groups = graph
    layout = lay_out(names, edges, groups=groups)
    check(layout)
    assert set(layout.places) == set(names)
    assert {(one.upstream, one.downstream) for one in layout.routes} == {(a, b) for a, b in edges if a != b}
    mixed, turned = list(names), list(edges) * 2
    dice.shuffle(mixed)
    dice.shuffle(turned)
    assert lay_out(mixed, turned, groups=dict(reversed(groups.items()))) == layout


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=40))
def test_a_graph_without_circles_is_not_turned(pairs: list[tuple[int, int]]) -> None:
    edges = [(f"{a:02}", f"{b:02}") for a, b in pairs if a < b]
    layout = lay_out({one for edge in edges for one in edge}, edges)
    assert not any(route.turned for route in layout.routes)


def test_a_group_lies_together() -> None:
    # an asset of the group below reads one of the other, in every order
    edges = [(f"a{n}", f"{'x' if n % 2 else 'y'}{n}") for n in range(8)] + [(f"a{n}", "end") for n in range(8)]
    names = {one for edge in edges for one in edge}
    layout = lay_out(names, edges, groups={name: name[0] for name in names})
    rows = sorted((layout.places[name].at, name[0]) for name in names if name[0] in "xy")
    letters = "".join(letter for _, letter in rows)
    assert letters in ("xxxxyyyy", "yyyyxxxx")


def test_assets_that_nothing_reads_are_packed() -> None:
    layout = lay_out([f"n{number}" for number in range(500)], [("n1", "n2")])
    check(layout)
    assert layout.breadth < 140, "one column of 500 nodes is no picture"


def test_unknown_ends_are_left_out() -> None:
    layout = lay_out(["a", "b"], [("a", "b"), ("a", "gone"), ("gone", "b"), ("a", "a")])
    assert [(one.upstream, one.downstream) for one in layout.routes] == [("a", "b")]
    assert lay_out([], []).layers == 0
