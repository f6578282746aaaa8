"""The graph and the list of assets as people see them."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.drawn_graphs import Drawn, graphs, make

from flowstone import FlowStone, StaticPartitions, asset, check
from flowstone.core.check import CheckSet
from flowstone.core.graph import AssetGraph
from flowstone.core.selection import select
from flowstone.engine.insights.asset_list import asset_list, bar_of, expression_of, select_names, suggestions
from flowstone.engine.insights.assets import AssetSummary
from flowstone.engine.insights.graph import MAX_NODES, GraphView, graph_view, says_of, state_of
from flowstone.errors import OptionsError, SelectionError
from flowstone.web.graph_layout import Place, lay_out

AT = datetime(2026, 11, 30, tzinfo=UTC)


def summary(name: str, **counts: int) -> AssetSummary:
    plain = {"total": 1, "committed": 1, "missing": 0, "failed": 0, "active": 0, "unstarted": 0} | counts
    return AssetSummary(name=name, group=None, committed_at=AT, **plain)


def viewed(graph: AssetGraph, failed: str = "", **options: object) -> GraphView:
    states = [summary(name, failed=int(name == failed)) for name in graph.order]
    return graph_view(graph, states, graph.order, **options)  # type: ignore[arg-type]


def chain(*names: str, **options: object) -> list:
    return [make(name, set(names[at - 1 : at]) if at else set(), **options) for at, name in enumerate(names)]


def test_a_failure_marks_what_it_reaches() -> None:
    graph = AssetGraph([*chain("raw", "clean", "sums", "report"), make("other", {"raw"})])
    view = viewed(graph, "clean")
    assert {node.name: node.reached for node in view.nodes} == {
        "raw": None,
        "clean": None,
        "sums": "clean",
        "report": "clean",
        "other": None,
    }
    assert {(edge.upstream, edge.downstream) for edge in view.edges if edge.reached} == {
        ("clean", "sums"),
        ("sums", "report"),
    }


@given(graphs(), st.data())
def test_a_failure_reaches_what_is_downstream_and_nothing_else(drawn: Drawn, data: st.DataObject) -> None:
    graph = AssetGraph(drawn.assets)
    failed = data.draw(st.sampled_from(graph.order))
    marked = {node.name for node in viewed(graph, failed).nodes if node.reached}
    assert marked == drawn.downstream(failed)


def test_groups_fold_by_themselves_when_there_are_many() -> None:
    # dagster's graph of 500 assets is not read by anyone; it folds, and what one opened stays open
    assets = [make(f"a{n:03}", {f"a{n - 1:03}"} if n % 20 else set(), group=f"g{n // 20:02}") for n in range(300)]
    graph = AssetGraph(assets)
    view = viewed(graph, "a005")
    assert [node.kind for node in view.nodes] == ["group"] * 15
    assert (view.nodes[0].state, view.nodes[0].says) == ("failed", "1 failed, 19 committed")
    assert view.assets == view.total == 300
    opened = viewed(graph, "a005", opened=("g00",))
    assert [node.name for node in opened.nodes if node.kind == "asset"] == [f"a{n:03}" for n in range(20)]
    assert "g00" in opened.unfolded
    assert viewed(graph, closed=["g01"]).nodes[1].id == "group:g01"


def test_few_assets_fold_only_when_asked() -> None:
    graph = AssetGraph([*chain("a", "b", group="g"), make("c", {"b"})])
    assert [node.id for node in viewed(graph).nodes] == ["a", "b", "c"]
    view = viewed(graph, closed=("g",))
    assert [node.id for node in view.nodes] == ["group:g", "c"]
    assert [(edge.upstream, edge.downstream, edge.assets) for edge in view.edges] == [("group:g", "c", 1)]
    assert view.nodes[0].members == ("a", "b")


def test_a_fan_of_many_is_one_node() -> None:
    # airflow and dagster draw 200 lines out of one point; nobody can follow one of them
    graph = AssetGraph([make("raw", set()), *[make(f"r{n:02}", {"raw"}) for n in range(40)], make("x", {"r00"})])
    view = viewed(graph, "r07")
    (fan,) = [node for node in view.nodes if node.kind == "fan"]
    assert (fan.name, fan.assets, fan.state) == ("r01 and 38 like it", 39, "failed")
    assert len(view.nodes) == 4
    assert len(viewed(graph, opened=(fan.id,)).nodes) == 42


def test_what_is_beyond_the_limit_is_counted() -> None:
    graph = AssetGraph(chain(*[f"n{n:03}" for n in range(MAX_NODES + 50)]))
    view = viewed(graph)
    assert (len(view.nodes), view.left_out) == (MAX_NODES, 50)
    assert len(view.edges) == MAX_NODES - 1


@given(graphs(tags=("x",)), st.sets(st.sampled_from(["g1", "g2"])))
def test_every_asset_is_in_one_node_and_edges_lead_to_nodes(drawn: Drawn, closed: set[str]) -> None:
    graph = AssetGraph(drawn.assets)
    view = viewed(graph, closed=tuple(closed))
    inside = [name for node in view.nodes for name in (node.members or (node.id,))]
    assert sorted(inside) == sorted(graph.order)
    ids = {node.id for node in view.nodes}
    assert all({edge.upstream, edge.downstream} <= ids and edge.upstream != edge.downstream for edge in view.edges)
    assert len({(edge.upstream, edge.downstream) for edge in view.edges}) == len(view.edges)


def test_a_part_says_what_it_leaves_out() -> None:
    graph = AssetGraph(chain("a", "b", "c", "d"))
    states = [summary(name) for name in graph.order]
    view = graph_view(graph, states, ["b", "c"])
    assert [(node.name, node.more_upstream, node.more_downstream) for node in view.nodes] == [
        ("b", 1, 0),
        ("c", 0, 1),
    ]


@pytest.mark.parametrize(
    ("counts", "state", "says"),
    [
        ({}, "committed", "committed"),
        ({"committed": 0, "missing": 1}, "missing", "missing"),
        ({"failed": 1}, "failed", "failed, committed"),
        ({"total": 100_000, "committed": 99_999, "missing": 1}, "partial", "99,999 of 100,000 committed"),
        ({"total": 9, "committed": 3, "failed": 1, "active": 2}, "failed", "1 failed, 2 active, 3 of 9 committed"),
        ({"unstarted": 5, "total": 9}, "unstarted", "5 unstarted, 1 of 9 committed"),
    ],
)
def test_an_asset_has_one_state_and_its_numbers(counts: dict[str, int], state: str, says: str) -> None:
    assert (state_of(summary("a", **counts)), says_of(summary("a", **counts))) == (state, says)


# --- the list ------------------------------------------------------------------------------------------------


def listed(graph: AssetGraph, **options: object) -> object:
    states = [summary(name, failed=len(name) % 2) for name in graph.order]
    return asset_list(graph, CheckSet([], graph), states, lambda names: [], **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("sort", ["name", "order", "state", "committed", "failed", "partitions"])
@pytest.mark.parametrize("descending", [False, True])
def test_pages_hold_every_asset_once(sort: str, descending: bool) -> None:
    graph = AssetGraph(chain(*[f"n{'x' * (n % 3)}{n:02}" for n in range(23)]))
    found, cursor = [], None
    while True:
        page = listed(graph, sort=sort, descending=descending, cursor=cursor, limit=5)
        found += [row.name for row in page.items]  # type: ignore[attr-defined]
        assert page.total == 23  # type: ignore[attr-defined]
        cursor = page.next  # type: ignore[attr-defined]
        if cursor is None:
            break
    assert sorted(found) == sorted(graph.order)
    assert len(found) == 23
    whole = [row.name for row in listed(graph, sort=sort, descending=descending, limit=100).items]  # type: ignore[attr-defined]
    assert found == whole


def test_a_filter_is_an_expression_or_a_part_of_a_name() -> None:
    graph = AssetGraph([*chain("raw_orders", "orders", group="sales", tags=["daily"]), make('a "b"', {"orders"})])
    assert select_names(graph, "") == graph.order
    assert select_names(graph, "RAW") == ("raw_orders",)
    assert select_names(graph, "+orders") == ("raw_orders", "orders")
    assert select_names(graph, "group:sales and not orders") == ("raw_orders",)
    assert select_names(graph, "orders") == ("orders",), "a name is that asset, not all whose names have it"
    assert select_names(graph, "tag:none") == ()
    with pytest.raises(SelectionError, match="no asset named"):
        select_names(graph, "+ordrs")
    for one in suggestions(graph):
        assert select_names(graph, one), one


def test_lists_of_an_app() -> None:
    @asset(partitions=StaticPartitions(["eu", "us", "asia"]))
    def orders(context):
        if context.partition == "us":
            raise ValueError("no data <b>")
        return 1

    @asset
    def report(orders):
        return len(orders)

    @check(orders)
    def positive(orders):
        return orders > 1

    with FlowStone.for_testing([orders, report], checks=[positive]) as flow:
        for partition in ("eu", "us"):
            with suppress(ValueError):
                flow.materialize("orders", partition=partition)
        first, second = flow.insights.asset_list().items
        assert (first.name, first.state, first.says) == ("orders", "failed", "1 failed, 1 of 3 committed")
        assert first.counts == (("committed", 1), ("failed", 1), ("missing", 1))
        assert (first.checks, first.failed_checks) == (1, 1)
        assert first.usual_seconds is not None
        assert (second.state, second.usual_seconds) == ("missing", None)
        assert [row.name for row in flow.insights.asset_list(states=("failed",)).items] == ["orders"]
        view = flow.insights.graph("+report")
        details = flow.insights.node(view, "report")
        assert details is not None
        assert details.why[0] == "orders failed upstream: ValueError: no data <b>"
        assert details.failures[0].error == "ValueError: no data <b>"
        assert [one.name for one in details.upstream] == ["orders"]
        assert flow.insights.node(view, "gone") is None
        with pytest.raises(OptionsError, match="Did you mean 'name'"):
            flow.insights.asset_list(sort="nam")


# --- what users of other tools reported ----------------------------------------------------------------------


def test_a_graph_of_two_thousand_is_answered_at_once() -> None:
    """dagster#18756: the ancestors of 500 assets took minutes; here each asset is visited once."""
    names = [f"n{number:04}" for number in range(2000)]
    assets = [make(name, set(names[max(0, at - 3) : at]), group=f"g{at % 40}") for at, name in enumerate(names)]
    graph = AssetGraph(assets)
    states = [summary(name, failed=int(name == "n0000")) for name in names]
    graph_view(graph, states[:20], names[:20])
    begun = time.process_time()
    for name in names[:20]:
        graph.downstream(name)
    reference = time.process_time() - begun
    begun = time.process_time()
    view = graph_view(graph, states, names)
    assert time.process_time() - begun < 20 * reference, "as much as few walks through the graph, not one for each"
    assert len(view.nodes) == 40
    assert sum(node.reached is not None for node in view.nodes) == 39


