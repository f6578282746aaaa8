"""The pytest plugin: fixtures for apps, found through the entry point `pytest11`.

Only pytest and the standard library are imported here: a suite that uses none of these fixtures pays for this file
alone. `-p no:flowstone` leaves it off.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from flowstone import Asset, FlowStone
    from flowstone.core.context import AssetContext
    from flowstone.testing.clock import FrozenClock
    from flowstone.testing.injection import FailurePoints

    type MakesApp = Callable[..., FlowStone]

_SERVER = pytest.StashKey[Path]()
_SHARED = "flowstone_server"
_DATABASE_URL = "FLOWSTONE_TEST_DATABASE_URL"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that names a server for the tests."""
    parser.getgroup("flowstone").addoption(
        "--flowstone-database-url",
        metavar="URL",
        help="PostgreSQL on which flow_postgres makes databases for tests; its user may create databases. "
        f"Default: {_DATABASE_URL}, else an embedded server.",
    )


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Have all processes of pytest-xdist share one server."""
    node.workerinput[_SHARED] = str(_directory(node.config))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the server, if any test had one started."""
    directory = config.stash.get(_SERVER, None)
    if directory is not None and directory.exists() and not hasattr(config, "workerinput"):
        _remove(directory)


def _directory(config: pytest.Config) -> Path:
    """Return where the embedded server is to lie; nothing is made before it is needed."""
    given = getattr(config, "workerinput", {}).get(_SHARED)
    if given is not None:
        return Path(given)
    if _SERVER not in config.stash:
        # a name of its own, short enough for a socket
        config.stash[_SERVER] = Path(tempfile.gettempdir()) / f"flowstone-pytest-{uuid4().hex[:16]}"
    return config.stash[_SERVER]


def _remove(directory: Path) -> None:
    import_module("flowstone.testing.postgres").remove_server(directory / "server")
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def flowstone_server(pytestconfig: pytest.Config) -> Iterator[Any]:
    """The server whose prepared database each test gets a copy of: the embedded one, or the one that was named."""
    postgres = import_module("flowstone.testing.postgres")
    url = pytestconfig.getoption("--flowstone-database-url") or os.environ.get(_DATABASE_URL)
    if url:
        with postgres.GivenServer(url) as server:
            yield server
        return
    directory = _directory(pytestconfig)
    directory.mkdir(mode=0o755, exist_ok=True)
    with postgres.TemporaryServer(directory / "server", prepare=postgres.prepare) as server:
        yield server


@pytest.fixture
def flowstone_database_url(flowstone_server: Any) -> Iterator[str]:
    """URL of a database of this test's own, with FlowStone's tables."""
    with flowstone_server.database() as url:
        yield url


@pytest.fixture
def flow(request: pytest.FixtureRequest) -> Iterator[MakesApp]:
    """Makes apps that record in memory, `flow([assets], **options of FlowStone)`; closed at the end of the test.

    With `flowstone_clock` in the same test they go by that clock, with `flowstone_faults` they meet those faults.
    """
    with ExitStack() as stack:
        yield _maker(request, stack, None)


@pytest.fixture
def flow_postgres(
    request: pytest.FixtureRequest, flowstone_database_url: str, tmp_path: Path
) -> Iterator[MakesApp]:
    """As `flow`, on a PostgreSQL database of this test's own.

    Verbs run in the test's thread; `executor="oban"` places work on the queue, for `run_to_completion(flow)`.
    """
    given = {"database_url": flowstone_database_url, "executor": "sync", "storage": str(tmp_path / "flowstone")}
    with ExitStack() as stack:
        yield _maker(request, stack, given)


def _maker(request: pytest.FixtureRequest, stack: ExitStack, given: dict[str, Any] | None) -> MakesApp:
    def make(assets: Iterable[Asset[..., Any]], **options: Any) -> FlowStone:
        package = import_module("flowstone")
        if given is not None and options.get("settings") is None:
            project = {"project": options.pop("project")} if options.get("project") else {}
            options["settings"] = package.Settings(**given, **project)
        if "flowstone_faults" in request.fixturenames:
            hooks = options.get("hooks", ())
            hooks = [hooks] if hasattr(hooks, "keys") else [*hooks]
            options["hooks"] = [request.getfixturevalue("flowstone_faults"), *hooks]
        made: FlowStone = stack.enter_context(package.FlowStone.for_testing(assets, **options))
        if "flowstone_clock" in request.fixturenames:
            request.getfixturevalue("flowstone_clock").follow(made)
        return made

    return make


@pytest.fixture
def flowstone_clock() -> Iterator[FrozenClock]:
    """A clock that stands still at 2024-01-01 until a test moves it: `move_to("2024-03-01T06:00")`.

    Schedules, sensors and conditions of the apps that `flow` and `flow_postgres` make are evaluated on its way.
    """
    with import_module("flowstone.testing.clock").FrozenClock() as clock:
        yield clock


@pytest.fixture
def flowstone_faults() -> FailurePoints:
    """Faults that attempts meet in this test: `fail("asset", ConnectionError("reset"))`."""
    found: FailurePoints = import_module("flowstone.testing.injection").FailurePoints()
    return found


@pytest.fixture
def flowstone_worker() -> Iterator[Callable[[FlowStone], None]]:
    """Starts a worker for an app with a database, in this process, until the end of the test."""
    worker = import_module("flowstone.testing.workers").worker
    with ExitStack() as stack:
        yield lambda flow: stack.enter_context(worker(flow))


@pytest.fixture(scope="session")
def build_context() -> Callable[..., AssetContext]:
    """Makes the context of an asset's function; see `flowstone.testing.build_context`."""
    found: Callable[..., AssetContext] = import_module("flowstone.testing.building").build_context
    return found
