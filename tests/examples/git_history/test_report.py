from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from datetime import date
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hostile import Stream, modify
from hypothesis import given, settings
from hypothesis import strategies as st

from git_history import analysis, charts, tables
from git_history.analysis import MonthSummary
from git_history.charts import Mark
from git_history.report import Findings, render
from git_history.repository import Repository
from git_history.timeline import MAX_PERIODS, main_months, periods

VOID = {"meta", "img", "source"}
first_days = st.dates(min_value=date(1, 1, 1)).map(lambda day: day.replace(day=1))


def findings(path: Path) -> Findings:
    repository = Repository.open(path)
    months = repository.months()
    commits = {month: tables.commits_table(repository, month) for month in months}
    changes = {month: tables.file_changes_table(repository, month) for month in months}
    made, changed = tables.in_order(commits), tables.in_order(changes)
    return Findings(
        {month: analysis.month_summary(commits[month], changes[month]) for month in months},
        analysis.authors(made),
        analysis.hotspots(changed),
        analysis.coupled_files(changed),
        analysis.weekly_activity(made),
        analysis.working_hours(made),
    )


def summary(commits: int = 1, *, authors: int = 1) -> MonthSummary:
    return {
        **dict.fromkeys(("merges", "files_changed", "renames", "binary_changes"), 0),
        "commits": commits,
        "authors": authors,
        "lines_added": 10 * commits,
        "lines_deleted": commits,
        "first_commit": "2024-01-01T00:00:00+00:00",
        "last_commit": "2024-01-01T00:00:00+00:00",
    }  # type: ignore[typeddict-item]


class Reader(HTMLParser):
    """Notes elements and attributes, and insists that everything that is opened is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check(page: str) -> None:
    reader = Reader(page)
    assert not reader.tags & {"script", "link", "iframe", "object", "form", "a", "base"}
    assert not [name for name, _ in reader.attributes if name.startswith("on") or name in {"style", "href"}]
    pictures = [value for name, value in reader.attributes if name in ("src", "srcset")]
    assert len(pictures) == 2 * len(re.findall("<img ", page)) == 8
    for picture in pictures:
        start, _, content = picture.partition(",")
        assert start == "data:image/svg+xml;base64"
        ET.fromstring(base64.b64decode(content))
    ids = [value for name, value in reader.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    for drawing in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ET.fromstring(drawing)
    assert not re.search("[\u202a-\u202e\u2066-\u2069\0-\x09\x0b-\x1f]", page)
    assert "nan" not in re.findall(r'="(nan|-?inf)"', page)


def test_a_hostile_repository_harms_nobody(hostile_path: Path) -> None:
    page = render('<img src=x onerror=1>"', findings(hostile_path))
    check(page)
    assert "&lt;script&gt;alert(1)" in page
    assert "docs/\\u202egpj.exe" in page
    page.encode("utf-8")


def test_one_commit_is_enough(tmp_path: Path) -> None:
    stream = Stream()
    stream.commit()
    page = render("one", findings(stream.into(tmp_path / "one")))
    check(page)
    assert "1 commit by 1 person, 14 Nov 2023<" in page


def test_fifteen_years_and_many_people(tmp_path: Path) -> None:
    stream = Stream()
    for number in range(400):
        author = b"Author %d <a%d@x>" % (number % 50, number % 50)
        pair = (modify(name, b"%d\n" % number) for name in (b"a", b"b", b"dir/%d" % (number % 30)))
        stream.commit(*pair, author=author, date=b"%d +0000" % (1262304000 + number * 1_200_000))
    page = render("many", findings(stream.into(tmp_path / "many")))
    check(page)
    assert "Commits by month" in page
    assert "and 38 more people" in page


def test_the_page_is_deterministic_and_allows_only_its_own_style(hostile_path: Path) -> None:
    found = findings(hostile_path)
    page = render("x", found)
    assert page == render("x", found)
    style = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'" in page


@given(st.dictionaries(first_days, st.integers(1, 10**6).map(summary), min_size=1, max_size=30))
def test_any_life_fits_into_few_periods_without_losing_a_commit(summaries: Mapping[date, MonthSummary]) -> None:
    drawn = periods(summaries)
    assert 1 <= len(drawn) <= MAX_PERIODS + 1
    assert sum(period.commits for period in drawn) == sum(each["commits"] for each in summaries.values())
    kept = main_months(summaries)
    assert kept == sorted(kept)
    assert set(kept) <= set(summaries)
    assert sum(summaries[month]["commits"] for month in kept) * 100 >= 98 * sum(
        each["commits"] for each in summaries.values()
    )


def test_stray_dates_do_not_squeeze_the_chart() -> None:
    life = {date(year, month, 1): summary(10) for year in range(2010, 2025) for month in range(1, 13)}
    stray = {date(1970, 1, 1): summary(1), date(2107, 5, 1): summary(1)}
    assert main_months(life | stray) == sorted(life)
    assert {period.span for period in periods(life)} == {"month"}
    assert [period.label for period in periods(life)][:2] == ["January 2010", "February 2010"]


def test_labels_of_longer_periods() -> None:
    def labels(last: int) -> list[str]:
        return [period.label for period in periods({date(2000, 1, 1): summary(), date(last, 2, 1): summary()})]

    assert labels(2021)[-1] == "2021 Q1"
    assert labels(2061)[-1] == "2061"
    assert labels(2301)[-1] == "2300–2304"


values = st.integers(0, 10**15)


lists_of_marks = st.lists(st.builds(Mark, st.text(max_size=5), values, values, st.sampled_from(["", "2024"])))


@settings(max_examples=8)
@given(lists_of_marks.filter(bool))
def test_charts_of_any_values_are_pictures_with_a_description(marks: list[Mark]) -> None:
    for drawn in (
        charts.area(marks, title="<t>", description="&", unit="<u>"),
        charts.columns(marks, title="<t>", description="&", units=("<u>", "more")),
    ):
        assert 'alt="&lt;t&gt;. &amp;"' in drawn
        assert drawn.count("data:image/svg+xml;base64,") == 2
        rectangles = ET.fromstring(drawn.partition("</picture>")[2].removesuffix("</div></div>")).findall("rect")
        assert len(rectangles) == len(marks), "one tooltip for each mark"
        ends = [float(one.attrib["x"]) for one in rectangles] + [
            float(rectangles[-1].attrib["x"]) + float(rectangles[-1].attrib["width"])
        ]
        assert ends == sorted(ends)
        assert 0 <= ends[0] < ends[-1] <= 1000
        assert all(f"{mark.value:,} <u>" in str(one[0].text) for mark, one in zip(marks, rectangles, strict=True))


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (999, "999"), (1000, "1k"), (999_999, "1000k"), (2_500_000, "2.5M")]
)
def test_compact(number: int, text: str) -> None:
    assert charts.compact(number) == text


def test_heat_map_shades() -> None:
    shades = charts.heat({(0, 0): 100, (6, 23): 1})
    assert (shades[0, 0], shades[6, 23]) == (5, 1)
    assert (shades == 0).sum() == 7 * 24 - 2
