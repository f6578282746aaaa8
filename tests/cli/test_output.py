"""What is written for people: tables that say what they hide, texts that wrap by words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
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
