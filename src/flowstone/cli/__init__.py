"""The command line: `flowstone ...`.

The version and the completion of a shell are answered here, before anything is loaded that they do not need.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from flowstone.cli import completion

if TYPE_CHECKING:
    from flowstone.cli.entry import app

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line and exit: 0 done, 1 something failed, 2 wrong usage or settings, 130 Ctrl-C."""
    try:
        if completion.VARIABLE in os.environ and (code := completion.answer()) is not None:
            sys.exit(code)
        if sys.argv[1:] == ["--version"]:
            sys.stdout.write(f"flowstone {import_module('flowstone').__version__}\n")
            return
        entry = import_module("flowstone.cli.entry")
    except KeyboardInterrupt:  # Ctrl-C in the first second, while modules are loaded
        sys.stderr.write("Interrupted.\n")
        sys.exit(130)
    entry.main()


def __getattr__(name: str) -> Any:
    if name == "app":
        return import_module("flowstone.cli.entry").app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
