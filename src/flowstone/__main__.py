"""`python -m flowstone`: the command line."""

from __future__ import annotations

from flowstone.cli import main

if __name__ == "__main__":
    main()
