"""`runs ls` with the filter of the pages, runs of automations folded, `runs show`, `backfills`."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.cli.conftest import CommandLine

from flowstone import FlowStone, MonthlyPartitions, asset
from flowstone.cli.materialize import progress_in_words
from flowstone.cli.runs import _Fold, _folded, read_filter
from flowstone.core.paging import Page
from flowstone.core.run_filter import RunFilter
from flowstone.engine.insights.runs import RunCounts, RunLine
from flowstone.errors import OptionsError

MONTHS = MonthlyPartitions("2024-01", end="2024-06")


@pytest.fixture
def recorded(database_url: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of three runs: a backfill with failures, one asset with a tag, a retry that fails again."""

    @asset(partitions=MONTHS)
    def orders(context: Any) -> int:
        if context.partition.month in (2, 3):
            raise ValueError(f"no prices in month {context.partition.month}")
        return 1

    @asset
    def plain() -> int:
        return 1

    monkeypatch.setenv("FLOWSTONE_DATABASE_URL", database_url)
    with FlowStone([orders, plain]) as flow:
        first = flow.backfill("orders", executor="sync")
        second = flow.materialize("plain", executor="sync", tags=["month end"])
        third = flow.runs.retry(first.run_id, executor="sync")
    return [first.run_id, second.run_id, third.run_id]


def ids(cli: CommandLine, *words: str) -> list[str]:
    answer = cli("runs", *words, "--json")
    assert answer.code == 0, answer.err
    return [run["id"] for run in answer.json["runs"]]


def test_the_filter_of_the_pages(cli: CommandLine, recorded: list[str]) -> None:
    first, second, third = recorded
    assert ids(cli) == ids(cli, "ls") == [third, second, first]
    assert (
        ids(cli, "state:failed")
        == ids(cli, "--state", "failed")
        == ids(cli, "--json", "state:failed")
        == [third, first]
    )
    assert ids(cli, "state:failed -kind:retry") == [first]
    assert ids(cli, "state:failed", "--not", "kind:retry") == [first]
    assert ids(cli, "--asset", "plain") == ids(cli, "tag:month end") == ids(cli, "--tag", "month end") == [second]
    assert ids(cli, "since:1h", "--until", "2000-01-01") == []
    assert ids(cli, "--kind", "backfill", "--kind", "materialize") == [second, first]
    page = cli("runs", "--limit", "2", "--json").json
    assert (page["total"], len(page["runs"])) == (3, 2)
    assert ids(cli, "--cursor", page["next"]) == [first]
    assert "The first 2 of 3 runs" in cli("runs", "--limit", "2").err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("stat:failed",), "Did you mean 'state'?"),
        (("--state", "faild"), "Did you mean 'failed'?"),
        (("since:soon",), "is no time"),
        (("--cursor", "x"), "cursor"),
        (("since:1h", "--since", "2h"), "twice"),
        (("--not", "x"), "no word of a filter"),
        (("--watch",), "--watch"),
        (("shw",), "Did you mean 'show'?"),
        (("no-such-run",), "no-such-run"),
        (("show",), "RUN"),
    ],
)
def test_what_cannot_be_read_is_named(
    cli: CommandLine, database_url: str, words: tuple[str, ...], message: str
) -> None:
    answer = cli("runs", *words, "--json", "--database", database_url)
    assert answer.code == 2
    assert message in answer.err


def test_a_run_shows_why_it_failed_and_its_few_steps(cli: CommandLine, recorded: list[str]) -> None:
    shown = cli("runs", "show", recorded[0])
    assert "ValueError: no prices in month" in shown.out
    assert shown.out.count("no prices in month") >= 2  # as a reason, and at the steps
    document = cli("runs", "show", recorded[0], "--json").json
    assert len(document["steps"]) == 6
    assert [one["number"] for one in document["errors"]] == [2]
    assert [
        step["state"] for step in cli("runs", "show", recorded[0], "--state", "failed", "--json").json["steps"]
    ] == [
        "failed",
        "failed",
    ]
    assert cli("runs", recorded[0]).out == shown.out == cli("status", recorded[0]).out


MONTHLY = """
from datetime import date

from flowstone import FlowStone, MonthlyPartitions, RunRequest, asset, check, sensor

@asset(partitions=MonthlyPartitions("2024-01", end="2024-06"))
def orders(context):
    if context.partition.month == 2:
        raise ValueError("no prices")
    return 1

@check(orders)
def never(orders):
    return False

@sensor(selection="orders")
def inbox(context):
    return RunRequest(selection="orders", partition=date(2024, 3, 1))

flow = FlowStone([orders], checks=[never], sensors=[inbox])
"""


