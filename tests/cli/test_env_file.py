from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from flowstone.cli.env_file import read, variables_of_env_file
from flowstone.errors import ConfigurationError


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("A=postgresql://me:p#ss@db/x?a=b", {"A": "postgresql://me:p#ss@db/x?a=b"}),
        ("KEY='-----BEGIN\nabc\n-----END'\nB=2", {"KEY": "-----BEGIN\nabc\n-----END", "B": "2"}),
        ('A="say \\"hi\\" \\\\ $x"', {"A": 'say "hi" \\ $x'}),
        ("A='${B}'\nB=${A}-${NOT_SET}", {"A": "${B}", "B": "${B}-"}),
        ("A=1\nA=2", {"A": "2"}),
        ("A=#hunter2\nB= # none\nC=x#y # z", {"A": "#hunter2", "B": "", "C": "x#y"}),
        ("A=a\u2028b\x85c\rB=2", {"A": "a\u2028b\x85c", "B": "2"}),
        ("A='x \ny'", {"A": "x \ny"}),
        (
            'A=1\nB="\\${A}"\nC="$A\\n${A}"\nD=C:\\new\\${A}',
            {"A": "1", "B": "${A}", "C": "$A\n1", "D": "C:\\new\\${A}"},
        ),
        ('A=${X:-one}\nB="${A:-two}"\nC=${X:-}', {"A": "one", "B": "one", "C": ""}),
        ("A = ünï \n\n#x\n  export  B=\t'' #c", {"A": "ünï", "B": ""}),
    ],
)
def test_forms(text: str, expected: dict[str, str]) -> None:
    assert read(text, {}) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("A=1\nhunter2", "line 2: write NAME=value"),
        ("A='hunter2", "line 1: the quote of A does not end"),
        ("A='x' hunter2", "after the quotes of A"),
        ("1A=hunter2", "line 1"),
    ],
)
def test_what_cannot_be_read_is_named_without_being_repeated(text: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        read(text, {}, "x/.env")
    assert "hunter2" not in str(caught.value)


def test_which_file_and_what_wins(place: Path) -> None:
    assert variables_of_env_file({}) == {}
    (place / ".env").write_text("\ufeffA=1\nB=2\n")
    assert variables_of_env_file({"B": ""}) == {"A": "1"}
    below = place / "below"
    below.mkdir()
    (below / "other").write_text("C=3")
    assert variables_of_env_file({"FLOWSTONE_ENV_FILE": "below/other"}) == {"C": "3"}
    assert variables_of_env_file({"FLOWSTONE_ENV_FILE": "None"}) == {}
    (place / "flowstone.toml").write_text("")
    os.chdir(below)
    assert variables_of_env_file({}) == {"A": "1", "B": "2"}, "beside the settings file"


def test_files_that_cannot_be_used(place: Path) -> None:
    with pytest.raises(ConfigurationError, match="gone cannot be read"):
        variables_of_env_file({"FLOWSTONE_ENV_FILE": "gone"})
    (place / ".env").write_bytes(b"A=\xff")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        variables_of_env_file({})
    (place / ".env").write_text("A=1")
    (place / ".env").chmod(0o666)
    with pytest.raises(ConfigurationError, match="everybody may write"):
        variables_of_env_file({})


def test_commands_see_it_and_leave_nothing_behind(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from flowstone.cli import app

    for name in os.environ:
        if name.startswith("FLOWSTONE_"):
            monkeypatch.delenv(name)
    (place / "shop.py").write_text(
        "import os\nfrom flowstone import FlowStone, asset\n"
        "@asset\ndef secret_of_shop():\n    return 1\n"
        "flow = FlowStone([secret_of_shop])\nassert os.environ['SHOP'] == 'kiosk'\n"
    )
    (place / ".env").write_text("FLOWSTONE_APP=shop.py:flow\nSHOP=kiosk\n")
    monkeypatch.setattr(sys, "path", [*sys.path])
    done = CliRunner().invoke(app, ["ls", "--json"])
    del sys.modules["shop"]  # others have apps of that name
    assert done.exit_code == 0, done.output
    assert "secret_of_shop" in done.output
    assert "SHOP" not in os.environ
