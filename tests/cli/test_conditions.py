"""`flowstone automation`: what assets want by themselves, and why."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine

APP = """\
from datetime import date

from flowstone import DailyPartitions, FlowStone, asset, eager

DAYS = DailyPartitions(start=date(2024, 1, 1), end=date(2024, 1, 10))


@asset(partitions=DAYS)
def orders(context):
    return context.partition.day


@asset(partitions=DAYS, automation=eager().at_most(3))
def cleaned(orders):
    return orders


flow = FlowStone([orders, cleaned])
"""


@pytest.fixture
def recorded(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An app with a condition, recording in PostgreSQL."""
    (tmp_path / "daily.py").write_text(APP)
    monkeypatch.setenv("FLOWSTONE_APP", "daily:flow")
    monkeypatch.setenv("FLOWSTONE_DATABASE_URL", database_url)
    monkeypatch.setenv("FLOWSTONE_EXECUTOR", "sync")


@pytest.mark.usefixtures("recorded")
def test_what_is_requested_and_why(cli: CommandLine) -> None:
    (row,) = cli("automation", "--json").json["automation"]
    assert (row["asset"], row["evaluated"], row["requested"], row["paused"]) == ("cleaned", 10, 0, False)
    assert row["condition"] == "(eager()).at_most(3, active=40)"
    assert [one["partition"] for one in row["decisions"]] == ["d:2024-01-10"]
    cli("backfill", "orders", "--partitions", "2024-01-02,2024-01-03")
    assert "2 of 10" in cli("automation").out
    answer = cli("automation", "cleaned", "--partition", "2024-01-03", "--json").json
    assert [(one["requested"], one["partition"]) for one in answer["decisions"]] == [(True, "d:2024-01-03")]
    text = cli("automation", "cleaned").out
    assert "cleaned [2024-01-10] is not requested: input orders [2024-01-10] is missing" in text
    assert "2 of the 10 newest would be requested" in text
    assert "yes: on_missing(): nothing is committed" in text
    assert (
        "cleaned [2024-01-03] is requested: nothing is committed"
        in cli("why", "cleaned", "--partition", "2024-01-03").out
    )


@pytest.mark.usefixtures("recorded")
def test_pausing(cli: CommandLine) -> None:
    assert cli("automation", "cleaned", "--pause").out == "condition of cleaned: paused; no worker asks for it.\n"
    assert cli("automation", "cleaned", "--pause", "--json").json["changed"] is False
    assert "(paused)" in cli("automation", "cleaned").out
    assert "going on" in cli("automation", "cleaned", "--resume").out
    assert cli("automation", "cleaned", "--ticks", "--json").json == {"ticks": []}


@pytest.mark.usefixtures("recorded")
def test_what_cannot_be_answered(cli: CommandLine) -> None:
    for arguments, message in (
        (("orders",), "Asset 'orders' has no condition"),
        (("claened",), "Did you mean 'cleaned'"),
        (("--pause",), "Which asset?"),
        (("cleaned", "--pause", "--resume"), "one of them"),
    ):
        answer = cli("automation", *arguments)
        assert answer.code != 0
        assert message in answer.err


def test_an_app_without_conditions(cli: CommandLine, shop: Path) -> None:
    answer = cli("automation")
    assert answer.code == 0
    assert "No asset of this app has a condition" in answer.err
