"""Steering from the command line: each call below is a new app on the same database."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine

from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.queue import Lease

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
def recorded(shop: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The shop, recording in PostgreSQL."""
    monkeypatch.setenv("FLOWSTONE_DATABASE_URL", database_url)
    return database_url


def test_pause_and_resume_a_queue(cli: CommandLine, recorded: str) -> None:
    assert cli("queues", "--json").json == {"queues": []}
    assert cli("pause", "--queue", "assets", "--json").json == {"kind": "queue", "id": "assets", "paused": True}
    (queue,) = cli("queues", "--json").json["queues"]
    assert (queue["name"], queue["paused"], queue["limit"], queue["available"]) == ("assets", True, None, 0)
    assert "yes" in cli("queues").out
    assert "goes on" in cli("resume", "--queue", "assets").out
    assert cli("queues", "--json").json["queues"][0]["paused"] is False


def test_scale(cli: CommandLine, recorded: str) -> None:
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


def test_typing_errors_are_answered(cli: CommandLine, recorded: str) -> None:
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


def test_a_run_of_this_process_cannot_be_paused(cli: CommandLine, recorded: str) -> None:
    run = cli("materialize", "numbers", "--executor", "sync", "--json").json["run_id"]
    answer = cli("pause", run)
    assert (answer.code, "'sync'" in answer.err) == (2, True)


def test_why(cli: CommandLine, recorded: str) -> None:
    assert cli("why", "doubled").out == "doubled: nobody has asked for it, and its input numbers is missing\n"
    cli("materialize", "numbers", "--executor", "sync")
    assert cli("why", "numbers", "--json").json == {
        "asset": "numbers",
        "partition": None,
        "reasons": ["it is over: completed"],
    }
    assert cli("why", "orders", "--partition", "2024-01-02", "--json").json["partition"] == "2024-01-02"


def test_retry(cli: CommandLine, recorded: str) -> None:
    days = ("--partitions", "2024-01-04,2024-01-05")
    old = cli("backfill", "group:sales", *days, "--executor", "sync", "--json").json
    again = cli("retry", old["run_id"], "--executor", "sync", "--json")
    assert again.code == 1
    assert (again.json["total"], again.json["failed"]) == (2, 2)
    assert again.json["errors"][0]["partition"] == "2024-01-05"
    shown = cli("runs", again.json["run_id"], "--json").json
    assert (shown["retry_of"], shown["verb"], shown["paused"]) == (old["run_id"], "retry", False)
    assert old["run_id"] in cli("status", again.json["run_id"]).out


def test_prune(cli: CommandLine, recorded: str) -> None:
    for _ in range(2):
        assert cli("materialize", "numbers", "--force", "--executor", "sync").code == 0
    nothing = {"steps": 0, "runs": 0, "values": 0, "size_bytes": 0, "ticks": 0, "dry_run": False}
    nothing |= {"leftovers": 0, "out_of_reach": {}, "not_swept": []}
    assert cli("prune", "--json").json == nothing | {"older_than_seconds": 90 * 86400.0}
    assert "90 days" in cli("prune").out
    assert cli("prune", "--older-than", "999999999w", "--json").json["steps"] == 0
    foretold = cli("prune", "--older-than", "0s", "--dry-run").out
    assert foretold.startswith("Would delete 1 steps and 1 runs")
    assert cli("prune", "--older-than", "0s", "--dry-run", "--json").json["dry_run"] is True
    assert cli("prune", "--older-than", "0s").out == foretold.replace("Would delete", "Deleted")
    assert cli("prune", "--older-than", "0s").out.startswith("Deleted 0 steps and 0 runs")
    assert cli("materialize", "numbers", "--executor", "sync", "--json").json["state"] == "reused"


def test_workers(cli: CommandLine, recorded: str) -> None:
    assert cli("workers", "--json").json == {"project": "default", "workers": []}
    with Database(recorded) as database:
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
