"""The report: one HTML page that needs nothing else, and lets nothing else in."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from git_history import charts
from git_history.analysis import MAX_FILES_FOR_PAIRS, MonthSummary
from git_history.charts import Mark, compact
from git_history.markup import escape, isolated
from git_history.timeline import Period, main_months, periods

_STYLE = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src data:; base-uri 'none'; form-action 'none'"
)
_SHOWN = 12  # rows in each list
_SHORT = 120  # weeks: a younger repository is drawn by week


class Findings(NamedTuple):
    """What the report shows, as the assets made it.

    Args:
        summaries: by month; at least one.
        authors: schema `AUTHORS`.
        hotspots: schema `HOTSPOTS`.
        coupled_files: schema `COUPLED_FILES`.
        weekly: schema `WEEKLY`.
        hours: schema `HOURS`.
    """

    summaries: Mapping[date, MonthSummary]
    authors: pa.Table
    hotspots: pa.Table
    coupled_files: pa.Table
    weekly: pa.Table
    hours: pa.Table


def render(name: str, findings: Findings) -> str:
    """Render the report.

    Args:
        name: of the repository, for the title.
        findings: what to show.

    Returns:
        A self-contained HTML page. The same findings give the same page: it holds no time of its making.
    """
    kept = main_months(findings.summaries)
    drawn = periods({month: findings.summaries[month] for month in kept})
    body = "".join(
        [
            _header(name, findings),
            _tiles(findings),
            _activity(findings, drawn, kept),
            _lines(drawn),
            _people_over_time(drawn),
            _hours(findings.hours),
            f'<div class="pair">{_authors(findings)}{_hotspots(findings.hotspots)}</div>',
            _coupled(findings.coupled_files),
        ]
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer"><meta name="color-scheme" content="light dark">'
        f"<title>{escape(name)} · history</title><style>{_STYLE}</style></head><body><main>{body}"
        "<footer>Months and weeks by committer date, UTC. Lines and files without those of merge commits; renamed "
        "files keep their past. Made with FlowStone from nothing but the commits that HEAD reaches.</footer>"
        "</main></body></html>\n"
    )


def _header(name: str, findings: Findings) -> str:
    commits = _total(findings, "commits")
    first = min(summary["first_commit"] for summary in findings.summaries.values())
    last = max(summary["last_commit"] for summary in findings.summaries.values())
    return (
        f'<header><p class="eyebrow">Repository history</p><h1>{isolated(name)}</h1><p class="lead">'
        f"{_count(commits, 'commit')} by {_count(findings.authors.num_rows, 'person', 'people')}, "
        f"{_from_to(_day(first), _day(last))}</p></header>"
    )


def _tiles(findings: Findings) -> str:
    added, deleted = _total(findings, "lines_added"), _total(findings, "lines_deleted")
    merges = _total(findings, "merges")
    counts: list[int] = findings.authors["commits"].to_pylist()
    half, needed = sum(counts) / 2, 0
    while half > 0 and needed < len(counts):
        half -= counts[needed]
        needed += 1
    entries = [
        ("Commits", compact(sum(counts)), f"{compact(merges)} of them merges"),
        ("People", compact(len(counts)), f"{compact(needed)} wrote half of it"),
        ("Active months", compact(len(findings.summaries)), f"of {_span(findings.summaries)} since the first"),
        ("Files", compact(findings.hotspots.num_rows), "that ever were changed"),
        ("Lines added", compact(added), f"{compact(deleted)} deleted"),
    ]
    tiles = (f"<div><dt>{name}</dt><dd>{value}<small>{more}</small></dd></div>" for name, value, more in entries)
    return f'<dl class="tiles">{"".join(tiles)}</dl>'


def _activity(findings: Findings, drawn: list[Period], kept: list[date]) -> str:
    weeks: list[date] = findings.weekly["week"].to_pylist()
    if len(kept) == len(findings.summaries) and (weeks[-1] - weeks[0]).days < 7 * _SHORT:
        marks, each = _weeks(weeks, findings.weekly["commits"].to_pylist()), "week"
    else:
        marks, each = _marks((period, period.commits, 0) for period in drawn), drawn[0].span
    busiest = max(marks, key=lambda mark: mark.value)
    text = f"Busiest: {busiest.label} with {_count(busiest.value, 'commit')}."
    stray = sum(findings.summaries[month]["commits"] for month in findings.summaries.keys() - set(kept))
    if stray:
        text += f" {_count(stray, 'commit')} with stray dates, years away from all others, not drawn."
    title = f"Commits by {each}"
    chart = charts.area(marks, title=title, description=text, unit="commits")
    return _section(title, text, chart)


def _lines(drawn: list[Period]) -> str:
    marks = _marks((period, period.added, period.deleted) for period in drawn)
    title = f"Lines added and deleted by {drawn[0].span}"
    added, deleted = sum(mark.value for mark in marks), sum(mark.below for mark in marks)
    text = f"In all {_count(added, 'line')} added, {deleted:,} deleted."
    chart = charts.columns(marks, title=title, description=text, units=("lines added", "deleted"))
    legend = "".join(
        f'<span><svg class="key {kind}" aria-hidden="true"><rect width="10" height="10" rx="3"/></svg>'
        f"{name}</span>"
        for kind, name in (("plus", "added"), ("minus", "deleted"))
    )
    return _section(title, "", f'<p class="note legend">{legend}</p>{chart}')


def _people_over_time(drawn: list[Period]) -> str:
    marks = _marks((period, period.authors, 0) for period in drawn)
    text = f"At most {_count(max(mark.value for mark in marks), 'person', 'people')} in one month."
    chart = charts.area(marks, title="People active in a month", description=text, unit="people")
    return _section("People active in a month", text, chart)


def _hours(hours: pa.Table) -> str:
    counts = {(row["weekday"], row["hour"]): row["commits"] for row in hours.to_pylist()}
    total = sum(counts.values()) or 1
    weekend = sum(count for (weekday, _), count in counts.items() if weekday > 4)
    text = f"On the clock of each author. {100 * weekend / total:.0f} % were written on a weekend."
    title = "When commits are written"
    return _section(title, text, charts.heat_map(counts, title=title, description=text, unit="commits"))


def _authors(findings: Findings) -> str:
    rows = findings.authors.slice(0, _SHOWN).to_pylist()
    top = max((row["commits"] for row in rows), default=1)
    cells = [
        (
            f"{isolated(row['name'] or row['email'] or '(no name)', limit=60)}{charts.bar(row['commits'] / top)}"
            f"<small>{_from_to(_day(row['first_commit']), _day(row['last_commit']))}</small>",
            f"{row['commits']:,}",
        )
        for row in rows
    ]
    return _section(
        "Most active people", "", _list(("Author", "Commits"), cells) + _more(findings.authors, "people")
    )


def _hotspots(hotspots: pa.Table) -> str:
    rows = hotspots.slice(0, _SHOWN).to_pylist()
    top = max((row["changes"] for row in rows), default=1)
    cells = [
        (
            f'<span class="path">{isolated(row["path"], limit=90)}</span>{charts.bar(row["changes"] / top)}'
            f"<small>+{compact(row['added'])} −{compact(row['deleted'])} lines</small>",
            f"{row['changes']:,}",
        )
        for row in rows
    ]
    return _section("Hot spots", "", _list(("File", "Changes"), cells) + _more(hotspots, "files"))


def _coupled(coupled_files: pa.Table) -> str:
    cells = [
        (
            f'<span class="path">{isolated(row["left"], limit=90)}{isolated(row["right"], limit=90)}</span>',
            f"{100 * row['share']:.0f} %",
            f"{row['together']:,}",
        )
        for row in coupled_files.slice(0, _SHOWN).to_pylist()
    ]
    note = (
        "Share: of the commits that touch one of the two, those that touch both. Commits with more than "
        f"{MAX_FILES_FOR_PAIRS} files are not counted."
    )
    return _section("Files that change together", note, _list(("Pair", "Share", "Commits"), cells))


def _section(title: str, note: str, content: str) -> str:
    shown = f'<p class="note">{escape(note, limit=400)}</p>' if note else '<p class="note"></p>'
    return f"<section><h2>{escape(title)}</h2>{shown}{content}</section>"


def _list(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Build a table of ready-made cells: the first column is text, the others are numbers."""
    body = "".join(
        f'<tr><td class="what">{row[0]}</td>{"".join(f"<td class=number>{cell}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    if not body:
        return '<p class="more">None.</p>'
    numbers = "".join(f'<th scope="col" class="number">{head}</th>' for head in heads[1:])
    return f'<table><thead><tr><th scope="col">{heads[0]}</th>{numbers}</tr></thead><tbody>{body}</tbody></table>'


def _more(table: pa.Table, what: str) -> str:
    rest = table.num_rows - _SHOWN
    return f'<p class="more">and {rest:,} more {what}</p>' if rest > 0 else ""


def _marks(series: Iterable[tuple[Period, int, int]]) -> list[Mark]:
    return [
        Mark(period.label, value, below, str(period.year) if place == 0 or period.starts_year else "")
        for place, (period, value, below) in enumerate(series)
    ]


def _weeks(weeks: list[date], commits: list[int]) -> list[Mark]:
    known = dict(zip(weeks, commits, strict=True))
    days = (date.fromordinal(day) for day in range(weeks[0].toordinal(), weeks[-1].toordinal() + 1, 7))
    return [
        Mark(
            f"week of {_day(day)}",
            known.get(day, 0),
            tick=f"{day:%b} {day.year}" if day.day <= 7 or day == weeks[0] else "",
        )
        for day in days
    ]


def _total(findings: Findings, key: str) -> int:
    return sum(int(str(summary.get(key, 0))) for summary in findings.summaries.values())


def _span(months: Iterable[date]) -> str:
    first, *_, last = [*sorted(months)] * 2
    return compact((last.year - first.year) * 12 + last.month - first.month + 1)


def _from_to(first: str, last: str) -> str:
    return first if first == last else f"{first} – {last}"


def _day(at: str | date) -> str:
    day = datetime.fromisoformat(at) if isinstance(at, str) else at
    return f"{day.day} {day:%b} {day.year}"


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
