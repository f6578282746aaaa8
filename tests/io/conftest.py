from __future__ import annotations

import psycopg
import pytest


@pytest.fixture
def io_database(database_url: str) -> str:
    """A database with the tables of PostgresIO."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA IF NOT EXISTS flowstone")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS flowstone.output_payloads "
            "(version text PRIMARY KEY, payload bytea NOT NULL)"
        )
        connection.execute(
            "CREATE TABLE IF NOT EXISTS flowstone.output_chunks "
            "(version text, chunk int, payload bytea NOT NULL, PRIMARY KEY (version, chunk))"
        )
    return database_url
