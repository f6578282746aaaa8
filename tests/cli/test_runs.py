"""Commands that look at earlier runs and steer them: each call below is a new app on the same database."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine

from flowstone import FlowStone, asset
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.queue import Lease


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


STEERING = [
    ("why", "numbers"),
    ("pause", "--queue", "assets"),
    ("resume", "--queue", "assets"),
    ("queues",),
    ("scale", "assets", "3"),
    ("workers",),
    ("prune",),
]


@pytest.fixture
def steering_recorded(shop: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The shop, recording in PostgreSQL."""
    monkeypatch.setenv("FLOWSTONE_DATABASE_URL", database_url)
    return database_url


def test_pause_and_resume_a_queue(cli: CommandLine, steering_recorded: str) -> None:
    assert cli("queues", "--json").json == {"queues": []}
    assert cli("pause", "--queue", "assets", "--json").json == {"kind": "queue", "id": "assets", "paused": True}
    (queue,) = cli("queues", "--json").json["queues"]
    assert (queue["name"], queue["paused"], queue["limit"], queue["available"]) == ("assets", True, None, 0)
    assert "yes" in cli("queues").out
    assert "goes on" in cli("resume", "--queue", "assets").out
    assert cli("queues", "--json").json["queues"][0]["paused"] is False


def test_scale(cli: CommandLine, steering_recorded: str) -> None:
    assert cli("scale", "backfill", "7", "--json").json == {"kind": "queue", "id": "backfill", "limit": 7}
    assert cli("queues", "--json").json["queues"][0]["limit"] == 7
    assert "7 (set; no worker serves it)" in cli("queues").out
    assert "flowstone scale backfill --reset" in cli("scale", "backfill", "8").out
    assert cli("scale", "backfill", "--reset", "--json").json == {"kind": "queue", "id": "backfill", "limit": None}
    assert (cli("queues", "--json").json["queues"][0]["limit"], cli("scale", "backfill").code) == (None, 2)
    assert cli("scale", "backfill", "5", "--reset").code == 2
    for limit in ("0", "1001"):
        answer = cli("scale", "backfill", limit)
        assert (answer.code, "1 to 1000" in answer.err) == (2, True)
    assert cli("scale", "backfill", "many").code == 2


def test_typing_errors_are_answered(cli: CommandLine, steering_recorded: str) -> None:
    answers = [
        (cli("pause", "--queue", "asets"), "Did you mean 'assets'?"),
        (cli("why", "numbres"), "Did you mean 'numbers'?"),
        (cli("why", "orders", "--partition", "2025-01-01"), "2025-01-01"),
        (cli("why", "orders"), "say which partition"),
        (cli("pause"), "flowstone pause RUN"),
        (cli("resume", "x", "--queue", "assets"), "one of them"),
        (cli("pause", "no-such-run"), "flowstone runs"),
        (cli("retry", "no-such-run"), "flowstone runs"),
        (cli("prune", "--older-than", "soon"), "such as 30d"),
        (cli("prune", "--older-than", "-3d"), "such as 30d"),
    ]
    for answer, expected in answers:
        assert answer.code == 2
        assert expected in answer.err
        assert answer.out == ""
    assert cli("pause", "--queue", "asets", "--json").json["error"]["type"] == "OptionsError"


def test_a_run_of_this_process_cannot_be_paused(cli: CommandLine, steering_recorded: str) -> None:
    run = cli("materialize", "numbers", "--executor", "sync", "--json").json["run_id"]
    answer = cli("pause", run)
    assert (answer.code, "'sync'" in answer.err) == (2, True)


def test_why(cli: CommandLine, steering_recorded: str) -> None:
    assert cli("why", "doubled").out == "doubled: nobody has asked for it, and its input numbers is missing\n"
    cli("materialize", "numbers", "--executor", "sync")
    assert cli("why", "numbers", "--json").json == {
        "asset": "numbers",
        "partition": None,
        "reasons": ["it is over: completed"],
    }
    assert cli("why", "orders", "--partition", "2024-01-02", "--json").json["partition"] == "2024-01-02"


def test_retry(cli: CommandLine, steering_recorded: str) -> None:
    days = ("--partitions", "2024-01-04,2024-01-05")
    old = cli("backfill", "group:sales", *days, "--executor", "sync", "--json").json
    again = cli("retry", old["run_id"], "--executor", "sync", "--json")
    assert again.code == 1
    assert (again.json["total"], again.json["failed"]) == (2, 2)
    assert again.json["errors"][0]["partition"] == "2024-01-05"
    shown = cli("runs", again.json["run_id"], "--json").json
    assert (shown["retry_of"], shown["verb"], shown["paused"]) == (old["run_id"], "retry", False)
    assert old["run_id"] in cli("status", again.json["run_id"]).out


