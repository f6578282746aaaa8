"""The process that renews a lease: slow to start, late, gone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.lease import Heartbeat
from flowstone.stores.postgres.queue import alive_workers, rescue
from flowstone.testing.marks import wait_until

LEASE_SECONDS = 1.5
MAX_WAIT_SECONDS = 60.0


@pytest.fixture
def heartbeat(database: Database) -> Iterator[Heartbeat]:
    """A lease that nobody has asked for yet."""
    heartbeat = Heartbeat(database, kind="node", beat_seconds=LEASE_SECONDS, lease_seconds=LEASE_SECONDS)
    yield heartbeat
    if heartbeat._process is not None:
        os.kill(heartbeat._process.pid, signal.SIGCONT)
    heartbeat.stop()


def send(heartbeat: Heartbeat, number: int) -> None:
    """Send a signal to the process that renews the lease."""
    assert heartbeat._process is not None
    os.kill(heartbeat._process.pid, number)


def age_seconds(database: Database, worker_id: str) -> float:
    """How long ago the lease was renewed, by the clock of the database."""
    with database.connection() as connection:
        row = connection.execute(
            "SELECT extract(epoch FROM clock_timestamp() - beat_at) FROM flowstone.workers WHERE id = %s",
            [worker_id],
        ).fetchone()
    assert row is not None
    return float(row[0])


def test_a_lease_that_the_process_has_not_renewed_yet_lasts_and_is_not_for_work(
    heartbeat: Heartbeat, database: Database
) -> None:
    """As on a busy machine, where a process takes longer to start than the lease lasts."""
    lease = heartbeat.worker_id
    send(heartbeat, signal.SIGSTOP)
    began = time.monotonic()
    assert wait_until(lambda: time.monotonic() - began > 1.5 * LEASE_SECONDS)
    assert age_seconds(database, lease) < LEASE_SECONDS
    assert not heartbeat.wait_renewed(0.0)
    send(heartbeat, signal.SIGCONT)
    assert heartbeat.wait_renewed(MAX_WAIT_SECONDS)
    assert heartbeat.worker_id == lease


def test_a_lease_is_renewed_three_times_while_it_lasts_whatever_was_asked_for(
    heartbeat: Heartbeat, database: Database
) -> None:
    assert heartbeat.wait_renewed(MAX_WAIT_SECONDS)
    first = heartbeat._beat_at
    assert wait_until(lambda: heartbeat._beat_at > first)
    assert heartbeat._beat_seconds == LEASE_SECONDS / 3
    rescue(database)
    assert [one["id"] for one in alive_workers(database)] == [heartbeat.worker_id]


def test_a_lease_that_is_renewed_late_is_not_for_work(heartbeat: Heartbeat) -> None:
    assert heartbeat.wait_renewed(MAX_WAIT_SECONDS)
    send(heartbeat, signal.SIGSTOP)
    assert wait_until(lambda: not heartbeat.wait_renewed(0.0))
    send(heartbeat, signal.SIGCONT)
    assert heartbeat.wait_renewed(MAX_WAIT_SECONDS)


def test_a_new_lease_is_for_work_when_its_process_has_renewed_it(heartbeat: Heartbeat, database: Database) -> None:
    assert heartbeat.wait_renewed(MAX_WAIT_SECONDS)
    lost = heartbeat.worker_id
    with database.connection() as connection:
        connection.execute("UPDATE flowstone.workers SET lost_at = now()")
    assert wait_until(lambda: heartbeat.worker_id != lost)
    assert heartbeat.wait_renewed(MAX_WAIT_SECONDS)
    assert [one["id"] for one in alive_workers(database)] == [heartbeat.worker_id]


def test_the_process_is_replaced_under_the_same_lease(heartbeat: Heartbeat, database: Database) -> None:
    assert heartbeat.wait_renewed(MAX_WAIT_SECONDS)
    lease, before = heartbeat.worker_id, heartbeat._process
    send(heartbeat, signal.SIGKILL)
    assert wait_until(lambda: heartbeat._process not in (None, before))
    assert heartbeat.wait_renewed(MAX_WAIT_SECONDS)
    assert heartbeat.worker_id == lease


def test_a_beat_leaves_the_settings_of_its_connection_alone(heartbeat: Heartbeat, database: Database) -> None:
    """It does not wait for the disk, which what others do on that connection must."""
    assert heartbeat.wait_renewed(MAX_WAIT_SECONDS)
    with database.connection() as connection:
        connection.execute("SET synchronous_commit = on")
        heartbeat._renew(heartbeat.worker_id)
        row = connection.execute("SHOW synchronous_commit").fetchone()
        connection.execute("RESET synchronous_commit")
    assert row == ("on",)
