"""Charts: right numbers in drawing and table, and whatever was recorded can be drawn."""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime, timedelta
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstone.core.state import State
from flowstone.engine.insights.partitions import STATES
from flowstone.web import shown
from flowstone.web.charts import Column, Point, Series, bars, number, plot, strip, time_text
from flowstone.web.gantt import GanttRow, Span, gantt
from flowstone.web.states import shape, worst
from flowstone.web.svg import Html, element, printable, shortened

HOSTILE = [
    "<script>alert(1)</script>",
    "a/../b?c#d",
    "x" * 200,
    "\u202eevil\u202c",
    "🦀",
    '" onload="x',
    "\x00\ud800",
    "'&",
]
AT = datetime(2026, 11, 30, 10, tzinfo=UTC)


def parsed(markup: Html) -> ElementTree.Element:
    text = f"<root>{markup}</root>"
    text.encode()
    root = ElementTree.fromstring(text)
    names = {name for one in root.iter() for name in one.attrib}
    assert not {name for name in names if name == "style" or name.startswith("on")}
    return root


def table(markup: Html) -> list[list[str]]:
    return [["".join(cell.itertext()) for cell in row] for row in parsed(markup).iter("tr")]


def ys(path: str) -> list[float]:
    return [float(one) for one in re.findall(r"[ML][\d.]+ (-?[\d.]+)", path)]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_is_escaped_wherever_it_comes_from(text: str) -> None:
    row = GanttRow(
        text, [Span(AT, None, text, label=text, href="/step?id=1")], href="/asset?name=x", critical=True
    )
    for chart in (
        strip([(text, 3)], title=text, table=True),
        bars([Series(text)], [Column(text, [1])], title=text),
        plot([Point(text, 1.0, note=text, href="/x")], title=text, name=text),
        gantt([row], title=text, now=AT),
    ):
        root = parsed(chart)
        assert not list(root.iter("script"))
        assert printable(text)[:20] in "".join(root.itertext())


@pytest.mark.parametrize(
    "href", ["javascript:x", "//evil", "https://evil", " java\nscript:x", "data:x", "/\\evil", "\\evil"]
)
def test_links_lead_to_our_own_pages(href: str) -> None:
    with pytest.raises(ValueError, match="does not lead"):
        element("a", "x", href=href)
    assert str(element("a", "x", href="/run?id=a:b"))


@pytest.mark.parametrize("name", ["style", "onclick", "ONLOAD", "srcdoc", "a b"])
def test_no_attribute_runs_code_or_carries_style(name: str) -> None:
    with pytest.raises(ValueError, match="not written"):
        element("p", **{name: "x"})
    with pytest.raises(ValueError, match="not made"):
        element("script", "x")
    with pytest.raises(TypeError, match="element"):
        Html("<b>")


def test_a_strip_shows_one_failure_among_many() -> None:
    # a page that draws what is too narrow not at all hides exactly what one came for (dagster#10330)
    chart = str(strip([("committed", 60_000), ("failed", 1), ("committed", 39_999)], title="orders"))
    (path,) = re.findall(r'class="bad" d="([^"]*)"', chart)
    assert path == "M144 0H145v12H144z"
    assert "1 failed, 99,999 committed of 100,000" in chart
    assert len(chart) < 600


@given(st.lists(st.tuples(st.sampled_from([*State, *STATES, "odd"]), st.integers(0, 400)), max_size=30))
def test_a_strip_covers_its_width_once(runs: list[tuple[str, int]]) -> None:
    chart = str(strip(runs, title="a", width=100))
    pieces = [(float(a), float(b)) for a, b in re.findall(r"M([\d.]+) \d+H([\d.]+)v", chart)]
    total = sum(count for _, count in runs)
    assert sum(b - a for a, b in pieces) == pytest.approx(100 if total else 0, abs=0.1)


