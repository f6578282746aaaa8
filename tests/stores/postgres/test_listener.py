from __future__ import annotations

import logging
import threading

import pytest

from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.listener import Listener, Notification

LONG = 20.0


@pytest.fixture
def listener(database):
    with database.listen(["jobs", 'odd "name"']) as opened:
        assert opened.wait(0) == []  # subscribes
        assert opened.connected
        yield opened


def notify(database: Database, channel: str, payload: str) -> None:
    with database.connection() as connection:
        connection.execute("SELECT pg_notify(%(channel)s, %(payload)s)", {"channel": channel, "payload": payload})


def cut(database: Database, listener: Listener) -> None:
    assert listener._connection is not None
    with database.connection() as connection:
        connection.execute(
            "SELECT pg_terminate_backend(%(pid)s, 5000)", {"pid": listener._connection.info.backend_pid}
        )


def test_notifications_arrive_in_order_and_only_those_asked_for(database, listener):
    notify(database, "jobs", "1")
    notify(database, "other", "x")
    notify(database, 'odd "name"', "2")
    received: list[Notification] = []
    while len(received) < 2:
        arrived = listener.wait(LONG)
        assert arrived
        received += arrived
    assert received == [Notification("jobs", "1"), Notification('odd "name"', "2")]


def test_a_timeout_returns_nothing(listener):
    assert listener.wait(0.01) == []
    assert listener.wait(-1) == []


def test_a_waiting_listener_is_woken_by_a_notification(database, listener):
    received: list[Notification] = []
    thread = threading.Thread(target=lambda: received.extend(listener.wait(LONG)))
    thread.start()
    notify(database, "jobs", "")
    thread.join(LONG / 2)
    assert received == [Notification("jobs", "")]


@pytest.mark.parametrize("end", ["wake", "close"])
def test_wait_is_ended_from_another_thread(listener, end):
    threading.Timer(0.05, getattr(listener, end)).start()
    thread = threading.Thread(target=listener.wait, args=(LONG,))
    thread.start()
    thread.join(LONG / 2)
    assert not thread.is_alive()


def test_closed_twice_and_waited_for_after(listener):
    listener.close()
    listener.close()
    listener.wake()
    assert listener.wait(LONG) == []


def test_a_cut_connection_is_replaced_with_one_warning(database, listener, caplog):
    caplog.set_level(logging.INFO, logger="flowstone")
    cut(database, listener)
    assert listener.wait(LONG) == []  # noticed
    assert not listener.connected
    assert listener.wait(LONG) == []  # replaced: look for what was missed
    assert listener.connected
    notify(database, "jobs", "after")
    assert listener.wait(LONG) == [Notification("jobs", "after")]
    levels = [record.levelname for record in caplog.records if record.name.endswith("listener")]
    assert levels == ["WARNING", "INFO"]


def test_an_absent_server_is_warned_of_once_and_does_not_block_for_longer_than_asked(caplog):
    with Database("postgresql://ann:hunter2@127.0.0.1:9/data").listen(["jobs"]) as listener:
        for _ in range(5):
            assert listener.wait(0.01) == []
        assert not listener.connected
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "hunter2" not in caplog.text
