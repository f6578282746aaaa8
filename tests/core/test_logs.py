from __future__ import annotations

from datetime import UTC, datetime

import pytest

from flowstone.core.clean import hide_values
from flowstone.core.logs import (
    HEAD_LINES,
    MAX_ENTRY,
    MAX_LINE,
    TAIL_LINES,
    Entry,
    LogBatch,
    LogBuffer,
    LogNumbers,
    written_lines,
)


def shown(text: str, source: str = "stdout") -> list[str]:
    return [line.split(" ", 2)[2] for line in written_lines([Entry.of(1.0, source, text)])]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("one\ntwo", ["one", "two"]),
        ("dos\r\nlines\r\n", ["dos", "lines", ""]),
        ("\r 1 %\r 50 %\r100 %", ["100 %"]),
        ("kept\n1 %\r2 %\nlast", ["kept", "2 %", "last"]),
        ("\x1b[31mred\x1b[0m", ["red"]),
        ("nul \x00 bell \x07 del \x7f", ["nul \\x00 bell \\x07 del \\x7f"]),
        ("lone \udcff", ["lone \\udcff"]),
        ("right to left \u202e", ["right to left \\u202e"]),
        ("", [""]),
        ("\r" * 1000, [""]),
    ],
)
def test_lines_are_fit_for_a_database_a_terminal_and_a_page(text, lines):
    assert shown(text) == lines


def test_a_secret_over_several_lines_is_masked_as_a_whole():
    key = "-----BEGIN RSA PRIVATE KEY-----\nMIIabc\ndef\n-----END RSA PRIVATE KEY-----"
    assert "MIIabc" not in "\n".join(shown(f"key:\n{key}\nafter"))
    assert shown(f"{key}\nafter")[-1] == "after"


def test_a_secret_that_would_be_cut_in_two_is_not_kept_in_part():
    hide_values(["Zq8-a-secret-of-this-test"])
    for shift in range(0, 30, 3):
        text = "x " * (MAX_ENTRY // 4 - 15 + shift) + "Zq8-a-secret-of-this-test " + "y " * MAX_ENTRY
        assert "Zq8" not in "\n".join(shown(text)), shift
        assert "Zq8" not in "\n".join(shown("x" * (MAX_LINE - shift) + " Zq8-a-secret-of-this-test " + "y" * 50))


def test_a_long_line_is_cut_and_says_so():
    (line,) = shown("a" * 10_000)
    assert len(line) < MAX_LINE + 100
    assert "characters left out" in line
    assert len("".join(shown("b" * 10_000_000))) < 2 * MAX_ENTRY


def test_sources_come_back_as_they_were():
    for source in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "stdout", "stderr", "NOTICE"):
        (body,) = written_lines([Entry.of(86_400.25, source, "a b  c")])
        (line,) = LogBatch(1, 1, 1, 1, 1, "r", body).read()
        assert (line.source, line.text) == (source, "a b  c")
        assert line.at == datetime(1970, 1, 2, 0, 0, 0, 250_000, UTC)
    (body,) = written_lines([Entry.of(0.0, "two words\n", "text")])
    assert body == "0 two_words_ text"


def test_head_and_tail_are_kept_whatever_is_written_in_between():
    """Also when parts of it are written before the rest comes (airflow#31105: a log larger than memory)."""
    numbers, buffer = LogNumbers(1, 1, 1, "r"), LogBuffer()
    there: dict[int, LogBatch] = {}
    for number in range(1, 20_001):
        buffer.add(Entry.of(0.0, "INFO", f"line {number}"))
        if number % 777 == 0 or number == 20_000:
            batches, trim = numbers.batches(*buffer.take())
            there.update({one.line: one for one in batches})
            if trim is not None:
                there = {line: one for line, one in there.items() if not trim.head < line < trim.tail}
    lines = [line for _, one in sorted(there.items()) for line in one.read()]
    assert [line.text for line in lines] == [f"line {line.number}" for line in lines]
    assert [line.number for line in lines[:HEAD_LINES]] == list(range(1, HEAD_LINES + 1))
    assert [line.number for line in lines[-TAIL_LINES:]] == list(range(20_001 - TAIL_LINES, 20_001))
    assert len(lines) < HEAD_LINES + TAIL_LINES + 300


def test_long_lines_are_bounded_by_their_characters():
    numbers, buffer = LogNumbers(1, 1, 1, "r"), LogBuffer()
    kept: dict[int, int] = {}
    for number in range(500):
        buffer.add(Entry.of(0.0, "INFO", "z" * 3_000))
        assert buffer.characters < 300_000
        if number % 50 == 49:
            batches, trim = numbers.batches(*buffer.take())
            kept.update({one.line: len(one.body) for one in batches})
            if trim is not None:
                kept = {line: size for line, size in kept.items() if not trim.head < line < trim.tail}
    assert sum(kept.values()) < 350_000
