"""What a scatter looks like on the command line: each call below is a new app on the same database."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine

CRAWL = """\
from flowstone import FlowStone, scatter


def shared(number):
    return 12 // number


@scatter(each=shared, max_failures=1)
def shares():
    return [0, 3, 4]


flow = FlowStone([shares])
"""


@pytest.fixture
def crawl(shop: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An app that scatters, recording in PostgreSQL and run in this process."""
    (shop.parent / "crawl.py").write_text(CRAWL)
    monkeypatch.setenv("FLOWSTONE_APP", "crawl:flow")
    monkeypatch.setenv("FLOWSTONE_DATABASE_URL", database_url)
    monkeypatch.setenv("FLOWSTONE_EXECUTOR", "sync")


def test_items_on_the_command_line(cli: CommandLine, crawl: None) -> None:
    assert [one["name"] for one in cli("ls", "--json").json["assets"]] == ["shares"]
    done = cli("materialize", "shares")
    assert (done.code, "stored by scatter" in done.out) == (0, True), done

    items, run = cli("runs", "--json").json["runs"]
    assert (items["verb"], items["parent"], items["state"]) == ("scatter", run["id"], "completed")
    assert items["counts"] == {"completed": 2, "failed": 1}

    shown = cli("status", run["id"]).out
    assert "RUN OF ITEMS" in shown
    assert items["id"] in shown
    assert "3/3" in shown
    of_items = cli("status", items["id"]).out
    assert "ZeroDivisionError" in of_items
    assert "belongs to" in of_items
    assert "RUN OF ITEMS" not in of_items

    assert "ZeroDivisionError" in cli("why", "shares.item", "--partition", "i:0").out
    refused = cli("retry", items["id"])
    assert (refused.code, run["id"] in refused.err) == (2, True)