def test_folding_and_opening_again_is_where_one_was() -> None:
    """airflow#13044: a group that was opened and closed again stood somewhere else."""
    assets = [
        make(f"{group}{n}", {f"{chr(ord(group) - 1)}{n}"} if group > "a" else set(), group=group)
        for group in "abc"
        for n in range(4)
    ]
    graph = AssetGraph(assets)

    def places(*closed: str) -> dict[str, Place]:
        view = viewed(graph, closed=closed)
        edges = [(edge.upstream, edge.downstream) for edge in view.edges]
        return lay_out(
            [node.id for node in view.nodes], edges, groups={n.id: str(n.group) for n in view.nodes}
        ).places

    before = places()
    assert places("b") != before
    assert places() == before


def test_a_bar_shows_a_failure_of_what_was_committed_before() -> None:
    """dagster#10161: the bar stayed green; dagster#33256: it was all red for one failure of many."""
    one = summary("a", total=100, committed=100, failed=2)
    assert bar_of(one) == (("committed", 98), ("failed", 2))
    assert bar_of(summary("a", total=3, committed=3, failed=3, active=2)) == (("failed", 3),)
    assert bar_of(summary("a", total=None, committed=5, failed=1)) == (("committed", 5), ("failed", 1))


@given(*[st.integers(0, 9)] * 5)
def test_a_bar_has_as_many_as_there_are(
    total: int, committed: int, failed: int, active: int, unstarted: int
) -> None:
    one = summary("a", total=total, committed=committed, failed=failed, active=active, unstarted=unstarted)
    assert sum(number for _, number in bar_of(one)) == total