def test_bars_have_the_numbers_of_their_table() -> None:
    columns = [Column(AT + timedelta(minutes=m), [m, m % 2]) for m in range(4)]
    chart = bars([Series("done"), Series("failed", "bad", below=True)], columns, title="Steps per minute")
    assert table(chart)[0] == ["Time", "done", "failed"]
    assert table(chart)[3] == ["2026-11-30 10:02 UTC", "2", "0"]
    assert "6 done, 2 failed in all" in str(chart)
    up, down = re.findall(r'class="stack [^"]*" d="([^"]*)"', str(chart))
    assert [float(h) for h in re.findall(r"v([\d.]+)h", up)] == pytest.approx([25, 50, 75])
    assert all(y >= 75 for y in ys(down))


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, "x", 10**400])
def test_what_cannot_be_drawn_leaves_a_gap(value: object) -> None:
    points = [Point("a", 1.0), Point("b", 2.0), Point("c", value), Point("d", 4.0), Point("e", 3.0)]  # type: ignore[arg-type]
    chart = plot(points, title="Rows")
    (line,) = re.findall(r'class="line" d="([^"]*)"', str(chart))
    assert re.sub("[^ML]", "", line) == "MLML"
    assert "4 numbers from 1 to 4; 1 gap" in str(chart)
    assert len(table(chart)) == 6
    bars([Series("a")], [Column("x", [value])], title="t")  # type: ignore[list-item]


@pytest.mark.parametrize(
    "values",
    [[], [5.0], [0.0, 0.0], [7, 7, 7], [1.7e308, -1.7e308], [5e-324, 0.0], [-3, -1], [10**300, 1], [True, False]],
)
def test_any_numbers_fit_into_the_drawing(values: list[float]) -> None:
    for from_zero in (False, True):
        chart = plot([Point(str(at), value) for at, value in enumerate(values)], title="n", from_zero=from_zero)
        (line,) = re.findall(r'class="line" d="([^"]*)"', str(chart))
        assert all(0 <= y <= 100 for y in ys(line))
        both = [Series("a"), Series("b"), Series("c", "bad", below=True)]
        text = str(bars(both, [Column(str(at), [value] * 3) for at, value in enumerate(values)], title="n"))
        assert not re.search(r' d="[^"]*(nan|inf)', text)


@given(st.lists(st.one_of(st.none(), st.floats()), max_size=40), st.booleans())
def test_any_line_can_be_drawn(values: list[float | None], from_zero: bool) -> None:
    chart = plot([Point(date(2026, 1, 1), value) for value in values], title="n", from_zero=from_zero)
    assert parsed(chart) is not None
    assert "nan" not in re.findall(r' d="([^"]*)"', str(chart))


def test_many_points_are_thinned_and_keep_their_extremes() -> None:
    points = [Point(str(n), 1e9 if n == 21_803 else n % 7) for n in range(30_000)]
    chart = str(plot(points, title="n"))
    assert "M" in chart
    assert min(ys(re.findall(r'class="line" d="([^"]*)"', chart)[0])) == 0
    assert len(chart) < 60_000
    assert "first 200 of 30,000" in chart


def test_a_gantt_marks_the_critical_path_and_what_still_runs() -> None:
    rows = [
        GanttRow("raw", [Span(AT, AT + timedelta(seconds=10), "completed", href="/step?id=1")], critical=True),
        GanttRow(
            "slow", [Span(AT + timedelta(seconds=12), None, "running", waiting_since=AT)], href="/asset?name=slow"
        ),
        GanttRow("later", []),
    ]
    chart = gantt(rows, title="Steps", now=AT + timedelta(seconds=20))
    assert [[row[0], *row[2:]] for row in table(chart)[1:]] == [
        ["raw◆ critical path", "✓ completed", "10.0 s"],
        ["slow", f"{shown.glyph('running')} running", "8.0 s"],
        ["later", "nothing has begun", ""],
    ]
    assert "M600.0 1h400.0v8h-400.0z" in str(chart)
    assert "M0.0 5H600.0" in str(chart)


def test_a_gantt_of_many_steps_stays_small() -> None:
    spans = [
        Span(AT + timedelta(seconds=n), AT + timedelta(seconds=n + 30), "completed", href="/s")
        for n in range(5000)
    ]
    chart = gantt([GanttRow("orders", spans), *[GanttRow(f"a{n}", []) for n in range(300)]], title="S", now=AT)
    assert sum(1 for _ in parsed(chart).iter()) < 800
    assert "first 100 of 301 assets" in str(chart)


