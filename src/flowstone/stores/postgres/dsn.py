"""Reading and masking the address of a database."""

from __future__ import annotations

import re
from urllib.parse import quote, urlencode

from flowstone.core.text import hide_values
from flowstone.errors import ConfigurationError, MissingExtraError

SECRETS = frozenset({"password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"})


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

    expected = "Expected postgresql://user:password@host:port/database or libpq key=value pairs."
    if not dsn.strip():
        raise ConfigurationError(f"The database URL is empty. {expected}")
    if scheme := re.match(r"([a-z0-9]+\+[a-z0-9]+)://", dsn):
        raise ConfigurationError(f"The database URL starts with {scheme[1]!r}, SQLAlchemy's form. {expected}")
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
