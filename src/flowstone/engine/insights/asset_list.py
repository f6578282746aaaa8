"""The list of assets: filtered by the selection language and by state, sorted, a page at a time.

How many partitions are in which state is known for all assets at once; what costs a question for each asset (its
usual duration, failed checks) is asked for those of the page only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from flowstone.core.check import CheckSet
from flowstone.core.graph import AssetGraph
from flowstone.core.insights.assets import AssetHealth
from flowstone.core.paging import Page, clamp_limit, decode_cursor, page_of
from flowstone.core.selection import select
from flowstone.engine.insights.assets import AssetSummary
from flowstone.engine.insights.graph import STATES_OF_ASSETS, says_of, state_of
from flowstone.errors import SelectionError

SORTS = ("name", "order", "state", "committed", "failed", "partitions")
"""What the list can be sorted by."""
_MAX_EXPRESSION = 1_500
_PLAIN = re.compile(r'[^\s()":*?+\[]+')


@dataclass(frozen=True, slots=True)
class AssetRow:
    """One line of the list.

    Args:
        name: the asset.
        group: its group, if it has one.
        tags: its tags.
        state: the state that says most of it, see `GraphNode`.
        says: the same in numbers.
        counts: how many of its partitions are in which state, for a bar; they sum up to `total`.
        total: how many partitions it has; None when they cannot be listed.
        partitioned: whether it has partitions.
        committed_at: when its newest version was committed.
        usual_seconds: how long it usually takes, the median of the last versions; None when there is none.
        automation: the condition that requests it, in words; empty without one.
        checks: how many checks are declared for it.
        failed_checks: how many found something, in their newest results.
        stale: why the first of its stale versions is; empty when none is known to be.
        late: how old its data are, when they are too old; empty when they are not.
    """

    name: str
    group: str | None
    tags: tuple[str, ...]
    state: str
    says: str
    counts: tuple[tuple[str, int], ...]
    total: int | None
    partitioned: bool
    committed_at: datetime | None
    usual_seconds: float | None
    automation: str
    checks: int
    failed_checks: int
    stale: str = ""
    late: str = ""


def select_names(graph: AssetGraph, text: str) -> tuple[str, ...]:
    """Return the assets that a filter chooses: an expression of the selection language, or a part of a name.

    Args:
        graph: all assets.
        text: the filter; empty for all.

    Raises:
        SelectionError: it is neither.

    Example:
        >>> from flowstone.core.asset import asset
        >>> @asset
        ... def raw_orders(): ...
        >>> @asset
        ... def orders(raw_orders): ...
        >>> graph = AssetGraph([raw_orders, orders])
        >>> select_names(graph, "+orders"), select_names(graph, "raw"), select_names(graph, "group:none")
        (('raw_orders', 'orders'), ('raw_orders',), ())
    """
    text = text.strip()
    visible = tuple(one.name for one in graph if not one.hidden)
    if not text:
        return visible
    if text not in graph and _PLAIN.fullmatch(text) and text.lower() not in ("and", "or", "not"):
        lower = text.lower()
        found = tuple(name for name in visible if lower in name.lower())
        if found:
            return found
    try:
        return select(graph, text)
    except SelectionError as error:
        if "selects no asset" in str(error):
            return ()
        raise


def term(text: str) -> str:
    """Return a name, or `group:x`, `tag:x`, as it stands in an expression of the selection language.

    Example:
        >>> term("orders"), term("group:the best")
        ('orders', '"group:the best"')
    """
    plain = all(_PLAIN.fullmatch(part) for part in text.split(":", 1))
    return text if plain and text.lower() not in ("and", "or", "not") else '"' + text.replace('"', '""') + '"'


def expression_of(graph: AssetGraph, text: str, names: Sequence[str]) -> str:
    """Return an expression of the selection language for what a filter chose; empty when there is no short one.

    Args:
        graph: all assets.
        text: the filter, which may be a part of a name.
        names: what it chose.

    Example:
        >>> from flowstone.core.asset import asset
        >>> @asset
        ... def raw_orders(): ...
        >>> expression_of(AssetGraph([raw_orders]), "raw", ["raw_orders"])
        'raw_orders'
    """
    text = text.strip() or "*"
    try:
        if set(select(graph, text)) == set(names):
            return text
    except SelectionError:
        pass
    listed = " or ".join(map(term, names))
    return listed if len(listed) <= _MAX_EXPRESSION else ""


def suggestions(graph: AssetGraph, *, limit: int = 2_000) -> tuple[str, ...]:
    """Return what one could write into the filter: groups, tags, then names; at most `limit` of them.

    Example:
        >>> from flowstone.core.asset import asset
        >>> @asset(group="sales", tags=["daily"])
        ... def orders(): ...
        >>> suggestions(AssetGraph([orders]))
        ('group:sales', 'tag:daily', 'orders')
    """
    groups = sorted({one.group for one in graph if one.group})
    tags = sorted({tag for one in graph for tag in one.tags})
    names = sorted(one.name for one in graph if not one.hidden)
    found = [f"group:{one}" for one in groups] + [f"tag:{one}" for one in tags] + names
    return tuple(map(term, found[:limit]))


def asset_list(
    graph: AssetGraph,
    checks: CheckSet,
    summaries: Sequence[AssetSummary],
    health: Callable[[Sequence[str]], Sequence[AssetHealth]],
    *,
    stale: Mapping[str, str] = MappingProxyType({}),
    selection: str = "",
    states: Sequence[str] = (),
    sort: str = "name",
    descending: bool = False,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[AssetRow]:
    """Return a page of the list.

    Args:
        graph: all assets.
        checks: the declared checks.
        summaries: how the assets stand.
        health: returns usual durations and failed checks of some assets.
        stale: why assets are stale, of those that are.
        selection: see `select_names`.
        states: only assets in one of these states.
        sort: one of `SORTS`; assets without a value come last.
        descending: the other way round.
        cursor: `next` of the page before.
        limit: how many at most.

    Raises:
        SelectionError: the selection is malformed.
        OptionsError: the cursor is none.
    """
    chosen = set(select_names(graph, selection))
    found = [
        one
        for one in summaries
        if one.name in chosen and (not states or state_of(one, stale=one.name in stale) in states)
    ]
    total = len(found)
    positions = {name: at for at, name in enumerate(graph.order)}

    def key(one: AssetSummary) -> tuple[bool, float, str]:
        value = _sort_value(one, sort, positions, stale=one.name in stale)
        return value is None, (-value if descending and value is not None else value or 0.0), one.name

    names_down = sort == "name" and descending
    found.sort(key=key, reverse=names_down)
    after = decode_cursor(cursor, bool, float, str)
    if after is not None:
        found = [one for one in found if (key(one) < after if names_down else key(one) > after)]
    size = clamp_limit(limit)
    page = page_of(found[: size + 1], size, lambda one: (key(one)[0], float(key(one)[1]), one.name), total=total)
    healths = {one.asset: one for one in health([one.name for one in page.items])} if page.items else {}
    return page.map(lambda one: _row(graph, checks, one, healths.get(one.name), stale.get(one.name, "")))


def _sort_value(one: AssetSummary, sort: str, positions: Mapping[str, int], *, stale: bool) -> float | None:
    if sort == "committed":
        return None if one.committed_at is None else one.committed_at.timestamp()
    if sort == "failed":
        return float(one.failed)
    if sort == "partitions":
        return None if one.total is None else float(one.total)
    if sort == "state":
        return float(STATES_OF_ASSETS.index(state_of(one, stale=stale)))
    return float(positions[one.name]) if sort == "order" else 0.0


def _row(
    graph: AssetGraph, checks: CheckSet, one: AssetSummary, health: AssetHealth | None, stale: str
) -> AssetRow:
    asset = graph[one.name]
    return AssetRow(
        name=one.name,
        group=one.group,
        tags=tuple(sorted(asset.tags)),
        state=state_of(one, stale=bool(stale)),
        says=says_of(one),
        counts=bar_of(one),
        total=one.total,
        partitioned=asset.partitions is not None,
        committed_at=one.committed_at,
        usual_seconds=health.usual_seconds if health else None,
        automation=str(asset.automation) if asset.automation is not None else "",
        checks=len(checks.of(one.name)),
        failed_checks=health.failed_checks if health else 0,
        stale=stale,
    )


def bar_of(one: AssetSummary) -> tuple[tuple[str, int], ...]:
    """Return the pieces of a bar; a partition that is committed and has failed since counts as failed."""
    whole = one.total if one.total is not None else one.committed + one.failed + one.active + one.unstarted
    failed = min(one.failed, whole)
    active = min(one.active, whole - failed)
    unstarted = min(one.unstarted, whole - failed - active)
    committed = min(one.committed, whole - failed - active - unstarted)
    missing = whole - failed - active - unstarted - committed
    pieces = {
        "committed": committed,
        "unstarted": unstarted,
        "active": active,
        "failed": failed,
        "missing": missing,
    }
    return tuple((state, number) for state, number in pieces.items() if number)
