"""The dashboard from the command line: `web` serves it, `web passwd` and `web token` say who may use it."""

from __future__ import annotations

import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from flowstone.cli.output import one_line
from flowstone.cli.session import Session
from flowstone.config import Settings
from flowstone.errors import ConfigurationError, MissingExtraError, OptionsError

_PACKAGES = ("starlette", "jinja2", "uvicorn")
_MIN_PASSWORD = 8
_DAY = 86_400.0

Users = Annotated[
    Path | None,
    typer.Option("--users", metavar="FILE", help="People and tokens; by default users.json in the storage."),
]
RoleName = Annotated[str, typer.Option("--role", help="viewer, approver, operator or admin.")]
Name = Annotated[str, typer.Argument(help="Who, as it is recorded with every action.")]
Remove = Annotated[bool, typer.Option("--remove", help="Take the access away.")]


def serve(
    session: Session,
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="Port; 0 for any that is free. Default: 4300.")
    ] = None,
    users: Users = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Leave all actions out.")] = False,
    allow_host: Annotated[
        list[str] | None, typer.Option("--allow-host", metavar="NAME", help="A name under which it is reached.")
    ] = None,
    trust_proxy: Annotated[
        list[str] | None,
        typer.Option("--trust-proxy", metavar="ADDRESS", help="A proxy whose X-Forwarded headers count."),
    ] = None,
    user_header: Annotated[
        str | None,
        typer.Option("--user-header", metavar="NAME", help="Header with which that proxy names the person."),
    ] = None,
    prefix: Annotated[
        str, typer.Option("--prefix", metavar="PATH", help="Path below which a proxy serves it, such as /flow.")
    ] = "",
) -> None:
    """Serve the dashboard until Ctrl-C; on this machine alone unless a users file says who may come."""
    server = _module("server")
    file = users or _default_file(session.settings)

    def say(address: str) -> None:
        if session.out.as_json:
            session.out.json({"address": address})
        else:
            session.out.line(f"Dashboard: {address}")
        session.out.flush()

    server.serve(
        session.flow,
        host=host,
        port=port,
        users_file=file if users is not None or file.exists() else None,
        read_only=read_only,
        allowed_hosts=allow_host or (),
        trusted_proxies=trust_proxy or (),
        user_header=user_header,
        prefix=prefix,
        on_ready=say,
    )


def passwd(
    session: Session,
    name: Name,
    *,
    role: RoleName = "viewer",
    users: Users = None,
    remove: Remove = False,
    no_password: Annotated[
        bool, typer.Option("--no-password", help="Only a proxy names this person (--user-header).")
    ] = False,
) -> None:
    """Give a person a password and a role; the password is asked for, or read from standard input."""
    file = _users_file(session, users)
    if remove:
        _remove(session, file, name, "person")
        return
    allowed = _role(role)
    kept = "" if no_password else _module("access").hash_password(_password(name))
    file.set_user(name, allowed, kept)
    if session.out.as_json:
        session.out.json({"name": name, "role": allowed.label, "file": str(file.path)})
        return
    session.out.line(f"{one_line(name)} may log in as {allowed.label} ({file.path}); a running dashboard knows.")


def token(
    session: Session,
    name: Name,
    *,
    role: RoleName = "viewer",
    users: Users = None,
    days: Annotated[float | None, typer.Option("--days", min=0.001, help="How long it holds.")] = 365.0,
    remove: Remove = False,
) -> None:
    """Make a token of the JSON API, shown once; a token of the same name before it ends."""
    file = _users_file(session, users)
    if remove:
        _remove(session, file, name, "token")
        return
    allowed = _role(role)
    ends = None if days is None else time.time() + days * _DAY
    secret = file.new_token(name, allowed, expires_at=ends)
    if session.out.as_json:
        session.out.json({"name": name, "role": allowed.label, "file": str(file.path), "value": secret})
        return
    session.out.note(f"A token with the role {allowed.label}; it is shown this once, and only its hash is kept:")
    session.out.line(secret)


def _module(name: str) -> Any:
    """Load a part of the dashboard, whose packages are an extra."""
    try:
        return import_module(f"flowstone.web.{name}")
    except ModuleNotFoundError as error:
        if (package := (error.name or "").partition(".")[0]) in _PACKAGES:
            raise MissingExtraError(package, "web", "The dashboard") from error
        raise


def _users_file(session: Session, given: Path | None) -> Any:
    return _module("access").UsersFile(given or _default_file(session.settings))


def _default_file(settings: Settings) -> Path:
    return Path(settings.storage).absolute() / "users.json"


def _role(name: str) -> Any:
    try:
        return _module("registry").Role.of(name)
    except ValueError as error:
        raise OptionsError(f"--role: {error}.") from error


def _remove(session: Session, file: Any, name: str, kind: str) -> None:
    if not file.remove(name):
        raise OptionsError(f"There is no {kind} {name!r} in {file.path}.")
    if session.out.as_json:
        session.out.json({"name": name, "removed": True})
    else:
        session.out.line(f"{one_line(name)} has no access any more; a running dashboard knows.")


def _password(name: str) -> str:
    if sys.stdin.isatty():
        given: str = typer.prompt(f"Password of {name}", hide_input=True, confirmation_prompt=True, err=True)
    else:
        given = sys.stdin.readline().rstrip("\r\n")
    if len(given) < _MIN_PASSWORD:
        raise ConfigurationError(f"A password has at least {_MIN_PASSWORD} characters; this one has {len(given)}.")
    return given
