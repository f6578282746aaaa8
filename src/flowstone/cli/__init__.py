"""The command line: `flowstone ...`."""

from __future__ import annotations

import sys

try:
    from flowstone.cli.entry import app, main
except KeyboardInterrupt:  # Ctrl-C in the first second, while modules are loaded
    sys.stderr.write("Interrupted.\n")
    sys.exit(130)

__all__ = ["app", "main"]
