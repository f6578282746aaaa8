"""The options that every command takes: a module of its own, so that help and completion need nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The options that every command takes, before or after its name."""

    app: str | None = None
    app_dir: Path | None = None
    as_json: bool = False
    verbose: bool = False
    wide: bool = False
    database: str | None = None
    project: str | None = None

    def over(self, other: Given) -> Given:
        """Return these options, filled up with those of `other`."""
        return Given(
            app=self.app or other.app,
            app_dir=self.app_dir or other.app_dir,
            as_json=self.as_json or other.as_json,
            verbose=self.verbose or other.verbose,
            wide=self.wide or other.wide,
            database=self.database or other.database,
            project=self.project or other.project,
        )