def test_prune(cli: CommandLine, steering_recorded: str) -> None:
    for _ in range(2):
        assert cli("materialize", "numbers", "--force", "--executor", "sync").code == 0
    nothing = {"steps": 0, "runs": 0, "values": 0, "size_bytes": 0, "ticks": 0, "dry_run": False}
    nothing |= {"leftovers": 0, "out_of_reach": {}, "not_swept": []}
    assert cli("prune", "--json").json == nothing | {"older_than_seconds": 90 * 86400.0}
    assert "90 days" in cli("prune").out
    assert cli("prune", "--older-than", "999999999w", "--json").json["steps"] == 0
    dry = cli("prune", "--older-than", "0s", "--dry-run")
    foretold = dry.out
    assert foretold.startswith("Would delete 1 steps and 1 runs")
    assert "Not counted: leftovers" in dry.err
    assert cli("prune", "--older-than", "0s", "--dry-run", "--json").json["dry_run"] is True
    assert cli("prune", "--older-than", "0s").out == foretold.replace("Would delete", "Deleted")
    assert cli("prune", "--older-than", "0s").out.startswith("Deleted 0 steps and 0 runs")
    assert cli("materialize", "numbers", "--executor", "sync", "--json").json["state"] == "reused"


def test_workers(cli: CommandLine, steering_recorded: str) -> None:
    assert cli("workers", "--json").json == {"project": "default", "workers": []}
    with Database(steering_recorded) as database:
        lease = Lease(database, "big-machine-1")
        lease.register(kind="node", host="big-machine", pid=77, queues={"assets": 5}, lease_seconds=600.0)
    (worker,) = cli("workers", "--json").json["workers"]
    assert (worker["id"], worker["host"], worker["pid"], worker["queues"]) == (
        "big-machine-1",
        "big-machine",
        77,
        {"assets": 5},
    )
    assert worker["started_at"] <= worker["beat_at"]
    shown = cli("workers").out
    assert "big-machine-1" in shown
    assert "assets=5" in shown


@pytest.mark.parametrize("arguments", STEERING, ids=lambda arguments: arguments[0])
def test_without_a_database(cli: CommandLine, shop: Path, arguments: tuple[str, ...]) -> None:
    answer = cli(*arguments)
    if arguments[0] in ("why", "prune"):
        assert answer.code == 0
        assert "in memory" in answer.err
    elif arguments[0] == "prune":
        assert answer.code == 0
        assert "Deleted 0 steps" in answer.out
    else:
        assert answer.code == 2
        assert "FLOWSTONE_DATABASE_URL" in answer.err


def test_executors(cli: CommandLine, shop: Path) -> None:
    (oban, sync) = [one for one in cli("executors", "--json").json["executors"] if one["name"] in ("oban", "sync")]
    assert (sync["default"], sync["available"], sync["problem"]) == (True, True, None)
    assert "retry" in sync["capabilities"]
    assert (oban["available"], "durable" in oban["capabilities"]) == (False, True)
    shown = cli("executors")
    assert (shown.code, "no database is configured" in shown.err) == (0, True)


CRAWL = """\
from flowstone import FlowStone, scatter


def shared(number):
    return 12 // number


@scatter(each=shared, max_failures=1)
def shares():
    return [0, 3, 4]


flow = FlowStone([shares])
"""


@pytest.fixture
def crawl(shop: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An app that scatters, recording in PostgreSQL and run in this process."""
    (shop.parent / "crawl.py").write_text(CRAWL)
    monkeypatch.setenv("FLOWSTONE_APP", "crawl:flow")
    monkeypatch.setenv("FLOWSTONE_DATABASE_URL", database_url)
    monkeypatch.setenv("FLOWSTONE_EXECUTOR", "sync")


def test_items_on_the_command_line(cli: CommandLine, crawl: None) -> None:
    assert [one["name"] for one in cli("ls", "--json").json["assets"]] == ["shares"]
    done = cli("materialize", "shares")
    assert (done.code, "stored by scatter" in done.out) == (0, True), done

    (run,) = cli("runs", "--json").json["runs"]
    (items,) = cli("runs", f"items_of:{run['id']}", "--json").json["runs"]
    assert (items["verb"], items["parent"], items["state"]) == ("scatter", run["id"], "completed")
    assert (items["counts"]["succeeded"], items["counts"]["failed"]) == (2, 1)

    shown = cli("status", run["id"]).out
    assert "RUN OF ITEMS" in shown
    assert items["id"] in shown
    assert "3/3" in shown
    of_items = cli("status", items["id"]).out
    assert "ZeroDivisionError" in of_items
    assert "belongs to" in of_items
    assert "RUN OF ITEMS" not in of_items

    assert "ZeroDivisionError" in cli("why", "shares.item", "--partition", "i:0").out
    refused = cli("retry", items["id"])
    assert (refused.code, run["id"] in refused.err) == (2, True)
