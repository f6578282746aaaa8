"""Where an embedded server listens: a private directory whose path is short enough for a unix socket."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path

from flowstone.errors import EmbeddedDatabaseError
from flowstone.stores.postgres.server_account import ServerAccount

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
