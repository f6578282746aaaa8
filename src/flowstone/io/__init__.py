"""Where values are kept (IO managers) and in which format (serializers)."""

from __future__ import annotations

from flowstone.io.delta import DeltaIO
from flowstone.io.encoding import choose_serializer, find_serializer
from flowstone.io.filesystem import FilesystemIO
from flowstone.io.json import JsonSerializer
from flowstone.io.memory import MemoryIO
from flowstone.io.objects import ObjectIO
from flowstone.io.pickling import PickleSerializer
from flowstone.io.postgres import PostgresIO
from flowstone.io.serializers import BytesSerializer, NumpySerializer, TextSerializer
from flowstone.io.table_duckdb import DuckDBTableIO
from flowstone.io.table_postgres import TableIO
from flowstone.io.tables import ParquetSerializer

__all__ = [
    "BytesSerializer",
    "DeltaIO",
    "DuckDBTableIO",
    "FilesystemIO",
    "JsonSerializer",
    "MemoryIO",
    "NumpySerializer",
    "ObjectIO",
    "ParquetSerializer",
    "PickleSerializer",
    "PostgresIO",
    "TableIO",
    "TextSerializer",
    "choose_serializer",
    "find_serializer",
]
