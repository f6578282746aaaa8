"""The dashboard as a server of its own: `flowstone web`, and `serving` for a thread of a program.

It binds to loopback. Another address needs people with passwords, or a proxy that names them, because whoever
reaches the port would otherwise reach the app.
"""

from __future__ import annotations

import getpass
import ipaddress
import logging
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from flowstone.app.flow import FlowStone
from flowstone.errors import ConfigurationError
from flowstone.web.access import LoginLink, UsersFile
from flowstone.web.application import Dashboard, create_app
from flowstone.web.registry import Person, Role

PORT = 4300
"""Used when none is given and it is free."""
_GRACE_SECONDS = 2
_BACKLOG = 128

log = logging.getLogger("flowstone.web")


def serve(
    flow: FlowStone,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    users_file: str | Path | None = None,
    read_only: bool = False,
    allowed_hosts: Iterable[str] = (),
    trusted_proxies: Iterable[str] = (),
    user_header: str | None = None,
    prefix: str = "",
    on_ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve the dashboard until SIGINT or SIGTERM.

    Args:
        flow: the app.
        host: address to bind to.
        port: to listen on; 0 for any that is free, None for 4300, or any that is free when that is taken.
        users_file: see `create_app`.
        read_only: see `create_app`.
        allowed_hosts: see `create_app`.
        trusted_proxies: see `create_app`.
        user_header: see `create_app`.
        prefix: see `create_app`.
        on_ready: called once with the address to open; on loopback it carries the secret of a login link.

    Raises:
        ConfigurationError: the address is not loopback and nothing says who may come, or the port is taken.
    """
    server, listening, address = _prepared(
        flow,
        host=host,
        port=port,
        users_file=users_file,
        read_only=read_only,
        allowed_hosts=tuple(allowed_hosts),
        trusted_proxies=tuple(trusted_proxies),
        user_header=user_header,
        prefix=prefix,
        sessions_file=Path(flow.settings.storage).absolute() / "web-sessions.json",
    )
    server.on_ready = lambda: on_ready(address)
    with listening:
        server.run(sockets=[listening])


@contextmanager
def serving(
    flow: FlowStone,
    *,
    host: str = "127.0.0.1",
    port: int | None = 0,
    users_file: str | Path | None = None,
    read_only: bool = False,
) -> Iterator[str]:
    """Serve the dashboard from a thread; gives the address with the login link.

    Args:
        flow: the app.
        host: a loopback address.
        port: see `serve`.
        users_file: see `create_app`.
        read_only: see `create_app`.

    Example:
        >>> from flowstone import FlowStone
        >>> with serving(FlowStone.for_testing([])) as address:
        ...     address.startswith("http://127.0.0.1:")
        True
    """
    server, listening, address = _prepared(flow, host=host, port=port, users_file=users_file, read_only=read_only)
    ready = threading.Event()
    server.on_ready = ready.set
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [listening]}, name="flowstone-web-server", daemon=True
    )
    with listening:
        thread.start()
        try:
            ready.wait(10.0)
            yield address
        finally:
            server.should_exit = True
            thread.join(_GRACE_SECONDS + 5.0)


class _Server(uvicorn.Server):
    """Says when it listens.

    Args:
        config: of uvicorn.
        app: whose streams end first when it stops.
    """

    def __init__(self, config: uvicorn.Config, app: Dashboard) -> None:
        super().__init__(config)
        self.app = app
        self.on_ready: Callable[[], None] = lambda: None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            self.on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # a stream never ends by itself, and the server would wait for it
        self.app.live.close()
        await super().shutdown(sockets=sockets)


def _prepared(
    flow: FlowStone,
    *,
    host: str,
    port: int | None,
    users_file: str | Path | None = None,
    read_only: bool = False,
    allowed_hosts: tuple[str, ...] = (),
    trusted_proxies: tuple[str, ...] = (),
    user_header: str | None = None,
    prefix: str = "",
    sessions_file: Path | None = None,
) -> tuple[_Server, socket.socket, str]:
    """Return a server, the socket on which it will listen, and the address to open."""
    local = is_loopback(host)
    if not local and user_header is None and not _has_passwords(users_file):
        raise ConfigurationError(
            f"host={host!r}: every machine that reaches this address could steer the app. Say who may: `flowstone "
            "web passwd NAME --role admin` writes a users file, and --users FILE uses it; or put a proxy that "
            "knows people in front of it, with --trust-proxy ADDRESS and --user-header NAME."
        )
    link = LoginLink(Person(_user(), Role.ADMIN)) if local and user_header is None else None
    named = () if local or host in ("0.0.0.0", "::") else (f"[{host}]" if ":" in host else host,)  # noqa: S104
    app = create_app(
        flow,
        users_file=users_file,
        read_only=read_only,
        allowed_hosts=(*named, *allowed_hosts),
        trusted_proxies=trusted_proxies,
        user_header=user_header,
        prefix=prefix,
        login_link=link,
        sessions_file=sessions_file,
    )
    listening = _listening(host, port)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        proxy_headers=False,  # the guard reads them, from trusted addresses only
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listening.getsockname()[1]}{app.guard.prefix}/"
    return _Server(config, app), listening, f"{address}login/link?open={link.secret}" if link else address


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address.

    Example:
        >>> is_loopback("localhost"), is_loopback("127.0.0.2"), is_loopback("0.0.0.0"), is_loopback("::1")
        (True, True, False, True)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _has_passwords(users_file: str | Path | None) -> bool:
    return users_file is not None and any(one.password for one in UsersFile(Path(users_file)).users.values())


def _listening(host: str, port: int | None) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    candidates = (PORT, 0) if port is None else (port,)
    for candidate in candidates:
        try:
            return socket.create_server((host, candidate), family=family, backlog=_BACKLOG)
        except OSError as error:
            if candidate == candidates[-1]:
                raise ConfigurationError(
                    f"The dashboard cannot listen on {host}:{candidate}: {error.strerror}. --port 0 takes any "
                    "that is free."
                ) from error
    raise AssertionError("unreachable")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return "local"
