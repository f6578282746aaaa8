"""What is written for people: tables that say what they hide, texts that wrap by words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine
from tests.cli.test_entry import on_a_terminal

from flowstone.cli.output import wrap_words


def plain(shown: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown).replace("\r\n", "\n")


def test_a_table_says_which_columns_it_hides_and_wide_shows_them(shop: Path) -> None:
    narrow = plain(on_a_terminal("ls")[1])
    assert "WHERE. --wide shows them." in " ".join(narrow.split())
    assert "shop.py" not in narrow
    wide = plain(on_a_terminal("ls", "--wide")[1])
    assert "--wide" not in wide
    assert "shop.py:" in wide


@pytest.mark.parametrize("width", [20, 40, 60])
@pytest.mark.parametrize(
    "text",
    [
        "Durable work waits until a worker runs: `flowstone worker --app module:attribute`.",
        "word " * 40,
        "x" * 100 + " and on",
        "",
        "三 個 字 " * 20,
        "`unclosed backtick that goes on " * 4,
    ],
)
def test_words_and_commands_stay_whole(text: str, width: int) -> None:
    wrapped = wrap_words(text, width, hang=2)
    assert wrapped.split() == text.split()
    for line in wrapped.splitlines():
        for command in re.findall(r"`[^`]*`", text):
            assert (command in line) or not set(command.split()) & {"`flowstone"} & set(line.split())


def test_tracebacks_stay_as_they_are() -> None:
    text = 'Traceback:\n  File "/a/very/long/path/that/is/wider/than/the/terminal.py", line 3, in broken\n'
    assert wrap_words(text, 20) == text


def test_what_is_piped_is_whole_and_plain(cli: CommandLine, shop: Path) -> None:
    """The width of a terminal truncates what scripts read elsewhere (prefect#6930)."""
    shop.write_text(shop.read_text().replace("odd [bold]name[/bold]", "n" * 150))
    answer = cli("ls")
    assert "n" * 150 in answer.out
    assert "\x1b" not in answer.out + answer.err
    assert "--wide" not in answer.err


def test_json_is_one_document_whatever_the_code_of_a_user_prints(cli: CommandLine, shop: Path) -> None:
    """Logs and prints in front of the document break whoever parses it (airflow#66139)."""
    shop.write_text("import logging\nprint('at import')\nlogging.warning('a warning')\n" + shop.read_text())
    answer = cli("materialize", "numbers", "--json")
    assert answer.json["state"] == "completed"
    assert "at import" in answer.err
    assert "a line of user code" in answer.err
