"""From months to at most a few hundred bars: whatever the life of a repository, its chart stays readable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from git_history.analysis import MonthSummary

MAX_PERIODS = 240
"""Twenty years by month, then quarters, years and so on."""
_STEPS = (1, 3, 12, 60, 120, 600, 1200)  # months
_OUTLIER_SHARE = 0.01
_OUTLIER_GAP = 24  # months


@dataclass(frozen=True, slots=True)
class Period:
    """What happened in some months.

    Args:
        label: such as `March 2024`, `2024 Q1`, `2024`, `2020–2029`.
        span: how long it is: `month`, `quarter`, `year`, `period of 10 years`.
        year: the year it begins in.
        starts_year: whether it is the first period of that year.
        commits: number of commits.
        authors: most authors in one of its months.
        added: lines added.
        deleted: lines deleted.
    """

    label: str
    span: str
    year: int
    starts_year: bool
    commits: int = 0
    authors: int = 0
    added: int = 0
    deleted: int = 0


def main_months(summaries: Mapping[date, MonthSummary]) -> list[date]:
    """Leave out stray dates: months before or after a gap of two years that hold at most 1 % of the commits.

    A single commit from a machine whose clock said 1970 would otherwise squeeze the real history into a
    corner.

    Args:
        summaries: by month.

    Returns:
        The months to draw, in order.
    """
    months = sorted(summaries)
    allowed = sum(summary["commits"] for summary in summaries.values()) * _OUTLIER_SHARE
    start = _strays([summaries[month]["commits"] for month in months], months, allowed)
    rest = months[start:][::-1]
    end = _strays([summaries[month]["commits"] for month in rest], rest, allowed)
    return rest[end:][::-1]


def periods(summaries: Mapping[date, MonthSummary]) -> list[Period]:
    """Group months into equally long periods without gaps.

    Args:
        summaries: the months to draw (see `main_months`); at least one.

    Returns:
        At most about `MAX_PERIODS` periods, oldest first.
    """
    numbers = {month.year * 12 + month.month - 1: summary for month, summary in summaries.items()}
    first, last = min(numbers), max(numbers)
    step = next((step for step in _STEPS if (last - first) // step < MAX_PERIODS), _STEPS[-1])
    drawn = [
        Period(_label(start, step), _span(step), start // 12, start // 12 != (start - step) // 12)
        for start in range(first - first % step, last + 1, step)
    ]
    for number, summary in numbers.items():
        place = number // step - first // step
        known = drawn[place]
        drawn[place] = replace(
            known,
            commits=known.commits + summary["commits"],
            authors=max(known.authors, summary["authors"]),
            added=known.added + summary["lines_added"],
            deleted=known.deleted + summary["lines_deleted"],
        )
    return drawn


def _strays(commits: Sequence[int], months: Sequence[date], allowed: float) -> int:
    """Return how many of the first months lie beyond the last wide gap that few enough commits precede."""
    cut, seen = 0, 0
    for place in range(1, len(months)):
        seen += commits[place - 1]
        if seen > allowed:
            break
        here, before = months[place], months[place - 1]
        if abs((here.year - before.year) * 12 + here.month - before.month) > _OUTLIER_GAP:
            cut = place
    return cut


def _label(start: int, step: int) -> str:
    year, month = divmod(start, 12)
    if step == 1:
        return f"{date(2000, month + 1, 1):%B} {year}"
    if step == 3:
        return f"{year} Q{month // 3 + 1}"
    return str(year) if step == 12 else f"{year}–{year + step // 12 - 1}"


def _span(step: int) -> str:
    return {1: "month", 3: "quarter", 12: "year"}.get(step) or f"period of {step // 12} years"
