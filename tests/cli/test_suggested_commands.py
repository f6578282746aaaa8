"""Whatever command we print works when it is typed."""

from __future__ import annotations

import ast
import functools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from tests.cli.conftest import CommandLine

import flowstone
from flowstone.cli import app
from flowstone.errors import command, selected

APP = """\
from datetime import date

from flowstone import (AnyPartitions, DailyPartitions, DynamicPartitions, FlowStone, HourlyPartitions,
                       MonthlyPartitions, MultiPartitions, StaticPartitions, WeeklyPartitions, asset)

days = DailyPartitions("2024-01-01", end="2024-01-05")
DEFINITIONS = {
    "daily": days,
    "hourly": HourlyPartitions("2024-10-27T00:00", end="2024-10-27T05:00", timezone="Europe/Berlin"),
    "lord howe": HourlyPartitions("2024-10-06T00:00", end="2024-10-06T15:00", timezone="Australia/Lord_Howe"),
    "weekly": WeeklyPartitions("2024-01-07", end="2024-02-04", week_starts="sunday"),
    "monthly": MonthlyPartitions("2024-01", end="2024-05"),
    "listed": StaticPartitions(
        ["eu", "us west", "it's", 'so "quoted"', "-x", "--force", "a|b", "a,b", "$HOME", "`id`", "", "\\\\n"]
    ),
    "lookalikes": StaticPartitions(
        [1, "1", True, "true", date(2024, 1, 1), "2024-01-01", "d:2024-01-01", "line\\nbreak"]
    ),
    "customers": DynamicPartitions("my customers"),
    "grid": MultiPartitions(day=days, region=StaticPartitions(["eu", "a|b", "\\\\", "-"])),
    "any": AnyPartitions(),
    "dates": AnyPartitions(date),
    "texts": AnyPartitions(str),
    "-dash": days, "a+1": days, 'tag:"x" and y': days, "not": None, "plain": None,
}


def pair(name, definition):
    @asset(name=f"{name} raw", partitions=definition, io="filesystem")
    def raw(context):
        return 1

    @asset(name=name, partitions=definition, io="filesystem", deps={"raw": f"{name} raw"})
    def table(raw):
        return 2

    return [raw, table]


flow = FlowStone([one for name, definition in DEFINITIONS.items() for one in pair(name, definition)])
flow.partitions.add("my customers", ["acme", "-rf", 7, "7", "o'neill"])
"""
OWN = {
    "any": [
        "eu", 7, "7", True, "true", ("us_east", 1), ("us_east", "1"), "a,b", "s:eu", "-1", -1, "2024-01-01", "(",
    ],
    "texts": ["eu", "7", "2024-01-01", "true", "a,b", "d:2024-01-01", " "],
}  # fmt: skip


@pytest.fixture
def app_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "suggesting.py"
    path.write_text(APP)
    monkeypatch.setenv("FLOWSTONE_APP", "suggesting:flow")
    monkeypatch.setenv("FLOWSTONE_STORAGE", str(tmp_path / "stored"))
    return path


