"""Versions in a real database: an erasure that is killed, restores beside a backfill and a commit, two apps."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flowstone import FlowStone, StaticPartitions, asset
from flowstone.core.audit import AuditFilter
from flowstone.core.step import NewRange, NewRun
from flowstone.core.version import RestoreVersion
from flowstone.errors import TargetActiveError, ValueErasedError
from flowstone.io import FilesystemIO
from flowstone.stores.postgres.store import PostgresStore

KEYS = StaticPartitions([f"k{number}" for number in range(5)])
KILLED = """
import os, signal, sys
from flowstone.io import FilesystemIO
from tests.steering.test_version_changes import make_flow
found = FilesystemIO.discard
def discard(self, stored):
    found(self, stored)
    os.kill(os.getpid(), signal.SIGKILL)
FilesystemIO.discard = discard
make_flow(sys.argv[1], sys.argv[2]).versions.erase("orders", partition="k1", by="dpo")
"""


def make_flow(dsn: str, directory: str) -> FlowStone:
    @asset(partitions=KEYS, io="files")
    def orders() -> str:
        return "Ann Smith"

    return FlowStone([orders], database_url=dsn, io={"files": FilesystemIO(directory, name="files")})


@pytest.mark.faults
def test_an_erasure_that_is_killed_is_gone_on_with(database_url: str, tmp_path: Path) -> None:
    """The record goes first: nobody loads what is half gone, and the next call deletes the rest."""
    files = tmp_path / "values"
    with make_flow(database_url, str(files)) as flow:
        for _ in range(3):
            flow.materialize("orders", partition="k1", force=True, executor="sync")
        command = [sys.executable, "-c", KILLED, database_url, str(files)]
        root = Path(__file__).parents[2]
        died = subprocess.run(command, check=False, cwd=root, env=os.environ | {"PYTHONPATH": str(root)})
        assert died.returncode == -signal.SIGKILL
        with pytest.raises(ValueErasedError, match="by dpo"):
            flow.load("orders", partition="k1")
        assert len([one for one in files.rglob("*") if one.is_file()]) == 2
        again = flow.versions.erase("orders", partition="k1")
        assert (again.is_complete, again.earlier) == (True, 3)
        assert [one for one in files.rglob("*") if one.is_file()] == []
        assert list(files.rglob("*k1*")) == [], "nor is the folder with its name"
        lines = flow.audit.latest(action="versions.erased")
        assert [line.actor for line in lines] == ["dpo"], "what changed nothing more is not noted again"


def test_an_asset_that_an_app_does_not_declare_is_erased(database_url: str, tmp_path: Path) -> None:
    files = tmp_path / "values"
    with make_flow(database_url, str(files)) as flow:
        flow.materialize("orders", partition="k2", executor="sync")
    with FlowStone([], database_url=database_url, io={"files": FilesystemIO(files, name="files")}) as other:
        erased = other.versions.erase("orders", partition="k2")
        assert (erased.values, erased.is_complete) == (1, True)
        assert [one for one in files.rglob("*") if one.is_file()] == []
    with FlowStone([], database_url=database_url) as third:
        assert third.versions.list("orders", "k2").items[0].state == "erased"


def test_a_restore_is_refused_while_a_backfill_waits_for_the_partition(database_url: str, tmp_path: Path) -> None:
    """Unstarted partitions of a large backfill count: they would be committed afterwards."""
    with make_flow(database_url, str(tmp_path)) as flow:
        made = [flow.materialize("orders", partition="k3", force=True, executor="sync") for _ in range(2)]
        store = flow.parts.store
        assert store.ranges is not None
        assert made[0].finished_at is not None
        run = NewRun(
            id="big",
            kind="backfill",
            selection="orders",
            executor="oban",
            created_at=made[0].finished_at,
            durable=True,
        )
        keys = ["s:k2", "s:k3"]
        new = NewRange(
            asset="orders",
            partitions=keys,  # type: ignore[arg-type]
            queue="backfill",
            priority=8,
            max_attempts=1,
            forced=True,
            code_version=None,
        )
        store.ranges.open_run(run, new)
        with pytest.raises(TargetActiveError) as caught:
            flow.versions.restore("orders", "k3", made[0])
        assert caught.value.runs == ("big",)
        assert flow.versions.restore("orders", "k3", made[0], force=True).changed
        with pytest.raises(TargetActiveError):
            flow.versions.erase("orders", partition="k3")
        flow.runs.cancel("big")


@pytest.mark.slow
def test_a_commit_beside_a_restore_wins_or_is_seen(database_url: str, tmp_path: Path) -> None:
    """Whichever comes first: the pointer is never lost, and both are in the history."""
    with make_flow(database_url, str(tmp_path)) as flow:
        first = flow.materialize("orders", partition="k4", executor="sync")
        target = (first.asset, first.partition_key)
        other = PostgresStore.connect(database_url, directory=tmp_path)
        try:
            for _ in range(5):
                start = threading.Barrier(2)

                def restore(start: threading.Barrier = start) -> None:
                    start.wait()
                    other.versions.restore([RestoreVersion(target, first.step_id)], force=True, by="ann")

                person = threading.Thread(target=restore)
                person.start()
                start.wait()
                made = flow.materialize("orders", partition="k4", force=True, executor="sync")
                person.join()
                current = flow.parts.store.catalog.current([target])[target]
                assert current in (first.step_id, made.step_id)
        finally:
            other.close()
        lines = flow.parts.store.audit.lines(AuditFilter(action="versions.restored"))
        assert len(lines) == len(flow.parts.store.versions.changes([target]))
