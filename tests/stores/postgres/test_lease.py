"""The process that renews a lease: slow to start, late, gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.lease import Heartbeat, UnstartedAttemptsBoard
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


READ = """
import mmap, struct, sys
with mmap.mmap(int(sys.argv[1]), 0, prot=mmap.PROT_READ) as board:
    print(sorted(token for (token,) in struct.iter_unpack("=q", board[:]) if token))
"""


@pytest.fixture
def board() -> Iterator[UnstartedAttemptsBoard]:
    made = UnstartedAttemptsBoard()
    yield made
    made.close()


def test_another_process_reads_it(board: UnstartedAttemptsBoard) -> None:
    board.add([2**62, 5, 9])
    board.remove([5, 77])
    reader = [sys.executable, "-I", "-c", READ, str(board.descriptor)]
    done = subprocess.run(reader, pass_fds=[board.descriptor], capture_output=True, text=True, check=True)
    assert done.stdout == f"[9, {2**62}]\n"


def test_what_finds_no_room_counts_as_begun(board: UnstartedAttemptsBoard) -> None:
    board.add(range(1, 20_000))
    assert len(board.tokens()) == 16_384
    board.remove(range(1, 20_000))
    assert board.tokens() == []
    board.add([4])
    assert board.tokens() == [4]


def test_threads_share_it(board: UnstartedAttemptsBoard) -> None:
    def serve(number: int) -> None:
        for round_ in range(500):
            tokens = [number * 1_000_000 + round_ * 10 + at + 1 for at in range(5)]
            board.add(tokens)
            board.remove(tokens[:4] if round_ == 499 else tokens)

    threads = [threading.Thread(target=serve, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(board.tokens()) == [number * 1_000_000 + 4995 for number in range(4)]


def test_it_leaves_nothing_behind() -> None:
    board = UnstartedAttemptsBoard()
    board.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(board.descriptor)
