from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Iterator
from tempfile import TemporaryFile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowstone.engine.isolated.wire import Channel, Kind


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(Kind), st.lists(st.binary(max_size=2000), max_size=20))
def test_frames_arrive_as_they_were_sent(
    ends: tuple[socket.socket, socket.socket], kind: Kind, parts: list[bytes]
) -> None:
    ours, theirs = map(Channel, ends)
    ours.send(kind, parts)
    assert theirs.receive() == (kind, parts)


def test_a_frame_larger_than_the_socket_waits_for_its_reader(ends: tuple[socket.socket, socket.socket]) -> None:
    ends[0].setblocking(False)
    ours, theirs = map(Channel, ends)
    part = bytes(range(256)) * 40_000
    waited: list[int] = []
    received: list[object] = []
    reader = threading.Thread(target=lambda: received.append(theirs.receive()))

    def wait(events: int) -> None:
        if not waited:
            # not before: a reader that keeps pace leaves nothing to wait for
            reader.start()
        waited.append(events)
        poll = select.poll()
        poll.register(ends[0], events)
        poll.poll(10_000)

    ours.send(Kind.CALL, [part, b"", part], wait=wait)
    assert set(waited) == {select.POLLOUT}
    reader.join(60)
    assert received == [(Kind.CALL, [part, b"", part])]


def test_closed_end(ends: tuple[socket.socket, socket.socket]) -> None:
    ends[0].close()
    with pytest.raises(EOFError):
        Channel(ends[1]).receive()


def test_an_open_file_arrives_and_is_not_inherited(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = map(Channel, ends)
    with TemporaryFile() as file:
        file.write(b"content")
        file.flush()
        ours.send(Kind.INPUT, [b"x"], file=file.fileno())
        ours.send(Kind.LOG, [])
    assert theirs.receive() == (Kind.INPUT, [b"x"])
    assert theirs.receive() == (Kind.LOG, [])
    descriptor = theirs.take_file()
    assert not os.get_inheritable(descriptor)
    with os.fdopen(descriptor, "rb") as received:
        received.seek(0)
        assert received.read() == b"content"


def test_a_file_that_nobody_takes_is_closed(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = map(Channel, ends)
    reading, writing = os.pipe()
    ours.send(Kind.INPUT, [], file=writing)
    os.close(writing)
    theirs.receive()
    theirs.close()
    assert os.read(reading, 1) == b""
    os.close(reading)
