"""Finding the example `git_history` and what the demo needs of it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Protocol, cast

import flowstone
from flowstone.app import FlowStone
from flowstone.errors import ConfigurationError, MissingExtraError

NAME = "git_history"


class History(Protocol):
    """A repository, as the example opens it."""

    name: str

    def head(self) -> str:
        """Return the id of the current commit."""

    def fingerprints(self) -> Mapping[date, str]:
        """Return a hash of the commits of each month."""


class Example(Protocol):
    """The module `git_history.flow`."""

    MONTHLY: str
    OVERALL: str
    REPOSITORY_VARIABLE: str
    STORAGE_VARIABLE: str
    SINCE_VARIABLE: str

    def from_environment(self) -> FlowStone:
        """Return the app that the environment describes."""

    def months_since(self, repository: History, since: date | None) -> list[date]:
        """Return the months to analyse."""


def example_directory() -> Path:
    """Return the directory that holds the package `git_history`: of the checkout, else of the wheel.

    Raises:
        ConfigurationError: neither has it.
    """
    package = Path(flowstone.__file__).parent
    places = (package.resolve().parents[1] / "examples", package / "_examples")
    for place in places:
        if (place / NAME / "flow.py").is_file():
            return place
    listed = " or ".join(str(place) for place in places)
    raise ConfigurationError(f"The example {NAME!r} of the demo is missing: there is none in {listed}.")


def load_example() -> tuple[Example, type[ValueError]]:
    """Import the example and return it with the base of its own errors.

    Raises:
        MissingExtraError: it needs a package that is not installed.
    """
    directory = str(example_directory())
    if directory not in sys.path:
        sys.path.insert(0, directory)
    try:
        flow = importlib.import_module(f"{NAME}.flow")
    except ModuleNotFoundError as error:
        if error.name != "pyarrow":
            raise
        raise MissingExtraError("pyarrow", "parquet", "The demo") from error
    errors: ModuleType = importlib.import_module(f"{NAME}.errors")
    return cast("Example", flow), cast("type[ValueError]", errors.RepositoryError)


def open_repository(path: Path) -> History:
    """Open a git repository.

    Raises:
        ValueError: it cannot be analysed (the example's own `RepositoryError`).
    """
    module = importlib.import_module(f"{NAME}.repository")
    return cast("History", module.Repository.open(path))
