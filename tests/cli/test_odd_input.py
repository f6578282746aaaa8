"""Every command with what it was not made for: an exit code, and with --json one document."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine
from tests.cli.test_entry import on_a_terminal
from tests.cli.test_output import plain
from tests.cli.test_reference import ALL, built

ODD = [
    "",
    "ünï 🎉 [red]x[/red]",
    "x" * 5_000,
    "../../etc/passwd",
    "' OR 1=1 --",
    "two\nlines",
    "\x1b[31m",
    "-",
    "1e400",
]
_STAY = {
    "demo",
    "dev",
    "worker",
    "web serve",
    "init",
    "web passwd",
    "web token",
}  # they do not end, or write files


def _arguments(path: str, text: str) -> list[str]:
    """Return as many words as the command takes, each of them odd."""
    parameters = [one for one in built(path).params if one.param_type_name == "argument"]  # type: ignore[attr-defined]
    return [text for one in parameters if one.required or one.nargs == -1 or one is parameters[-1]]


@pytest.mark.parametrize("path", [path for path in ALL if path not in _STAY])
def test_odd_words(cli: CommandLine, shop: Path, path: str) -> None:
    start = sum(map(ord, path))
    for text in (ODD[start % len(ODD)], ODD[(start + 4) % len(ODD)]):
        answer = cli(*path.split(), "--json", "--", *_arguments(path, text))
        assert answer.code in (0, 1, 2), (text, answer)
        document = json.loads(answer.out) if answer.out else None
        if answer.code == 2:
            # usage that typer refuses is JSON in the program itself, see test_entry
            assert answer.err, text
        else:
            assert isinstance(document, dict), (text, answer.out)
        assert "\x1b[31m" not in answer.out


def test_options_of_the_wrong_type(cli: CommandLine, shop: Path) -> None:
    for words in (
        ("runs", "--limit", "many"),
        ("runs", "--limit", "0"),
        ("history", "orders", "--limit", "9" * 30),
        ("worker", "--concurrency", "-3"),
        ("dev", "--port", "70000"),
        ("prune", "--older-than", "1y"),
        ("prune", "--older-than", "9" * 9 + "w", "--dry-run"),
        ("runs", "--since", "9" * 9 + "w"),
        ("plan", "orders", "--from", "2024-13-01"),
        ("lineage", "orders", "--depth", "0"),
        ("graph", "--format", "svg"),
    ):
        answer = cli(*words)
        assert answer.code in (0, 1, 2), (words, answer)
        assert "Traceback" not in answer.err, words


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("backfill", "orders", "--max-parallel", "3"), "--max-concurrency"),
        (("backfill", "orders", "--max-parallelism", "3"), "--max-concurrency"),
        (("backfill", "orders", "--concurrency", "3"), "--max-concurrency"),
        (("backfill", "orders", "--parallelism", "3"), "--max-concurrency"),
        (("materialize", "orders", "--partitions", "a"), "--partition"),
        (("runs", "--tags", "nightly"), "--tag"),
        (("runs", "--status", "failed"), "--state"),
        (("runs", "ls", "--stat", "failed"), "--state"),
        (
            (
                "runs",
                "--jsn",
            ),
            "--json",
        ),
        (("web", "--prt", "1"), "--port"),
        (("logs", "x", "--folow"), "--follow"),
        (("queue",), "queues"),
        (("backfils",), "backfills"),
    ],
)
def test_a_misspelt_word_is_answered_with_the_right_one(
    cli: CommandLine, shop: Path, words: tuple[str, ...], meant: str
) -> None:
    answer = cli(*words)
    assert (answer.code, meant in answer.err) == (2, True), answer.err


@pytest.mark.parametrize("columns", ["20"])
def test_narrow_terminals(shop: Path, columns: str) -> None:
    code, shown = on_a_terminal("ls", COLUMNS=columns)
    assert code == 0
    assert max(map(len, plain(shown).splitlines())) <= int(columns)
