"""Bulk by filter: counted first, agreed to, refused when the number has moved."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine


@pytest.fixture
def recorded(cli: CommandLine, shop: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three runs on a queue that nobody serves, and one that failed."""
    monkeypatch.setenv("FLOWSTONE_DATABASE_URL", database_url)
    for day in (1, 2, 3):
        assert cli("materialize", "orders", "--partition", f"2024-01-0{day}", "--no-wait").code == 0
    assert cli("materialize", "broken", "--executor", "sync").code == 1


def test_cancel_retry_and_priority_by_filter(cli: CommandLine, recorded: None) -> None:
    """Cancelling one run after the other is what users script elsewhere (dagster#3271, #12634, airflow#55452)."""
    counted = cli("runs", "cancel", "asset:orders", "--dry-run", "--json")
    assert (counted.code, counted.json["runs"]) == (0, 3)
    refused = cli("runs", "cancel", "asset:orders", "--json")
    assert (refused.code, "--yes" in refused.err, "Cancel 3 runs" in refused.err) == (2, True, True)
    moved = cli("runs", "cancel", "asset:orders", "--yes", "--expect", "100")
    assert moved.code in (1, 2)
    assert "3" in moved.err
    changed = cli("runs", "priority", "asset:orders", "--to", "9", "--yes", "--json")
    assert (changed.code, changed.json["runs"]) == (0, 3)
    assert {run["priority"] for run in cli("runs", "asset:orders", "--json").json["runs"]} == {9}
    one = cli("runs", "asset:orders", "--json").json["runs"][0]["id"]
    assert cli("runs", "priority", one, "--to", "0", "--json").json == {"kind": "run", "id": one, "priority": 0}
    done = cli("cancel", "asset:orders", "since:1h", "--yes", "--json")
    assert (done.code, done.json["runs"]) == (0, 3)
    assert {run["state"] for run in cli("runs", "asset:orders", "--json").json["runs"]} == {"cancelled"}
    again = cli("runs", "retry", "asset:orders", "--yes", "--json")
    assert (again.code, again.json["runs"], len(again.json["new_runs"])) == (0, 3, 3)
    assert cli("cancel", "asset:orders", "--yes", "--json").json["runs"] == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("runs", "cancel", "two", "ids"), "no word of a filter"),
        (("runs", "cancel", "stat:failed", "--yes"), "Did you mean 'state'?"),
        (("runs", "cancel", "an-id", "--dry-run"), "one id"),
        (("runs", "priority", "state:running", "--to", "10"), "--to"),
        (("runs", "window", "an-id", "0"), "STEPS"),
        (("runs", "cancel"), "ID|FILTER"),
    ],
)
def test_what_cannot_work_is_refused(
    cli: CommandLine, database_url: str, words: tuple[str, ...], message: str
) -> None:
    answer = cli(*words, "--database", database_url)
    assert (answer.code, message in answer.err) == (2, True), answer.err
