"""Who the embedded server runs as (PostgreSQL refuses root), and where it listens (sockets refuse long paths)."""

from __future__ import annotations

import logging
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flowstone.errors import EmbeddedDatabaseError

if sys.platform != "win32":
    import pwd

log = logging.getLogger(__name__)

_OWN_USER = "flowstone-pg"
_USERS = ("postgres", _OWN_USER)


@dataclass(frozen=True, slots=True)
class ServerAccount:
    """Who a server and its tools run as.

    Args:
        name: login name, for messages.
        uid: numeric user id.
        gid: numeric group id.
        switch: whether this process is root and must become that user for them.
    """

    name: str
    uid: int
    gid: int
    switch: bool

    @classmethod
    def for_data(cls, data: Path) -> ServerAccount:
        """Return this user; for root the owner of the data, else `postgres`, else a user made for it.

        Args:
            data: data directory, which need not exist.

        Raises:
            EmbeddedDatabaseError: the data belong to another user, or root has no user to become.

        Example:
            >>> ServerAccount.for_data(Path("/nonexistent")).uid != 0
            True
        """
        owner = data.stat().st_uid if data.exists() else None
        if os.geteuid() == 0:
            return cls._named_by_uid(owner, switch=True) if owner else _unprivileged()
        if owner not in (None, os.geteuid()):
            raise EmbeddedDatabaseError(
                f"The database in {data} belongs to the user with id {owner}, not to you "
                f"(id {os.geteuid()}). Run as that user, or choose another directory."
            )
        return cls._named_by_uid(os.geteuid(), switch=False)

    @classmethod
    def _named_by_uid(cls, uid: int, *, switch: bool) -> ServerAccount:
        try:
            entry = pwd.getpwuid(uid)
        except KeyError:  # containers run under ids that no file names
            return cls(str(uid), uid, os.getegid() if not switch else uid, switch)
        return cls(entry.pw_name, uid, entry.pw_gid if switch else os.getegid(), switch)

    def own(self, path: Path) -> None:
        """Give a file or directory that this process made to the account."""
        if self.switch:
            os.chown(path, self.uid, self.gid)

    def make_reachable(self, path: Path) -> None:
        """Let the account pass through the directories down to `path`, itself included.

        Only the missing execute bit of a directory is set, which allows to pass but not to list it.
        """
        if not self.switch:
            return
        resolved = path.resolve()
        for directory in (*reversed(resolved.parents), resolved):
            found = directory.stat()
            if found.st_uid == self.uid:
                bit = stat.S_IXUSR
            elif found.st_gid == self.gid:
                bit = stat.S_IXGRP
            else:
                bit = stat.S_IXOTH
            if not found.st_mode & bit:
                directory.chmod(stat.S_IMODE(found.st_mode) | bit)
                log.info(
                    "PostgreSQL cannot run as root and runs as user %s, who may now pass through %s "
                    "(execute bit set, nothing else).",
                    self.name,
                    directory,
                )

    def run(
        self, command: Sequence[str | Path], *, cwd: Path, pass_fds: Sequence[int] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run a tool as the account, in a session of its own (Ctrl-C in our terminal does not reach it).

        Args:
            command: program and arguments.
            cwd: directory to run in, reachable by the account.
            pass_fds: descriptors that the tool and its children inherit.

        Returns:
            The ended process, with standard output and error together in `stdout`.

        Raises:
            EmbeddedDatabaseError: the program cannot be executed at all.
        """
        # Our user's PGHOST, PGDATA, PGOPTIONS... are about other servers.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        try:
            return subprocess.run(  # noqa: S603  (PostgreSQL's own tools, no shell)
                [str(part) for part in command],
                cwd=cwd,
                env=environment | {"LC_ALL": "C", "TZ": "UTC"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                check=False,
                start_new_session=True,
                pass_fds=pass_fds,
                user=self.uid if self.switch else None,
                group=self.gid if self.switch else None,
                extra_groups=[] if self.switch else None,
            )
        except OSError as error:
            raise EmbeddedDatabaseError(
                f"{command[0]} cannot be run by user {self.name!r}: {error.strerror or error}. The installed "
                "package must be readable by that user; or run as an ordinary user instead of root."
            ) from error


def _unprivileged() -> ServerAccount:
    for name in _USERS:
        if account := _existing(name):
            return account
    why = "the program useradd is missing"
    if useradd := shutil.which("useradd"):
        command = [useradd, "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin"]
        command.append(_OWN_USER)
        made = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        why = made.stderr.strip()
        if account := _existing(_OWN_USER):
            log.info("PostgreSQL cannot run as root; made the system user %s for it.", _OWN_USER)
            return account
    raise EmbeddedDatabaseError(
        f"PostgreSQL cannot run as root and no user could be made for it: {why}. Create a system user named "
        f"{_OWN_USER!r}, run as an ordinary user, or set FLOWSTONE_DATABASE_URL to a server of your own."
    )


def _existing(name: str) -> ServerAccount | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return ServerAccount(name, entry.pw_uid, entry.pw_gid, switch=True)


SOCKET = ".s.PGSQL.5432"
# sun_path holds 108 bytes on Linux and 104 on macOS, with the final NUL.
_MAX_BYTES = 103 - len(SOCKET) - 1
_PREFIX = "flowstone-"


class SocketDirectory:
    """The directory of a server's socket, remembered in a file beside its data.

    Data directories may lie anywhere (long paths, spaces, other alphabets); the socket may not. It lives in a
    directory of mode 0700 with a random name, so that trusting every local connection trusts only its owner
    (and root).

    Args:
        record: file that remembers the directory.
        data: data directory of the server, to recognise our own socket.
        account: user of the server.
    """

    def __init__(self, record: Path, *, data: Path, account: ServerAccount) -> None:
        self._record = record
        self._data = data
        self._account = account

    def find(self) -> Path | None:
        """Return the remembered directory if it is still there and still private."""
        try:
            path = Path(self._record.read_text(encoding="utf-8").strip())
            found = path.lstat()
        except (OSError, ValueError):
            return None
        private = stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) == stat.S_IRWXU
        ours = private and found.st_uid == self._account.uid and path.name.startswith(_PREFIX)
        return path if ours and self._serves_our_data(path) else None

    def ensure(self) -> Path:
        """Return the remembered directory, or make and remember a new one.

        Keeping it over a crash keeps the address that other processes already know.
        """
        if path := self.find():
            return path
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_short_parent()))
        try:
            self._account.own(path)
            self._account.make_reachable(path)
            written = self._record.with_suffix(".new")
            written.write_text(f"{path}\n", encoding="utf-8")
            self._account.own(written)
            written.replace(self._record)
        except BaseException:
            path.rmdir()
            raise
        return path

    def remove(self) -> None:
        """Remove the directory of a stopped server."""
        if path := self.find():
            shutil.rmtree(path, ignore_errors=True)
        self._record.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove what a killed server left; its pid, reused, would keep the next server from starting."""
        if path := self.find():
            (path / f"{SOCKET}.lock").unlink(missing_ok=True)
            (path / SOCKET).unlink(missing_ok=True)

    def _serves_our_data(self, path: Path) -> bool:
        """Whether the socket in there is ours: a copied project remembers the directory of its original."""
        try:
            lines = (path / f"{SOCKET}.lock").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return len(lines) > 1 and os.path.realpath(lines[1]) == os.path.realpath(self._data)


def _short_parent() -> Path:
    for parent in (tempfile.gettempdir(), "/tmp"):  # noqa: S108  (a private directory is made inside)
        # What mkdtemp appends; quotes, commas and blanks would need quoting in the server's configuration.
        length = len(os.fsencode(parent)) + 1 + len(_PREFIX) + 8
        if length <= _MAX_BYTES and parent.isascii() and not set(parent) & set(" ,'\"\\"):
            return Path(parent)
    raise EmbeddedDatabaseError(
        f"The temporary directory {tempfile.gettempdir()} is too long a path for a unix socket. "
        "Set TMPDIR to a short one."
    )