def test_a_gantt_is_never_negative() -> None:
    # clocks of workers differ
    backwards = Span(AT, AT - timedelta(seconds=5), "completed", waiting_since=AT + timedelta(seconds=3))
    text = str(gantt([GanttRow("a", [backwards])], title="S", now=AT - timedelta(hours=1)))
    assert "-" not in "".join(re.findall(r"[hHvM]-?[\d.]+", re.sub(r"h-[\d.]+z", "", text)))


def test_every_state_has_a_form_of_its_own_kind() -> None:
    known = [*(state.value for state in State), *STATES]
    for state in known:
        assert shape(state).rank > 5, f"{state} would be drawn as one that is not known"
        # what is drawn alike means alike: a failure is never the form of a success
        assert (shape(state).form == "check") is (shown.tone(state) == "good")
        assert (shape(state).form in ("cross", "down")) is (shown.tone(state) == "bad")
    assert worst([]) == "missing"
    assert worst(["upstream_failed", "failed", "committed"]) == "failed"


def test_times_are_written_with_their_zone() -> None:
    from zoneinfo import ZoneInfo

    assert time_text(AT, ZoneInfo("Asia/Kathmandu")) == "2026-11-30 15:45 +0545"
    assert time_text(AT, ZoneInfo("America/St_Johns")) == "2026-11-30 06:30 NST"
    folds = [datetime(2026, 11, 1, hour, 30, tzinfo=UTC) for hour in (5, 6)]
    assert [time_text(one, ZoneInfo("America/New_York"))[-9:] for one in folds] == ["01:30 EDT", "01:30 EST"]
    assert time_text(datetime(2026, 1, 1)) == "2026-01-01 00:00 UTC"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_short(value: float) -> None:
    assert len(number(value)) <= 20
    assert len(shortened("x" * 300)) == 40


# --- what users of other tools reported ----------------------------------------------------------------------


def test_a_point_between_gaps_is_seen() -> None:
    """dagster#5045: points with nothing beside them were not drawn, or not connected."""
    points = [Point(str(n), 5.0 if n in (100, 500) else None) for n in range(1000)]
    (dots,) = re.findall(r'class="dot busy" d="([^"]*)"', str(plot(points, title="n")))
    assert dots.count("h0") == 2


def test_numbers_are_in_the_order_of_partitions_whatever_these_are() -> None:
    """dagster#12478: no plot for partitions that are no times; dagster#32132: no scale for categories."""
    chart = str(plot([Point(name, value) for name, value in (("eu", 3), ("us", 1), ("asia", 2))], title="rows"))
    assert "M0.0 0.00L500.0 100.00L1000.0 50.00" in chart


def test_what_runs_grows_and_waiting_is_never_negative() -> None:
    """airflow#38215: a running task had no length; airflow#35984: 23 hours of waiting that never were."""
    span = Span(AT, None, "running", waiting_since=AT + timedelta(hours=23))
    lengths = []
    for minutes in (1, 10):
        other = Span(AT, AT + timedelta(hours=1), "completed")
        rows = [GanttRow("now", [span]), GanttRow("other", [other])]
        chart = gantt(rows, title="S", now=AT + timedelta(minutes=minutes))
        assert "waited" not in str(chart)
        lengths.append(float(re.findall(r'span busy" d="M[\d.]+ 1h([\d.]+)', str(chart))[0]))
    assert lengths == pytest.approx([1000 / 60, 10000 / 60], abs=0.1)


def test_one_unit_fits_all_durations() -> None:
    """airflow#38371: one long task made minutes of seconds; each number is written with its own unit."""
    chart = plot([Point("a", 2.0), Point("b", 200.0)], title="Took", write=shown.duration, from_zero=True)
    assert [row[1] for row in table(chart)[1:]] == ["2.0 s", "3 min 20 s"]


def test_a_failure_and_what_it_held_up_differ_in_form() -> None:
    """airflow#66323: failed and upstream_failed were one colour for every fifteenth man; #7843 and #43054 too."""
    forms = {
        state: shape(state).form for state in ("failed", "upstream_failed", "completed", "running", "pending")
    }
    assert len(set(forms.values())) == len(forms)
