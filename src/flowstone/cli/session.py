"""One call of the command line: what was given, the app, the output, and the end of it all."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from dataclasses import dataclass, field
from pathlib import Path

from flowstone.app import FlowStone
from flowstone.cli.loading import load_app, refuse_strangers_module
from flowstone.cli.output import Output
from flowstone.config import Settings, read_settings_file
from flowstone.core.project import DEFAULT_PROJECT
from flowstone.core.text import mask_secrets
from flowstone.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The options that every command takes, before or after its name."""

    app: str | None = None
    app_dir: Path | None = None
    as_json: bool = False
    verbose: bool = False

    def over(self, other: Given) -> Given:
        """Return these options, filled up with those of `other`."""
        return Given(
            app=self.app or other.app,
            app_dir=self.app_dir or other.app_dir,
            as_json=self.as_json or other.as_json,
            verbose=self.verbose or other.verbose,
        )


@dataclass(slots=True)
class Session:
    """What commands work with; the app is imported at its first use.

    Args:
        given: the common options.
        out: where to write.
    """

    given: Given
    out: Output
    _flow: FlowStone | None = field(default=None, init=False)

    @property
    def flow(self) -> FlowStone:
        """The app.

        Raises:
            ConfigurationError: nobody said which app, or it cannot be loaded.
        """
        if self._flow is None:
            target, directory = self.target, self.app_dir
            if not self.given.app and not os.environ.get("FLOWSTONE_APP"):
                refuse_strangers_module(target, directory)
            self._flow = load_app(target, directory=directory)
        return self._flow

    @property
    def target(self) -> str:
        """Where the app is, as `module:attribute`.

        Raises:
            ConfigurationError: nobody said which app.
        """
        target = self.given.app or Settings.load().app
        if not target:
            raise ConfigurationError(
                "Which app? Pass --app module:attribute or path/to/file.py:attribute, set FLOWSTONE_APP, or write "
                'app = "module:attribute" into flowstone.toml or under [tool.flowstone] of pyproject.toml.'
            )
        return target

    @property
    def app_dir(self) -> Path:
        """Where modules are found: `--app-dir`, else the directory of the settings file that names the app."""
        if self.given.app_dir is not None:
            if not self.given.app_dir.is_dir():
                raise ConfigurationError(f"--app-dir: there is no directory {str(self.given.app_dir)!r}.")
            return self.given.app_dir
        path, found = read_settings_file(Path.cwd())
        from_file = path is not None and found.get("app") == self.target
        return path.parent if path is not None and (from_file or not self._is_file()) else Path.cwd()

    def trace(self, error: BaseException) -> None:
        """With --verbose, show the whole traceback."""
        if self.given.verbose:
            self.out.note("".join(traceback.format_exception(error)).rstrip())

    def warn_of_memory_store(self) -> None:
        """Say that an app in memory remembers nothing from one command to the next."""
        if not self.flow.parts.store.shared:
            self.out.note(
                "This app records in memory, so nothing is known from earlier commands. Give it a database: "
                "FLOWSTONE_DATABASE_URL=embedded or postgresql://...",
                style="yellow",
            )

    def note_project(self, settings: Settings) -> None:
        """Say which project the answer is about, when it is not the one of those who name none."""
        if settings.project != DEFAULT_PROJECT:
            self.out.note(f"Project {settings.project}.")

    def close(self) -> None:
        """Close the app, if it was opened."""
        flow, self._flow = self._flow, None
        if flow is not None:
            flow.close()

    def _is_file(self) -> bool:
        return ".py" in self.target


def configure_logging(*, verbose: bool) -> None:
    """Send log records to standard error; warnings, or with `verbose` what goes on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_MaskingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler])


class _MaskingFormatter(logging.Formatter):
    """Masks secrets in everything that is logged, tracebacks and other people's records included."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        return mask_secrets(super().format(record))
