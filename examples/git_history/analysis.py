"""What the assets compute: pure functions from tables to tables, deterministic down to the order of rows."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from itertools import combinations, groupby
from typing import TypedDict

import pyarrow as pa

from git_history.records import Commit, FileChange
from git_history.tables import (
    AUTHORS,
    COUPLED_FILES,
    HOTSPOTS,
    HOURS,
    WEEKLY,
    build,
    read_changes,
    read_commits,
)

MAX_FILES_FOR_PAIRS = 50
"""Commits that touch more files (reformatting, vendoring) say nothing about which files belong together."""
MAX_PAIRED_FILES = 500
"""Pairs are counted among the most changed files only: at most 124,750 counters, whatever the history."""


class MonthSummary(TypedDict):
    """Numbers of one month, ready for JSON."""

    commits: int
    merges: int
    authors: int
    files_changed: int
    renames: int
    binary_changes: int
    lines_added: int
    lines_deleted: int
    first_commit: str
    last_commit: str


def month_summary(commits: pa.Table, file_changes: pa.Table) -> MonthSummary:
    """Summarize one month.

    Args:
        commits: from `commits_table`.
        file_changes: from `file_changes_table`, same month.

    Returns:
        Plain numbers; the two instants are ISO 8601 in UTC, empty if the month has no commit.
    """
    made = list(read_commits(commits))
    moments = sorted(commit.committed_at for commit in made)
    changes = list(read_changes(file_changes))
    return {
        "commits": len(made),
        "merges": sum(commit.parents > 1 for commit in made),
        "authors": len({_identity(commit) for commit in made}),
        "files_changed": len({change.path for change in changes}),
        "renames": sum(change.previous_path is not None for change in changes),
        "binary_changes": sum(change.added is None for change in changes),
        "lines_added": sum(change.added or 0 for change in changes),
        "lines_deleted": sum(change.deleted or 0 for change in changes),
        "first_commit": moments[0].isoformat() if moments else "",
        "last_commit": moments[-1].isoformat() if moments else "",
    }


def authors(commits: pa.Table) -> pa.Table:
    """Count commits by author, most active first.

    An author is an e-mail address without regard to case, or the name where there is no address. The name
    shown is the one used last.

    Args:
        commits: all commits, oldest first (`in_order`).

    Returns:
        A table with the schema `AUTHORS`.
    """
    counts: Counter[str] = Counter()
    latest: dict[str, tuple[str, str]] = {}
    months: dict[str, set[tuple[int, int]]] = {}
    spans: dict[str, tuple[datetime, datetime]] = {}
    for commit in read_commits(commits):
        who, at = _identity(commit), commit.committed_at
        counts[who] += 1
        known = latest.get(who, ("", ""))[1]
        latest[who] = (commit.author_email.lower(), commit.author_name or known)
        months.setdefault(who, set()).add((at.year, at.month))
        first, last = spans.get(who, (at, at))
        spans[who] = (min(first, at), max(last, at))
    ranked = sorted(counts, key=lambda who: (-counts[who], who))
    return build(AUTHORS, ((*latest[who], counts[who], len(months[who]), *spans[who]) for who in ranked))


def hotspots(file_changes: pa.Table) -> pa.Table:
    """Count how often each file was changed, most often first; renamed files keep their past.

    Args:
        file_changes: all changes, oldest first (`in_order`).

    Returns:
        A table with the schema `HOTSPOTS`, one row for each file that ever was, under its last name.
    """
    changes: Counter[str] = Counter()
    added: Counter[str] = Counter()
    deleted: Counter[str] = Counter()
    history = list(read_changes(file_changes))
    for change, path in zip(history, _latest_names(history), strict=True):
        changes[path] += 1
        added[path] += change.added or 0
        deleted[path] += change.deleted or 0
    ranked = sorted(changes, key=lambda path: (-changes[path], path))
    return build(HOTSPOTS, ((path, changes[path], added[path], deleted[path]) for path in ranked))


def coupled_files(file_changes: pa.Table) -> pa.Table:
    """Find pairs of files that change in the same commits, most often first.

    Bounded: see `MAX_FILES_FOR_PAIRS` and `MAX_PAIRED_FILES`. Pairs that met only once are left out.

    Args:
        file_changes: all changes, oldest first (`in_order`).

    Returns:
        A table with the schema `COUPLED_FILES`; `share` is the part of the commits that touched either file
        of the pair in which both changed (Jaccard index), large commits not counted.
    """
    touched = _files_by_commit(list(read_changes(file_changes)))
    single = Counter(path for paths in touched for path in paths)
    busiest = frozenset(sorted(single, key=lambda path: (-single[path], path))[:MAX_PAIRED_FILES])
    together = Counter(pair for paths in touched for pair in combinations(sorted(paths & busiest), 2))
    rows = [
        (left, right, count, count / (single[left] + single[right] - count))
        for (left, right), count in together.items()
        if count > 1
    ]
    rows.sort(key=lambda row: (-row[2], -row[3], row[0], row[1]))
    return build(COUPLED_FILES, rows)


def weekly_activity(commits: pa.Table) -> pa.Table:
    """Count commits and authors by week; weeks without commits have no row.

    Args:
        commits: all commits.

    Returns:
        A table with the schema `WEEKLY`, oldest first; a week is named by its Monday (UTC, committer date).
    """
    counts: Counter[date] = Counter()
    people: dict[date, set[str]] = {}
    for commit in read_commits(commits):
        day = commit.committed_at.date()
        week = day - timedelta(days=day.weekday())  # the first day of the calendar, 0001-01-01, is a Monday
        counts[week] += 1
        people.setdefault(week, set()).add(_identity(commit))
    return build(WEEKLY, ((week, counts[week], len(people[week])) for week in sorted(counts)))


def working_hours(commits: pa.Table) -> pa.Table:
    """Count commits by weekday and hour on the author's own clock.

    Args:
        commits: all commits.

    Returns:
        A table with the schema `HOURS` (Monday is 0); hours without commits have no row.
    """
    counts: Counter[tuple[int, int]] = Counter()
    for commit in read_commits(commits):
        at = commit.authored_at
        with contextlib.suppress(OverflowError):  # a clamped date of the year 1 or 9999
            at += timedelta(minutes=commit.author_offset_minutes)
        counts[at.weekday(), at.hour] += 1
    return build(HOURS, ((weekday, hour, count) for (weekday, hour), count in sorted(counts.items())))


def _files_by_commit(history: list[FileChange]) -> list[frozenset[str]]:
    """Return the files of each commit under their last names, without the commits that touched too many."""
    named = zip(history, _latest_names(history), strict=True)
    by_commit = groupby(named, key=lambda pair: pair[0].commit)
    touched = (frozenset(name for _, name in group) for _, group in by_commit)
    return [paths for paths in touched if len(paths) <= MAX_FILES_FOR_PAIRS]


def _latest_names(history: list[FileChange]) -> Iterable[str]:
    """Give each change the last name of its file, by walking renames from the newest change to the oldest."""
    latest: dict[str, str] = {}
    names: list[str] = []
    for change in reversed(history):
        name = latest.get(change.path, change.path)
        names.append(name)
        if change.previous_path is not None:
            latest.pop(change.path, None)  # an older file of the same name is another file
            latest[change.previous_path] = name
    return reversed(names)


def _identity(commit: Commit) -> str:
    return commit.author_email.lower() or commit.author_name
