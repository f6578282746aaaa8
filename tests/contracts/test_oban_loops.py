"""What FlowStone assumes of Oban's loops. A failure here after an upgrade names the assumption that broke."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Mapping, Sequence
from importlib import metadata
from types import SimpleNamespace
from typing import Any

import pytest
from oban import Oban, _extensions, _producer
from oban.job import Job
from oban.worker import resolve_worker
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import AsyncConnectionPool
from tests.contracts.oban_scene import QUEUE, Dispatcher, becomes, put, report, run, running_oban, state_of, until

from flowstone.executors.oban import extension
from flowstone.executors.oban.extension import _LOGGERS
from flowstone.executors.oban.job import StepWorker
from flowstone.executors.oban.node import _NEVER_SECONDS
from flowstone.executors.oban.signals import Signals
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.oban_jobs import WORKER

INSERT_CHANNEL = "public.oban_insert"
SLOW_STAGER = {"interval": 3600.0}


def test_the_version_is_the_one_that_these_contracts_were_read_from() -> None:
    assert metadata.version("oban").startswith("0.7.")


def test_the_extension_point_of_fetching_is_where_we_put_ours(database_url: str, database: Database) -> None:
    """`producer.get_jobs` is called with the producer, whose attributes say what to take for whom."""
    requested: list[tuple[object, str, int, str]] = []

    async def take(producer: object, queue: str, demand: int, uuid: str) -> list[Job]:
        requested.append((producer, queue, demand, uuid))
        return []

    class Taking(Dispatcher):
        take_jobs = staticmethod(take)

    async def scene() -> None:
        extension.install()
        async with running_oban(database_url, dispatcher=Taking()) as oban:
            put(database)
            await until(lambda: requested)
            producer = oban._producers[QUEUE]
            assert requested[0] == (producer, QUEUE, 2, producer._uuid)
            assert (producer._limit, producer._running_jobs) == (2, {})
            assert not extension.is_paused(producer)
            await producer.pause()
            assert extension.is_paused(producer)

    run(scene())


def test_other_oban_instances_keep_their_own_way_of_fetching(database_url: str, database: Database) -> None:
    async def scene() -> None:
        extension.install()
        dispatcher = Dispatcher()
        async with running_oban(database_url, dispatcher=dispatcher, name="theirs"):
            job = put(database)
            await until(lambda: [one.id for one in dispatcher.jobs] == [job])

    run(scene())


def test_extensions_are_asked_for_and_put_by_name() -> None:
    def default() -> None: ...

    assert _extensions.get_ext("flowstone.contract", default) is default
    assert list(inspect.signature(_extensions.put_ext).parameters) == ["name", "func"]
    assert list(inspect.signature(_producer._get_jobs).parameters) == ["producer"]


def test_a_notification_wakes_the_producer_of_its_queue(database_url: str, database: Database) -> None:
    """Name of the channel and payload; the stager, which polls, is out of the game."""

    async def scene() -> None:
        dispatcher = Dispatcher()
        async with running_oban(database_url, dispatcher=dispatcher, stager=SLOW_STAGER):
            job = put(database)

            def reported() -> bool:
                report(database, INSERT_CHANNEL, json.dumps({"queue": QUEUE}))
                return [one.id for one in dispatcher.jobs] == [job]

            await until(reported)

    run(scene())


def test_the_dispatcher_is_started_asked_and_stopped(database_url: str, database: Database) -> None:
    async def scene() -> None:
        dispatcher = Dispatcher()
        async with running_oban(database_url, dispatcher=dispatcher):
            assert dispatcher.calls == ["start"]
            put(database)
            await until(lambda: dispatcher.jobs)
        assert dispatcher.calls == ["start", "stop"]

    run(scene())


def test_the_end_of_a_task_frees_its_slot_and_fetches_again(database_url: str, database: Database) -> None:
    async def scene() -> None:
        gates = {}

        async def work(job: Any) -> None:
            gates[job.id] = asyncio.Event()
            await gates[job.id].wait()

        dispatcher = Dispatcher(work)
        async with running_oban(database_url, dispatcher=dispatcher, stager={"interval": 0.05}):
            jobs = [put(database) for _ in range(3)]
            await until(lambda: len(gates) == 2)
            assert [state_of(database, job) for job in jobs] == ["executing", "executing", "available"]
            gates[jobs[0]].set()
            await until(lambda: len(gates) == 3)
            for gate in gates.values():
                gate.set()

    run(scene())


def test_oban_does_not_acknowledge_what_another_dispatcher_runs(database_url: str, database: Database) -> None:
    async def scene() -> None:
        dispatcher = Dispatcher()
        async with running_oban(database_url, dispatcher=dispatcher, stager={"interval": 0.05}):
            first = put(database)
            await until(lambda: len(dispatcher.jobs) == 1)
            put(database)
            await until(lambda: len(dispatcher.jobs) == 2)
        assert state_of(database, first) == "executing"

    run(scene())


def test_a_producer_needs_only_an_id_of_a_job_and_takes_a_plain_future(
    database_url: str, database: Database
) -> None:
    """What we fetch is no Oban job, and what we dispatch is no task; the end of the future frees the place."""
    futures: list[asyncio.Future[None]] = []
    producers: list[Any] = []
    demands: list[int] = []

    class Futures(Dispatcher):
        def dispatch(self, producer: Any, job: Any) -> asyncio.Future[None]:
            producers.append(producer)
            futures.append(asyncio.get_running_loop().create_future())
            return futures[-1]

    async def take(producer: object, queue: str, demand: int, uuid: str) -> list[SimpleNamespace]:
        demands.append(demand)
        return [SimpleNamespace(id=len(futures) + number) for number in range(demand)]

    dispatcher: Any = Futures()
    dispatcher.take_jobs = take

    async def scene() -> None:
        extension.install()
        try:
            async with running_oban(database_url, dispatcher=dispatcher, stager=SLOW_STAGER) as oban:
                put(database)

                def reported() -> bool:
                    report(database, INSERT_CHANNEL, json.dumps({"queue": QUEUE}))  # it may not listen yet
                    return len(futures) == 2

                await until(reported)
                assert list(oban._producers[QUEUE]._running_jobs) == [0, 1]
                futures[0].set_result(None)
                await until(lambda: len(futures) == 3)
                requested = len(demands)
                producers[0]._limit += 1  # room without the end of a job: `notify` has it used
                producers[0].notify()
                await until(lambda: len(demands) > requested)
                producers[0]._limit -= 1
                for future in futures[1:]:
                    future.set_result(None)
                del dispatcher.take_jobs
        finally:
            for future in futures:
                if not future.done():
                    future.set_result(None)

    run(scene())


@pytest.mark.parametrize("state", ["scheduled", "retryable"])
def test_the_stager_makes_due_jobs_available(database_url: str, database: Database, state: str) -> None:
    async def scene() -> None:
        dispatcher = Dispatcher()
        later = put(database, state=state, due="1 hour")
        async with running_oban(database_url, dispatcher=dispatcher):
            job = put(database, state=state, due="-1 s")
            await until(lambda: [one.id for one in dispatcher.jobs] == [job])
        assert state_of(database, later) == state

    run(scene())


def test_the_stager_leaves_suspended_jobs_alone(database_url: str, database: Database) -> None:
    async def scene() -> None:
        suspended = put(database, state="suspended", due="-1 hour")
        dispatcher = Dispatcher()
        async with running_oban(database_url, dispatcher=dispatcher, stager={"interval": 0.05}):
            due = put(database, state="scheduled", due="-1 s")
            await until(lambda: [one.id for one in dispatcher.jobs] == [due])
        assert state_of(database, suspended) == "suspended"

    run(scene())


def test_a_rescue_out_of_reach_never_touches_an_old_executing_job(database_url: str, database: Database) -> None:
    async def scene() -> None:
        old = put(database, state="executing", due="-300 days", attempt=1)
        lifeline = {"interval": 3600.0, "rescue_after": _NEVER_SECONDS}
        async with running_oban(database_url, queues={"other": 1}, lifeline=lifeline) as oban:
            assert oban._lifeline._rescue_after == _NEVER_SECONDS
            await oban._query.rescue_jobs(_NEVER_SECONDS)
            assert state_of(database, old) == "executing"
            # the same with Oban's own threshold takes it: the question was put as Oban puts it
            await oban._query.rescue_jobs(300.0)
            assert state_of(database, old) == "available"

    run(scene())


def test_stop_waits_for_dispatched_tasks(database_url: str, database: Database) -> None:
    async def scene() -> None:
        ended = []

        async def work(job: Any) -> None:
            await asyncio.sleep(0.3)
            ended.append(job.id)

        dispatcher = Dispatcher(work)
        async with running_oban(database_url, dispatcher=dispatcher):
            put(database)
            await until(lambda: dispatcher.jobs)
        assert ended

    run(scene())


def test_stop_cancels_what_outlives_the_grace_period(database_url: str, database: Database) -> None:
    async def scene() -> None:
        cancelled = []

        async def work(job: Any) -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(job.id)
                raise

        dispatcher = Dispatcher(work)
        async with running_oban(database_url, dispatcher=dispatcher, shutdown_grace_period=0.1):
            job = put(database)
            await until(lambda: dispatcher.jobs)
        await until(lambda: cancelled == [job])
        # Oban leaves the row as it is: handing back is ours
        assert state_of(database, job) == "executing"

    run(scene())


def test_oban_listens_with_the_conninfo_of_the_pool_alone(database_url: str) -> None:
    """Parameters in `kwargs` do not reach its notifier, so the node puts all into the string."""

    async def scene() -> None:
        marked = f"{database_url}&application_name=contract-listener"
        async with running_oban(marked) as oban:
            dsn = await oban._query.dsn()
            assert conninfo_to_dict(dsn) == conninfo_to_dict(marked)
        async with AsyncConnectionPool(
            database_url, kwargs={"application_name": "lost"}, min_size=1, open=False
        ) as pool:
            silent = Oban(pool=pool, queues={"other": 1})
            assert "lost" not in await silent._query.dsn()

    run(scene())


def test_pruning_takes_ended_jobs_and_none_that_lives(database_url: str, database: Database) -> None:
    async def scene() -> None:
        living = {
            state: put(database, state=state, due="-90 days", queue="elsewhere")
            for state in ("available", "scheduled", "executing", "retryable", "suspended")
        }
        with database.connection() as connection:
            connection.execute(
                """UPDATE oban_jobs
                SET completed_at = scheduled_at, cancelled_at = scheduled_at, discarded_at = scheduled_at"""
            )
        ended = put(database, state="completed")
        with database.connection() as connection:
            connection.execute("UPDATE oban_jobs SET completed_at = '2000-01-01' WHERE id = %s", [ended])
            steps = connection.execute("SELECT count(*) FROM flowstone.steps").fetchone()
        async with running_oban(database_url, queues={"other": 1}) as oban:
            assert await oban._query.prune_jobs(60, 1000) == 1
        assert state_of(database, ended) is None
        assert {state: state_of(database, job) for state, job in living.items()} == {
            state: state for state in living
        }
        with database.connection() as connection:
            assert connection.execute("SELECT count(*) FROM flowstone.steps").fetchone() == steps

    run(scene())


def test_the_worker_in_our_jobs_is_our_class() -> None:
    assert resolve_worker(WORKER) is StepWorker


def test_a_plain_oban_that_takes_our_job_hands_it_back(database_url: str, database: Database) -> None:
    async def scene() -> None:
        async with running_oban(database_url):
            job = put(database)
            await becomes(database, job, "scheduled")

    run(scene())


def test_a_queue_is_scaled_by_name_and_node(database_url: str) -> None:
    async def scene() -> None:
        async with running_oban(database_url) as oban:
            await oban.scale_queue(queue=QUEUE, node="here", limit=7)
            await until(lambda: oban._producers[QUEUE]._limit == 7)

    run(scene())


def test_the_loops_log_under_the_names_that_we_filter() -> None:
    for name in _LOGGERS:
        module = __import__(f"oban.{name}", fromlist=["logger"])
        assert getattr(module, "logger", None) is None or module.logger.name == f"oban.{name}"


def test_without_leadership_nothing_is_done_to_rows_of_others(database_url: str, database: Database) -> None:
    """No leader prunes, rescues, inserts cron jobs; metrics go on without one."""

    async def scene() -> None:
        fast = {"interval": 0.02}
        old = put(database, state="executing", due="-300 days", attempt=1, queue="elsewhere", worker="shop.Build")
        options = {
            "leadership": False,
            "metrics": True,
            "lifeline": fast | {"rescue_after": 1.0},
            "pruner": fast | {"max_age": 1},
        }
        async with running_oban(database_url, dispatcher=Dispatcher(), **options) as oban:
            await asyncio.sleep(0.3)
            assert not oban.is_leader
        assert state_of(database, old) == "executing"

    run(scene())


def test_what_we_put_in_place_of_private_parts_is_where_oban_asks_for_it(
    database_url: str, database: Database
) -> None:
    """The stager calls `Query.stage_jobs`, the notifier `_dispatch` for each notification, with its pid."""
    staged: list[Sequence[str]] = []
    heard: list[dict[str, Any]] = []
    announced: list[str] = []

    async def stage(queues: Sequence[str]) -> list[str]:
        staged.append(queues)
        return []

    class Hearing(Signals):
        def read(self, payload: Mapping[str, Any], sender: str) -> dict[str, Any] | None:
            heard.append({**payload, "sender": sender})
            return None

    def nothing(*_: object) -> None: ...

    async def scene() -> None:
        async with AsyncConnectionPool(
            database_url, kwargs={"autocommit": True}, min_size=1, max_size=4, open=False
        ) as pool:
            oban = Oban(pool=pool, name="contract", node="here", queues={QUEUE: 1}, dispatcher=Dispatcher())
            signals = Hearing("contract.here", [QUEUE], scale=nothing, cancel=nothing, announced=announced.append)
            extension.attach(oban, stage=stage, signals=signals)
            await oban.start()
            try:
                await until(lambda: staged == [[QUEUE]] * len(staged) and staged)

                def reported() -> bool:
                    report(database, "public.oban_signal", json.dumps({"action": "pause", "queue": QUEUE}))
                    report(database, "public.oban_insert", json.dumps({"queue": "elsewhere"}))
                    return bool(heard and announced)

                await until(reported)
                assert heard[0]["action"] == "pause"
                assert announced[0] == "elsewhere"
                assert "the server process " in heard[0]["sender"]
            finally:
                await oban.stop()

    run(scene())
