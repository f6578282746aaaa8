from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import BinaryIO

import psycopg
import pytest

from flowstone.core.output import OutputAddress
from flowstone.io import FilesystemIO, PickleSerializer, PostgresIO
from flowstone.protocols import IOManager

PIECE = b"flowstone " * 50_000


class PiecesSerializer:
    """The value is a number of pieces; the file holds as many."""

    name = "pieces"
    extension = ".pieces"

    def accepts(self, value: object) -> bool:
        return isinstance(value, int)

    def write(self, value: object, file: BinaryIO) -> None:
        assert isinstance(value, int)
        file.writelines(PIECE for _ in range(value))

    def read(self, file: BinaryIO) -> object:
        count = 0
        while piece := file.read(len(PIECE)):
            assert piece == PIECE
            count += 1
        return count


def peak_bytes_of_round_trip(manager: IOManager, pieces: int) -> int:
    """Store and load; return the most memory that was allocated in between."""
    address = OutputAddress("numbers", "", run_id="run", step_id=1, attempt=1, token=1)
    tracemalloc.start()
    try:
        stored = manager.store(pieces, address)
        assert stored.size_bytes == pieces * len(PIECE)
        assert manager.load(stored) == pieces
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


PIECES_OF_200_MB = 200_000_000 // len(PIECE)


@pytest.mark.slow
def test_files_stream(tmp_path: Path) -> None:
    manager = FilesystemIO(tmp_path, serializer=PiecesSerializer())
    assert peak_bytes_of_round_trip(manager, PIECES_OF_200_MB) < 10_000_000


@pytest.mark.slow
def test_postgres_streams(io_database: str) -> None:
    manager = PostgresIO(lambda: psycopg.connect(io_database, autocommit=True), serializer=PiecesSerializer())
    assert peak_bytes_of_round_trip(manager, PIECES_OF_200_MB) < 50_000_000


@pytest.mark.slow
def test_signed_pickles_stream(tmp_path: Path) -> None:
    """The frames of a pickle never lie in memory beside the value."""
    manager = FilesystemIO(tmp_path, serializer=PickleSerializer(b"k" * 16))
    value = [number.to_bytes(4, "big") * 25_000 for number in range(1000)]
    address = OutputAddress("numbers", "", run_id="run", step_id=1, attempt=1, token=1)
    tracemalloc.start()
    try:
        stored = manager.store(value, address)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000
    assert manager.load(stored) == value
