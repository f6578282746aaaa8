"""Asset checks on the command line; each call is a new app on the same database."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine

APP = """\
from pathlib import Path

from flowstone import CheckResult, FlowStone, StaticPartitions, asset, check


@asset
def orders():
    return [int(line) for line in Path("orders.txt").read_text().split()]


@asset(partitions=StaticPartitions(["eu", "us"]))
def regions(context):
    return context.partition


@check(orders, blocking=True)
def not_empty(orders):
    return len(orders) > 0


@check(orders, severity="warning")
def few(orders):
    many = "[b]many[/b]\\n\\x1b[31morders"
    return CheckResult(len(orders) < 3, description=many, metadata={"rows": len(orders)})


@check(regions)
def american(regions):
    return regions == "us"


flow = FlowStone([orders, regions], checks=[not_empty, few, american])
"""


@pytest.fixture
def app(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An app with checks that records in PostgreSQL."""
    (tmp_path / "checked.py").write_text(APP)
    monkeypatch.setenv("FLOWSTONE_APP", "checked:flow")
    monkeypatch.setenv("FLOWSTONE_DATABASE_URL", database_url)
    return tmp_path / "orders.txt"


def test_results_are_shown(cli: CommandLine, app: Path) -> None:
    assert cli("checks", "--json").json == {"checks": []}
    app.write_text("1 2 3")
    done = cli("materialize", "orders", "--executor", "sync", "--json").json
    assert [(one["check"], one["passed"]) for one in done["checks"]] == [("not_empty", True), ("few", False)]
    few, not_empty = cli("checks", "orders", "--json").json["checks"]
    assert (few["check"], few["severity"], few["metadata"], few["partition"]) == (
        "few",
        "warning",
        {"rows": 3},
        None,
    )
    assert (not_empty["passed"], not_empty["blocking"]) == (True, True)
    out = cli("checks").out
    assert "warn" in out
    assert "[b]many[/b]\\n" in out
    assert "\x1b" not in out


def test_a_blocking_check_learns_by_what_people_ask(cli: CommandLine, app: Path) -> None:
    app.write_text("")
    answer = cli("materialize", "orders", "--executor", "sync")
    assert (answer.code, "did not pass the blocking check 'not_empty'" in answer.err) == (1, True)
    assert "did not pass the blocking check 'not_empty'" in cli("why", "orders").out
    (failed,) = cli("checks", "orders", "--failed", "--json").json["checks"]
    assert (failed["check"], failed["passed"]) == ("not_empty", False)
    assert "did not pass" in cli("status", failed["step_id"]).out


def test_partitions(cli: CommandLine, app: Path) -> None:
    assert cli("backfill", "regions", "--all", "--executor", "sync").code == 0
    assert [one["partition"] for one in cli("checks", "regions", "--json").json["checks"]] == ["eu", "us"]
    (only,) = cli("checks", "regions", "--partition", "us", "--json").json["checks"]
    assert (only["partition"], only["passed"]) == ("us", True)
    assert [one["partition"] for one in cli("checks", "--failed", "--json").json["checks"]] == ["eu"]


def test_checks_run_again(cli: CommandLine, app: Path) -> None:
    cli("backfill", "regions", "--all", "--executor", "sync")
    answer = cli("checks", "run", "regions", "--partition", "us")
    assert (answer.code, "american" in answer.out) == (0, True)
    answer = cli("checks", "run", "regions", "--partition", "eu", "--json")
    assert (answer.code, [one["passed"] for one in answer.json["checks"]]) == (1, [False])
    app.write_text("1 2 3")
    cli("materialize", "orders", "--executor", "sync")
    assert cli("checks", "run", "orders").code == 0  # only a warning failed


def test_typing_errors_are_answered(cli: CommandLine, app: Path) -> None:
    answers = [
        (cli("checks", "ordres"), "Did you mean 'orders'?"),
        (cli("checks", "run", "ordres"), "Did you mean 'orders'?"),
        (cli("checks", "walk", "orders"), "flowstone checks run ASSET"),
        (cli("checks", "--partition", "us"), "needs an asset"),
        (cli("checks", "regions", "--partition", "mars"), "mars"),
        (cli("checks", "run", "regions"), "say which partition"),
        (cli("checks", "run", "regions", "--partition", "us"), "flowstone materialize"),
    ]
    for answer, text in answers:
        assert answer.code in (1, 2)
        assert text in answer.err
