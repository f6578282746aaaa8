"""Databases for tests: one server a session (shared by xdist workers), one clone of a migrated template a test."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings
from tests import supervision, worker_processes

from flowstone.core import clean
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.store import upgrade
from flowstone.testing.postgres import TemporaryServer, system_binaries

# shared machines stall now and then, which a deadline would call a failure; in CI more, and the same every time
settings.register_profile("quick", deadline=None, max_examples=25)
settings.register_profile("thorough", deadline=None, max_examples=60, derandomize=bool(os.environ.get("CI")))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("thorough" if os.environ.get("CI") else "quick"))

_BYTECODE = Path(__file__).parents[1] / ".pytest_cache" / "bytecode"


def keep_bytecode() -> None:
    """Compile every module once, and not in each of the processes that the tests start.

    Where PYTHONDONTWRITEBYTECODE is set, as in many containers, compiling takes half of their time. What is kept
    lies in pytest's folder, not among the sources.
    """
    if sys.dont_write_bytecode:
        sys.dont_write_bytecode, sys.pycache_prefix = False, str(_BYTECODE)
        del os.environ["PYTHONDONTWRITEBYTECODE"]
        os.environ["PYTHONPYCACHEPREFIX"] = str(_BYTECODE)


keep_bytecode()


@pytest.fixture(autouse=True)
def no_secrets_of_other_tests() -> Iterator[None]:
    """Forget afterwards which values a test had hidden: generated passwords would be masked in other texts."""
    before = clean._hidden
    yield
    clean._hidden = before


_KINDS = ("embedded", "system")


def prepare(dsn: str) -> None:
    """Bring the template to the state in which a test wants its database."""
    upgrade(Database(dsn))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "both_servers: runs on the embedded PostgreSQL 18 and on the system's older one"
    )
    config.addinivalue_line("markers", "older_server: runs on the system's older PostgreSQL if there is one")
    config.pluginmanager.register(supervision, "supervision")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Most of the long tests wait for other processes, so two cores have work for three workers."""
    return max(3, os.cpu_count() or 1)


gc.disable()  # what collecting tests makes stays


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Take modules and tests, which live as long as this process, off the collector: half a million objects.

    Each of its full runs takes 0.3 s with them, and tests ask for many.
    """
    gc.freeze()
    gc.enable()


def pytest_sessionfinish() -> None:
    """End the process that forks workers: at the end of this one, what the run left has been looked at already."""
    worker_processes.end_source()


def pytest_unconfigure(config: pytest.Config) -> None:
    outer = supervision.outer_of(config)
    if outer is not None:
        # modules that tests wrote themselves; nobody imports them again
        for written in (_BYTECODE / outer.relative_to("/")).glob("pytest-of-*"):
            shutil.rmtree(written, ignore_errors=True)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "server" in metafunc.fixturenames:
        kinds = _KINDS[:1]
        if metafunc.definition.get_closest_marker("both_servers"):
            kinds = _KINDS
        elif metafunc.definition.get_closest_marker("older_server") and system_binaries():
            kinds = _KINDS[1:]
        metafunc.parametrize("server", kinds, indirect=True, scope="session")


@pytest.fixture(scope="session")
def start_server(pytestconfig: pytest.Config) -> Iterator[Callable[[str], TemporaryServer]]:
    """Start each kind of server at its first use; all are stopped with the session."""
    started: dict[str, TemporaryServer] = {}
    with ExitStack() as stack:

        def start(kind: str) -> TemporaryServer:
            if kind not in started:
                binaries = system_binaries() if kind == "system" else None
                if kind == "system" and binaries is None:
                    pytest.skip("no PostgreSQL server of the operating system (pg_config --bindir)")
                directory = supervision.servers_of(pytestconfig) / kind
                server = TemporaryServer(directory, prepare=prepare, binaries=binaries)
                started[kind] = stack.enter_context(server)
            return started[kind]

        yield start


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest, start_server: Callable[[str], TemporaryServer]) -> TemporaryServer:
    """The embedded server; with `@pytest.mark.both_servers` the test runs on the system's one too."""
    return start_server(request.param)


@pytest.fixture
def database_url(server: TemporaryServer) -> Iterator[str]:
    """DSN of a migrated database of this test's own."""
    with server.database() as dsn:
        yield dsn


@pytest.fixture
def empty_database_url(server: TemporaryServer) -> Iterator[str]:
    """DSN of an empty database of this test's own."""
    with server.empty_database() as dsn:
        yield dsn


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A migrated database of this test's own."""
    with Database(database_url) as opened:
        yield opened
