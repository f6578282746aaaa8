"""Commands that only need what is recorded work without an app, and while it is broken."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine

import flowstone

READING = [
    ("runs",),
    ("status", "1"),
    ("queues",),
    ("workers",),
    ("approvals",),
    ("audit",),
    ("prune", "--dry-run"),
]


@pytest.fixture
def recorded(database_url: str, tmp_path: Path) -> str:
    """A database in which one run is recorded by an app that is not there any more."""

    @flowstone.asset
    def numbers() -> list[int]:
        return [1, 2]

    with flowstone.FlowStone([numbers], database_url=database_url) as flow:
        return flow.materialize("numbers", executor="sync").run_id


def test_records_without_an_app(
    cli: CommandLine, recorded: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in READING:
        answer = cli(*words, "--json", "--database", database_url)
        assert (answer.code, answer.err) == (0, ""), words
    answer = cli("--database", database_url, "runs", "--json")
    assert [run["id"] for run in answer.json["runs"]] == [recorded]
    monkeypatch.setenv("FLOWSTONE_DATABASE_URL", database_url)
    assert recorded in cli("runs").out


def test_an_app_that_cannot_be_imported_does_not_hide_its_runs(
    cli: CommandLine, recorded: str, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWSTONE_DATABASE_URL", database_url)
    monkeypatch.setenv("FLOWSTONE_APP", "shop:flow")
    (tmp_path / "shop.py").write_text("def flow(:\n")
    answer = cli("runs", "--json")
    assert [run["id"] for run in answer.json["runs"]] == [recorded]
    assert "SyntaxError" in answer.err
    assert "without the app" in answer.err
    assert cli("ls").code == 2  # which needs the declarations


def test_without_app_and_database_both_ways_are_named(cli: CommandLine) -> None:
    answer = cli("approvals", "--json")
    assert answer.code == 2
    for word in ("--database", "FLOWSTONE_DATABASE_URL", "--app"):
        assert word in answer.json["error"]["message"]


def test_the_options_reach_the_app(
    cli: CommandLine, shop: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = cli("materialize", "numbers", "--executor", "sync", "--database", database_url, "--json")
    assert answer.code == 0
    assert [run["id"] for run in cli("runs", "--database", database_url, "--json").json["runs"]] == [
        answer.json["run_id"]
    ]


def test_an_app_with_a_database_of_its_own_refuses_another(
    cli: CommandLine, shop: Path, database_url: str
) -> None:
    shop.write_text(shop.read_text().replace("odd, broken])", f"odd, broken], database_url={database_url!r})"))
    answer = cli("ls", "--database", "postgresql://elsewhere.example/books")
    assert answer.code == 2
    assert "--database has no effect" in answer.err
    assert cli("ls", "--database", database_url).code == 0
