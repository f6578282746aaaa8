"""`flowstone versions`: another process than the one that computed."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine

APP = """\
from pathlib import Path

from flowstone import FlowStone, StaticPartitions, asset

REGIONS = StaticPartitions(["eu", "us [x]"])


@asset(partitions=REGIONS)
def orders(context):
    count = Path(__file__).with_suffix(".count")
    number = int(count.read_text()) + 1 if count.exists() else 1
    count.write_text(str(number))
    return number


@asset(partitions=REGIONS)
def report(orders):
    return orders * 100


flow = FlowStone([orders, report])
"""


@pytest.fixture
def prices(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "prices.py").write_text(APP, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLOWSTONE_APP", "prices:flow")
    monkeypatch.setenv("FLOWSTONE_DATABASE_URL", database_url)
    monkeypatch.setenv("LOGNAME", "ann")


@pytest.mark.usefixtures("prices")
def test_list_show_restore_undo_erase(cli: CommandLine) -> None:
    at = ("--partition", "us [x]")
    for _ in range(2):
        made = cli("materialize", "+report", *at, "--force-deps", "--force", "--executor", "sync", "--json")
        assert made.code == 0, made.err
    run = made.json["run_id"]
    second, first = cli("versions", "ls", "orders", *at, "--json").json["versions"]
    assert (second["state"], first["state"], first["is_stored"]) == ("current", "earlier", True)
    assert (first["partition"], second["requested_by"]) == ("us [x]", "ann")
    table = cli("versions", "ls", "orders", *at, "--limit", "1")
    assert second["step_id"] in table.out
    assert "first 1 of 2" in table.err
    shown = cli("versions", "show", first["step_id"])
    assert f"version {first['step_id']} of orders [us [x]] is earlier" in shown.out
    assert f"flowstone versions restore orders {first['step_id']} --partition 'us [x]'" in shown.err
    assert cli("versions", "show", first["step_id"], "--json").json == first
    refused = cli("versions", "restore", "orders", first["step_id"], *at, "--expect", first["step_id"])
    assert refused.code == 2
    assert "in use now" in refused.err
    done = cli("versions", "restore", "orders", first["step_id"], *at, "--reason", "wrong [feed]")
    assert done.code == 0, done.err
    assert f"orders [us [x]]: version {first['step_id']} is in use again" in done.out
    assert "Stale now: report [us [x]]" in done.err
    why = cli("why", "report", *at).out
    assert f"was restored to version {first['step_id']} by ann" in " ".join(why.split())
    again = cli("versions", "restore", "orders", first["step_id"], *at, "--json").json
    assert (again["changed"], again["version"]) == (False, first["step_id"])
    assert "wrong [feed]" in cli("versions", "show", first["step_id"]).out
    assert cli("versions", "undo", run, "--dry-run", "--json").json["restored"] == 1
    undone = cli("versions", "undo", run)
    assert "1 earlier version in use again" in undone.out
    planned = cli("versions", "erase", "orders", *at)
    assert planned.code == 0
    assert "would be erased" in planned.out
    assert "Nothing was erased. Add --yes" in planned.err
    erased = cli("versions", "erase", "orders", *at, "--yes", "--json")
    assert erased.code == 0, erased.err
    assert (erased.json["steps"], erased.json["values"], erased.json["out_of_reach"]) == (2, 2, {})
    assert {one["asset"] for one in erased.json["downstream"]} == {"report"}
    assert {one["state"] for one in cli("versions", "ls", "orders", *at, "--json").json["versions"]} == {"erased"}
    (line, *_) = cli("audit", "--action", "versions", "--json").json["audit"]
    assert (line["action"], line["actor"], line["via"]) == ("versions.erased", "ann", "cli")


@pytest.mark.usefixtures("prices")
def test_wrong_words(cli: CommandLine) -> None:
    for words, text in (
        (("versions", "ls", "nope"), "nope"),
        (("versions", "ls", "orders"), "partition"),
        (("versions", "ls", "orders", "--partition", "asia"), "asia"),
        (("versions", "show", "x"), "no number of a version"),
        (("versions", "show", "999999"), "never was"),
        (("versions", "restore", "orders", "999999", "--partition", "eu"), "never was"),
        (("versions", "undo", "nope"), "nope"),
        (("versions", "erase", "orders", "--partition", "asia", "--yes"), "asia"),
    ):
        answer = cli(*words)
        assert answer.code == 2, (words, answer.err)
        assert text in answer.err
