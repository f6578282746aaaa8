"""One PostgreSQL data directory and the server on it, driven by PostgreSQL's own tools.

`FileLock` is a lock between processes that the kernel releases whatever happens to its holder.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from flowstone.errors import DatabaseUnavailableError, EmbeddedDatabaseError
from flowstone.sql import load_sql
from flowstone.stores.postgres.database import Database, failing_as, with_identifiers
from flowstone.stores.postgres.embedded.account import ServerAccount, SocketDirectory
from flowstone.stores.postgres.sql import fetch_value

if sys.platform != "win32":
    import fcntl

_POLL_SECONDS = 0.02


class FileLock:
    """An advisory lock on a file, held by this object and not by the process.

    The kernel drops it when the last descriptor is closed, also by SIGKILL. Child processes that inherit the
    descriptor on purpose (`fileno`) hold the same lock on.

    Args:
        path: file to lock; made when missing, never removed.

    Raises:
        OSError: the file cannot be opened or made.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as directory:
        ...     first, second = FileLock(Path(directory, "lock")), FileLock(Path(directory, "lock"))
        ...     first.try_exclusive(), second.try_exclusive(), first.close(), second.try_exclusive()
        ...     second.close()
        (True, False, None, True)
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def fileno(self) -> int:
        """Return the descriptor, to be inherited by a child that shall hold the lock too."""
        return self._descriptor

    def try_exclusive(self) -> bool:
        """Take the lock alone if nobody else has it; a shared lock of this object may be lost when not."""
        return self._flock(fcntl.LOCK_EX)

    def try_shared(self) -> bool:
        """Take the lock together with others unless another process has it alone."""
        return self._flock(fcntl.LOCK_SH)

    def wait_exclusive(self, timeout_seconds: float) -> bool:
        """Take the lock alone, waiting for others; False when they did not leave in time."""
        deadline = time.monotonic() + timeout_seconds
        while not self.try_exclusive():
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def close(self) -> None:
        """Let go; closing twice is no error."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _flock(self, operation: int) -> bool:
        try:
            fcntl.flock(self._descriptor, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


log = logging.getLogger(__name__)

USER = DATABASE = "flowstone"
_WARN_SECONDS = 3.0
_SHUTTING_DOWN = "shutting down"
_STOP_MODES = ((2.0, "fast"), (12.0, "immediate"))
"""After how many seconds a server that hangs while it shuts down is stopped in which way."""
_LOG_TAIL_LINES = 20
_UNFINISHED = "data.unfinished-"
_UNSYNCED = "flowstone.unsynced"

# Durable as a server of one's own. The log keeps a week, one file per weekday, each overwritten.
_SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "128MB",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %a ",
    "logging_collector": "on",
    "log_directory": "log",
    "log_filename": "server-%a.log",
    "log_rotation_age": "1d",
    "log_rotation_size": "0",
    "log_truncate_on_rotation": "on",
}


class Cluster:
    """A data directory `<directory>/data` and its server.

    Callers serialise `ensure_running` and `stop` between processes. Whether a server lives is asked of the
    kernel: all its processes inherit a lock on `server.lock`, so neither a stale pid file nor a reused pid
    can mislead, and orphaned backends of a killed postmaster are waited for.

    Args:
        directory: existing directory, writable by us, that the account can reach.
        binaries: directory with initdb, pg_ctl and postgres.
        account: user to run them as.
        settings: server settings that replace or extend the defaults.
    """

    def __init__(
        self, directory: Path, *, binaries: Path, account: ServerAccount, settings: Mapping[str, str]
    ) -> None:
        self.data = directory / "data"
        self._directory = directory
        self._binaries = binaries
        self._account = account
        self._settings = {**_SETTINGS, **settings, "port": "5432"}
        self._socket = SocketDirectory(directory / "socket-directory", data=self.data, account=account)

    def ensure_running(self, *, timeout_seconds: float) -> str:
        """Join the server if it runs, else start it, making the cluster first when there is none.

        Returns:
            DSN of the database `flowstone`.

        Raises:
            EmbeddedDatabaseError: it cannot be made or started; the message ends with the server's log.
        """
        major = self._major_version()
        if not self.data.exists():
            self._initialise(major)
        self._refuse_other_version(major)
        with self._synced():
            if (free := self._joined(timeout_seconds)) is not None:
                self._start(free, timeout_seconds)
            self._ensure_database()
        return self._dsn(DATABASE)

    @contextmanager
    def _synced(self) -> Iterator[None]:
        """Have the files of a new cluster on disk when the block is over, written while the server comes up.

        Nobody is given the address before that, so no data of a user depends on a file that is not there yet. A
        cluster whose maker died in between is written by whoever comes next.

        Raises:
            EmbeddedDatabaseError: they could not be written.
        """
        mark = self.data / _UNSYNCED
        if not mark.exists():
            yield
            return
        with ThreadPoolExecutor(max_workers=1) as pool:
            written = pool.submit(self._run, "initdb", "--sync-only", "-D", "data")
            yield
            done = written.result()
        if done.returncode != 0:
            raise EmbeddedDatabaseError(f"The new cluster in {self.data} cannot be synced:\n{done.stdout.strip()}")
        mark.unlink(missing_ok=True)

    def stop(self, *, timeout_seconds: float) -> None:
        """Stop the server, cutting its connections; a server that does not run is no error."""
        deadline = time.monotonic() + timeout_seconds
        alive = FileLock(self._directory / "server.lock")
        try:
            while not alive.try_exclusive():
                # Again and again: a server that was only just started has no pid file yet.
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    raise EmbeddedDatabaseError(
                        f"The server on {self.data} did not stop within {timeout_seconds:g} s.{self._log_tail()}"
                    )
                self._request_stop(remaining)
                time.sleep(_POLL_SECONDS)
            self._socket.remove()
        finally:
            alive.close()

    def server_pid(self) -> int | None:
        """Return the pid that the data directory names, whether or not that process lives."""
        try:
            return int((self.data / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0])
        except (OSError, ValueError):
            return None

    def _request_stop(self, wait_seconds: float) -> None:
        pid = self.server_pid()
        # Orphaned backends keep the lock a moment longer than their postmaster lives, and its pid may be
        # another program's by then, which pg_ctl would happily interrupt.
        if pid is not None and _works_in(pid, self.data):
            seconds = str(max(1, round(wait_seconds)))
            self._run("pg_ctl", "stop", "-D", "data", "-m", "fast", "-w", "-t", seconds)

    def _joined(self, timeout_seconds: float) -> FileLock | None:
        """Wait until the living server answers (None) or no server lives (the lock of the next one, taken).

        The lock is kept and not taken again for the start: a child that another thread forks in between holds what
        this process let go until it executes its program, and would be taken for a server.

        A server that is being shut down and waits for its clients to leave is stopped for good after a moment, so
        that it can be started again: it answers nobody any more.
        """
        started = time.monotonic()
        stops, warned = 0, False
        while True:
            problem = self._problem()
            if problem is None:
                return None
            alive = FileLock(self._directory / "server.lock")
            if alive.try_exclusive():
                return alive
            alive.close()
            waited, pid = time.monotonic() - started, self.server_pid()
            if pid is not None and _is_stopped(pid):
                raise EmbeddedDatabaseError(
                    f"The server (pid {pid}) on {self.data} is stopped by a signal and answers nobody. Let it go "
                    f"on with `kill -CONT {pid}`, or end it with `kill -QUIT {pid}; kill -CONT {pid}`, and try "
                    "again."
                )
            if _SHUTTING_DOWN in problem and stops < len(_STOP_MODES) and waited > _STOP_MODES[stops][0]:
                log.warning("The server on %s hangs while it shuts down; stopping it (%s).", self.data, problem)
                self._run("pg_ctl", "stop", "-D", "data", "-m", _STOP_MODES[stops][1], "-W")
                stops += 1
            if not warned and waited > _WARN_SECONDS:
                warned = True
                log.warning("Waiting for the server (pid %s) on %s: %s", pid, self.data, problem)
            if waited >= timeout_seconds:
                raise EmbeddedDatabaseError(
                    f"A server (pid {pid}) runs on {self.data} but did not answer within "
                    f"{timeout_seconds:g} s ({problem}). Stop it with `kill -INT {pid}` and try again."
                    f"{self._log_tail()}"
                )
            time.sleep(_POLL_SECONDS)

    def _problem(self) -> str | None:
        """Return why the server does not answer; None when it does."""
        if self._socket.find() is None:
            return "it has no socket"
        pid = self.server_pid()
        if pid is not None and _is_stopped(pid):
            return "it is stopped by a signal"  # connecting would take its time to fail
        try:
            with Database(self._dsn("postgres")).dedicated() as connection:
                directory = fetch_value(connection, str, "database/data_directory")
                if directory is not None and Path(directory).samefile(self.data):
                    return None
                return "another server answers on its socket"
        except DatabaseUnavailableError as error:
            return error.why
        except OSError as error:
            return str(error)

    def _dsn(self, database: str) -> str:
        host = quote(str(self._socket.ensure()), safe="")
        return f"postgresql://{USER}@/{database}?host={host}&port=5432"

    def _initialise(self, major: int) -> None:
        for unfinished in self._directory.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        building = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=self._directory))
        self._account.own(building)
        # Byte order and Unicode rules that no update of the operating system can change under an index.
        locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        if major < 17:
            locale = ["--locale=C"]
        trust = ["--auth-local=trust", "--auth-host=reject", f"--username={USER}"]
        try:
            # synced beside what comes next, see `_synced`
            done = self._run("initdb", "-D", building.name, "--encoding=UTF8", *locale, *trust, "--no-sync")
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
        if done.returncode != 0:
            shutil.rmtree(building, ignore_errors=True)
            raise EmbeddedDatabaseError(
                f"PostgreSQL could not make a cluster in {self._directory}:\n{done.stdout.strip()}"
            )
        with (building / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write("\ninclude 'flowstone.conf'  # written at every start\n")
        if self._settings["fsync"] != "off":  # who switches it off, as tests do, waits for no disk here either
            (building / _UNSYNCED).touch()
        building.rename(self.data)
        log.info("Made a PostgreSQL %d cluster in %s.", major, self.data)

    def _start(self, alive: FileLock, timeout_seconds: float) -> None:
        """Start a server, whose processes inherit the taken lock `alive`; it is let go here."""
        try:
            self._account.own(alive.path)
            self._disarm_stale_pid_file()
            self._socket.clear()
            self._write_settings()
            (self.data / "startup.log").unlink(missing_ok=True)
            started = self._run(
                *("pg_ctl", "start", "-D", "data", "-l", "data/startup.log"),
                *("-w", "-t", str(round(timeout_seconds))),
                pass_fds=[alive.fileno()],
            )
        finally:
            alive.close()
        if started.returncode != 0:
            problem = f"PostgreSQL did not start on {self.data}: {started.stdout.strip()}{self._log_tail()}"
            self.stop(timeout_seconds=timeout_seconds)  # it may have been slow and not broken
            raise EmbeddedDatabaseError(problem)
        log.info("Started PostgreSQL on %s (pid %s).", self.data, self.server_pid())

    def _disarm_stale_pid_file(self) -> None:
        """Name a dead process in the pid file of a killed server if its pid lives again as something else.

        PostgreSQL would take the other program for itself and refuse to start. The file is changed and not
        removed, because PostgreSQL also finds in it whether shared memory of the old server is in use.
        """
        file, pid = self.data / "postmaster.pid", self.server_pid()
        if pid is None or not _is_alive(pid):
            return
        command = [str(self._binaries / "pg_ctl"), "--version"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as ended:  # noqa: S603  (our own tool)
            ended.wait()
        _, _, rest = file.read_text(encoding="utf-8", errors="surrogateescape").partition("\n")
        file.write_text(f"{ended.pid}\n{rest}", encoding="utf-8", errors="surrogateescape")
        log.warning("%s named pid %d, which is another program now; recovering.", file, pid)

    def _write_settings(self) -> None:
        settings = self._settings | {"unix_socket_directories": str(self._socket.ensure())}
        lines = [f"{name} = '{value.replace("'", "''")}'\n" for name, value in settings.items()]
        written = self.data / "flowstone.conf.new"
        text = "# Written by FlowStone at every start. Put changes below the include in postgresql.conf.\n"
        written.write_text(text + "".join(lines), encoding="utf-8")
        self._account.own(written)
        written.replace(self.data / "flowstone.conf")

    def _ensure_database(self) -> None:
        with (
            failing_as(f"The database {DATABASE!r} could not be made"),
            Database(self._dsn("postgres")).dedicated() as connection,
        ):
            if not fetch_value(connection, bool, "database/exists", {"name": DATABASE}):
                connection.execute(with_identifiers(load_sql("database/create"), name=DATABASE))

    def _major_version(self) -> int:
        answered = self._run("pg_ctl", "--version")
        if match := re.search(r"\) (\d+)", answered.stdout):
            return int(match[1])
        raise EmbeddedDatabaseError(f"{self._binaries}/pg_ctl does not work: {answered.stdout.strip()}")

    def _refuse_other_version(self, major: int) -> None:
        try:
            found = (self.data / "PG_VERSION").read_text(encoding="utf-8").strip()
        except OSError as error:
            raise EmbeddedDatabaseError(
                f"{self.data} is not a PostgreSQL cluster: {error}. Move it away, or choose another directory."
            ) from error
        if found != str(major):
            raise EmbeddedDatabaseError(
                f"The cluster in {self.data} was made by PostgreSQL {found}; this one is {major}. Move "
                f"the data with `pg_dumpall` of version {found}, or choose another directory."
            )

    def _run(self, tool: str, *arguments: str, pass_fds: list[int] | None = None) -> CompletedTool:
        return self._account.run([self._binaries / tool, *arguments], cwd=self._directory, pass_fds=pass_fds or [])

    def _log_tail(self) -> str:
        files = [*self.data.glob("log/*.log"), self.data / "startup.log"]
        existing = sorted((file for file in files if file.exists()), key=lambda file: file.stat().st_mtime)
        lines: list[str] = []
        for file in existing[-2:]:
            lines += file.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_TAIL_LINES:]
        return "\nThe end of its log:\n" + "\n".join(lines) if lines else ""


type CompletedTool = subprocess.CompletedProcess[str]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # it belongs to another user
    return True


def _is_stopped(pid: int) -> bool:
    """Whether a process is stopped by a signal; False where that is not known."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="latin-1").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state in ("T", "t")


def _works_in(pid: int, directory: Path) -> bool:
    """Whether a process has this working directory, as a server has its data; True where that is not known."""
    try:
        return Path(f"/proc/{pid}/cwd").samefile(directory)
    except OSError:
        return not Path("/proc/self/cwd").exists()