def test_the_command_of_an_error_builds_what_is_missing(
    cli: CommandLine, app_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every partition of every kind: as the error writes it, the command line reads it."""
    monkeypatch.syspath_prepend(str(app_file.parent))
    space: dict[str, object] = {}
    exec(compile(APP, str(app_file), "exec"), space)
    flow = space["flow"]
    assert isinstance(flow, flowstone.FlowStone)
    from datetime import UTC, date, datetime

    tried = 0
    for asset in flow.graph:
        if asset.name.endswith(" raw"):
            continue
        keys: list[object] = OWN.get(asset.name, [])  # type: ignore[assignment]
        if asset.name == "dates":
            keys = [date(2024, 1, 1)]
        elif asset.partitions is None:
            keys = [None]
        elif not keys:
            keys = list(asset.partitions.keys(datetime(2026, 1, 1, tzinfo=UTC)))[:12]
        for key in keys:
            with pytest.raises(flowstone.errors.DependencyNotReadyError) as caught:
                flow.materialize(asset.name, partition=key)
            found = re.search(r"`flowstone (.*)`\.$", str(caught.value))
            assert found, str(caught.value)
            answer = cli(*shlex.split(found[1]), "--app", "suggesting:flow", "--json")
            assert answer.code == 0, (found[1], answer.err)
            assert (answer.json["total"], answer.json["succeeded"]) == (2, 2), found[1]
            tried += 1
    assert tried > 60


def test_partitions_are_shown_as_they_are_typed(cli: CommandLine, app_file: Path) -> None:
    """What a list of partitions shows can be used as input, also when the values look alike."""
    shown = [step["partition"] for step in cli("plan", "lookalikes", "--json").json["steps"]]
    for text in shown:
        done = cli("materialize", "+lookalikes", f"--partition={text}", "--json")
        assert done.code == 0, (text, done.err)
    assert len(set(shown)) == 8


@pytest.mark.parametrize("name", ["orders", "my orders", 'so "quoted"', "a+1", "tag:x", "and", "-x", "*", "(a)"])
def test_a_name_is_selected_whatever_characters_it_has(name: str) -> None:
    @flowstone.asset(name=name)
    def one() -> int:
        return 1

    @flowstone.asset(deps=[name])
    def two() -> int:
        return 2

    flow = flowstone.FlowStone.for_testing([one, two])
    assert flow.plan(selected(name)).runs == 1
    assert flow.plan(selected(name, upstream=True)).runs == 1
    assert flow.plan(f"{selected(name)}+").runs == 2


def test_commands_are_quoted_for_a_shell() -> None:
    words = ["my name", "it's", "$x", "a|b", "`id`"]
    assert shlex.split(command("why", *words, partition="x y")) == [
        "flowstone",
        "why",
        *words,
        "--partition",
        "x y",
    ]
    assert shlex.split(command("why", "-x", partition="-y")) == ["flowstone", "why", "--partition=-y", "--", "-x"]


# --- every command that stands in the code -------------------------------------------------------------------


def texts(tree: ast.AST) -> Iterator[tuple[int, str, bool]]:
    """Yield each text that a program may print, with its line and whether something is put into it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [str(one.value) if isinstance(one, ast.Constant) else "\0" for one in node.values]
            yield node.lineno, "".join(parts), True
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value, False


SOURCE = Path(flowstone.__file__).parent
FILES = sorted(path for path in SOURCE.rglob("*.py") if "testing" not in path.parts)


@functools.cache
def texts_of(path: Path) -> list[tuple[int, str]]:
    return [(line, text) for line, text, _ in texts(ast.parse(path.read_text(encoding="utf-8")))]


def test_commands_with_something_put_in_are_written_by_the_one_function() -> None:
    found = [
        f"{path.relative_to(SOURCE)}:{line}: {text!r}"
        for path in FILES
        for line, text in texts_of(path)
        if re.search(r"flowstone [a-z-]+( [a-z-]+)* (--[a-z-]+[ =])?\0", text)
    ]
    assert not found, "use flowstone.errors.command(...): " + "\n".join(found)


def test_every_command_in_the_code_exists() -> None:
    """Verbs and options that messages and docstrings name are those of the command line."""
    root = typer.main.get_command(app)
    wrong, tried = [], 0
    for path in FILES:
        for line, text in texts_of(path):
            for written in re.findall(r"`flowstone ([a-z][^`\0]*)`", text):
                tried += 1
                if problem := _problem(root, written.split()):
                    wrong.append(f"{path.relative_to(SOURCE)}:{line}: flowstone {written}: {problem}")
    assert not wrong, "\n".join(wrong)
    assert tried > 20


def _problem(group: object, words: list[str]) -> str | None:
    here = group
    while words and isinstance(commands := getattr(here, "commands", None), dict):
        bare = getattr(here, "bare", "")
        if words[0] not in commands and bare:  # `web --port 1` is `web serve --port 1`
            here = commands[bare]
            continue
        if words[0] not in commands:
            return f"there is no command {words[0]!r}"
        here = commands[words.pop(0)]
    known = {name for one in getattr(here, "params", ()) for name in (*one.opts, *one.secondary_opts)}
    return next((f"no option {word}" for word in words if word.startswith("--") and word not in known), None)
