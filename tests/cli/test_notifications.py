"""`flowstone notifications`: what people were notified of, tried, and sent again."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine

from flowstone.core.notification import NotificationState

APP = """
from flowstone import FlowStone, Notify, asset
from flowstone.engine import notifications

notifications.Delivery.__init__.__kwdefaults__["max_attempts"] = 1


@asset(fresh_within=0.001)
def orders():
    raise ValueError("no [red]rows[/red]")


@asset(fresh_within=0.001)
def stock():
    return 1


@asset
def report(stock):
    return stock


def send(message):
    raise ConnectionError("https://me:tr0ub4dor@mail.example.com is away")


flow = FlowStone([orders, stock, report], notify=[Notify(to=send, on="failed", name="ops")])
"""


@pytest.fixture
def notified(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An app whose sender always fails, on a database."""
    (tmp_path / "shop.py").write_text(APP)
    monkeypatch.setenv("FLOWSTONE_APP", "shop:flow")
    monkeypatch.setenv("FLOWSTONE_DATABASE_URL", database_url)
    return database_url


def test_from_a_failure_to_another_try(cli: CommandLine, notified: str) -> None:
    assert cli("notifications", "--json").json == {"notifications": [], "counts": {}, "late": []}
    assert cli("materialize", "orders", "--executor", "sync").code == 1
    document = cli("notifications", "ls", "--state", "given_up", "--json").json
    (one,) = document["notifications"]
    assert (one["rule"], one["state"], one["attempts"]) == ("ops", "given_up", 1)
    assert one["error"] == "ConnectionError: https://me:***@mail.example.com is away"
    assert document["counts"] == {"given_up": 1}
    table = cli("notifications").out
    assert "orders failed: ValueError: no [red]rows[/red]" in table
    shown = cli("notifications", str(one["id"]))
    assert "- orders failed: ValueError: no [red]rows[/red]" in shown.out
    assert f"flowstone notifications retry {one['id']}" in shown.err
    assert "tr0ub4dor" not in table + shown.out + shown.err
    doctor = cli("doctor")
    assert "1 could not be sent" in doctor.out
    assert cli("notifications", "retry").out == "1 notifications are sent again.\n"
    assert cli("notifications", "retry").out == "There is nothing to send again.\n"
    assert cli("notifications", "ls", "--state", NotificationState.PENDING).out.count("orders failed") == 1


def test_late_data_are_named_where_assets_and_steps_are(cli: CommandLine, notified: str) -> None:
    assert cli("ls").err == ""
    assert cli("materialize", "stock", "--executor", "sync").code == 0
    listed = cli("ls")
    assert "stock is late. Its data are from" in listed.err
    assert "late" not in listed.out
    found = {one["name"]: one["freshness"] for one in cli("ls", "--json").json["assets"]}
    assert (found["stock"]["state"], found["report"]) == ("late", None)
    (step,) = cli("runs", "--json").json["runs"]
    status = cli("status", step["id"], "--json").json
    step_id = str((status.get("step") or status["steps"][0])["id"])
    assert "late data  Its data are from" in cli("status", step_id).out
    assert cli("status", step_id, "--json").json["freshness"]["state"] == "late"


def test_a_test_message(cli: CommandLine, notified: str) -> None:
    tested = cli("notifications", "test")
    assert tested.code == 1
    assert "ConnectionError" in tested.out
    assert "tr0ub4dor" not in tested.out + cli("notifications", "test", "--json").out
    assert "Did you mean 'ops'" in cli("notifications", "test", "opz").err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("show", "7"), "There is no notification"),
        (("show", "x" * 50), "There is no notification"),
        (("retry", "-1"), "o such option"),
        (("retry", "9" * 30), "There is no notification"),
        (("ls", "--state", "snet"), "Did you mean 'sent'"),
        (("ls", "--limit", "0"), "greater than or equal to 1"),
    ],
)
def test_odd_input(cli: CommandLine, notified: str, arguments: tuple[str, ...], says: str) -> None:
    answer = cli("notifications", *arguments)
    assert answer.code == 2
    assert says in answer.err


def test_an_app_without_rules(cli: CommandLine, shop: Path) -> None:
    answer = cli("notifications", "test")
    assert (answer.code, "declares no rule" in answer.err) == (2, True)
