from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine


def test_materialize_one(cli: CommandLine, shop: Path) -> None:
    answer = cli("materialize", "numbers")
    assert answer.code == 0
    assert "numbers: completed" in answer.out


def test_json_is_alone_on_standard_output(cli: CommandLine, shop: Path) -> None:
    answer = cli("materialize", "numbers", "--json")
    assert answer.json["state"] == "completed"
    assert "a line of user code" in answer.err


def test_an_asset_without_its_inputs_learns_the_command(cli: CommandLine, shop: Path) -> None:
    answer = cli("materialize", "doubled")
    assert answer.code == 1
    assert "flowstone materialize +doubled" in answer.err


def test_plus_builds_what_is_missing(cli: CommandLine, shop: Path) -> None:
    document = cli("materialize", "+doubled", "--json").json
    assert (document["state"], document["succeeded"], document["errors"]) == ("completed", 2, [])


@pytest.mark.parametrize("executor", ["sync", "async", "serial"])
def test_a_failing_asset(cli: CommandLine, shop: Path, executor: str) -> None:
    answer = cli("materialize", "broken", "--executor", executor)
    assert answer.code == 1
    assert "RuntimeError: it broke" in answer.err
    assert "flowstone/engine" not in answer.err
    assert answer.out == ""


def test_a_failing_asset_as_json(cli: CommandLine, shop: Path) -> None:
    answer = cli("materialize", "broken", "--json")
    assert answer.code == 1
    assert answer.json["state"] == "failed"
    assert "it broke" in answer.json["error"]


def test_a_run_with_failures_is_not_a_success(cli: CommandLine, shop: Path) -> None:
    answer = cli("backfill", "group:sales", "--from", "2024-01-04", "--to", "2024-01-06")
    assert answer.code == 1
    assert "4 completed" in answer.out
    assert "1 upstream_failed" in answer.out
    assert "no [red]orders[/red] today" in answer.err
    document = cli("backfill", "group:sales", "--partitions", "2024-01-05", "--json").json
    assert (document["state"], document["failed"]) == ("failed", 2)
    assert document["errors"][0]["partition"] == "2024-01-05"


def test_a_label_may_hold_a_comma(cli: CommandLine, shop: Path) -> None:
    assert cli("backfill", "region", "--partitions", "a,b", "--json").json["total"] == 1
    assert cli("backfill", "region", "--partitions", "eu,us", "--partitions", "a,b", "--json").json["total"] == 3
    assert cli("backfill", "region", "--all", "--json").json["total"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("materialize", "numbres"), "Did you mean 'numbers'?"),
        (("materialize", "numbers", "--executor", "snyc"), "Did you mean 'sync'?"),
        (("materialize", "numbers", "--executor", "oban"), "not available"),
        (("materialize", "orders"), "--partition"),
        (("materialize", "orders", "--partition", "1999-01-01"), "orders"),
        (("backfill", "orders"), "--all"),
        (("backfill", "orders", "--all", "--from", "2024-01-01"), "not both"),
        (("backfill", "orders", "--all", "--max-concurrency", "0"), "max-concurrency"),
    ],
)
def test_requests_that_cannot_work(cli: CommandLine, shop: Path, arguments: tuple[str, ...], message: str) -> None:
    answer = cli(*arguments)
    assert answer.code == 2
    assert message in answer.err
    assert "Traceback" not in answer.err
