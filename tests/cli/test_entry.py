from __future__ import annotations

import json
import os
import pty
import re
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
    ("arguments", "message"),
    [
        (("materialise", "x"), "Did you mean 'materialize'?"),
        (("db", "upgade"), "Did you mean 'upgrade'?"),
        (("ls", "--jsn"), "--json"),
        (("backfill", "x", "--max-parallel", "3"), "--max-concurrency"),
        (("plan", "x", "--dates", "2024-01-01"), "--partitions"),
        (("status",), "ID"),
        (("graph", "--format", "png"), "mermaid"),
    ],
)
def test_wrong_usage(cli: CommandLine, arguments: tuple[str, ...], message: str) -> None:
    answer = cli(*arguments)
    assert answer.code == 2
    assert message in answer.err
    assert answer.out == ""


@pytest.mark.parametrize(
    "arguments", [("status", "--json"), ("--json", "materialise"), ("runs", "--json", "--limit", "x")]
)
def test_wrong_usage_is_json_when_json_is_requested(arguments: tuple[str, ...]) -> None:
    answer = program(*arguments)
    error = json.loads(answer.stdout)["error"]
    assert (answer.returncode, error["type"]) == (2, "UsageError")
    assert error["message"] in answer.stderr


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


def on_a_terminal(*arguments: str, **environment: str) -> tuple[int, str]:
    """Run the program on a pseudo terminal of 60 columns and return what it shows."""
    ours, theirs = pty.openpty()
    variables = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "60", **environment}
    command = [sys.executable, "-m", "flowstone", *arguments]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=theirs, env=variables) as process:
        os.close(theirs)
        shown = b""
        while chunk := _read(ours):
            shown += chunk
    os.close(ours)
    return process.returncode, shown.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux's way to say that the other end is closed
        return b""


def test_a_terminal_gets_colours_a_bar_and_lines_that_fit(shop: Path) -> None:
    code, shown = on_a_terminal("backfill", "region", "--all")
    assert code == 0
    assert "\x1b[" in shown
    assert "backfill region" in shown
    code, table = on_a_terminal("ls")
    assert max(len(line) for line in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", table).splitlines()) <= 60


def test_no_color_is_respected(shop: Path) -> None:
    _, coloured = on_a_terminal("doctor")
    _, plain = on_a_terminal("doctor", NO_COLOR="1")
    assert re.search(r"\x1b\[[0-9;]*3[0-7]m", coloured)
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", plain)


def test_an_interrupt_while_modules_are_loaded_ends_like_any_other() -> None:
    program = (
        "import sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'flowstone.cli.entry': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "import flowstone.cli\n"
        "flowstone.cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")
