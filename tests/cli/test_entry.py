from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine

from flowstone import __version__

COMMANDS = [
    "demo",
    "worker",
    "dev",
    "ls",
    "graph",
    "plan",
    "materialize",
    "backfill",
    "status",
    "cancel",
    "runs",
    "doctor",
    "db",
]


def program(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **options}
    command = [sys.executable, "-m", "flowstone", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)  # type: ignore[call-overload,no-any-return]


def test_version(cli: CommandLine) -> None:
    answer = cli("--version")
    assert (answer.code, answer.out) == (0, f"flowstone {__version__}\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(cli: CommandLine, command: str) -> None:
    answer = cli(command, "--help")
    assert answer.code == 0
    assert "Usage:" in answer.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("materialise", "x"), "Did you mean 'materialize'?"),
        (("db", "upgade"), "Did you mean 'upgrade'?"),
        (("ls", "--jsn"), "--json"),
        (("status",), "ID"),
        (("graph", "--format", "png"), "mermaid"),
    ],
)
def test_wrong_usage(cli: CommandLine, arguments: tuple[str, ...], said: str) -> None:
    answer = cli(*arguments)
    assert answer.code == 2
    assert said in answer.err
    assert answer.out == ""


def test_the_program_as_a_process(shop: Path) -> None:
    done = program("ls", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "numbers" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    failed = program("materialize", "broken")
    assert failed.returncode == 1


def test_a_reader_that_stops_reading_is_no_error(shop: Path) -> None:
    command = [sys.executable, "-m", "flowstone", "ls", "--json"]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")
