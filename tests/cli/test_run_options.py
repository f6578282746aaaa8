"""`--config`, `--config-file`, `--tag`, `--metadata`, `--no-wait`."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine

APP = """
from dataclasses import dataclass, field
from datetime import date

from flowstone import FlowStone, asset


@dataclass
class Window:
    since: date = date(2024, 1, 1)


@dataclass
class Limits:
    rows: int = 10
    label: str = "none"
    ratio: float | None = None
    only: list[int] = field(default_factory=list)
    window: Window = field(default_factory=Window)
    password: str = ""


@asset(config=Limits)
def orders(context):
    limits = context.config
    return [limits.rows, limits.label, limits.ratio, limits.only, limits.window.since.isoformat()]


@asset(config=dict)
def free(context):
    return context.config


@asset
def both(orders, free):
    return [orders, free]


flow = FlowStone([orders, free, both])
"""


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configured.py").write_text(APP)
    monkeypatch.setenv("FLOWSTONE_APP", "configured:flow")


@pytest.fixture
def recorded(configured: None, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same on a database, so that a second command sees what the first did."""
    monkeypatch.setenv("FLOWSTONE_DATABASE_URL", database_url)
    monkeypatch.setenv("FLOWSTONE_EXECUTOR", "sync")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (
            "c.json",
            '{"orders": {"rows": 3, "label": "file", "window": {"since": "2024-02-01"}}, "free": {"a": 1}}',
        ),
        ("c.toml", '[orders]\nrows = 3\nlabel = "file"\n[orders.window]\nsince = 2024-02-01\n[free]\na = 1\n'),
    ],
)
def test_the_declared_type_decides_what_a_text_means(
    cli: CommandLine, recorded: None, tmp_path: Path, file: str, text: str
) -> None:
    (tmp_path / file).write_text(text)
    options = ["--config", "orders.label=7", "--config", "orders.only=[1, 2]", "--config", "free.b=2.5"]
    done = cli(
        "materialize", "+both", "--config-file", file, *options, "--tag", "nightly", "--tag", "eu", "--json"
    )
    assert done.code == 0, done.err

    runs = cli("runs", "--tag", "nightly", "--json").json["runs"]
    assert [run["tags"] for run in runs] == [["nightly", "eu"]]
    shown = cli("runs", "show", runs[0]["id"], "--json").json
    orders = shown["config"]["orders"]
    assert (orders["rows"], orders["label"], orders["only"]) == (3, "7", [1, 2])
    assert orders["window"] == {"since": "2024-02-01"}
    assert shown["config"]["free"] == {"a": 1, "b": 2.5}
    assert cli("runs", "--tag", "else", "--json").json["runs"] == []


def test_one_asset_is_configured_flat(cli: CommandLine, recorded: None) -> None:
    options = [
        "--config",
        "rows=3",
        "--config",
        "password=hunter2",
        "--metadata",
        "ticket=7",
        "--metadata",
        "by=ann",
    ]
    done = cli("materialize", "orders", *options, "--json")
    assert done.code == 0, done.err

    shown = cli("runs", done.json["run_id"])
    assert '"ticket": 7' in shown.out
    assert '"rows": 3' in shown.out
    assert "hunter2" not in shown.out + cli("runs", done.json["run_id"], "--json").out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--config", "rows=many"], "config of asset 'orders'.rows: give a whole number, not 'many'."),
        (["--config", "rowz=3"], "Did you mean 'rows'?"),
        (["--config", "rows"], "give KEY=VALUE"),
        (["--config", "rows=1", "--config", "rows.a=1"], "'rows' has a value"),
        (["--config", "window.since=today"], "give a day such as 2024-01-31, not 'today'"),
        (["--config", "ratio=nan"], "nan"),
        (["--config-file", "missing.json"], "--config-file missing.json: No such file"),
        (["--config-file", "broken.toml"], "is no valid TOML"),
        (["--config-file", "list.json"], "expected an object"),
        (["--metadata", "=1"], "--metadata"),
        (["--tag", ""], "is no tag"),
        (["--no-wait"], "what runs in this process ends with it"),
    ],
)
def test_what_cannot_be_is_refused(
    cli: CommandLine, configured: None, tmp_path: Path, options: list[str], message: str
) -> None:
    (tmp_path / "broken.toml").write_text("[")
    (tmp_path / "list.json").write_text("[1]")
    answer = cli("materialize", "orders", *options)
    assert answer.code == 2
    assert message in answer.err
    if options[0].startswith("--config"):
        assert message in cli("plan", "orders", *options).err


def test_no_wait(cli: CommandLine, configured: None, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWSTONE_DATABASE_URL", database_url)
    step = cli("materialize", "orders", "--no-wait", "--json").json
    assert step["state"] == "pending"
    run = cli("materialize", "+both", "--no-wait", "--tag", "mine", "--json").json
    assert (run["state"], run["total"]) == ("running", 3)
    more = cli("backfill", "orders", "--no-wait")
    assert "is placed" in more.out
    assert cli("cancel", run["run_id"]).code == 0
    again = cli("retry", run["run_id"], "--no-wait", "--json").json
    assert again["state"] == "running"
    assert [one["id"] for one in cli("runs", "--tag", "mine", "--json").json["runs"]] == [
        again["run_id"],
        run["run_id"],
    ]
