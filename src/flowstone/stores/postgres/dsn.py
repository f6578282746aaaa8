"""Reading and masking the address of a database."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, urlencode

from flowstone.core.clean import hide_values
from flowstone.errors import ConfigurationError, MissingExtraError

SECRETS = frozenset({"password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"})


_ADDRESS = re.compile(
    r"host(addr)?|port|dbname|user|password|passfile|service|options|client_encoding|connect_timeout|require_auth|"
    r"channel_binding|target_session_attrs|load_balance_hosts|(fallback_)?application_name|tcp_user_timeout|"
    r"(keepalives|ssl|gss|krb)\w*"
)
"""Options of a pool's connections that belong to the address; others, such as `autocommit`, are the pool's own."""


def parse_dsn(dsn: str) -> dict[str, str]:
    """Return the connection parameters that a DSN names.

    Args:
        dsn: `postgresql://` or `postgres://` URL, or libpq `key=value` string.

    Raises:
        ConfigurationError: it cannot be understood; the message repeats no part of it that may be secret.
        MissingExtraError: the extra `postgres` is not installed.

    Example:
        >>> parse_dsn("host=db.example port=5432")
        {'host': 'db.example', 'port': '5432'}
    """
    try:
        from psycopg import ProgrammingError
        from psycopg.conninfo import conninfo_to_dict
    except ImportError as error:
        raise MissingExtraError("psycopg", "postgres", "PostgreSQL") from error

    dsn = re.sub(r"^postgres(ql)?\+psycopg(2|_async)?://", "postgresql://", dsn.strip())  # SQLAlchemy's form
    expected = "Expected postgresql://user:password@host:port/database or libpq key=value pairs."
    if not dsn.strip():
        raise ConfigurationError(f"The database URL is empty. {expected}")
    if scheme := re.match(r"([a-z0-9]+\+[a-z0-9]+)://", dsn):
        raise ConfigurationError(f"The database URL starts with {scheme[1]!r}, of another driver. {expected}")
    try:
        parsed = {key: str(value) for key, value in conninfo_to_dict(dsn).items() if value is not None}
    except ProgrammingError as error:
        # libpq quotes what it stumbled over, and that may be the password; the cause is cut off for the same.
        reason = re.sub(r'".*"', '"…"', " ".join(str(error).split()))
        raise ConfigurationError(f"The database URL cannot be understood: {reason}. {expected}") from None
    hide_values([value for key, value in parsed.items() if key in SECRETS])
    for port in parsed.get("port", "").split(","):
        if port and not (port.isdecimal() and 0 < int(port) < 65536):
            raise ConfigurationError(f"The port in the database URL is not a port number. {expected}")
    timeout = parsed.get("connect_timeout", "1")
    if not (timeout.isdecimal() and int(timeout) > 0):
        raise ConfigurationError("connect_timeout in the database URL must be a whole number of seconds above 0.")
    return parsed


def address_of(given: object) -> str | None:
    """Return the address of a database that was given as text, or as an engine or pool that leads to it.

    Only the address is taken: connections are our own, in autocommit mode, some of them for as long as the process
    lives, so those of an engine or a pool are left to their owner.

    Args:
        given: text, an `Engine`, `AsyncEngine` or `URL` of SQLAlchemy, or a pool of psycopg; None for none.

    Raises:
        ConfigurationError: it is something else, or does not show its address.

    Example:
        >>> address_of("postgresql://db.example/data")
        'postgresql://db.example/data'
    """
    if given is None or isinstance(given, str):
        return given
    if any(one.__module__.partition(".")[0] == "psycopg_pool" for one in type(given).__mro__):
        return _of_pool(given)
    url: Any = getattr(given, "url", given)
    if not hasattr(url, "render_as_string"):
        raise ConfigurationError(
            f"database_url={type(given).__qualname__} object: give a URL, an engine of SQLAlchemy or a "
            "connection pool of psycopg."
        )
    if url.get_backend_name() != "postgresql" or not (url.host or url.database or url.query):
        raise ConfigurationError(
            f"database_url=: the engine's address is {url.render_as_string()!r}, from which no PostgreSQL can be "
            "reached; give a URL: database_url='postgresql://...'."
        )
    return f"postgresql://{url.render_as_string(hide_password=False).partition('://')[2]}"


def _of_pool(pool: Any) -> str:
    """Return the address to which a pool of psycopg connects, whatever class and options its connections have."""
    from psycopg.conninfo import make_conninfo

    conninfo, options = pool.conninfo, pool.kwargs
    try:
        conninfo = conninfo() if callable(conninfo) else conninfo
        options = dict(options() if callable(options) else options or {})
        text = {key: str(value) for key, value in options.items() if _ADDRESS.fullmatch(key)}
        return make_conninfo(conninfo, **text)
    except Exception as error:  # noqa: BLE001 - a callable of the user's may raise anything
        raise ConfigurationError(
            f"database_url=: the pool does not show its address ({type(error).__name__}); give a URL: "
            "database_url='postgresql://...'."
        ) from None


def masked_dsn(parameters: dict[str, str]) -> str:
    """Return a URL that names the target and shows no secret.

    Args:
        parameters: what `parse_dsn` returned.

    Example:
        >>> masked_dsn({"user": "ann", "password": "secret", "host": "db", "dbname": "data"})
        'postgresql://ann:***@db/data'
    """
    rest = {key: "***" if key in SECRETS else value for key, value in sorted(parameters.items())}
    user, password = rest.pop("user", ""), rest.pop("password", "")
    name, port = rest.pop("dbname", ""), rest.get("port", "")
    host = rest.get("host", "")
    address = ""
    if not host.startswith(("/", "@")) and "," not in host:
        address = f"[{host}]" if ":" in host else host
        address += f":{port}" if port else ""
        rest.pop("host", None)
        rest.pop("port", None)
    login = quote(user, safe="") + (f":{password}" if password else "")
    query = urlencode(rest, safe="/*,:@")
    return f"postgresql://{login}{'@' if login else ''}{address}/{quote(name)}{'?' if query else ''}{query}"
