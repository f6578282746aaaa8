from __future__ import annotations

import io
from datetime import UTC, date, datetime
from pathlib import Path

import hostile
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile import Stream, modify, rename

from git_history import analysis, tables
from git_history.repository import Repository


def history(path: Path) -> tuple[pa.Table, pa.Table]:
    repository = Repository.open(path)
    months = repository.months()
    commits = tables.in_order({month: tables.commits_table(repository, month) for month in reversed(months)})
    changes = tables.in_order({month: tables.file_changes_table(repository, month) for month in months})
    return commits, changes


def as_parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def everything(path: Path) -> list[pa.Table]:
    commits, changes = history(path)
    return [
        commits,
        changes,
        analysis.authors(commits),
        analysis.weekly_activity(commits),
        analysis.working_hours(commits),
        analysis.hotspots(changes),
        analysis.coupled_files(changes),
    ]


def test_the_same_repository_gives_the_same_bytes_and_parquet_keeps_them(
    hostile_path: Path, tmp_path: Path
) -> None:
    first = everything(hostile_path)
    hostile.run_git(tmp_path, "clone", "-q", "--bare", f"file://{hostile_path}", "copy")
    hostile.run_git(tmp_path / "copy", "repack", "-qad")
    hostile.run_git(tmp_path / "copy", "commit-graph", "write", "--reachable")
    for before, after in zip(first, everything(tmp_path / "copy"), strict=True):
        before.validate(full=True)
        assert as_parquet(before) == as_parquet(after)
        assert pq.read_table(io.BytesIO(as_parquet(before))).equals(before)


def test_a_month_without_commits_gives_empty_tables(hostile_path: Path) -> None:
    repository, month = Repository.open(hostile_path), date(1999, 1, 1)
    commits, changes = tables.commits_table(repository, month), tables.file_changes_table(repository, month)
    assert (commits.schema, commits.num_rows) == (tables.COMMITS, 0)
    assert (changes.schema, changes.num_rows) == (tables.FILE_CHANGES, 0)
    assert analysis.month_summary(commits, changes)["first_commit"] == ""
    assert analysis.authors(commits).num_rows == analysis.coupled_files(changes).num_rows == 0


def test_month_summary(tmp_path: Path) -> None:
    stream = Stream()
    stream.commit(modify(b"a", b"1\n2\n3\n4\n"), modify(b"pic", b"\0\1"), date=b"1700000000 +0000")
    stream.commit(rename(b"a", b"b"), author=b"ANN <ANN@example.org>", date=b"1700000100 +0000")
    stream.commit(modify(b"b", b"1\n2\n3\n"), author=b"Bob <bob@example.org>", date=b"1700000050 +0000")
    commits, changes = history(stream.into(tmp_path / "r"))
    assert analysis.month_summary(commits, changes) == {
        "commits": 3,
        "merges": 0,
        "authors": 2,
        "files_changed": 3,
        "renames": 1,
        "binary_changes": 1,
        "lines_added": 4,
        "lines_deleted": 1,
        "first_commit": "2023-11-14T22:13:20+00:00",
        "last_commit": "2023-11-14T22:15:00+00:00",
    }


def test_authors_are_addresses_with_their_last_name(tmp_path: Path) -> None:
    stream = Stream()
    for name, seconds in ((b"Ann <a@x>", 0), (b"Bob <b@x>", 10), (b"Ann Lee <A@X>", 40 * 86400), (b"Solo <>", 20)):
        stream.commit(author=name, date=b"%d +0000" % (1700000000 + seconds))
    rows = analysis.authors(history(stream.into(tmp_path / "r"))[0]).to_pylist()
    assert [(row["email"], row["name"], row["commits"], row["active_months"]) for row in rows] == [
        ("a@x", "Ann Lee", 2, 2),
        ("", "Solo", 1, 1),
        ("b@x", "Bob", 1, 1),
    ]
    assert rows[0]["first_commit"] == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


def test_hotspots_follow_renames_but_not_a_reused_name(tmp_path: Path) -> None:
    old, new = (b"".join(b"%s %d\n" % (word, line) for line in range(20)) for word in (b"old", b"new"))
    stream = Stream()
    stream.commit(modify(b"a", old))
    stream.commit(rename(b"a", b"b"))
    stream.commit(modify(b"a", new))  # another file of that name
    stream.commit(modify(b"a", new + b"x\n"))
    stream.commit(rename(b"b", b"c"))
    rows = analysis.hotspots(history(stream.into(tmp_path / "r"))[1]).to_pylist()
    assert [(row["path"], row["changes"], row["added"]) for row in rows] == [("c", 3, 20), ("a", 2, 21)]


def test_coupled_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream()
    for number in range(4):
        stream.commit(modify(b"a", b"%d\n" % number), modify(b"b", b"%d\n" % number))
    stream.commit(modify(b"a", b"alone\n"))
    for number in range(5):  # too many files at once to mean anything
        stream.commit(*(modify(b"f%d" % file, b"%d\n" % number) for file in range(51)))
    changes = history(stream.into(tmp_path / "r"))[1]
    expected = [{"left": "a", "right": "b", "together": 4, "share": 0.8}]
    assert analysis.coupled_files(changes).to_pylist() == expected
    monkeypatch.setattr(analysis, "MAX_PAIRED_FILES", 1)
    assert analysis.coupled_files(changes).num_rows == 0


def test_weeks_and_hours(tmp_path: Path) -> None:
    stream = Stream()
    stream.commit(date=b"1700000000 +0000", author_date=b"1700000000 -1200")  # Tuesday 22:13 UTC
    stream.commit(date=b"1700000000 +0000", author_date=b"1700000000 +0200")
    stream.commit(date=b"253402300799 +0000", author_date=b"253402300799 +1400")  # the last second of all
    commits, _ = history(stream.into(tmp_path / "r"))
    assert analysis.weekly_activity(commits).to_pylist() == [
        {"week": date(2023, 11, 13), "commits": 2, "authors": 1},
        {"week": date(9999, 12, 27), "commits": 1, "authors": 1},
    ]
    hours = [(row["weekday"], row["hour"]) for row in analysis.working_hours(commits).to_pylist()]
    assert hours == [(1, 10), (2, 0), (4, 23)]


def test_weeks_at_the_start_of_the_calendar() -> None:
    start = datetime(1, 1, 1, tzinfo=UTC)
    commits = tables.build(tables.COMMITS, [("a" * 40, 0, start, start, -60, "A", "a@x", "")])
    assert analysis.weekly_activity(commits)["week"].to_pylist() == [date(1, 1, 1)]
    assert analysis.working_hours(commits).to_pylist() == [{"weekday": 0, "hour": 0, "commits": 1}]
    assert [commit.committed_at for commit in tables.read_commits(commits)] == [start]


@pytest.mark.slow
def test_fifty_thousand_commits(tmp_path: Path) -> None:
    repository = Repository.open(hostile.long_repository(tmp_path / "long", 50_000))
    months = repository.months()
    assert (months[0], len(months)) == (date(2005, 1, 1), 165)
    assert sum(1 for month in months for _ in repository.commits(month)) == 50_000
    assert tables.file_changes_table(repository, months[7]).num_rows == 310
