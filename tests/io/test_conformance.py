from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from flowstone.core.output import StoredOutput
from flowstone.io import FilesystemIO, MemoryIO, PickleSerializer, PostgresIO
from flowstone.protocols import IOManager, SweepableIO
from flowstone.testing.io_conformance import IOManagerConformance


class TestMemory(IOManagerConformance):
    def create(self) -> IOManager:
        return MemoryIO()


class TestFilesystem(IOManagerConformance):
    @pytest.fixture(autouse=True)
    def _root(self, tmp_path: Path) -> None:
        self.root = tmp_path / "with spaces and ümlauts" / "values"

    def create(self) -> IOManager:
        return FilesystemIO(self.root, durable=False)

    def damage(self, stored: StoredOutput) -> bool:
        path = self.root / stored.location
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        return True

    def writer(self) -> str:
        return f"from flowstone.io import FilesystemIO\nmanager = FilesystemIO({str(self.root)!r})\n"

    def names(self) -> list[str]:
        return [str(path) for path in self.root.rglob("*") if path.is_file()]

    def test_is_sweepable(self) -> None:
        assert isinstance(self.create(), SweepableIO)


class TestFilesystemWithPickle(TestFilesystem):
    def create(self) -> IOManager:
        return FilesystemIO(self.root, durable=False, serializer=PickleSerializer(key=b"k" * 32))

    def damage(self, stored: StoredOutput) -> bool:
        return False  # refused as an unsafe pickle: tests/io/test_pickling.py

    def writer(self) -> None:
        """One format is enough."""


class TestPostgres(IOManagerConformance):
    inline_limit_bytes = 65_536

    @pytest.fixture(autouse=True)
    def _database(self, io_database: str) -> None:
        self.url = io_database

    def create(self) -> IOManager:
        return PostgresIO(
            lambda: psycopg.connect(self.url, autocommit=True),
            inline_limit_bytes=self.inline_limit_bytes,
            chunk_bytes=100_000,
        )

    def commit(self, stored: StoredOutput) -> StoredOutput:
        if stored.payload is not None:
            version = stored.location.removeprefix("inline:")
            with psycopg.connect(self.url, autocommit=True) as connection:
                connection.execute(
                    "INSERT INTO flowstone.output_payloads (version, payload) VALUES (%s, %s)",
                    (version, stored.payload),
                )
        return super().commit(replace(stored, payload=None))


class TestPostgresInChunks(TestPostgres):
    inline_limit_bytes = 0

    def damage(self, stored: StoredOutput) -> bool:
        version = stored.location.removeprefix("chunks:")
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("DELETE FROM flowstone.output_chunks WHERE version = %s AND chunk > 0", (version,))
        return True

    def writer(self) -> str:
        return (
            "import psycopg\nfrom flowstone.io import PostgresIO\n"
            f"connect = lambda: psycopg.connect({self.url!r}, autocommit=True)\n"
            "manager = PostgresIO(connect, inline_limit_bytes=0, chunk_bytes=100_000)\n"
        )

    def names(self) -> list[str]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            found = connection.execute("SELECT DISTINCT version FROM flowstone.output_chunks").fetchall()
        return [version for (version,) in found]