def test_assets_are_filtered_by_state_and_sorted_by_their_last_commit() -> None:
    """dagster#27276, #14943: no filter by state; dagster#20195: no order by the last materialization."""
    graph = AssetGraph(chain("a", "b", "c", "d"))
    times = {"a": AT, "b": None, "c": AT + timedelta(days=1), "d": AT - timedelta(days=1)}
    states = [replace(summary(name, failed=int(name == "c")), committed_at=times[name]) for name in graph.order]

    def names(**options: object) -> list[str]:
        page = asset_list(graph, CheckSet([], graph), states, lambda names: [], **options)  # type: ignore[arg-type]
        return [row.name for row in page.items]

    assert names(sort="committed") == ["d", "a", "c", "b"]
    assert names(sort="committed", descending=True) == ["c", "a", "d", "b"]
    assert names(states=("failed",)) == ["c"]
    assert names(selection="*") == names(), "dagster#26366: all of them need no expression"


def test_what_is_listed_has_an_expression() -> None:
    graph = AssetGraph([*chain("raw_orders", "raw_items"), make("a b", set())])
    for text in ("raw", "+raw_items", "a", "*", '"a b"'):
        chosen = select_names(graph, text)
        assert select(graph, expression_of(graph, text, chosen)) == chosen


def test_stale_assets_say_why() -> None:
    versions = iter(range(10))

    @asset
    def source() -> int:
        return next(versions)

    @asset
    def sums(source: int) -> int:
        return source

    with FlowStone.for_testing([source, sums]) as flow:
        flow.materialize("source")
        flow.materialize("sums")
        assert [one.state for one in flow.insights.asset_list().items] == ["committed", "committed"]
        flow.materialize("source", force=True)
        (row,) = flow.insights.asset_list(states=("stale",)).items
        assert (row.name, row.stale) == ("sums", "source has another version by now")
        view = flow.insights.graph()
        assert {node.id: node.state for node in view.nodes} == {"source": "committed", "sums": "stale"}
        details = flow.insights.node(view, "sums")
        assert details is not None
        assert details.why == ("sums is stale: source has another version by now.",)
