"""The gantt chart of a run: a row for each asset, a piece for each step, the critical path marked.

It is a table whose cells hold small drawings: names keep their size on a phone, a screen reader reads rows and
numbers, and there is no second table to keep equal to the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from flowstone.engine.insights.timeline import Bar
from flowstone.web.charts import time_text
from flowstone.web.registry import url
from flowstone.web.shown import duration, glyph
from flowstone.web.states import counted, shape, word, worst
from flowstone.web.svg import Html, element, shortened

LINKED_SPANS = 200
"""With more pieces than this, those of one state in one row are one path without links: the rows keep theirs."""
ROWS = 100
"""More rows are not drawn; the caption says how many there are."""
_WIDTH = 1000
_LANE = 10
_LANES = 6


@dataclass(frozen=True, slots=True)
class Span:
    """One step, or one attempt of it.

    Attributes:
        start: when it began.
        end: when it was over; None while it goes on.
        state: its state.
        waiting_since: when it could have begun: since then it waited for a worker.
        href: the page that it leads to.
        label: its name, such as the partition.
    """

    start: datetime
    end: datetime | None
    state: str
    waiting_since: datetime | None = None
    href: str | None = None
    label: str = ""


@dataclass(frozen=True, slots=True)
class GanttRow:
    """One asset with its steps.

    Attributes:
        name: the asset.
        spans: its steps, in any order.
        href: the page of the asset.
        critical: whether it lies on the critical path, without which the run would have been shorter.
    """

    name: str
    spans: Sequence[Span]
    href: str | None = None
    critical: bool = False


def gantt(
    rows: Sequence[GanttRow], *, title: str, now: datetime, zone: tzinfo = UTC, to: Callable[[str], str] = str
) -> Html:
    """Draw which steps ran when; a row without steps says that nothing has begun.

    Args:
        rows: the assets, upstream first.
        title: what the chart shows.
        now: the end of what still goes on.
        zone: the zone in which times are written.
        to: puts the prefix of the dashboard before an address, as `to` of a template does.

    Returns:
        A figure.

    Example:
        >>> at = datetime(2026, 11, 30, 10, tzinfo=UTC)
        >>> chart = gantt([GanttRow("orders", [Span(at, None, "running")], critical=True)], title="Steps", now=at)
        >>> "critical path" in str(chart)
        True
    """
    shown = rows[:ROWS]
    spans = [span for row in shown for span in row.spans]
    first = min((_begin(span) for span in spans), default=now)
    last = max((max(span.end or now, span.start) for span in spans), default=now)
    scale = _Scale(first, last, now, linked=len(spans) <= LINKED_SPANS, to=to)
    length = duration((last - first).total_seconds())
    summary = f"{_number(len(spans), 'step')} of {_number(len(shown), 'asset')} in {length}"
    summary += f", from {time_text(first, zone)}"
    summary += f" (first {len(shown):,} of {len(rows):,} assets)" if len(rows) > len(shown) else ""
    axis = element(
        "span",
        element("span", "0"),
        element("span", duration((last - first).total_seconds() / 2)),
        element("span", length),
        class_="axis-x",
    )
    head = element("tr", [element("th", one, scope="col") for one in ("Asset", axis, "State", "Took")])
    return element(
        "figure",
        element("figcaption", title, element("span", summary, class_="summary")),
        element(
            "div",
            element("table", element("thead", head), element("tbody", [_row(row, scale) for row in shown])),
            class_="scroll",
            tabindex=0,
            role="region",
            aria_label=title,
        ),
        class_="chart chart-gantt",
    )


def gantt_rows(bars: Sequence[Bar], *, maximum: int = 40) -> list[GanttRow]:
    """Return the time line of a run as rows of the chart, an asset each.

    Args:
        bars: the time line, see `flowstone.engine.insights.timeline`.
        maximum: how many rows at most.
    """
    by_asset: dict[str, list[Bar]] = {}
    for bar in bars:
        by_asset.setdefault(bar.asset, []).append(bar)
    return [
        GanttRow(
            name=asset,
            spans=[
                Span(
                    start=bar.start,
                    end=bar.end,
                    state=bar.state,
                    href=None if bar.step is None else url("step", id=bar.step),
                    label=bar.partition,
                )
                for bar in found
                if bar.start is not None
            ],
            href=url("asset", name=asset),
            critical=any(bar.is_critical for bar in found),
        )
        for asset, found in list(by_asset.items())[:maximum]
    ]


@dataclass(frozen=True, slots=True)
class _Scale:
    first: datetime
    last: datetime
    now: datetime
    linked: bool
    to: Callable[[str], str]

    def x(self, at: datetime) -> float:
        whole = (self.last - self.first).total_seconds()
        share = (at - self.first).total_seconds() / whole if whole > 0 else 0.0
        return _WIDTH * min(1.0, max(0.0, share))


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _begin(span: Span) -> datetime:
    return min(span.start, span.waiting_since or span.start)


def _row(row: GanttRow, scale: _Scale) -> Html:
    counts: dict[str, int] = {}
    for span in row.spans:
        counts[span.state] = counts.get(span.state, 0) + 1
    state = worst(counts)
    summary = (word(state) if len(row.spans) == 1 else counted(counts)) if counts else "nothing has begun"
    begin = min((span.start for span in row.spans), default=scale.now)
    end = max((span.end or scale.now for span in row.spans), default=scale.now)
    name: Html | str = element("bdi", shortened(row.name), title=row.name)
    return element(
        "tr",
        element(
            "th",
            element("a", name, href=scale.to(row.href)) if row.href else name,
            element("span", "◆ critical path", class_="critical-mark") if row.critical else None,
            scope="row",
        ),
        element("td", _drawing(row, scale, summary) if row.spans else None, class_="spans"),
        element("td", element("span", glyph(state), class_=shape(state).css, aria_hidden="true"), " ", summary)
        if counts
        else element("td", summary),
        element("td", duration((end - begin).total_seconds()) if counts else ""),
        class_="critical" if row.critical else None,
    )


def _drawing(row: GanttRow, scale: _Scale, summary: str) -> Html:
    placed = _lanes(row.spans, scale.now)
    lanes = max((lane for _, lane in placed), default=0) + 1
    waiting = "".join(
        f"M{scale.x(span.waiting_since):.1f} {lane * _LANE + 5}H{scale.x(span.start):.1f}"
        for span, lane in placed
        if span.waiting_since and span.waiting_since < span.start
    )
    pieces: list[Html] = []
    if scale.linked:
        for span, lane in placed:
            pieces.append(_linked(span, _piece(span, lane, scale), scale))
    else:
        paths: dict[str, str] = {}
        for span, lane in placed:
            paths[span.state] = paths.get(span.state, "") + _piece(span, lane, scale)
        pieces = [element("path", class_=f"span {shape(state).css}", d=path) for state, path in paths.items()]
    height = lanes * _LANE
    return element(
        "svg",
        element("title", f"{row.name}: {summary}"),
        element("path", class_="waited", d=waiting) if waiting else None,
        pieces,
        viewBox=f"0 0 {_WIDTH} {height}",
        height=height,
        preserveAspectRatio="none",
        role="group" if scale.linked else "img",
        aria_label=f"{row.name}: {summary}" if scale.linked else None,
    )


def _piece(span: Span, lane: int, scale: _Scale) -> str:
    begin = min(scale.x(span.start), _WIDTH - 2)
    width = max(2.0, scale.x(max(span.end or scale.now, span.start)) - begin)
    return f"M{begin:.1f} {lane * _LANE + 1}h{width:.1f}v{_LANE - 2}h-{width:.1f}z"


def _linked(span: Span, path: str, scale: _Scale) -> Html:
    took = duration(((span.end or scale.now) - span.start).total_seconds())
    text = " ".join(part for part in (span.label, word(span.state), took) if part)
    drawn = element("path", element("title", text), class_=f"span {shape(span.state).css}", d=path)
    return element("a", drawn, href=scale.to(span.href), aria_label=text) if span.href else drawn


def _lanes(spans: Sequence[Span], now: datetime) -> list[tuple[Span, int]]:
    """Give steps that overlap a lane each; when there are more than fit, the rest lies on the last one."""
    free: list[datetime] = []
    placed = []
    for span in sorted(spans, key=lambda one: (one.start, one.label)):
        end = max(span.end or now, span.start)
        lane = next((number for number, until in enumerate(free) if until <= span.start), len(free))
        if lane == len(free) and lane < _LANES:
            free.append(end)
        lane = min(lane, _LANES - 1)
        free[lane] = max(free[lane], end)
        placed.append((span, lane))
    return placed
