"""Messages between a process and its isolated children: frames of pickles and raw buffers on a socket.

Both ends are processes of our own, started from the same code, so pickle is no trust boundary here. Large
buffers (arrays, tables) travel beside their pickle (protocol 5), without another copy.
"""

from __future__ import annotations

import pickle
import select
import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from enum import IntEnum
from typing import Any, NamedTuple

from flowstone.core.approval import Approval
from flowstone.core.output import JsonValue
from flowstone.core.partitions import Partition, PartitionKey
from flowstone.core.run_details import RunInfo
from flowstone.engine.isolated.exceptions import CarriedException
from flowstone.engine.isolated.reference import Reference

type Buffer = bytes | bytearray | memoryview
type Wait = Callable[[int], None]
"""Called with `select.POLLIN` or `POLLOUT` when a socket that does not block would have to."""

CANCEL = struct.Struct("=QI")
"""Number of the call to cancel and length of the reason, which follows; on the pipe beside the socket."""

_PREFIX = struct.Struct("=II")
_MAX_BUFFERS = 512  # well below the limit of sendmsg (IOV_MAX, 1024)


class Kind(IntEnum):
    """What a frame is."""

    CALL = 1
    LOADED = 2
    LOG = 3
    ANSWER = 4


class Call(NamedTuple):
    """What a child is asked for; the arguments follow as parts of their own."""

    number: int
    reference: Reference
    partition: Partition
    key: PartitionKey
    run_id: str
    run: RunInfo
    step_id: int
    attempt: int
    token: int
    started_at: datetime
    metadata: dict[str, JsonValue]
    approvals: tuple[Approval, ...]
    resources: Mapping[str, bytes | str]
    """Pickle of each resource, or the reason why there is none."""
    root_level: int
    asset_level: int
    directory: str | None
    path: list[str] | None
    announce: bool
    """Whether the child says when the function is imported and about to run."""
    trace: Mapping[str, str] | None
    """The trace context of the attempt, when traces are made."""


class Answer(NamedTuple):
    """What came of a call; the returned value follows as parts of its own."""

    metadata: bytes
    """Pickle of what the function left in `context.metadata`."""
    exception: CarriedException | None
    raised: bool


def dump(value: object) -> list[Buffer]:
    """Return a value as a pickle and the buffers that belong to it."""
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return [pickled, *(buffer.raw() for buffer in buffers)]


def load(parts: Sequence[Buffer]) -> Any:
    """Return the value that `dump` took apart.

    Example:
        >>> load(dump({"a": [1, 2]}))
        {'a': [1, 2]}
    """
    return pickle.loads(parts[0], buffers=parts[1:])  # noqa: S301 - written by our own process


class Channel:
    """One end of a conversation in frames; several threads may send, one receives.

    Args:
        connection: a stream socket. When it does not block, `wait` is needed.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._sending = threading.Lock()

    def send(self, kind: Kind, parts: Sequence[Buffer], *, wait: Wait | None = None) -> None:
        """Send a frame.

        Raises:
            OSError: the other end is gone.
        """
        lengths = [len(part) for part in parts]
        head = _PREFIX.pack(kind, len(parts)) + struct.pack(f"={len(parts)}Q", *lengths)
        views = [memoryview(head), *(memoryview(part) for part in parts if len(part))]
        with self._sending:
            while views:
                try:
                    sent = self.connection.sendmsg(views[:_MAX_BUFFERS])
                except BlockingIOError:
                    assert wait is not None
                    wait(select.POLLOUT)
                    continue
                _drop(views, sent)

    def receive(self, *, wait: Wait | None = None) -> tuple[Kind, list[Buffer]]:
        """Receive a frame.

        Raises:
            EOFError: the other end has closed.
            OSError: the other end is gone.
        """
        kind, count = _PREFIX.unpack(self._exactly(_PREFIX.size, wait))
        lengths = struct.unpack(f"={count}Q", self._exactly(8 * count, wait))
        return Kind(kind), [self._exactly(length, wait) for length in lengths]

    def _exactly(self, size: int, wait: Wait | None) -> bytearray:
        received = bytearray(size)
        rest = memoryview(received)
        while rest:
            try:
                count = self.connection.recv_into(rest)
            except BlockingIOError:
                assert wait is not None
                wait(select.POLLIN)
                continue
            if count == 0:
                raise EOFError
            rest = rest[count:]
        return received


def _drop(views: list[memoryview], sent: int) -> None:
    """Remove what was sent from the front."""
    done = 0
    while done < len(views) and sent >= len(views[done]):
        sent -= len(views[done])
        done += 1
    del views[:done]
    if sent:
        views[0] = views[0][sent:]
