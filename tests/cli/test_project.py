"""`init` makes a project that runs at once; `check` says whether an app can be used."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine


def test_a_new_project_is_valid_and_its_test_passes(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = cli("init", "my-shop", "--json")
    assert made.code == 0
    project = tmp_path / "my-shop"
    assert sorted(str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()) == sorted(
        [*made.json["files"], "my_shop/__init__.py"]
    )
    document = tomllib.loads((project / "pyproject.toml").read_text())
    assert document["project"]["name"] == "my-shop"
    assert "$" not in "".join(path.read_text() for path in project.rglob("*.py"))
    monkeypatch.chdir(project)
    checked = cli("check", "--strict", "--json")
    assert (checked.code, checked.json["ok"], checked.json["findings"]) == (0, True, [])
    assert (checked.json["assets"], checked.json["checks"], checked.json["schedules"]) == (3, 1, 1)
    assert not (project / ".flowstone").exists()  # no database was started
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"],
        env=os.environ | {"PYTEST_DEBUG_TEMPROOT": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("class", "Python has"),
        ("json", "Python has"),
        ("flowstone", "Python has"),
        ("tests", "Python has"),
        ("pytest", "is installed"),
        ("1shop", "cannot be called"),
        ("my shop", "cannot be called"),
        ("läden", "cannot be called"),
        ("-x", "cannot be called"),
        ("shop\nname", "cannot be called"),
        ("a" * 300, "cannot be called"),
    ],
)
def test_names_that_cannot_work_are_refused(cli: CommandLine, tmp_path: Path, name: str, why: str) -> None:
    answer = cli("init", "--json", "--", name)
    assert answer.code == 2
    assert why in answer.json["error"]["message"]
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(cli: CommandLine, tmp_path: Path) -> None:
    """A project that is there already is never touched: not a file of it, not a hidden one."""
    for place, files in {"full": ["README.md"], "hidden": [".env"]}.items():
        for file in files:
            (tmp_path / place).mkdir()
            (tmp_path / place / file).write_text("mine")
        answer = cli("init", place)
        assert answer.code == 2
        assert "overwrites nothing" in answer.err
        assert [path.read_text() for path in (tmp_path / place).iterdir()] == ["mine"]
    (tmp_path / "file").touch()
    assert "is a file" in cli("init", "file").err
    (tmp_path / "cloned" / ".git").mkdir(parents=True)
    assert cli("init", "cloned").code == 0
    assert cli("init", "cloned").code == 2


def test_a_place_that_cannot_be_written_is_named(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    answer = cli("init", "file/shop")
    assert answer.code == 2
    assert "shop" in answer.err


def test_check_finds_what_would_not_work_as_meant(cli: CommandLine, shop: Path) -> None:
    text = shop.read_text()
    assert cli("check").out == "shop:flow can be used: 7 assets.\n"
    shop.write_text(text.replace("@asset\ndef numbers", "@asset(queue='gpu')\ndef numbers"))
    answer = cli("check", "--json")
    assert (answer.code, answer.json["ok"]) == (0, True)
    assert [one["name"] for one in answer.json["findings"]] == ["asset numbers"]
    assert "'gpu'" in answer.json["findings"][0]["detail"]
    assert cli("check", "--strict").code == 1
    shop.write_text(text.replace("def doubled(numbers)", "def doubled(nmbers)"))
    broken = cli("check", "--json")
    assert broken.code == 2
    assert "numbers" in broken.json["error"]["message"]
    shop.write_text("def flow(:\n")
    assert f"{shop}:1" in cli("check").err


def test_check_needs_no_database(cli: CommandLine, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWSTONE_DATABASE_URL", "postgresql://nobody@unreachable.invalid/none")
    shop.write_text(shop.read_text().replace("flow = FlowStone(", "flow = FlowStone.for_production("))
    assert cli("check").code == 0
    assert os.environ["FLOWSTONE_DATABASE_URL"].startswith("postgresql://nobody")
