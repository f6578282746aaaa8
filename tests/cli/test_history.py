"""Commands that look at earlier ones: each call below is a new app on the same database."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine

from flowstone import FlowStone, asset


@pytest.fixture
def recorded(shop: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The shop, recording in PostgreSQL and run in this process."""
    monkeypatch.setenv("FLOWSTONE_DATABASE_URL", database_url)
    monkeypatch.setenv("FLOWSTONE_EXECUTOR", "sync")
    return database_url


def test_runs_status_cancel(cli: CommandLine, recorded: str) -> None:
    assert cli("materialize", "numbers").code == 0
    assert cli("materialize", "broken").code == 1
    assert cli("backfill", "group:sales", "--partitions", "2024-01-04,2024-01-05").code == 1

    listed = cli("runs", "--json").json["runs"]
    assert [run["state"] for run in listed] == ["failed", "failed", "completed"]
    assert [run["state"] for run in cli("runs", "--state", "completed", "--json").json["runs"]] == ["completed"]
    assert len(cli("runs", "--limit", "1", "--json").json["runs"]) == 1
    assert listed[0]["id"] in cli("runs").out

    failed = cli("runs", listed[0]["id"], "--json").json
    assert {step["asset"] for step in failed["failed_steps"]} == {"orders", "cleaned"}
    assert failed["counts"] == {"completed": 2, "failed": 1, "upstream_failed": 1}
    shown = cli("status", listed[0]["id"]).out
    assert "no [red]orders[/red] today" in shown
    assert "2024-01-05" in shown

    step_id = next(step["id"] for step in failed["failed_steps"] if step["asset"] == "orders")
    step = cli("status", step_id, "--json").json
    assert (step["kind"], step["partition"], step["state"]) == ("step", "2024-01-05", "failed")
    assert [attempt["attempt"] for attempt in step["attempts"]] == [1]
    assert "ValueError" in cli("status", step_id).out

    cancelled = cli("cancel", step_id, "--json").json
    assert (cancelled["before"], cancelled["state"]) == ("failed", "failed")
    assert "over already" in cli("cancel", listed[0]["id"]).out


def test_a_cancel_says_that_it_is_recorded_and_how_it_ended_with_the_steps(
    cli: CommandLine, recorded: str
) -> None:
    one, other = (asset(name=name)(lambda: 1) for name in ("numbers", "broken"))
    with FlowStone([one, other], database_url=recorded) as flow:
        job, alone = flow.schedule("numbers", executor="oban"), flow.schedule("broken", executor="oban")
    answer = cli("cancel", job.run_id)
    assert f"The cancel is recorded: run {job.run_id} is cancelled." in answer.out
    assert "1 cancelled before it started" in answer.out
    assert cli("runs", job.run_id, "--json").json["cancelled_steps"][0]["reason"] == "cancelled before it started"
    assert "cancelled before it started" in cli("runs", job.run_id).out
    answer = cli("cancel", str(alone.id), "--json").json
    assert (answer["state"], answer["recorded"]) == ("cancelled", True)
    assert cli("cancel", str(alone.id), "--json").json["recorded"] is False


def test_what_is_committed_is_counted_and_reused(cli: CommandLine, recorded: str) -> None:
    assert cli("backfill", "orders", "--partitions", "2024-01-01,2024-01-02").code == 0
    orders = cli("ls", "orders", "--json").json["assets"][0]
    assert orders["committed_partitions"] == 2
    assert cli("materialize", "orders", "--partition", "2024-01-01", "--json").json["state"] == "reused"
    assert cli("plan", "orders", "--partition", "2024-01-01", "--json").json["reuses"] == 1
    assert cli("plan", "orders", "--partition", "2024-01-01", "--force", "--json").json["runs"] == 1


@pytest.mark.parametrize("command", ["status", "cancel"])
def test_unknown_ids(cli: CommandLine, recorded: str, command: str) -> None:
    for identifier in ("no-such-run", "99999999"):
        answer = cli(command, identifier)
        assert answer.code == 2
        assert "flowstone runs" in answer.err


def test_memory_says_that_it_forgets(cli: CommandLine, shop: Path) -> None:
    answer = cli("runs")
    assert answer.code == 0
    assert "in memory" in answer.err


def test_a_database_that_is_down_is_one_line(
    cli: CommandLine, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWSTONE_DATABASE_URL", "postgresql://me:hunter2@127.0.0.1:1/none")
    for arguments in (("ls",), ("runs",), ("materialize", "numbers"), ("db", "status")):
        answer = cli(*arguments)
        assert answer.code == 1
        assert "does not answer" in answer.err
        assert "hunter2" not in answer.err
        assert len(answer.err.splitlines()) == 1
    assert cli("runs", "--json").json["error"]["type"] == "DatabaseUnavailableError"


def test_history_of_an_asset_that_is_gone(
    cli: CommandLine, shop: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWSTONE_DATABASE_URL", database_url)
    assert cli("materialize", "numbers", "--executor", "sync").code == 0
    assert cli("backfill", "region", "--partitions", "eu,us", "--executor", "sync").code == 0
    assert len(cli("history", "region", "--json").json["versions"]) == 2
    assert "eu" in cli("history", "region", "--partition", "eu").out
    refused = cli("prune", "--asset", "region")
    assert (refused.code, "is declared" in refused.err) == (2, True)

    shop.write_text("from flowstone import FlowStone\nflow = FlowStone([])\n")
    gone = cli("history", "region", "--json").json
    assert (gone["declared"], len(gone["versions"])) == (False, 2)
    assert len(cli("history", "region", "--partition", "eu", "--json").json["versions"]) == 1
    assert "declared no more" in cli("history", "numbers").err
    assert cli("history", "never").code == 2

    assert "Would delete 2 steps of region" in cli("prune", "--asset", "region", "--dry-run").out
    assert cli("prune", "--asset", "region", "--json").json["steps"] == 2
    assert cli("history", "region").code == 2
    assert cli("history", "numbers").code == 0
