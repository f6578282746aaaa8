"""`flowstone sensors` and `flowstone automation`: each call below is a new app on the same database."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine

from flowstone.cli.session import load_app

APP = """\
from flowstone import DynamicPartitions, FlowStone, SensorResult, SkipReason, asset, sensor


@asset
def report():
    return 42


@asset(partitions=DynamicPartitions("files"))
def taken(context):
    return context.partition


@sensor(every=10, selection="report", description="[bold]Looks[/bold] around")
def inbox(context):
    at = int(context.cursor or 0)
    if at > 2:
        return SkipReason("nothing\\nnew")
    return SensorResult(requests=[context.request(run_key=f"key {at}")], cursor=str(at + 1))


@sensor(selection="taken", paused=True)
def adds(context):
    return SensorResult(
        requests=[context.request(partition="a|b")],
        add_partitions={"files": ["a|b"]},
        remove_partitions={"files": ["c"]},
    )


@sensor
def breaks():
    raise RuntimeError("no network")


flow = FlowStone([report, taken], sensors=[inbox, adds, breaks])
"""


@pytest.fixture
def remembered(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An app with sensors, in memory."""
    shop.with_name("sensing.py").write_text(APP)
    monkeypatch.setenv("FLOWSTONE_APP", "sensing:flow")


@pytest.fixture
def recorded(remembered: None, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, recording in PostgreSQL."""
    monkeypatch.setenv("FLOWSTONE_DATABASE_URL", database_url)


@pytest.mark.usefixtures("recorded")
def test_sensors_are_listed_and_shown(cli: CommandLine) -> None:
    listed = cli("sensors", "--json").json["sensors"]
    assert [(one["name"], one["paused"], one["every_seconds"]) for one in listed] == [
        ("inbox", False, 10.0),
        ("adds", True, 30.0),
        ("breaks", False, 30.0),
    ]
    assert "inbox" in cli("sensors").out
    shown = cli("sensors", "show", "inbox").out
    assert "[bold]Looks[/bold] around" in shown
    assert "selection: report" in shown
    assert "paused" in cli("sensors", "show", "adds").out
    assert cli("sensors", "show", "inbox", "--json").json["sensor"]["cursor"] is None


@pytest.mark.usefixtures("recorded")
def test_cursor_and_pause_are_kept(cli: CommandLine) -> None:
    assert "goes on from 2" in cli("sensors", "set-cursor", "inbox", "--cursor", "2").out
    assert "cursor: 2" in cli("sensors", "show", "inbox").out
    assert cli("sensors", "preview", "inbox", "--json").json["preview"]["requests"] == [
        {"selection": "report", "partition": "", "run_key": "key 2", "steps": 1}
    ]
    assert cli("sensors", "set-cursor", "inbox", "--cursor", "7", "--json").json["cursor"] == "7"
    assert "nothing\\nnew" in cli("sensors", "preview", "inbox").out
    assert "from the beginning" in cli("sensors", "set-cursor", "inbox").out
    assert cli("sensors", "pause", "inbox", "--json").json["changed"] is True
    assert "already paused" in cli("sensors", "pause", "inbox").out
    assert cli("sensors", "resume", "inbox", "--json").json["changed"] is True


@pytest.mark.usefixtures("recorded")
def test_running_asks_a_worker(cli: CommandLine) -> None:
    assert "a worker runs it" in cli("sensors", "run", "inbox").out
    assert cli("sensors", "run", "inbox", "--json").json == {"name": "inbox", "tick": None}
    assert cli("sensors", "ticks", "--json").json == {"ticks": []}


@pytest.mark.usefixtures("remembered")
def test_without_a_database_it_runs_at_once(cli: CommandLine) -> None:
    tick = cli("sensors", "run", "inbox", "--json").json["tick"]
    assert (tick["state"], len(tick["runs"]), tick["repeats"]) == ("requested", 1, 0)
    assert "requested, sensor-inbox-" in cli("sensors", "run", "inbox").out


@pytest.mark.usefixtures("remembered")
def test_a_preview_reports_of_partitions_too(cli: CommandLine) -> None:
    message = cli("sensors", "preview", "adds").out
    assert "would run taken [a|b]: 1 steps" in message
    assert "would add s:a\\|b of the partitions files" in message
    assert "would remove s:c of the partitions files" in message
    assert "cursor then: none" in message


@pytest.mark.usefixtures("remembered")
def test_what_cannot_work_is_answered(cli: CommandLine) -> None:
    for arguments, says in (
        (("show", "inbx"), "Did you mean 'inbox'?"),
        (("preview",), "sensors preview NAME"),
        (("stop", "inbox"), "stop"),
        (("show", "inbox", "--cursor", "1"), "set-cursor"),
    ):
        answer = cli("sensors", *arguments)
        assert answer.code == 2
        assert says in answer.err
    assert cli("sensors", "preview", "breaks", "--json").json["error"]["type"] == "RuntimeError"
    assert cli("sensors", "run", "breaks").code == 1
    broken = cli("sensors", "preview", "breaks")
    assert broken.code == 1
    assert "no network" in broken.err


@pytest.mark.usefixtures("recorded")
def test_run_keys_are_listed_and_forgotten(cli: CommandLine) -> None:
    with load_app("sensing:flow", directory=Path.cwd()) as flow:
        run_id = flow.sensors.evaluate("inbox").run_ids[0]
    del sys.modules["sensing"]  # that app is closed
    assert cli("sensors", "keys", "inbox", "--json").json["run_keys"][0]["run_id"] == run_id
    assert "key 0" in cli("sensors", "keys", "inbox").out
    assert "sensors keys inbox" in cli("sensors", "forget", "inbox").err
    assert "--key belongs to" in cli("sensors", "show", "inbox", "--key", "key 0").err
    assert cli("sensors", "forget", "inbox", "--key", "key 0", "--key", "x").out.splitlines() == [
        "key 0: may trigger again",
        "x: was not used",
    ]
    assert cli("sensors", "keys", "inbox", "--json").json["run_keys"] == []


CONDITIONS_APP = """\
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
def conditions_recorded(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An app with a condition, recording in PostgreSQL."""
    (tmp_path / "daily.py").write_text(CONDITIONS_APP)
    monkeypatch.setenv("FLOWSTONE_APP", "daily:flow")
    monkeypatch.setenv("FLOWSTONE_DATABASE_URL", database_url)
    monkeypatch.setenv("FLOWSTONE_EXECUTOR", "sync")


@pytest.mark.usefixtures("conditions_recorded")
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


@pytest.mark.usefixtures("conditions_recorded")
def test_pausing(cli: CommandLine) -> None:
    assert cli("automation", "cleaned", "--pause").out == "condition of cleaned: paused; no worker asks for it.\n"
    assert cli("automation", "cleaned", "--pause", "--json").json["changed"] is False
    assert "(paused)" in cli("automation", "cleaned").out
    assert "going on" in cli("automation", "cleaned", "--resume").out
    assert cli("automation", "cleaned", "--ticks", "--json").json == {"ticks": []}


@pytest.mark.usefixtures("conditions_recorded")
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
