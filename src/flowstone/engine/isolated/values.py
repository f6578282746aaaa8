"""The values of isolated calls that never lie in the process that calls: children read and write their bytes.

An IO manager that takes and gives bytes (`EncodedIO`) says how they are made, in any process. Storing and opening
them stays with the parent, which has the connections and the rights.
"""

from __future__ import annotations

import pickle
from contextlib import AbstractContextManager
from typing import Any, BinaryIO, NamedTuple

from flowstone.core.context import AssetContext
from flowstone.core.output import StoredOutput
from flowstone.engine.isolated.wire import FromFile, Given, Keep
from flowstone.engine.values import ResolvedInputs, ValueStore, stored_again
from flowstone.protocols import EncodedIO, IOManager, ValueCodec

_LEAST_BYTES = 64 * 1024
"""Smaller inputs are loaded here: they cost less than a file."""


class EncodedValue(NamedTuple):
    """In place of a value: its bytes, which are not stored yet.

    Args:
        file: holds them; whoever gets this closes it.
        encoded: what the codec said of them.
    """

    file: BinaryIO
    encoded: StoredOutput


class IsolatedValues:
    """Decides which values children read and write themselves, and hands their bytes over.

    Args:
        values: the IO managers.
    """

    def __init__(self, values: ValueStore) -> None:
        self._values = values
        self._codecs: dict[str, ValueCodec | None] = {}

    def given(self, context: AssetContext, inputs: ResolvedInputs, *, keep: bool) -> Given:
        """Return what a function is called with.

        Args:
            context: the step.
            inputs: the versions that it reads.
            keep: whether nobody here needs its value.
        """
        arguments = inputs.arguments(self._input, self._values.scan)
        kept: Keep | None = None
        if keep:
            codec = self._codec(self._values.manager(context.asset, context.run.details.io))
            kept = None if codec is None else Keep(codec, self._values.address(context))
        return Given(arguments, kept, self._values.type_names)

    def open(self, stored: StoredOutput) -> AbstractContextManager[BinaryIO]:
        """Open the bytes of an input."""
        manager = self._values.manager_of(stored)
        assert isinstance(manager, EncodedIO)
        return manager.open_encoded(stored)

    def store(self, context: AssetContext, value: EncodedValue) -> StoredOutput:
        """Store what a child encoded; a passing fault is retried.

        Raises:
            OSError: storing failed repeatedly.
        """
        manager = self._values.manager(context.asset, context.run.details.io)
        assert isinstance(manager, EncodedIO)
        with value.file:
            return stored_again(
                manager, manager.store_encoded, value.file, value.encoded, self._values.address(context)
            )

    def _input(self, stored: StoredOutput) -> object:
        codec = None
        if stored.payload is None and (stored.size_bytes or 0) >= _LEAST_BYTES:
            codec = self._codec(self._values.manager_of(stored))
        if codec is None or not codec.can_decode(stored):
            return self._values.load(stored)
        return FromFile(stored, codec)

    def _codec(self, manager: IOManager) -> ValueCodec | None:
        """Return what encodes and decodes for an IO manager; None when that cannot be done in another process."""
        if manager.name not in self._codecs:
            self._codecs[manager.name] = _portable_codec(manager)
        return self._codecs[manager.name]


def _portable_codec(manager: Any) -> ValueCodec | None:
    if not isinstance(manager, EncodedIO):
        return None
    for by_value, by_bytes in (("store", "store_encoded"), ("load", "open_encoded")):
        if _defines(manager, by_value) is not _defines(manager, by_bytes):
            return None  # a class derived from it does more than that
    try:
        pickled = pickle.dumps(manager.codec, protocol=5)
    except Exception:  # noqa: BLE001 - a serializer of the user may hold anything
        return None
    # children import the main script for its own assets only
    return None if b"__main__" in pickled else manager.codec


def _defines(manager: object, name: str) -> type | None:
    """Return the class that defines a method of an object."""
    return next((kind for kind in type(manager).__mro__ if name in vars(kind)), None)
