from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator

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
