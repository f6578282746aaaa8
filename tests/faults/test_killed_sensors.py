"""A sensor is killed between what it enqueues and its cursor: no run is lost, none is doubled."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.faults import sensor_app
from tests.faults.fleet import Fleet

from flowstone.stores.postgres.database import Database
from flowstone.testing.injection import BEFORE_COMMIT, BEFORE_CONCLUDE, CONCLUDED, RUNS_OPENED

KILLS = 100
NAMED = [BEFORE_CONCLUDE, RUNS_OPENED, BEFORE_COMMIT, CONCLUDED]
COMMITTED = (CONCLUDED,)


class SensorProcess:
    """Evaluates when the test says so, in a child that may be killed."""

    def __init__(self, fleet: Fleet, process: subprocess.Popen[str]) -> None:
        self.fleet = fleet
        self._process = process
        self._database = Database(fleet.database_url, max_size=1)

    def evaluate(self, *, kill_at: str | None = None) -> int:
        """Evaluate once; return how the child ended."""
        if kill_at is not None:
            self.fleet.kill_points.arm(kill_at, sensor_app.NAME)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("again\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def counts(self) -> tuple[int, ...]:
        """Return cursor, run keys, runs, steps, jobs, keys of partitions and runs of ticks."""
        with self._database.connection() as connection:
            row = connection.execute(
                """SELECT coalesce((SELECT cursor FROM flowstone.automations WHERE name = 'inbox')::int, 0),
                (SELECT count(*) FROM flowstone.run_keys),
                (SELECT count(*) FROM flowstone.runs),
                (SELECT count(*) FROM flowstone.steps),
                (SELECT count(*) FROM public.oban_jobs),
                (SELECT count(*) FROM flowstone.partition_keys),
                (SELECT coalesce(sum(cardinality(run_ids)), 0) FROM flowstone.ticks)"""
            ).fetchone()
        assert row is not None
        return tuple(int(number) for number in row)

    def close(self) -> None:
        self._database.close()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            code = self._process.wait(20)
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()
        assert code == 0


@contextmanager
def sensor_process(fleet: Fleet, directory: Path) -> Iterator[SensorProcess]:
    with (directory / "sensor.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", "from tests.faults.sensor_app import evaluate_on_demand; evaluate_on_demand()"],
            env=fleet.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        running = SensorProcess(fleet, process)
        try:
            yield running
        finally:
            running.close()


@pytest.mark.slow
def test_a_sensor_killed_a_hundred_times_loses_and_doubles_nothing(fleet: Fleet, tmp_path: Path) -> None:
    chance = random.Random(0)
    with sensor_process(fleet, tmp_path) as process:
        assert process.evaluate() == 0
        # statements of one conclusion: what a child executes before it is past the last one
        points = [*NAMED, *(f"statement-{number}" for number in range(1, 40))]
        kills = 0
        died_at: set[str] = set()
        while kills < KILLS:
            point = chance.choice(NAMED if kills % 2 else points)
            before = process.counts()
            ended = process.evaluate(kill_at=point)
            after = process.counts()
            if ended == -signal.SIGKILL:
                kills += 1
                died_at.add(point)
                moved = sensor_app.AT_ONCE if point in COMMITTED else 0
                assert after == tuple(number + moved for number in before), f"killed at {point}"
            else:
                assert ended == 0, (tmp_path / "sensor.log").read_text()
            assert len(set(after)) == 1, f"{after} after {point}"
        assert set(NAMED) <= died_at
        assert len(died_at) > len(NAMED) + 5
        assert process.evaluate() == 0
        cursor = process.counts()[0]
    files = sensor_app.FILES[:cursor]
    fleet.app = "tests.faults.sensor_app"
    (worker,) = fleet.start()
    fleet.wait_over()
    worker.signal(signal.SIGTERM)
    worker.wait_exit()
    rows = fleet.rows("SELECT run_key, count(*) FROM flowstone.run_keys GROUP BY 1 ORDER BY 1")
    assert rows == [(file, 1) for file in files]
    done = fleet.rows("SELECT partition, state, count(*) FROM flowstone.steps GROUP BY 1, 2 ORDER BY 1")
    assert done == [(f"s:{file}", "completed", 1) for file in files]
