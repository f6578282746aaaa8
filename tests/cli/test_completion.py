"""TAB: what it offers, what it never does, and that it imports nothing."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine

from flowstone.cli import completion, known_names
from flowstone.executors.select import ENTRY_POINT_GROUP

REFERENCE = json.loads((Path(completion.__file__).with_name("reference.json")).read_text())


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def offered(line: str) -> list[str]:
    *words, incomplete = line.split(" ")
    return [value for value, _ in completion.complete(REFERENCE, words, incomplete)]


def test_commands_options_and_values(cli: CommandLine, shop: Path) -> None:
    assert cli("ls").code == 0  # after which the names are known
    assert offered("mat") == ["materialize"]
    assert offered("db ") == ["upgrade", "status", "projects"]
    assert offered("--app shop:flow --json gra") == ["graph"]
    assert offered("materialize num") == ["numbers"]
    assert offered("materialize +num") == ["+numbers"]
    assert offered("materialize --executor s") == ["serial", "sync"]
    assert offered("materialize --executor=s") == ["--executor=serial", "--executor=sync"]
    assert "--max-concurrency" in offered("backfill orders --max")
    assert offered("materialize numbers --js") == ["--json"]
    assert offered("graph --format m") == ["mermaid"]
    assert offered("schedules pa") == ["pause"]
    assert offered("pause --queue back") == ["backfill"]
    assert offered("why do") == ["doubled"]
    assert offered("materialize --config num") == []  # the value of an option is not the name of an asset
    assert offered("no such command ") == []
    assert offered("") == list(REFERENCE["commands"])


def test_names_that_a_shell_could_misread_are_not_offered(tmp_path: Path) -> None:
    """zsh evaluates what it is offered: a name is never more than a word."""
    names = [
        "fine",
        "o'neill",
        "$(touch x)",
        "`id`",
        'a"b',
        "two words",
        "semi;colon",
        "back\\slash",
        "ünï",
        "-x",
        "",
    ]
    known_names.remember(assets=names)
    assert offered("materialize ") == ["fine", "ünï"] or offered("materialize ") == ["fine", "ünï", "-x"]


def test_the_file_is_for_the_user_alone_and_a_strangers_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / ".flowstone").mkdir()
    known_names.remember(assets=["orders"])
    path = tmp_path / ".flowstone" / "completion.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert known_names.matching("assets", "o") == ["orders"]
    path.chmod(0o666)
    assert known_names.matching("assets", "o") == []
    path.chmod(0o600)
    for text in ("", "[]", "{", '{"assets": "text"}', '{"assets": [1, null]}', "[" * 100_000, "\x00"):
        path.write_text(text)
        assert known_names.matching("assets", "") == []
    path.unlink()
    path.mkdir()
    assert known_names.matching("assets", "") == []
    known_names.remember(assets=["again"])  # cannot be written, and says nothing


def test_executors_of_installed_packages_are_found_at_tab(
    cli: CommandLine, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("ls").code == 0
    info = tmp_path / "site" / "plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\nswift = plugin:Swift\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert offered("materialize --executor s") == ["serial", "sync", "swift"]


def test_without_a_storage_directory_names_lie_in_the_cache_of_the_user(tmp_path: Path) -> None:
    known_names.remember(assets=["orders"], runs=["r1"])
    known_names.remember(runs=["r2"])
    assert not (tmp_path / ".flowstone").exists()
    (path,) = (tmp_path / "cache" / "flowstone").iterdir()
    assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)) == (0o600, 0o700)
    assert known_names.matching("runs", "") == ["r2", "r1"]


@pytest.mark.parametrize(
    ("shell", "environment", "shown"),
    [
        ("bash", {"COMP_WORDS": "flowstone\nmaterialize\nor", "COMP_CWORD": "2"}, "orders\n"),
        ("zsh", {"_TYPER_COMPLETE_ARGS": "flowstone materialize or"}, "_arguments '*: :((\"orders\"))'\n"),
        ("zsh", {"_TYPER_COMPLETE_ARGS": "flowstone materialize "}, "_arguments '*: :((\"orders\"))'\n"),
        ("zsh", {"_TYPER_COMPLETE_ARGS": "flowstone materialize xx"}, "_files\n"),
        (
            "fish",
            {"_TYPER_COMPLETE_ARGS": "flowstone db up", "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
            "upgrade\tBring the tables to this version\n",
        ),
        ("bash", {"COMP_WORDS": "flowstone 'open quote", "COMP_CWORD": "1"}, "\n"),
    ],
)
def test_a_shell_is_answered_without_importing_anything(
    tmp_path: Path, shell: str, environment: dict[str, str], shown: str
) -> None:
    """A completion that imports everything takes a second at each TAB (dbt-core#9814, prefect#13292)."""
    known_names.remember(assets=["orders"])
    program = (
        "import sys; from flowstone.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'typer', 'rich', 'flowstone.app', 'flowstone.errors', 'asyncio', 'psycopg'} & set(sys.modules)\n"
        "sys.stderr.write(repr(sorted(heavy)))"
    )
    variables = {**os.environ, "_FLOWSTONE_COMPLETE": f"complete_{shell}", **environment}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=variables, check=False
    )
    assert (done.stdout, done.stderr) == (shown, "[]")


def test_the_version_imports_nothing() -> None:
    program = (
        "import sys; sys.argv = ['flowstone', '--version']; from flowstone.cli import main; main()\n"
        "sys.stderr.write(repr(sorted({'typer', 'rich', 'flowstone.app', 'pandas'} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout.startswith("flowstone "), done.stderr) == (True, "[]")
