"""Charts, made on the server as SVG: the strip of partitions, bars over time, a line of numbers.

Each is a figure with a title, a description of what it shows, and a table of the same numbers behind it, which is
what a screen reader reads and what is left without SVG. The drawing stretches to any width, so that it works at
320 pixels; its labels are HTML beside it and keep their size. What was recorded can be any number: NaN, infinite
and missing ones leave a gap, one point is a dot, equal ones are a line in the middle, and the largest float does
not overflow.

`web/gantt` and `web/heatmap` hold the two charts with rows and cells.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo
from typing import Literal

from flowstone.engine.insights.partitions import CODES, STATES
from flowstone.web.states import Form, counted, shape, word
from flowstone.web.svg import Child, Html, element

type Tone = Literal["good", "bad", "warn", "busy", "off", "idle"]
"""A class of the stylesheet."""
type Moment = datetime | date | str
"""Where a point lies on the axis below: a time, or the text of a partition."""

ROWS_OF_A_TABLE = 200
"""The table behind a chart stops here and says so."""
POINTS_WITH_A_NOTE = 120
"""A line of more points is drawn without a note at each."""
COLUMNS_OF_A_LINE = 400
"""A line of more points than twice this shows the smallest and largest of each column."""


@dataclass(frozen=True, slots=True)
class Series:
    """One kind of number of a bar chart.

    Attributes:
        name: what is counted.
        tone: its colour and pattern.
        below: draw it downwards, under the line of zero, as failures are: no colour is needed to see which it is.
    """

    name: str
    tone: Tone = "good"
    below: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """The numbers of one piece of time: one for each series, None where it is unknown."""

    at: Moment
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Point:
    """One number of a line.

    Attributes:
        at: when, or which partition.
        value: the number; None, NaN and infinite ones leave a gap.
        note: what else to say about it, such as the version of the code.
        href: the page that it leads to.
        tone: the tone of its dot.
    """

    at: Moment
    value: float | None
    note: str = ""
    href: str | None = None
    tone: Tone = "busy"


def strip(
    runs: str | Iterable[tuple[str, int]],
    *,
    title: str,
    href: str | None = None,
    width: int = 240,
    table: bool = False,
) -> Html:
    """Draw the partitions of an asset in their order: one bar, with one piece for each stretch of one state.

    Each state has a height of its own, so that it is read without colour. A piece that is narrower than the bar
    can show is drawn as narrow as it can be, and the worst state wins: one failed partition among 100,000 is seen.

    Args:
        runs: the states, run-length encoded: `[("committed", 93), ("failed", 2)]`, or the codes of
            `PartitionStates`, `"93c2f"`.
        title: what it is, such as the name of the asset.
        href: the page that it leads to.
        width: how many columns it resolves.
        table: add the table of stretches; in a list, the sentence of counts is enough.

    Returns:
        A figure.

    Example:
        >>> "2 failed, 93 committed of 95" in str(strip("93c2f", title="orders"))
        True
    """
    found = _decoded(runs) if isinstance(runs, str) else runs
    stretches = [(state, count) for state, count in found if count > 0]
    total = sum(count for _, count in stretches)
    counts: dict[str, int] = {}
    for state, count in stretches:
        counts[state] = counts.get(state, 0) + count
    summary = f"{counted(counts)} of {total:,}" if total else "no partitions"
    drawing = element(
        "svg",
        element("title", f"{title}: {summary}"),
        [_pieces(state, cells) for state, cells in _columns_by_state(stretches, total, width)],
        class_="strip",
        viewBox=f"0 0 {width} 12",
        preserveAspectRatio="none",
        role="img",
    )
    linked = element("a", drawing, href=href, class_="chart-link") if href else drawing
    if not table:
        return linked
    rows = []
    first = 1
    for state, count in stretches:
        rows.append((f"{first:,} to {first + count - 1:,}", word(state), f"{count:,}"))
        first += count
    return figure(title, summary, linked, ("Partitions", "State", "Count"), rows, kind="strip")


_CODE = re.compile(f"(\\d*)([{CODES}])")


def _decoded(codes: str) -> Iterable[tuple[str, int]]:
    return ((STATES[CODES.index(code)], int(count or 1)) for count, code in _CODE.findall(codes))


_HEIGHTS: dict[Form, tuple[int, int]] = {
    "cross": (0, 12),
    "down": (0, 8),
    "diamond": (2, 10),
    "check": (3, 9),
    "wedge": (3, 4),
    "disc": (7, 5),
    "ring": (9, 3),
    "dash": (11, 1),
}


def _columns_by_state(
    stretches: Sequence[tuple[str, int]], total: int, width: int
) -> list[tuple[str, list[tuple[float, float]]]]:
    """Return the pieces (from, to) of each state: exact where there is room, else by the worst of a column."""
    found: dict[str, list[tuple[float, float]]] = {}
    if total <= width:
        at = 0
        for state, count in stretches:
            found.setdefault(state, []).append((at * width / total, (at + count) * width / total))
            at += count
        return list(found.items())
    columns = [""] * width
    ranks = [-1] * width
    at = 0
    for state, count in stretches:
        rank = shape(state).rank
        for column in range(at * width // total, (at + count - 1) * width // total + 1):
            if rank > ranks[column]:
                columns[column], ranks[column] = state, rank
        at += count
    begin = 0
    for column in range(1, width + 1):
        if column == width or columns[column] != columns[begin]:
            found.setdefault(columns[begin], []).append((begin, column))
            begin = column
    return list(found.items())


def _pieces(state: str, pieces: Sequence[tuple[float, float]]) -> Html:
    top, height = _HEIGHTS[shape(state).form]
    path = "".join(f"M{x:.4g} {top}H{end:.6g}v{height}H{x:.4g}z" for x, end in pieces)
    return element("path", class_=shape(state).css, d=path)


def bars(
    series: Sequence[Series],
    columns: Sequence[Column],
    *,
    title: str,
    write: Callable[[float], str] | None = None,
    zone: tzinfo = UTC,
) -> Html:
    """Draw numbers over time as stacked bars; what is `below` hangs under the line.

    Args:
        series: what is counted, from the bottom of the stack.
        columns: the pieces of time, in their order, with one number for each series.
        title: what the chart shows.
        write: how a number is written; the default is short and exact for whole numbers.
        zone: the zone in which times are written.

    Returns:
        A figure.

    Example:
        >>> done, failed = Series("done"), Series("failed", "bad", below=True)
        >>> minutes = [Column("10:00", (5, 1)), Column("10:01", (0, None))]
        >>> chart = bars([done, failed], minutes, title="Steps per minute")
        >>> "5 done, 1 failed" in str(chart)
        True
    """
    say = write or number
    clean = [[_finite(value, least=0.0) for value in column.values] for column in columns]
    top, bottom = (_rounded_up(_highest(series, clean, below=below)) for below in (False, True))
    times = [time_text(column.at, zone) for column in columns]
    zero = 100 * top / ((top + bottom) or 1)
    paths = _stacked(series, clean, zero, 100 / ((top + bottom) or 1))
    notes = [f"{time}: {_numbers(series, row, say)}" for time, row in zip(times, clean, strict=True)]
    hits = [
        element("rect", element("title", note), class_="hit", x=index * 10, width=10, height=100)
        for index, note in enumerate(notes)
        if len(notes) <= POINTS_WITH_A_NOTE
    ]
    totals = [sum(row[place] or 0 for row in clean) for place in range(len(series))]
    summary = (
        f"{_numbers(series, totals, say)} in all, over {len(columns):,} intervals" if columns else "nothing yet"
    )
    drawing = element(
        "svg",
        element("title", title),
        element("desc", summary),
        [
            element("path", class_=f"stack {one.tone}", d=path)
            for one, path in zip(series, paths, strict=True)
            if path
        ],
        element("path", class_="axis", d=f"M0 {zero:.2f}H{len(columns) * 10}"),
        hits,
        **_drawing(max(1, len(columns)) * 10),
    )
    axis = [say(top), say(bottom)]
    rows = [
        (time, *("unknown" if value is None else say(value) for value in row))
        for time, row in zip(times, clean, strict=True)
    ]
    legend = [element("span", element("span", class_=f"swatch {one.tone}"), one.name) for one in series]
    return figure(
        title,
        summary,
        _with_axes(drawing, axis, times),
        ("Time", *(one.name for one in series)),
        rows,
        kind="bars",
        legend=legend,
    )


def plot(
    points: Sequence[Point],
    *,
    title: str,
    name: str = "Value",
    write: Callable[[float], str] | None = None,
    zone: tzinfo = UTC,
    from_zero: bool = False,
    to: Callable[[str], str] = str,
) -> Html:
    """Draw numbers as a line; see the module for what it does with numbers that cannot be drawn.

    Args:
        points: the numbers in their order.
        title: what the chart shows.
        name: what the number is, for the table.
        write: how a number is written, `shown.duration` for seconds.
        zone: the zone in which times are written.
        from_zero: let the axis begin at zero, as for durations and counts.
        to: puts the prefix of the dashboard before the address of a point, as `to` of a template does.

    Returns:
        A figure.

    Example:
        >>> chart = plot([Point("a", 1.0), Point("b", float("nan")), Point("c", 3.0)], title="Rows")
        >>> "2 numbers from 1 to 3; 1 gap" in str(chart)
        True
    """
    say = write or number
    values = [_finite(point.value) for point in points]
    drawn = [value for value in values if value is not None]
    gaps = len(points) - len(drawn)
    summary = _summary(drawn, say)
    summary += f"; {gaps:,} {'gap' if gaps == 1 else 'gaps'}" if gaps else ""
    low, high = _bounds(drawn, from_zero=from_zero)
    places = [
        None if value is None else (x, 100 * (1 - _share(value, low, high)))
        for x, value in zip(_across(points), values, strict=True)
    ]
    noted = len(points) <= POINTS_WITH_A_NOTE
    dots = [
        _dot(point, place, f"{time_text(point.at, zone)}: {say(value)}", to)
        for point, place, value in zip(points, places, values, strict=True)
        if place is not None and value is not None and noted
    ]
    alone = "" if noted else _lonely(places)
    linked = noted and any(point.href for point in points)
    drawing = element(
        "svg",
        element("title", title),
        element("desc", summary),
        element("path", class_="line", d=_line(places)),
        element("path", class_="dot busy", d=alone) if alone else None,
        dots,
        **_drawing(1000, role="group" if linked else "img", label=title if linked else None),
    )
    rows = [
        (time_text(point.at, zone), _recorded(point.value, value, say), point.note)
        for point, value in zip(points, values, strict=True)
    ]
    axis = [say(high), say(low)] if high != low else [say(high)]
    labels = [time_text(point.at, zone) for point in points]
    return figure(title, summary, _with_axes(drawing, axis, labels), ("At", name, "Note"), rows, kind="plot")


def figure(
    title: str,
    summary: str,
    drawing: Child,
    header: Sequence[str],
    rows: Sequence[Sequence[Child]],
    *,
    kind: str,
    legend: Child = None,
) -> Html:
    """Put a drawing, its caption and the table of its numbers together.

    Args:
        title: the caption.
        summary: what it shows, in a sentence.
        drawing: the SVG with what lies around it.
        header: the columns of the table.
        rows: its rows; of many, the first `ROWS_OF_A_TABLE` stand there, and it says so.
        kind: the class of the figure, without `chart-`.
        legend: what the colours and patterns mean.

    Returns:
        The figure.
    """
    shown = rows[:ROWS_OF_A_TABLE]
    more = f" (first {len(shown):,} of {len(rows):,})" if len(rows) > len(shown) else ""
    body = [
        element("tr", element("th", row[0], scope="row"), [element("td", c) for c in row[1:]]) for row in shown
    ]
    head = element("tr", [element("th", one, scope="col") for one in header])
    numbers = element("table", element("thead", head), element("tbody", body))
    return element(
        "figure",
        element("figcaption", title, element("span", summary, class_="summary")),
        element("div", legend, class_="legend") if legend else None,
        drawing,
        element("details", element("summary", f"Numbers{more}"), numbers, class_="numbers"),
        class_=f"chart chart-{kind}",
    )


def number(value: float) -> str:
    """Write a number short: whole ones exactly, others with four figures.

    Example:
        >>> number(1234567), number(0.123456), number(1e30), number(-2.5)
        ('1,234,567', '0.1235', '1e+30', '-2.5')
    """
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    size = abs(value)
    if size >= 1e15 or size < 1e-4:
        return f"{value:.4g}"
    return f"{value:,.0f}" if size >= 1e5 else f"{value:.4g}"


def time_text(at: Moment, zone: tzinfo = UTC) -> str:
    """Write a moment with its zone; what is no moment is written as it is.

    Example:
        >>> time_text(datetime(2026, 11, 30, 10, 5, tzinfo=UTC))
        '2026-11-30 10:05 UTC'
    """
    if isinstance(at, datetime):
        local = (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(zone)
        seconds = ":%S" if local.second else ""
        return f"{local:%Y-%m-%d %H:%M{seconds}} {local.tzname() or ''}".rstrip()
    return at.isoformat() if isinstance(at, date) else at


def _finite(value: object, *, least: float | None = None) -> float | None:
    """Return a recorded number as one that can be drawn, or None."""
    try:
        found = float(value)  # type: ignore[arg-type]  # what was recorded can be anything
    except (TypeError, ValueError, OverflowError):
        return None
    if not math.isfinite(found):
        return None
    return found if least is None else max(found, least)


def _recorded(value: object, finite: float | None, say: Callable[[float], str]) -> str:
    if finite is not None:
        return say(finite)
    return "none" if value is None else str(value)[:40]


def _numbers(series: Sequence[Series], row: Sequence[float | None], say: Callable[[float], str]) -> str:
    return ", ".join(
        f"{'unknown' if value is None else say(value)} {one.name}" for one, value in zip(series, row, strict=True)
    )


def _stacked(
    series: Sequence[Series], rows: Sequence[Sequence[float | None]], zero: float, unit: float
) -> list[str]:
    """Return the path of each series: its piece of each bar, from the line of zero upwards or downwards."""
    paths = ["" for _ in series]
    for index, row in enumerate(rows):
        up = down = zero
        for place, (one, value) in enumerate(zip(series, row, strict=True)):
            if not value:
                continue
            height = max(value * unit, 0.8)
            y = down if one.below else up - height
            up, down = (up, down + height) if one.below else (y, down)
            paths[place] += f"M{index * 10 + 1} {y:.2f}h8v{height:.2f}h-8z"
    return paths


def _highest(series: Sequence[Series], rows: Sequence[Sequence[float | None]], *, below: bool) -> float:
    """Return the highest stack on one side of the line."""
    sums = (sum(value or 0 for one, value in zip(series, row, strict=True) if one.below is below) for row in rows)
    highest = max(sums, default=0.0)
    return min(highest, 1e306) if highest > 1e-290 else 0.0  # what is beyond has no place in a drawing


def _rounded_up(value: float) -> float:
    """Return the next number that a person would write on an axis."""
    if value <= 0 or value > 1e300:
        return max(value, 0.0)
    size = 10.0 ** math.floor(math.log10(value))
    return next((step * size for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * size >= value), value)


def _summary(values: Sequence[float], say: Callable[[float], str]) -> str:
    if len(values) < 2:
        return f"one number, {say(values[0])}" if values else "no numbers"
    return f"{len(values):,} numbers from {say(min(values))} to {say(max(values))}"


def _bounds(values: Sequence[float], *, from_zero: bool) -> tuple[float, float]:
    if not values:
        return 0.0, 0.0
    low, high = min(values), max(values)
    return (min(0.0, low), max(0.0, high)) if from_zero else (low, high)


def _share(value: float, low: float, high: float) -> float:
    """Return where a value lies between two; of halves, since the difference of two floats may overflow."""
    span = high / 2 - low / 2
    return (value / 2 - low / 2) / span if span > 0 else 0.5


def _across(points: Sequence[Point]) -> list[float]:
    """Return where the points lie from left to right: by time where all have one, else one after the other."""
    times = [_seconds(point.at) for point in points]
    known = [one for one in times if one is not None]
    if len(known) == len(points) and known and max(known) > min(known):
        first, last = min(known), max(known)
        return [1000 * (one - first) / (last - first) for one in known]
    last_index = len(points) - 1
    return [1000 * index / last_index if last_index else 500.0 for index in range(len(points))]


def _seconds(at: Moment) -> float | None:
    if isinstance(at, datetime):
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    return float(at.toordinal()) * 86400 if isinstance(at, date) else None


def _line(places: Sequence[tuple[float, float] | None]) -> str:
    path: list[str] = []
    pen = False
    for place in _thinned(places):
        if place is not None:
            path.append(f"{'L' if pen else 'M'}{place[0]:.1f} {place[1]:.2f}")
        pen = place is not None
    return "".join(path)


def _thinned(places: Sequence[tuple[float, float] | None]) -> Sequence[tuple[float, float] | None]:
    """Return few enough places that no pixel is drawn many times: of each column the lowest and the highest."""
    if len(places) <= 2 * COLUMNS_OF_A_LINE:
        return places
    kept: list[tuple[float, float] | None] = []
    size = len(places) / COLUMNS_OF_A_LINE
    for column in range(COLUMNS_OF_A_LINE):
        part = places[int(column * size) : int((column + 1) * size)]
        found = [(index, place) for index, place in enumerate(part) if place is not None]
        if not found:
            kept.append(None)
            continue
        ends = {min(found, key=lambda one: one[1][1]), max(found, key=lambda one: one[1][1])}
        kept += [place for _, place in sorted(ends)]
    return kept


def _lonely(places: Sequence[tuple[float, float] | None]) -> str:
    """Draw the points that have no neighbour, which a line cannot show."""
    padded = [None, *places, None]
    alone = [
        place
        for before, place, after in zip(padded, padded[1:], padded[2:], strict=False)
        if place is not None and before is None and after is None
    ]
    return "".join(f"M{x:.1f} {y:.2f}h0" for x, y in alone[:COLUMNS_OF_A_LINE])


def _dot(point: Point, place: tuple[float, float], text: str, to: Callable[[str], str]) -> Html:
    note = element("title", f"{text}, {point.note}" if point.note else text)
    # a line of no length with round ends is a dot that keeps its form however the drawing is stretched
    dot = element("path", note, class_=f"dot {point.tone}", d=f"M{place[0]:.1f} {place[1]:.2f}h0")
    return element("a", dot, href=to(point.href), aria_label=text) if point.href else dot


def _drawing(width: int, *, role: str = "img", label: str | None = None) -> dict[str, str | None]:
    box = f"0 0 {width} 100"
    return {"viewBox": box, "preserveAspectRatio": "none", "role": role, "aria_label": label, "class_": "drawing"}


def _with_axes(drawing: Html, upright: Sequence[str], labels: Sequence[str]) -> Html:
    chosen = [labels[0], labels[len(labels) // 2], labels[-1]] if len(labels) > 2 else list(labels)
    return element(
        "div",
        element("div", [element("span", one) for one in upright], class_="axis-y", aria_hidden="true"),
        drawing,
        element("div", [element("span", one) for one in chosen], class_="axis-x", aria_hidden="true"),
        class_="plotted",
    )