def test_months_are_months_everywhere(
    cli: CommandLine, tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """A month that is written as a date somewhere is not found by it elsewhere (mozilla/bigquery-etl#3303)."""
    (tmp_path / "monthly.py").write_text(MONTHLY)
    monkeypatch.setenv("FLOWSTONE_APP", "monthly")
    monkeypatch.setenv("FLOWSTONE_DATABASE_URL", database_url)
    done = cli("backfill", "orders", "--from", "2024-01", "--to", "2024-03", "--executor", "sync")
    run = cli("runs", "--json").json["runs"][0]["id"]
    shown = [
        done.out + done.err,
        cli("runs").out,
        cli("runs", "show", run).out,
        cli("runs", "show", run, "--json").out,
        cli("backfills", "--all").out,
        cli("status", cli("runs", "show", run, "--json").json["failed_steps"][0]["id"]).out,
        cli("why", "orders", "--partition", "2024-02").out,
        cli("plan", "orders", "--from", "2024-01", "--to", "2024-05").out,
        cli("checks").out,
        cli("lineage", "orders", "--partition", "2024-01").out,
        cli("history", "orders").out,
        cli("sensors", "preview", "inbox").out,
        *(record.getMessage() for record in caplog.records),
    ]
    for text in shown:
        assert not re.search(r"2024-0\d-01(?![\dT ])", text), text
    assert "2024-01..2024-03 (3)" in shown[1]
    command = next(line for line in shown[2].splitlines() if "the same again" in line)
    assert cli("plan", *shlex.split(command.split("flowstone backfill ")[1])).code == 0
    assert "would run orders [2024-03]: 1 step" in shown[11]


def test_backfills_that_are_over_are_listed_when_asked_for(cli: CommandLine, recorded: list[str]) -> None:
    assert "No backfill is under way" in cli("backfills").err
    assert [one["id"] for one in cli("backfills", "--all", "--json").json["backfills"]] == [recorded[0]]
    assert "6/6" in cli("backfills", "--all").out
    assert cli("backfills", recorded[0]).out == cli("runs", "show", recorded[0]).out


AT = datetime(2024, 1, 1, tzinfo=UTC)
LINE = RunLine(
    id="r",
    kind="schedule",
    selection="+report",
    partitions="",
    state="completed",
    paused=False,
    process_lost=False,
    counts=RunCounts(total=1, succeeded=1, failed=0, cancelled=0, running=0, waiting=0),
    created_at=AT,
    finished_at=AT,
    took_seconds=1.0,
    left_seconds=None,
    requested_by=None,
    via="automation",
    automation="nightly",
    tags=(),
    assets=("report",),
    executor="oban",
    priority=4,
    window=None,
    retry_of=None,
    parent=None,
)


def listing(lines: list[RunLine], *, limit: int = 20, unfold: bool = False) -> tuple[list[Any], str]:
    def read(_: RunFilter, *, cursor: str | None, limit: int) -> Page[RunLine]:
        start = int(cursor or 0)
        end = start + limit
        return Page(tuple(lines[start:end]), str(end) if end < len(lines) else None, len(lines))

    flow: Any = SimpleNamespace(insights=SimpleNamespace(runs=read))
    return _folded(flow, RunFilter(), limit, None, unfold=unfold)


def test_runs_of_an_automation_that_went_well_are_one_line() -> None:
    """A schedule of every minute would hide what a person started."""
    lines = [replace(LINE, id=f"r{number}", created_at=AT - timedelta(minutes=number)) for number in range(300)]
    lines[5] = replace(lines[5], state="failed")
    lines[150] = replace(lines[150], automation=None, requested_by="ann", kind="backfill")
    found, rest = listing(lines)
    assert rest == ""
    assert [one.newest.id if isinstance(one, _Fold) else one.id for one in found] == ["r0", "r5", "r150"]
    assert found[0].row()[2] == "298 runs of nightly"
    assert [one.id for one in listing(lines[:2])[0]] == ["r0", "r1"]
    unfolded, rest = listing(lines, limit=20, unfold=True)
    assert ([one.id for one in unfolded], rest) == ([f"r{number}" for number in range(20)], "first 20 of 300 runs")


def test_filters_are_one_however_they_are_written() -> None:
    assert str(read_filter(None, None)) == ""
    assert (
        read_filter(["tag:a b"])
        == read_filter(None, tag=["a b"])
        == read_filter(['tag:"a b" since:1h'], None, since=None).__class__(tag=("a b",))
    )
    with pytest.raises(OptionsError):
        read_filter([""])


def test_progress_says_what_failed_runs_and_waits() -> None:
    progress: Any = SimpleNamespace(total=10, done=3, failed=0, running=0, waiting_for=())
    assert progress_in_words(progress) == ["7 waiting"]
    progress = SimpleNamespace(total=3, done=3, failed=3, running=0, waiting_for=())
    assert progress_in_words(progress) == ["3 failed"]
