from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine


def test_status_and_upgrade(cli: CommandLine, empty_database_url: str) -> None:
    before = cli("db", "status", "--database-url", empty_database_url, "--json")
    assert before.code == 1
    assert not before.json["current"]
    assert {entry["state"] for entry in before.json["migrations"]} == {"pending"}

    applied = cli("db", "upgrade", "--database-url", empty_database_url, "--json").json["applied"]
    assert applied == [*(entry["name"] for entry in before.json["migrations"]), "Oban: its tables"]
    assert "nothing to do" in cli("db", "upgrade", "--database-url", empty_database_url).out

    after = cli("db", "status", "--database-url", empty_database_url)
    assert after.code == 0
    assert "applied" in after.out


def test_without_a_database(cli: CommandLine) -> None:
    answer = cli("db", "upgrade")
    assert answer.code == 2
    assert "--database" in answer.err


def test_tables_that_are_missing_are_notified_with_the_command(
    cli: CommandLine, shop: Path, empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWSTONE_DATABASE_URL", empty_database_url)
    for arguments in (
        ("runs",),
        ("materialize", "numbers"),
        ("backfill", "orders", "--all", "--executor", "oban"),
    ):
        answer = cli(*arguments)
        assert answer.code == 1
        assert "flowstone db upgrade" in answer.err


def test_doctor_without_a_database(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWSTONE_STORAGE", "somewhere")
    answer = cli("doctor", "--json")
    checks = {check["name"]: check for check in answer.json["checks"]}
    assert answer.code == 0
    assert checks["python"]["verdict"] == "ok"
    assert checks["database"]["verdict"] == "warn"
    assert checks["setting storage"]["detail"] == "somewhere (FLOWSTONE_STORAGE)"


def test_doctor_with_a_database(cli: CommandLine, empty_database_url: str) -> None:
    answer = cli("doctor", "--database-url", empty_database_url)
    assert answer.code == 1
    assert "flowstone db upgrade" in answer.out
    cli("db", "upgrade", "--database-url", empty_database_url)
    answer = cli("doctor", "--database-url", empty_database_url, "--json")
    checks = {check["name"]: check["verdict"] for check in answer.json["checks"]}
    assert checks["connections"] == "ok"
    assert (answer.code, checks["migrations"], checks["oban tables"]) == (0, "ok", "ok")
    assert checks["workers"] == "warn"


def test_doctor_masks_secrets_and_names_files(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "flowstone.toml").write_text('database_url = "postgresql://me:hunter2@127.0.0.1:1/none"\n')
    answer = cli("doctor")
    assert answer.code == 1
    assert "hunter2" not in answer.out + answer.err
    assert "flowstone.toml" in answer.out
    assert "does not answer" in answer.out


def test_doctor_with_broken_settings(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "flowstone.toml").write_text("storge = 1\n")
    answer = cli("doctor")
    assert answer.code == 1
    assert "Did you mean 'storage'?" in answer.out


def test_projects(cli: CommandLine, shop: Path, empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWSTONE_DATABASE_URL", empty_database_url)
    assert cli("db", "projects", "--json").json == {"projects": []}
    assert cli("db", "upgrade", "--project", "books", "--json").json["project"] == "books"

    # neither the default project's tables nor another one's appear by themselves
    refused = cli("materialize", "numbers")
    assert refused.code == 1
    assert "no FlowStone tables of the project 'default' yet. It has those of: books." in refused.err
    monkeypatch.setenv("FLOWSTONE_PROJECT", "toys")
    refused = cli("runs")
    assert "of the project 'toys' yet" in refused.err
    assert "`flowstone db upgrade --project toys`" in refused.err
    failed = cli("doctor", "--json").json["checks"]
    assert [check["detail"] for check in failed if check["name"] == "project"] == [
        "toys (schema flowstone_toys); also there: books; it has no tables yet"
    ]

    monkeypatch.setenv("FLOWSTONE_PROJECT", "books")
    assert cli("materialize", "numbers", "--executor", "sync").code == 0
    runs = cli("runs", "--json").json
    assert (runs["project"], len(runs["runs"])) == ("books", 1)
    assert "Project books." in cli("runs").err
    assert cli("workers", "--json").json["project"] == "books"
    assert cli("doctor", "--project", "books").code == 0
    assert cli("db", "projects", "--json").json == {
        "projects": [{"project": "books", "schema": "flowstone_books", "current": True, "workers": 0}]
    }


def test_a_name_that_is_none(cli: CommandLine, empty_database_url: str) -> None:
    answer = cli("db", "upgrade", "--database-url", empty_database_url, "--project", 'shop"; DROP')
    assert answer.code == 2
    assert "project='shop_eu'" in answer.err
