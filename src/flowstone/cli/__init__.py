"""The command line: `flowstone ...`."""

from __future__ import annotations

from flowstone.cli.entry import app, main

__all__ = ["app", "main"]
