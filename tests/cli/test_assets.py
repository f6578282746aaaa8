from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine


def test_ls_describes_each_asset(cli: CommandLine, shop: Path) -> None:
    found = {asset["name"]: asset for asset in cli("ls", "--json").json["assets"]}
    assert found["orders"] | {"description": ""} == {
        "name": "orders",
        "group": "sales",
        "tags": ["daily"],
        "description": "",
        "partitions": found["orders"]["partitions"],
        "io": "memory",
        "queue": "assets",
        "dependencies": [],
        "complete_partitions": found["orders"]["complete_partitions"],
        "committed_partitions": 0,
        "where": f"{shop}:19",
        "freshness": None,
    }
    assert found["doubled"]["dependencies"] == ["numbers"]


def test_ls_takes_a_selection(cli: CommandLine, shop: Path) -> None:
    assert [asset["name"] for asset in cli("ls", "group:sales", "--json").json["assets"]] == ["orders", "cleaned"]


def test_ls_shows_names_as_they_are_written(cli: CommandLine, shop: Path) -> None:
    out = cli("ls").out
    assert "odd [bold]name[/bold]" in out
    assert "\x1b" not in out


def test_narrow_output_leaves_columns_out_not_names(
    cli: CommandLine, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    lines = cli("ls").out.splitlines()
    assert max(map(len, lines)) <= 40
    assert "ASSET" in lines[0]
    assert "WHERE" not in lines[0]
    assert any("numbers" in line for line in lines)


def test_graph_as_tree(cli: CommandLine, shop: Path) -> None:
    assert cli("graph", "numbers+").out.splitlines() == ["numbers", "└── doubled"]


def test_graph_as_mermaid_escapes_names(cli: CommandLine, shop: Path) -> None:
    lines = cli("graph", "--format", "mermaid").out.splitlines()
    assert lines[0] == "flowchart LR"
    assert sum("-->" in line for line in lines) == 2


def test_graph_as_json(cli: CommandLine, shop: Path) -> None:
    document = cli("graph", "numbers+", "--json").json
    assert document["assets"] == ["numbers", "doubled"]
    assert [(edge["from"], edge["to"]) for edge in document["edges"]] == [("numbers", "doubled")]


def test_plan_runs_nothing(cli: CommandLine, shop: Path) -> None:
    document = cli("plan", "+cleaned", "--partition", "2024-01-02", "--json").json
    assert document["runs"] == 2
    assert [(step["asset"], step["partition"], step["action"]) for step in document["steps"]] == [
        ("orders", "2024-01-02", "run"),
        ("cleaned", "2024-01-02", "run"),
    ]
    assert "user code" not in cli("plan", "doubled").err


def test_plan_of_a_range_names_what_is_missing(cli: CommandLine, shop: Path) -> None:
    document = cli("plan", "cleaned", "--from", "2024-01-02", "--to", "2024-01-04", "--json").json
    assert document["runs"] == 3
    assert document["missing"][0] == {
        "asset": "cleaned",
        "partition": "2024-01-02",
        "inputs": [{"asset": "orders", "partition": "2024-01-02"}],
    }
    assert "lacks orders 2024-01-02" in cli("plan", "cleaned", "--partitions", "2024-01-02").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ls", "numbres"), "Did you mean 'numbers'?"),
        (("plan", "numbres"), "Did you mean 'numbers'?"),
        (("plan", "numbers", "--partition", "2024-01-01"), "leave the partition out"),
        (("plan", "orders", "--partition", "soon"), "orders"),
        (("plan", "orders", "--partitions", "2024-01-01", "--from", "2024-01-01"), "not both"),
        (("plan", "orders", "--from", "2024-01-05", "--to", "2024-01-02"), "Swap"),
        (("plan", "region", "--partition", "euu"), "Did you mean 'eu'?"),
    ],
)
def test_requests_that_cannot_work(cli: CommandLine, shop: Path, arguments: tuple[str, ...], message: str) -> None:
    answer = cli(*arguments)
    assert answer.code == 2
    assert message in answer.err
    assert answer.out == ""
