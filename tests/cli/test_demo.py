from __future__ import annotations

import subprocess
from datetime import date
from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine

from flowstone.cli.demo import Record

MONTHS = ("2024-01", "2024-02", "2024-03")


def commit(repository: Path, month: str, text: str) -> None:
    """Add a commit with a file of this text, made in the middle of a month."""
    when = f"{month}-15T12:00:00+00:00"
    (repository / "file.txt").write_text(text)
    who = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "commit.gpgsign=false"]
    git = ["git", "-C", str(repository), *who]
    environment = {"GIT_COMMITTER_DATE": when, "GIT_AUTHOR_DATE": when, "PATH": "/usr/bin:/bin:/usr/local/bin"}
    subprocess.run([*git, "add", "."], check=True, env=environment)
    subprocess.run([*git, "commit", "-q", "-m", text], check=True, env=environment)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with three months."""
    path = tmp_path / "project"
    subprocess.run(["git", "init", "-q", str(path)], check=True)
    for month in MONTHS:
        commit(path, month, month)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["async", "oban"])
def test_demo_computes_then_reuses_then_follows_the_repository(
    cli: CommandLine, repository: Path, tmp_path: Path, executor: str
) -> None:
    arguments = ("demo", "--repo", str(repository), "--data", "data", "--executor", executor, "--workers", "1")
    first = cli(*arguments, "--json")
    assert first.code == 0, first.err
    assert (first.json["computed"], first.json["reused"], first.json["failed"]) == (15, 0, 0)
    report = Path(first.json["report"])
    assert report.read_text().startswith("<!doctype html>")

    again = cli(*arguments, "--json")
    assert again.code == 0, again.err
    assert (again.json["computed"], again.json["reused"], again.json["workers"]) == (0, 15, 0)

    commit(repository, MONTHS[-1], "another one in March")
    changed = cli(*arguments, "--json").json
    counted = {one["asset"]: one["computed"] for one in changed["assets"]}
    assert (counted["commits"], counted["month_summary"], counted["authors"], counted["report"]) == (1, 1, 1, 1)
    assert changed["reused"] == 6

    shown = cli(*arguments)
    assert "15 reused" in shown.out
    assert str(report) in shown.out
    assert not list((tmp_path / "data").glob("*/postgres/data/postmaster.pid"))


def test_what_is_no_repository(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    subprocess.run(["git", "init", "-q", "empty"], check=True)
    for path, message in (("nowhere", "no such directory"), ("empty", "no commits")):
        answer = cli("demo", "--repo", path)
        assert answer.code == 2
        assert message in answer.err
        assert len(answer.err.splitlines()) == 1
    assert not (tmp_path / ".flowstone").exists()


def test_shallow_repository(cli: CommandLine, repository: Path) -> None:
    subprocess.run(["git", "clone", "-q", "--depth", "1", repository.as_uri(), "shallow"], check=True)
    answer = cli("demo", "--repo", "shallow")
    assert answer.code == 2
    assert "--unshallow" in answer.err


@pytest.mark.parametrize("since", ["2024", "2024-13", "soon", "0000-01"])
def test_since_is_a_month(cli: CommandLine, repository: Path, since: str) -> None:
    answer = cli("demo", "--repo", str(repository), "--since", since)
    assert answer.code == 2
    assert "--since" in answer.err


JANUARY, FEBRUARY = date(2024, 1, 1), date(2024, 2, 1)


def test_record_of_a_first_call() -> None:
    record = Record().advanced({JANUARY: "a"}, "code")
    assert (record.stale, record.overall_stale) == ([], True)
    assert not record.done().overall_stale


def test_an_interrupted_call_is_neither_forgotten_nor_repeated() -> None:
    record = Record().advanced({JANUARY: "a"}, "code").done()
    interrupted = record.advanced({JANUARY: "b"}, "code")
    resumed = interrupted.advanced({JANUARY: "b"}, "code")
    assert (resumed.stale, resumed.overall_stale) == (["2024-01-01"], True)
    assert resumed.done().advanced({JANUARY: "b"}, "code") == resumed.done()


def test_leaving_months_out_remakes_only_what_covers_them_all() -> None:
    full = Record().advanced({JANUARY: "a", FEBRUARY: "b"}, "code").done()
    partial = full.advanced({FEBRUARY: "b"}, "code")
    assert (partial.stale, partial.overall_stale) == ([], True)
    back = partial.done().advanced({JANUARY: "a", FEBRUARY: "b"}, "code")
    assert (back.stale, back.overall_stale) == ([], True)


def test_other_code_makes_every_month_stale_also_those_left_out() -> None:
    full = Record().advanced({JANUARY: "a", FEBRUARY: "b"}, "code").done()
    partial = full.advanced({FEBRUARY: "b"}, "other").done()
    assert partial.stale == ["2024-01-01"]
    assert partial.advanced({JANUARY: "a", FEBRUARY: "b"}, "other").stale == ["2024-01-01"]


def test_record_survives_the_disk_and_damage(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "record.json"
    assert Record.read(path) is None
    record = Record().advanced({JANUARY: "a"}, "code")
    record.write(path)
    assert Record.read(path) == record
    path.write_text("{")
    assert Record.read(path) is None
