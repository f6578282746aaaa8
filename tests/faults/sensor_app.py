"""A process that forks a child for every evaluation of a sensor, so that each can be killed at a point of its own.

Forking from a process that has imported everything makes an evaluation, and its death, cheap. A worker on the same
app runs what was asked for.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg_pool  # noqa: F401 - imported once, before forking
from tests.worker_app import DIRECTORY

from flowstone import DynamicPartitions, FlowStone, SensorContext, SensorResult, asset, sensor
from flowstone.app.worker import serve
from flowstone.config import Settings
from flowstone.sql import load_sql
from flowstone.stores.postgres.automations import PostgresAutomations
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.store import PostgresStore
from flowstone.testing.injection import BEFORE_COMMIT, BEFORE_CONCLUDE, CONCLUDED, RUNS_OPENED, KillPoints

NAME = "inbox"
FILES = [f"file-{number:03}" for number in range(300)]
AT_ONCE = 3


@asset(partitions=DynamicPartitions("files"))
def taken(context):
    return context.partition


@sensor(name=NAME, every=1, selection="taken", paused=True)
def inbox(context: SensorContext) -> SensorResult:
    at = int(context.cursor or 0)
    files = FILES[at : at + AT_ONCE]
    return SensorResult(
        requests=[context.request(partition=file, run_key=file) for file in files],
        add_partitions={"files": files},
        cursor=str(at + len(files)),
    )


def make_flow(url: str) -> FlowStone:
    return FlowStone([taken], sensors=[inbox], settings=Settings(database_url=url))


class Watched:
    """A connection that says where in the transaction it is."""

    def __init__(self, connection: Any, points: KillPoints) -> None:
        self._connection = connection
        self._points = points
        self._statements = 0

    def execute(self, statement: Any, *rest: Any, **more: Any) -> Any:
        self._statements += 1
        self._points.reach(f"statement-{self._statements}", NAME)
        if statement == load_sql("automations/conclude"):
            self._points.reach(RUNS_OPENED, NAME)
        return self._connection.execute(statement, *rest, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


class WatchedDatabase:
    """The database of a store, whose transactions say where they are."""

    def __init__(self, database: Database, points: KillPoints) -> None:
        self._database = database
        self._points = points

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        with self._database.transaction() as connection:
            yield Watched(connection, self._points)
            self._points.reach(BEFORE_COMMIT, NAME)


def evaluate(url: str) -> None:
    """Evaluate the sensor once, as a node does."""
    points = KillPoints()
    flow = make_flow(url)
    store = flow.parts.store
    assert isinstance(store, PostgresStore)
    evaluator = flow.evaluators[0]
    watched = WatchedDatabase(store.database, points)
    concluding = PostgresAutomations(watched, lambda: "nobody")  # type: ignore[arg-type]
    store.automations.declare([evaluator.id], paused=[evaluator.id])
    store.automations.request(evaluator.id)
    # no lease: the next child need not wait until the one of a dead child runs out
    (right,) = store.automations.take([evaluator.id], lease_seconds=0)
    (conclusion,) = evaluator.evaluate(right)
    points.reach(BEFORE_CONCLUDE, NAME)
    concluded = concluding.conclude(right, conclusion)
    points.reach(CONCLUDED, NAME)
    assert concluded.accepted


def evaluate_on_demand() -> None:
    """Evaluate once for each line, in a child each, and answer with how it ended."""
    url = os.environ["FLOWSTONE_DATABASE_URL"]
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                evaluate(url)
            except BaseException:
                sys.excepthook(*sys.exc_info())
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def main() -> None:
    """Run a worker that does what the sensor asked for."""
    ready = Path(os.environ[DIRECTORY]) / f"ready-{os.getpid()}"
    sys.exit(serve(make_flow(os.environ["FLOWSTONE_DATABASE_URL"]), queues={"assets": 20}, on_ready=ready.touch))
