from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine


@pytest.mark.parametrize("target", ["shop:flow", "shop", "shop.py:flow", "shop.py", "shop:build"])
def test_ways_to_name_an_app(cli: CommandLine, shop: Path, target: str) -> None:
    answer = cli("ls", "--app", target, "--json")
    assert answer.code == 0
    assert "numbers" in [asset["name"] for asset in answer.json["assets"]]


def test_common_options_work_before_and_after_the_command(cli: CommandLine, shop: Path) -> None:
    assert cli("--app", "shop:build", "--json", "ls").json == cli("ls", "--json", "--app", "shop:build").json


def test_no_app_says_where_to_name_one(cli: CommandLine) -> None:
    answer = cli("ls")
    assert answer.code == 2
    assert "--app" in answer.err
    assert "FLOWSTONE_APP" in answer.err
    assert answer.out == ""


def test_app_of_the_settings_file_is_found_from_below(
    cli: CommandLine, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FLOWSTONE_APP")
    (tmp_path / "flowstone.toml").write_text('app = "shop:flow"\n')
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert cli("ls").code == 0


def test_app_dir(cli: CommandLine, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert cli("ls", "--app-dir", str(tmp_path)).code == 0
    assert cli("ls").code == 2
    missing = cli("ls", "--app-dir", "nowhere")
    assert missing.code == 2
    assert "nowhere" in missing.err


def test_file_in_a_package_is_imported_as_its_module(cli: CommandLine, tmp_path: Path) -> None:
    package = tmp_path / "src" / "company" / "flows"
    package.mkdir(parents=True)
    for directory in (package.parent, package):
        (directory / "__init__.py").touch()
    (package / "names.py").write_text("NAME = 'from_a_sibling'\n")
    (package / "main.py").write_text(
        "from company.flows.names import NAME\nfrom flowstone import FlowStone, asset\n"
        "@asset(name=NAME)\ndef one():\n    return 1\nflow = FlowStone([one])\n"
    )
    answer = cli("ls", "--app", "src/company/flows/main.py", "--json")
    assert [asset["name"] for asset in answer.json["assets"]] == ["from_a_sibling"]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("shop:flwo", "Did you mean 'flow'?"),
        ("shop:not_an_app", "it is int"),
        ("nowhere:flow", "there is no module 'nowhere'"),
        ("nowhere.py", "there is no file"),
        (":flow", "names no module"),
    ],
)
def test_what_cannot_be_an_app(cli: CommandLine, shop: Path, target: str, message: str) -> None:
    answer = cli("ls", "--app", target)
    assert answer.code == 2
    assert message in answer.err
    assert len(answer.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import json\n\nimport not_installed_anywhere\n", "No module named 'not_installed_anywhere'"),
        ("x = 1\ny = [\nz = 1 1\n", "SyntaxError"),
        ("def f():\n    raise KeyError('k')\nf()\n", "KeyError: 'k'"),
        ("import sys\n\nsys.exit(3)\n", "SystemExit: 3"),
    ],
)
def test_a_broken_module_learns_in_one_line_with_its_place(
    cli: CommandLine, tmp_path: Path, code: str, message: str
) -> None:
    path = tmp_path / "bad.py"
    path.write_text(code)
    answer = cli("ls", "--app", "bad:flow")
    assert answer.code == 2
    assert message in answer.err
    assert f"{path}:" in answer.err
    assert len(answer.err.splitlines()) == 1


def test_verbose_shows_the_whole_traceback(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("raise KeyError('k')\n")
    assert "Traceback" in cli("ls", "--app", "bad", "--verbose").err


def test_a_declaration_that_cannot_work_keeps_its_own_place(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(
        "from flowstone import FlowStone, asset\n@asset\ndef a(numbres): ...\n"
        "@asset\ndef numbers(): ...\nflow = FlowStone([a, numbers])\n"
    )
    answer = cli("ls", "--app", "bad")
    assert answer.code == 2
    assert "Did you mean 'numbers'?" in answer.err
    assert "bad.py:2" in answer.err


def test_errors_are_json_too(cli: CommandLine, shop: Path) -> None:
    answer = cli("ls", "--app", "nowhere:flow", "--json")
    assert answer.code == 2
    assert answer.json["error"]["type"] == "AppLoadError"
    assert "nowhere" in answer.err


def test_a_module_that_everybody_may_write_is_not_imported(
    cli: CommandLine, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FLOWSTONE_APP")
    (tmp_path / "flowstone.toml").write_text('app = "shop:flow"\n')
    monkeypatch.chdir(tmp_path)
    assert cli("ls").code == 0
    module = tmp_path / "shop.py"
    module.chmod(0o666)
    answer = cli("ls")
    assert answer.code == 2
    assert f"everybody may write to {module}" in answer.err
    assert cli("ls", "--app", "shop:flow").code == 0
