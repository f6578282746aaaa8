"""The command line: `flowstone ...`.

The version, the list of commands and the completion of a shell are answered here, before anything is loaded that
they do not need.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowstone.cli.entry import app

__all__ = ["app", "main"]

COMPLETION_VARIABLE = "_FLOWSTONE_COMPLETE"
HELP_COLUMNS = 80
"""From so many columns on, the library that reads command lines writes help as `help.txt` has it."""


def main() -> None:
    """Run the command line and exit: 0 done, 1 something failed, 2 wrong usage or settings, 130 Ctrl-C."""
    try:
        if COMPLETION_VARIABLE in os.environ:
            code = import_module("flowstone.cli.completion").answer()
            if code is not None:
                sys.exit(code)
        if sys.argv[1:] in (["--help"], ["-h"]) and _columns() >= HELP_COLUMNS:
            sys.stdout.write(help_text())
            return
        if sys.argv[1:] == ["--version"]:
            sys.stdout.write(f"flowstone {import_module('flowstone').__version__}\n")
            return
        entry = import_module("flowstone.cli.entry")
    except KeyboardInterrupt:  # Ctrl-C in the first second, while modules are loaded
        sys.stderr.write("Interrupted.\n")
        sys.exit(130)
    entry.main()


def help_text() -> str:
    """Return what `flowstone --help` shows in a terminal that is wide enough."""
    # pathlib and importlib.resources take longer to import than everything else here
    path = os.path.join(os.path.dirname(__file__), "help.txt")  # noqa: PTH118, PTH120
    with open(path, encoding="utf-8") as file:  # noqa: PTH123
        return file.read()


def _columns() -> int:
    """Return the width of the terminal as `shutil.get_terminal_size` does; that imports all archive formats."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return int(columns)
    try:
        return os.get_terminal_size(sys.__stdout__.fileno()).columns if sys.__stdout__ else HELP_COLUMNS
    except (OSError, ValueError):  # no terminal
        return HELP_COLUMNS


def __getattr__(name: str) -> Any:
    if name == "app":
        return import_module("flowstone.cli.entry").app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
