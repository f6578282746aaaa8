"""Who sends a request: sessions in memory, people and tokens of a file, the link that a start prints, proxies.

What is secret is never kept: of sessions and tokens there is a hash of 256 random bits, of passwords one
of scrypt.
"""

from __future__ import annotations

import hashlib
import hmac
import inspect
import json
import logging
import os
import secrets
import stat
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.requests import Request

from flowstone.core.declaring import is_text
from flowstone.errors import ConfigurationError
from flowstone.web.guard import Way
from flowstone.web.problems import Problem
from flowstone.web.registry import Person, Role

log = logging.getLogger("flowstone.web")

SESSION_SECONDS = 12 * 3600.0
MAX_SESSIONS = 10_000
_FAILURES_OF_A_CLIENT, _FAILURES_OF_A_NAME = 10, 30
_TOKEN = "fst_"  # noqa: S105 - what tokens begin with, so that scanners of secrets find them


def digest(secret: str) -> str:
    """Return what is kept of a secret with 256 random bits."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


class Sessions:
    """The sessions of one process: the hash of an id to a person, until the end of 12 hours.

    Args:
        clock: seconds since 1970.
        file: where they are kept over a restart, readable by its owner only; None for in memory.

    Example:
        >>> sessions = Sessions()
        >>> key = sessions.open(Person("ann"))
        >>> sessions.person(key)
        Person(name='ann', role=<Role.VIEWER: 1>)
        >>> sessions.close(key); sessions.person(key)
    """

    def __init__(self, clock: Callable[[], float] = time.time, file: Path | None = None) -> None:
        self._clock = clock
        self._file = file
        self._guard = threading.Lock()
        self._open: dict[str, tuple[Person, float]] = _read_sessions(file) if file is not None else {}

    def open(self, person: Person) -> str:
        """Return the id of a new session."""
        key = secrets.token_urlsafe(32)
        with self._guard:
            now = self._clock()
            if len(self._open) >= MAX_SESSIONS:
                self._open = {one: at for one, at in self._open.items() if at[1] > now}
            while len(self._open) >= MAX_SESSIONS:
                del self._open[next(iter(self._open))]
            self._open[digest(key)] = (person, now + SESSION_SECONDS)
            self._keep()
        return key

    def person(self, key: str | None) -> Person | None:
        """Return whose session this is; None when it is over or never was."""
        if not key:
            return None
        with self._guard:
            found = self._open.get(digest(key))
        return found[0] if found and found[1] > self._clock() else None

    def close(self, key: str | None) -> None:
        """End a session."""
        if key:
            with self._guard:
                if self._open.pop(digest(key), None) is not None:
                    self._keep()

    def _keep(self) -> None:
        if self._file is None:
            return
        now = self._clock()
        kept = {key: [one.name, one.role.label, ends] for key, (one, ends) in self._open.items() if ends > now}
        try:
            write_privately(self._file, kept)
        except OSError as error:  # they end with the process then
            log.warning("Sessions cannot be kept in %s: %s", self._file, error)


def _read_sessions(file: Path) -> dict[str, tuple[Person, float]]:
    """Return the sessions of a process before; none of a file that is not ours alone, or cannot be read."""
    try:
        if is_open_to_others(file.stat()):
            log.warning("Sessions in %s are not used: others may read or write it.", file)
            return {}
        kept = json.loads(file.read_text(encoding="utf-8"))
        return {key: (Person(name, Role.of(role)), float(ends)) for key, (name, role, ends) in kept.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        log.warning("Sessions in %s cannot be read: %s", file, error)
        return {}


def is_open_to_others(status: os.stat_result) -> bool:
    """Whether another user may read or write a file."""
    return bool(status.st_mode & (stat.S_IRWXG | stat.S_IRWXO)) or status.st_uid not in (os.getuid(), 0)


def write_privately(path: Path, document: object) -> None:
    """Write JSON into a file that only its owner may read, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(document, file, indent=2, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


class LoginLink:
    """The secret in the address that a start prints: whoever opens it once gets a session.

    Args:
        person: whose session.

    Example:
        >>> link = LoginLink(Person("ann", Role.ADMIN))
        >>> secret = link.secret
        >>> link.redeem("guessed"), link.redeem(secret).name, link.redeem(secret)
        (None, 'ann', None)
    """

    def __init__(self, person: Person) -> None:
        self.person = person
        self._guard = threading.Lock()
        self.secret = secrets.token_urlsafe(32)

    def redeem(self, secret: str) -> Person | None:
        """Return the person when the secret is right; it is used up then."""
        with self._guard:
            if not hmac.compare_digest(digest(secret), digest(self.secret)):
                return None
            self.secret = secrets.token_urlsafe(32)
            return self.person

    def renew(self) -> str:
        """Return a new secret; the one before is worth nothing any more."""
        with self._guard:
            self.secret = secrets.token_urlsafe(32)
            return self.secret


@dataclass(frozen=True, slots=True)
class User:
    """A person of the users file.

    Args:
        role: what this person may do.
        password: hash of scrypt with its salt; empty for a person whom only a proxy names.
    """

    role: Role
    password: str = ""


@dataclass(frozen=True, slots=True)
class Token:
    """A token of the JSON API.

    Args:
        role: what it allows.
        hash: of the secret.
        expires_at: seconds since 1970; None for never.
    """

    role: Role
    hash: str
    expires_at: float | None = None


@dataclass(slots=True)
class UsersFile:
    """People and tokens, in a JSON file that only its owner may read; read again when it changes.

    Args:
        path: of the file.
    """

    path: Path
    _read: tuple[float, int] | None = field(default=None, init=False)
    _users: dict[str, User] = field(default_factory=dict, init=False)
    _tokens: dict[str, Token] = field(default_factory=dict, init=False)
    _guard: threading.Lock = field(default_factory=threading.Lock, init=False)

    @property
    def users(self) -> Mapping[str, User]:
        """People by name."""
        self._refresh()
        return self._users

    @property
    def tokens(self) -> Mapping[str, Token]:
        """Tokens by name."""
        self._refresh()
        return self._tokens

    def check(self, name: str, password: str) -> Person | None:
        """Return the person when the password is right; takes as long for a name that is not there."""
        user = self.users.get(name)
        kept = user.password if user and user.password else _NOBODY
        right = verify_password(password, kept)
        return Person(name, user.role) if user and user.password and right else None

    def bearer(self, secret: str, now: float | None = None) -> Person | None:
        """Return on whose behalf a token speaks; None when there is no such token, or its time is over."""
        hashed = digest(secret)
        found = None
        for name, token in self.tokens.items():
            if hmac.compare_digest(token.hash, hashed):
                found = Person(name, token.role) if _holds(token, time.time() if now is None else now) else None
        return found

    def set_user(self, name: str, role: Role, password: str) -> None:
        """Add or change a person."""
        self._write(lambda kept: kept["users"].__setitem__(name, {"role": role.label, "password": password}), name)

    def new_token(self, name: str, role: Role, *, expires_at: float | None = None) -> str:
        """Return the secret of a new token; of one with the same name the old secret ends."""
        secret = _TOKEN + secrets.token_urlsafe(32)
        entry = {"role": role.label, "hash": digest(secret), "expires_at": expires_at}
        self._write(lambda kept: kept["tokens"].__setitem__(name, entry), name)
        return secret

    def remove(self, name: str) -> bool:
        """Remove a person or a token; whether there was one."""
        there = name in self.users or name in self.tokens

        def drop(kept: dict[str, Any]) -> None:
            kept["users"].pop(name, None)
            kept["tokens"].pop(name, None)

        if there:
            self._write(drop, name)
        return there

    def _refresh(self) -> None:
        try:
            status = self.path.stat()
        except OSError:
            with self._guard:
                self._users, self._tokens, self._read = {}, {}, None
            return
        version = (status.st_mtime_ns / 1e9, status.st_size)
        if version == self._read:
            return
        kept = self._document(status)
        users = {name: User(Role.of(one["role"]), one.get("password", "")) for name, one in kept["users"].items()}
        tokens = {
            name: Token(Role.of(one["role"]), one["hash"], one.get("expires_at"))
            for name, one in kept["tokens"].items()
        }
        with self._guard:
            self._users, self._tokens, self._read = users, tokens, version

    def _document(self, status: os.stat_result | None) -> dict[str, Any]:
        if status is None:
            return {"users": {}, "tokens": {}}
        if is_open_to_others(status):
            raise ConfigurationError(
                f"{self.path} may be read or written by others: it says who may steer this app. chmod 600 it."
            )
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            for name, one in (*kept["users"].items(), *kept["tokens"].items()):
                Role.of(one["role"])
                if not is_text(name):
                    raise ValueError(f"{name!r} is no name")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(
                f"{self.path} is no file of users: {error}. `flowstone web passwd NAME` writes one."
            ) from error
        return {"users": kept["users"], "tokens": kept["tokens"]}

    def _write(self, change: Callable[[dict[str, Any]], None], name: str) -> None:
        if not is_text(name) or len(name) > 200 or not name.isprintable():
            raise ConfigurationError(f"{name!r} is no name: give 1 to 200 printable characters.")
        kept = self._document(self.path.stat() if self.path.exists() else None)
        change(kept)
        write_privately(self.path, kept)
        self._read = None


def _holds(token: Token, now: float) -> bool:
    return token.expires_at is None or token.expires_at > now


def hash_password(password: str) -> str:
    """Return what is kept of a password."""
    salt = secrets.token_bytes(16)
    return f"scrypt${salt.hex()}${_scrypt(password, salt).hex()}"


def _scrypt(password: str, salt: bytes) -> bytes:
    secret = password.encode("utf-8", "surrogatepass")
    return hashlib.scrypt(secret, salt=salt, n=2**14, r=8, p=1, maxmem=64 * 2**20, dklen=32)


def verify_password(password: str, kept: str) -> bool:
    """Whether a password is the one of which this was kept.

    Example:
        >>> verify_password("right", hash_password("right")), verify_password("wrong", hash_password("right"))
        (True, False)
    """
    try:
        _, salt, expected = kept.split("$")
        return hmac.compare_digest(_scrypt(password, bytes.fromhex(salt)), bytes.fromhex(expected))
    except ValueError:
        return False


_NOBODY = f"scrypt${'00' * 16}${'00' * 32}"
"""Compared with when there is no such person, so that the answer takes as long."""


class Attempts:
    """How often a login may fail within a minute: 10 times from one address, 30 times for one name.

    A name gets more, so that nobody can keep another person out with a few wrong passwords from elsewhere.

    Example:
        >>> attempts = Attempts(clock=lambda: 0.0)
        >>> for _ in range(10): attempts.failed("ann", "10.0.0.1")
        >>> attempts.wait("ann", "10.0.0.1"), attempts.wait("ann", "10.9.9.9")
        (60, 0)
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._guard = threading.Lock()
        self._failed: dict[tuple[str, str], list[float]] = {}

    def wait(self, name: str, client: str) -> int:
        """Return in how many seconds the next try is taken; 0 for now."""
        now, latest = self._clock(), 0.0
        with self._guard:
            for key, limit in ((("name", name), _FAILURES_OF_A_NAME), (("client", client), _FAILURES_OF_A_CLIENT)):
                recent = [at for at in self._failed.get(key, ()) if at > now - 60]
                if len(recent) >= limit:
                    latest = max(latest, recent[-limit] + 60 - now)
        return int(latest + 0.999)

    def failed(self, name: str, client: str) -> None:
        """Note a failed try."""
        now = self._clock()
        with self._guard:
            if len(self._failed) > 10_000:
                self._failed = {key: at for key, at in self._failed.items() if at[-1] > now - 60}
            for key in (("name", name), ("client", client)):
                recent = [at for at in self._failed.get(key, ()) if at > now - 60]
                self._failed[key] = [*recent, now][-_FAILURES_OF_A_NAME:]


type Identify = Callable[[Any], Person | Awaitable[Person | None] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Every way to be recognised that a dashboard has.

    Args:
        identify: of the application around it; decides alone when it is given, tokens apart.
        users: people and tokens.
        link: the secret of a printed address.
        user_header: name of the header with which a trusted proxy names the person.
    """

    identify: Identify | None = None
    users: UsersFile | None = None
    link: LoginLink | None = None
    user_header: str | None = None
    sessions: Sessions = field(default_factory=Sessions)
    attempts: Attempts = field(default_factory=Attempts)

    @property
    def has_sessions(self) -> bool:
        """Whether a person can log in and out here."""
        return self.identify is None and self.user_header is None

    @property
    def has_passwords(self) -> bool:
        """Whether there is a form to log in with."""
        users = self.users.users.values() if self.users is not None else ()
        return self.identify is None and self.user_header is None and any(one.password for one in users)

    async def person(self, request: Request, way: Way) -> Person | None:
        """Return who sends a request; None for nobody known.

        Raises:
            Problem: 401; a token that is given is not known, or its time is over.
        """
        kind, _, secret = request.headers.get("authorization", "").partition(" ")
        if self.users is not None and kind.lower() == "bearer":
            speaker = self.users.bearer(secret.strip())
            if speaker is None:
                raise Problem(
                    401,
                    "This token is not known here, or its time is over.",
                    "`flowstone web token NAME` makes a new one.",
                    {"WWW-Authenticate": 'Bearer error="invalid_token"'},
                )
            return speaker
        if self.identify is not None:
            found = self.identify(request)
            return checked(await found if inspect.isawaitable(found) else found)
        if self.user_header is not None and way.proxied:
            name = request.headers.get(self.user_header, "")
            user = self.users.users.get(name) if self.users is not None and name else None
            return Person(name, user.role) if user else None
        return self._of_session(request.cookies.get(session_cookie(way)))

    def _of_session(self, key: str | None) -> Person | None:
        person = self.sessions.person(key)
        if person is None or (self.link is not None and person == self.link.person):
            return person
        # what the file says now counts: a role that was lowered, a person who was removed
        user = self.users.users.get(person.name) if self.users is not None else None
        return Person(person.name, user.role) if user else None


def checked(found: object) -> Person | None:
    """Return what `identify` answered.

    Raises:
        ConfigurationError: it is neither a `Person` nor None.
    """
    if found is None or (isinstance(found, Person) and type(found.role) is Role and is_text(found.name)):
        return found
    raise ConfigurationError(
        f"identify(request) answered with {type(found).__name__}; return flowstone.web.Person(name, Role.VIEWER), "
        "or None for nobody."
    )


def session_cookie(way: Way) -> str:
    """Return the name of the cookie: with the prefix that browsers hold to its rules, else with the port.

    Cookies of one host are shared by all its ports; two dashboards on one machine must not log each other out.
    """
    if way.secure:
        return "__Secure-flowstone" if way.prefix else "__Host-flowstone"
    port = way.host.rpartition(":")[2]
    return f"flowstone_{port}" if port.isdecimal() else "flowstone"
