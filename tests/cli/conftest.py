"""The command line in this process, on small apps in a directory of their own."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flowstone.cli import app

SHOP = """\
from datetime import date

from flowstone import DailyPartitions, FlowStone, StaticPartitions, asset

DAYS = DailyPartitions(start=date(2024, 1, 1), end=date(2024, 1, 10))


@asset
def numbers():
    print("a line of user code")
    return [1, 2, 3]


@asset
def doubled(numbers):
    return [2 * n for n in numbers]


@asset(partitions=DAYS, tags=["daily"], group="sales")
def orders(context):
    if context.partition.day == 5:
        raise ValueError("no [red]orders[/red] today")
    return context.partition.day


@asset(partitions=DAYS, group="sales")
def cleaned(orders):
    return orders


@asset(partitions=StaticPartitions(["eu", "us", "a,b"]))
def region(context):
    return context.partition


@asset(name="odd [bold]name[/bold]")
def odd():
    return 1


@asset
def broken():
    raise RuntimeError("it broke")


flow = FlowStone([numbers, doubled, orders, cleaned, region, odd, broken])


def build():
    return FlowStone([numbers])


not_an_app = 5
"""


@dataclass(slots=True)
class Answer:
    """What a call of the command line did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as the one JSON document that it must be."""
        return json.loads(self.out)


class CommandLine:
    """Calls `flowstone` in this process; the app is imported anew each time, as it is by a new process."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)

    def __call__(self, *arguments: str) -> Answer:
        path = list(sys.path)
        try:
            result = CliRunner().invoke(app, arguments)
        finally:
            sys.path[:] = path
            for name, module in list(sys.modules.items()):
                if str(getattr(module, "__file__", "")).startswith(self._root):
                    del sys.modules[name]
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Answer(result.exit_code, result.stdout, result.stderr)


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the developer's settings is seen."""
    for name in list(os.environ):
        if name.startswith("FLOWSTONE_"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    """The command line."""
    return CommandLine(tmp_path)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with an app, which is the configured one."""
    path = tmp_path / "shop.py"
    path.write_text(SHOP)
    monkeypatch.setenv("FLOWSTONE_APP", "shop:flow")
    return path
