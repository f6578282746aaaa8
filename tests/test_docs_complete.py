"""Documents that cannot forget: whatever a user can set, catch, run or import is mentioned on a page."""

from __future__ import annotations

import importlib
import inspect
import re
import tomllib
from collections.abc import Iterable
from dataclasses import fields
from operator import attrgetter
from pathlib import Path

import click
import pytest
import typer

import flowstone
from flowstone import Settings, errors, telemetry
from flowstone.cli import app
from flowstone.core.capability import Capability
from flowstone.core.state import State

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")), *(ROOT / "docs").rglob("*.md")]
)
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"`([^`\n]+)`")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def mentions(page: Path) -> list[str]:
    """The headings of a page and what it says in backticks, without its blocks of code."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return HEADING.findall(text) + CODE.findall(text)


MENTIONS = [mention for page in PAGES for mention in mentions(page)]


def missing(names: Iterable[str]) -> list[str]:
    """Names that no heading and no backticks contain as a whole word."""
    found = "\n".join(MENTIONS)
    return [name for name in names if not re.search(rf"(?<![\w.]){re.escape(name)}(?![\w])", found)]


def commands(group: click.Command, path: tuple[str, ...] = ("flowstone",)) -> Iterable[str]:
    if isinstance(found := getattr(group, "commands", None), dict):
        for name, command in found.items():
            yield from commands(command, (*path, name))
    else:
        yield " ".join(path)


def options(command: click.Command) -> Iterable[str]:
    for sub in getattr(command, "commands", {}).values():
        yield from options(sub)
    for parameter in command.params:
        yield from (
            option
            for option in (*parameter.opts, *parameter.secondary_opts)
            if option.startswith("--") and option != "--help"
        )


def test_every_setting_is_documented() -> None:
    assert missing(item.name for item in fields(Settings)) == []


def test_every_telemetry_event_is_documented() -> None:
    assert missing(telemetry.EVENTS) == []


def test_every_public_error_is_documented() -> None:
    classes = [
        one for _, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, errors.FlowStoneError)
    ]
    assert len(classes) > 30
    page = "\n".join(mentions(ROOT / "docs" / "errors.md"))
    assert [one.__name__ for one in classes if not re.search(rf"\b{one.__name__}\b", page)] == []


def test_every_command_is_documented() -> None:
    found = list(commands(typer.main.get_command(app)))
    assert "flowstone db upgrade" in found
    assert missing(found) == []


def test_every_public_name_is_documented() -> None:
    assert missing(flowstone.__all__) == []


def test_every_state_and_capability_is_documented() -> None:
    assert missing([*(state.value for state in State), *(one.value for one in Capability)]) == []


def test_every_dependency_is_documented() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    listed = [
        *project["project"]["dependencies"],
        *(one for extra in extras.values() for one in extra),
        *project["dependency-groups"]["dev"],
        *project["build-system"]["requires"],
    ]
    names = {re.split(r"[\[<>=;~! ]", one, maxsplit=1)[0] for one in listed} - {"flowstone"}
    page = "\n".join(mentions(ROOT / "docs" / "dependencies.md"))
    assert sorted(name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", page)) == []
    assert missing(extras) == []


def test_every_option_that_a_page_names_exists() -> None:
    known = {*options(typer.main.get_command(app)), "--help"}
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    lines = [line for line in text.splitlines() if "flowstone " in line and "pip install" not in line]
    named = {option for line in lines for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", line)}
    assert named - known == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    broken = []
    for link in LINK.findall(text):
        if "://" in link:
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        if not target.exists():
            broken.append(link)
        elif anchor:
            headings = HEADING.findall(FENCE.sub("", target.read_text(encoding="utf-8")))
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            if anchor not in slugs:
                broken.append(link)
    assert broken == []


ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_the_rooms_of_the_architecture_are_those_of_the_tree() -> None:
    section = ARCHITECTURE.partition("\n## Rooms\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[2] for line in section.splitlines() if line.startswith("|")][2:]
    named = [name for row in rows for name in CODE.findall(row)]
    source = ROOT / "src" / "flowstone"
    modules = {path.relative_to(source).with_suffix("").as_posix() for path in source.rglob("*.py")}
    there = {name for name in modules if not name.rpartition("/")[2].startswith("__")}
    assert sorted(there - set(named)) == [], "modules that the table of rooms does not name"
    assert sorted(set(named) - there) == [], "rooms that are gone"
    assert len(named) == len(set(named)), "a module has one room"


def test_the_picture_of_the_architecture_names_what_there_is() -> None:
    picture = ARCHITECTURE.partition("```mermaid\n")[2].partition("```")[0]
    named = re.findall(r"([a-z_]+(?:/[a-z_]+)+): ([\w.]+)", picture)
    assert len(named) > 10
    for module, name in named:
        attrgetter(name)(importlib.import_module(f"flowstone.{module.replace('/', '.')}"))


def test_every_table_is_in_the_architecture() -> None:
    section = ARCHITECTURE.partition("\n## Tables\n")[2].partition("\n## ")[0]
    migrations = (ROOT / "src" / "flowstone" / "stores" / "postgres" / "migrations").glob("*.sql")
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(migrations))
    tables = set(re.findall(r"CREATE TABLE flowstone\.(\w+)", text))
    tables -= set(re.findall(r"DROP TABLE flowstone\.(\w+)", text))
    assert "steps" in tables
    assert sorted(tables - set(CODE.findall(section)) - {"migrations"}) == []


def test_the_reading_order_leads_to_modules() -> None:
    section = ARCHITECTURE.partition("\n## Twenty minutes of reading\n")[2].partition("\n## ")[0]
    rooms = [name for name in CODE.findall(section) if re.fullmatch(r"[a-z_]+(?:/[a-z_]+)+(?:\.sql)?", name)]
    source = ROOT / "src" / "flowstone"
    missing = [name for name in rooms if not (source / name).exists() and not (source / f"{name}.py").exists()]
    assert rooms
    assert missing == []
    minutes = [int(number) for number in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)]
    assert sum(minutes) == 20
