"""`flowstone schedules` from the command line: each call below is a new app on the same database."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine

APP = """\
from flowstone import FlowStone, Schedule, asset


@asset
def sales():
    return 42


flow = FlowStone(
    [sales],
    schedules=[
        Schedule("sales", "30 6 * * *", name="nightly", timezone="Europe/Berlin", description="Sales of the day"),
        Schedule("sales", "0 * * * *", name="hourly", paused=True),
    ],
)
"""


@pytest.fixture
def recorded(shop: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An app with schedules, recording in PostgreSQL."""
    shop.with_name("scheduled.py").write_text(APP)
    monkeypatch.setenv("FLOWSTONE_DATABASE_URL", database_url)
    monkeypatch.setenv("FLOWSTONE_APP", "scheduled:flow")


@pytest.mark.usefixtures("recorded")
def test_schedules_are_listed_and_shown(cli: CommandLine) -> None:
    listed = cli("schedules", "--json").json["schedules"]
    assert [(one["name"], one["paused"]) for one in listed] == [("nightly", False), ("hourly", True)]
    assert "30 6 * * *" in cli("schedules").out
    shown = cli("schedules", "show", "nightly")
    assert "Sales of the day" in shown.out
    assert shown.out.count("next: ") == 5
    assert len(cli("schedules", "show", "nightly", "--json").json["schedule"]["next"]) == 5


@pytest.mark.usefixtures("recorded")
def test_pausing_and_resuming(cli: CommandLine) -> None:
    answer = cli("schedules", "pause", "nightly", "--json").json
    assert answer == {"kind": "schedule", "name": "nightly", "paused": True, "changed": True}
    assert "already paused" in cli("schedules", "pause", "nightly").out
    assert "paused" in cli("schedules", "show", "nightly").out
    assert cli("schedules", "resume", "nightly", "--json").json["changed"] is True
    assert cli("schedules", "resume", "hourly", "--json").json["changed"] is True
    assert [one["paused"] for one in cli("schedules", "--json").json["schedules"]] == [False, False]


@pytest.mark.usefixtures("recorded")
def test_running_now_asks_a_worker(cli: CommandLine) -> None:
    assert "a worker runs it" in cli("schedules", "run", "nightly").out
    assert cli("schedules", "run", "nightly", "--json").json == {"name": "nightly", "tick": None}
    assert cli("schedules", "ticks", "--json").json == {"ticks": []}


def test_without_a_database_it_runs_at_once(cli: CommandLine, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.with_name("scheduled.py").write_text(APP)
    monkeypatch.setenv("FLOWSTONE_APP", "scheduled:flow")
    tick = cli("schedules", "run", "nightly", "--json").json["tick"]
    assert (tick["state"], tick["by_hand"], len(tick["runs"])) == ("requested", True, 1)


@pytest.mark.usefixtures("recorded")
def test_typing_errors_are_answered(cli: CommandLine) -> None:
    for arguments, says in (
        (("show", "nigthly"), "Did you mean 'nightly'?"),
        (("pause",), "schedules pause NAME"),
        (("stop", "nightly"), "stop"),
    ):
        answer = cli("schedules", *arguments)
        assert answer.code == 2
        assert says in answer.err
