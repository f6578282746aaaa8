"""Keys of dynamic partitions from the command line: each call is a new app on the same database."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine

APP = """\
from flowstone import DynamicPartitions, FlowStone, asset

customers = DynamicPartitions("customers")


@asset(partitions=customers)
def orders(context):
    return context.partition


flow = FlowStone([orders])
"""


@pytest.fixture
def crm(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "crm.py").write_text(APP)
    monkeypatch.setenv("FLOWSTONE_APP", "crm:flow")
    monkeypatch.setenv("FLOWSTONE_DATABASE_URL", database_url)
    monkeypatch.setenv("FLOWSTONE_EXECUTOR", "sync")


@pytest.mark.usefixtures("crm")
def test_from_nothing_to_the_history(cli: CommandLine) -> None:
    empty = cli("partitions", "customers")
    assert (empty.code, empty.out) == (0, "")
    assert "has no keys" in empty.err
    added = cli("partitions", "customers", "add", "acme", "globex", "--reason", "signed")
    assert (added.code, added.out) == (0, "added 2 of customers\n")
    assert cli("partitions", "customers", "add", "acme", "initech").out == (
        "added 1 of customers; 1 was there already\n"
    )
    assert cli("partitions", "customers", "list").out == "acme\nglobex\ninitech\n"
    assert cli("materialize", "orders", "--partition", "acme").code == 0
    assert cli("partitions", "customers", "remove", "acme").out == "removed 1 of customers\n"
    assert cli("partitions", "customers", "remove", "acme").out == "removed 0 of customers; 1 was not there\n"
    assert cli("partitions", "customers", "--json").json == {"name": "customers", "keys": ["globex", "initech"]}
    refused = cli("materialize", "orders", "--partition", "acme")
    assert refused.code != 0
    assert "was removed" in refused.err
    assert "completed" in cli("why", "orders", "--partition", "acme").out
    history = cli("partitions", "customers", "history", "acme", "--json").json["history"]
    assert [(one["key"], one["action"], one["reason"]) for one in history] == [
        ("acme", "removed", None),
        ("acme", "added", "signed"),
    ]
    assert all("@" in one["by"] for one in history)
    shown = cli("partitions", "customers", "history", "--limit", "2").out.splitlines()
    assert [line.split()[:2] for line in shown] == [["KEY", "WHAT"], ["acme", "removed"], ["initech", "added"]]
    definitions = cli("partitions", "--json").json["definitions"]
    assert definitions == [{"name": "customers", "keys": 2, "assets": ["orders"]}]
    assert cli("partitions").out.splitlines()[1].split() == ["customers", "2", "orders"]


@pytest.mark.usefixtures("crm")
def test_keys_that_are_no_text(cli: CommandLine) -> None:
    assert cli("partitions", "customers", "add", "i:5", "d:2024-01-31", "--encoded", "--json").json == {
        "name": "customers",
        "added": ["5", "2024-01-31"],
    }
    assert cli("partitions", "customers", "add", "5", "--json").json["added"] == ["s:5"]
    assert cli("partitions", "customers").out == "i:5\n2024-01-31\ns:5\n"
    assert cli("partitions", "customers", "remove", "i:5", "--json").json["removed"] == ["i:5"]
    assert cli("materialize", "orders", "--partition", "2024-01-31").code == 0


@pytest.mark.usefixtures("crm")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("custmers",), "Did you mean 'customers'"),
        (("customers", "add"), "Which keys?"),
        (("customers", "list", "acme"), "takes no more keys"),
        (("customers", "history", "a", "b"), "takes no more keys"),
        (("customers", "remove", "nobody"), "is not a partition"),
        (("customers", "add", "5", "--encoded"), "is not an encoded partition"),
    ],
)
def test_mistakes(cli: CommandLine, arguments: tuple[str, ...], says: str) -> None:
    answer = cli("partitions", *arguments)
    assert answer.code != 0
    assert says in answer.err


def test_an_app_without_any(cli: CommandLine, shop: Path) -> None:
    assert cli("partitions", "--json").json == {"definitions": []}
    assert "No asset has any" in cli("partitions", "customers").err
