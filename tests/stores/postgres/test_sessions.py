"""Servers, roles and poolers that are set up in other ways than ours."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg
import pytest

from flowstone import FlowStone, Settings, asset
from flowstone.errors import ConfigurationError, DatabaseError, DatabaseUnavailableError
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.store import upgrade


@asset
def number(context) -> str:
    return f"{context.started_at:%Z}"


@contextmanager
def role(url: str, **settings: str) -> Iterator[str]:
    """A role with settings of its own and the rights of ours."""
    with psycopg.connect(url, autocommit=True) as connection:
        name = f"role_{connection.info.backend_pid}"
        connection.execute(f"CREATE ROLE {name} LOGIN IN ROLE flowstone")
        for key, value in settings.items():
            connection.execute(f"ALTER ROLE {name} SET {key} = '{value}'")
        try:
            yield psycopg.conninfo.make_conninfo(url, user=name)
        finally:
            connection.execute(f"DROP OWNED BY {name}")
            connection.execute(f"DROP ROLE {name}")


def flow_on(url: str) -> FlowStone:
    return FlowStone([number], settings=Settings(database_url=url, executor="sync"))


def test_what_a_role_sets_does_not_matter(database_url: str) -> None:
    odd = {
        "search_path": "nowhere",
        "DateStyle": "German, DMY",
        "TimeZone": "Asia/Kathmandu",
        "IntervalStyle": "iso_8601",
        "client_encoding": "LATIN1",
        "default_transaction_isolation": "serializable",
    }
    with role(database_url, **odd) as url, flow_on(url) as flow:
        made = flow.materialize("number", force=True)
        assert made.value == "UTC"
        assert flow.runs.latest()[0].created_at.utcoffset().total_seconds() == 0  # type: ignore[union-attr]
        assert flow.schedule("number", executor="oban", force=True).id
        assert flow.queues.list()
        assert flow.why("number")


def test_a_server_that_only_reads_is_named(database_url: str) -> None:
    with role(database_url, default_transaction_read_only="on") as url, flow_on(url) as flow:
        with pytest.raises(DatabaseError, match=r"is read-only: a standby.*Connect to the primary"):
            flow.materialize("number")
        assert flow.runs.latest() == []  # reading works


def test_a_role_without_rights_is_named(database_url: str) -> None:
    with role(database_url) as url, psycopg.connect(database_url, autocommit=True) as connection:
        name = psycopg.conninfo.conninfo_to_dict(url)["user"]
        connection.execute(f"REVOKE flowstone FROM {name}")
        with (
            flow_on(url) as flow,
            pytest.raises(DatabaseError, match=r"may not do that: permission denied.*GRANT"),
        ):
            flow.materialize("number")


def test_who_is_refused_reads_why(database_url: str) -> None:
    url = psycopg.conninfo.make_conninfo(database_url, user="nobody")
    with pytest.raises(DatabaseUnavailableError, match='refuses the connection: role "nobody" does not exist'):
        Database(url).ping()


def test_a_database_that_cannot_hold_every_text_is_refused(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'")
        try:
            for use in (upgrade, lambda database: database.ping()):
                with pytest.raises(
                    ConfigurationError, match=r"encoded in LATIN1.*ENCODING 'UTF8' TEMPLATE template0"
                ):
                    use(Database(psycopg.conninfo.make_conninfo(database_url, dbname="latin")))
        finally:
            connection.execute("DROP DATABASE latin WITH (FORCE)")


class Pooler:
    """Stands between clients and a server as a pooler does: backends have other ids, notifications may get lost.

    Args:
        target: directory of the server's socket.
        keeps_sessions: whether notifications are passed on.
    """

    def __init__(self, target: str, *, keeps_sessions: bool) -> None:
        self._target = target
        self._keeps_sessions = keeps_sessions
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(f"{self._target}/.s.PGSQL.5432")
            threading.Thread(target=self._up, args=(client, server), daemon=True).start()
            threading.Thread(target=self._down, args=(server, client), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        with server, suppress(OSError):  # one side has left
            while data := client.recv(65536):
                server.sendall(data)
            server.shutdown(socket.SHUT_RDWR)

    def _down(self, server: socket.socket, client: socket.socket) -> None:
        with client, server.makefile("rb") as stream:
            try:
                while head := stream.read(1):
                    (size,) = struct.unpack("!i", length := stream.read(4))
                    body = stream.read(size - 4)
                    if head == b"K":
                        body = struct.pack("!i", 4_000_000) + body[4:]
                    if head != b"A" or self._keeps_sessions:
                        client.sendall(head + length + body)
            except (OSError, struct.error):
                return


@contextmanager
def pooled(url: str, *, keeps_sessions: bool) -> Iterator[str]:
    target = psycopg.conninfo.conninfo_to_dict(url)["host"]
    pooler = Pooler(target, keeps_sessions=keeps_sessions)
    try:
        # without encryption, which the first byte of the answer would be about
        yield psycopg.conninfo.make_conninfo(
            url, host="127.0.0.1", port=pooler.port, sslmode="disable", gssencmode="disable"
        )
    finally:
        pooler.close()


def test_a_pooler_in_transaction_mode_is_refused_and_one_in_session_mode_is_not(database_url: str) -> None:
    if not psycopg.conninfo.conninfo_to_dict(database_url)["host"].startswith("/"):
        pytest.skip("needs a socket")
    with pooled(database_url, keeps_sessions=False) as url:
        for use in (lambda: Database(url).ping(), lambda: flow_on(url).materialize("number")):
            with pytest.raises(ConfigurationError, match="a connection pooler in transaction mode"):
                use()
    with pooled(database_url, keeps_sessions=True) as url, flow_on(url) as flow:
        assert flow.materialize("number").value == "UTC"
