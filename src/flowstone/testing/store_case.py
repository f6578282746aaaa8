"""What the parts of the store conformance suite share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import pytest

from flowstone.protocols import Store
from flowstone.testing.store_scene import Scene

HOSTILE_TEXTS = (
    "plain",
    "'; DROP TABLE flowstone.steps; --",
    'quote " and back\\slash',
    "100%s %(name)s {} $1 :x",
    "per cent % alone",
    "caf\u00e9",
    "cafe\u0301",
    "\u65e5\u672c\u8a9e \U0001f480",
    "{1,2} [3] (4) NULL null",
    "a,b|c\\.d",
    "\t tab",
    "x" * 2000,
)
"""Names that break stores which put text into statements, split it, fold it or cut it."""


class StoreCase(ABC):
    """Gives every test a scene with a new store."""

    @abstractmethod
    def make_store(self) -> Store:
        """Return a new, empty store."""

    @pytest.fixture
    def scene(self) -> Iterator[Scene]:
        """A new store with the verbs of a test."""
        store = self.make_store()
        try:
            yield Scene(store)
        finally:
            store.close()
