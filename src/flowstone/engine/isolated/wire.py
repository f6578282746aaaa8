"""Messages between a process and its isolated children: frames of pickles and raw buffers on a socket.

Both ends are processes of our own, started from the same code, so pickle is no trust boundary here. Large
buffers (arrays, tables) travel beside their pickle (protocol 5), without another copy. Values that IO managers
keep as bytes travel as these, in open files that one process hands to the other. Temporary ones have no name: they
are gone when both processes have let go of them, however those end.
"""

from __future__ import annotations

import array
import os
import pickle
import select
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from enum import IntEnum
from typing import Any, NamedTuple

from flowstone.core.approval import Approval
from flowstone.core.output import JsonValue, OutputAddress, StoredOutput
from flowstone.core.partitions import Partition, PartitionKey
from flowstone.core.run_details import RunInfo
from flowstone.engine.isolated.exceptions import CarriedException
from flowstone.engine.isolated.reference import Reference
from flowstone.protocols import ValueCodec

type Buffer = bytes | bytearray | memoryview
type Wait = Callable[[int], None]
"""Called with `select.POLLIN` or `POLLOUT` when a socket that does not block would have to."""

CANCEL = struct.Struct("=QI")
"""Number of the call to cancel and length of the reason, which follows; on the pipe beside the socket."""

_PREFIX = struct.Struct("=II")
_BESIDE_BYTES = socket.CMSG_SPACE(array.array("i").itemsize)
_CLOSED_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_MAX_BUFFERS = 512  # well below the limit of sendmsg (IOV_MAX, 1024)


class Kind(IntEnum):
    """What a frame is."""

    CALL = 1
    LOADED = 2
    LOG = 3
    ANSWER = 4
    READ = 5
    """The child asks for the file of an input."""
    INPUT = 6
    RETURNED = 7
    """The function is over, its value is being encoded."""


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


class FromFile(NamedTuple):
    """In place of an input: the child asks for the file of its bytes when it is about to read it."""

    stored: StoredOutput
    codec: ValueCodec


class Keep(NamedTuple):
    """How the child encodes what the function returns, and for which attempt."""

    codec: ValueCodec
    address: OutputAddress


class Given(NamedTuple):
    """What a function is called with; loaded when its module is imported.

    Args:
        arguments: inputs by parameter, some of them `FromFile`, also as items of a dict.
        keep: None when the value is to come back itself.
        types: names of the classes that assets declare.
    """

    arguments: dict[str, Any]
    keep: Keep | None = None
    types: frozenset[str] = frozenset()


class Answer(NamedTuple):
    """What came of a call; the returned value follows as parts of its own, or a file goes along."""

    metadata: bytes
    """Pickle of what the function left in `context.metadata`."""
    exception: CarriedException | None
    raised: bool
    encoded: StoredOutput | None = None
    """Of a value that was encoded: small ones follow as one part, of larger ones the file goes along."""
    lengths: tuple[int, ...] = ()
    """Of the parts of a large value that was not encoded: they lie in a file that goes along."""


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
        self._files: deque[int] = deque()

    def send(
        self, kind: Kind, parts: Sequence[Buffer], *, wait: Wait | None = None, file: int | None = None
    ) -> None:
        """Send a frame, and hand a copy of a descriptor over with it.

        Raises:
            OSError: the other end is gone.
        """
        lengths = [len(part) for part in parts]
        head = _PREFIX.pack(kind, len(parts)) + struct.pack(f"={len(parts)}Q", *lengths)
        views = [memoryview(head), *(memoryview(part) for part in parts if len(part))]
        beside = [] if file is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]))]
        with self._sending:
            while views:
                try:
                    sent = self.connection.sendmsg(views[:_MAX_BUFFERS], beside)
                except BlockingIOError:
                    assert wait is not None
                    wait(select.POLLOUT)
                    continue
                beside = []
                _drop(views, sent)

    def receive(self, *, wait: Wait | None = None) -> tuple[Kind, list[Buffer]]:
        """Receive a frame; a file that came with it is there for `take_file`.

        Raises:
            EOFError: the other end has closed.
            OSError: the other end is gone.
        """
        kind, count = _PREFIX.unpack(self._prefix(wait))
        lengths = struct.unpack(f"={count}Q", self._exactly(8 * count, wait))
        return Kind(kind), [self._exactly(length, wait) for length in lengths]

    def take_file(self) -> int:
        """Return the descriptor that came first and was not taken yet; whoever takes it closes it."""
        return self._files.popleft()

    def close(self) -> None:
        """Close the connection, and what came over it and was not taken."""
        self.connection.close()
        while self._files:
            os.close(self._files.popleft())

    def _prefix(self, wait: Wait | None) -> bytes:
        """Receive the begin of a frame, with the descriptor that came along."""
        received = b""
        while len(received) < _PREFIX.size:
            try:
                left = _PREFIX.size - len(received)
                more, beside, _, _ = self.connection.recvmsg(left, _BESIDE_BYTES, _CLOSED_ON_EXEC)
            except BlockingIOError:
                assert wait is not None
                wait(select.POLLIN)
                continue
            for _level, _kind, data in beside:
                for descriptor in array.array("i", data):
                    os.set_inheritable(descriptor, False)  # some systems lack the flag
                    self._files.append(descriptor)
            if not more:
                raise EOFError
            received += more
        return received

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
