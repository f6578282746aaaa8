"""A real Oban on a real database, as worker nodes make it, and rows of its table."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from oban import Oban
from psycopg_pool import AsyncConnectionPool

from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.oban_jobs import WORKER

QUEUE = "contract"
TIMEOUT_SECONDS = 10.0


class Dispatcher:
    """Oban's seam for running a job: notes what it is asked, and runs what the test gives it."""

    def __init__(self, work: Callable[[Any], Coroutine[Any, Any, None]] | None = None) -> None:
        self.calls: list[str] = []
        self.jobs: list[Any] = []
        self.cancelled: list[int] = []
        self._work = work or self._nothing

    async def start(self) -> None:
        self.calls.append("start")

    async def stop(self) -> None:
        self.calls.append("stop")

    def dispatch(self, producer: object, job: Any) -> asyncio.Task[None]:
        self.jobs.append(job)
        return asyncio.create_task(self._work(job))

    def cancel(self, producer: object, job: Any) -> None:
        self.cancelled.append(job.id)

    async def _nothing(self, job: Any) -> None:
        pass


@asynccontextmanager
async def running_oban(dsn: str, **options: Any) -> AsyncIterator[Oban]:
    """An Oban that is stopped at the end of the block."""
    options = {"queues": {QUEUE: 2}, "shutdown_grace_period": 5.0, "name": "contract", "node": "here"} | options
    async with AsyncConnectionPool(dsn, kwargs={"autocommit": True}, min_size=1, max_size=4, open=False) as pool:
        oban = Oban(pool=pool, **options)
        await oban.start()
        try:
            yield oban
        finally:
            await oban.stop()


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition without blocking the loop."""
    deadline = asyncio.get_running_loop().time() + TIMEOUT_SECONDS
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "waited too long"
        await asyncio.sleep(0.005)


async def becomes(database: Database, job: int, state: str) -> None:
    """Wait until a job has a state."""
    await until(lambda: state_of(database, job) == state)


def run(scene: Awaitable[None]) -> None:
    """Run a scene on a loop of its own."""

    async def main() -> None:
        await scene

    asyncio.run(main())


def put(database: Database, *, state: str = "available", due: str = "0 s", **columns: object) -> int:
    """Insert a job as `queue/enqueue` does; return its id."""
    values = {"queue": QUEUE, "worker": WORKER, "priority": 4, "attempt": 0} | columns
    with database.connection() as connection:
        row = connection.execute(
            """INSERT INTO public.oban_jobs
                (id, state, queue, worker, priority, max_attempts, args, scheduled_at, attempt, attempted_at)
            OVERRIDING SYSTEM VALUE
            VALUES (nextval(pg_get_serial_sequence('public.oban_jobs', 'id')), %(state)s::public.oban_job_state,
                %(queue)s, %(worker)s, %(priority)s, 32767, '{"step": 1}',
                timezone('UTC', now()) + %(due)s::interval, %(attempt)s,
                timezone('UTC', now()) + %(due)s::interval)
            RETURNING id""",
            values | {"state": state, "due": due},
        ).fetchone()
    assert row is not None
    return int(row[0])


def state_of(database: Database, job: int) -> str | None:
    """Return the state of a job; None when it is gone."""
    with database.connection() as connection:
        row = connection.execute("SELECT state FROM public.oban_jobs WHERE id = %s", [job]).fetchone()
    return str(row[0]) if row else None


def report(database: Database, channel: str, payload: str) -> None:
    """Send a notification."""
    with database.connection() as connection:
        connection.execute("SELECT pg_notify(%s, %s)", [channel, payload])
