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

    def test_is_sweepable(self) -> None:
        assert isinstance(self.create(), SweepableIO)


class TestFilesystemWithPickle(TestFilesystem):
    def create(self) -> IOManager:
        return FilesystemIO(self.root, durable=False, serializer=PickleSerializer(key=b"k" * 32))


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
