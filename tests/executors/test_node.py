"""When a worker polls: at the end of each step its producer asks, and mostly there is nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flowstone import FlowStone, asset
from flowstone.config import Settings
from flowstone.engine.worker import GroupCommitter, NodeWork
from flowstone.executors.oban.node import Node, _Dispatcher
from flowstone.executors.oban.threads import Finished
from flowstone.stores.postgres.queue import Lease
from flowstone.stores.postgres.store import PostgresStore

QUEUES = {"assets": 2}


@asset
def first() -> int:
    return 1


@asset
def second() -> int:
    return 2


@asset
def third() -> int:
    return 3


class TestWhenAWorkerPolls:
    @pytest.fixture(autouse=True)
    def _node(self, database_url: str, tmp_path: Path) -> Iterator[None]:
        settings = Settings(database_url=database_url, storage=str(tmp_path))
        with FlowStone([first, second, third], settings=settings) as self.flow:
            store = self.flow.parts.store
            assert isinstance(store, PostgresStore)
            lease = Lease(store.database, "hand")
            lease.register(kind="node", host="here", pid=1, queues=QUEUES, lease_seconds=600.0)
            work = NodeWork(
                self.flow.graph,
                reader=self.flow.parts.reader,
                runner=self.flow.parts.runner,
                snooze_seconds=1.0,
                target_statuses=store.target_statuses,
                shapes=self.flow.parts.shapes,
                others=list,
            )
            self.node = Node(
                {},
                queue=store.queue,
                ledger=store.ledger,
                work=work,
                submit=GroupCommitter(store.ledger.commit).submit,
                worker_id=lambda: "hand",
                is_renewed=lambda seconds: True,
                queues=QUEUES,
                grace_seconds=1.0,
                sweep_seconds=60.0,
            )
            yield

    def use_loop(self) -> None:
        """Have the node resolve futures of the loop that runs."""
        if not self.node._threads:
            self.node._finished = finished = Finished(asyncio.get_running_loop())
            self.node._threads.update(self.node._make_threads(finished))

    async def take(self, demand: int) -> int:
        """Take jobs as a producer has them taken; return how many came."""
        self.use_loop()
        return sum(len(job.share) for job in await self.node.take_jobs("assets", demand, "uuid"))

    def test_what_was_left_behind_is_fetched_next(self) -> None:
        """A fetch that got all that it asked for says nothing about what is left."""

        async def scene() -> None:
            assert self.node.may_have_jobs("assets"), "before the first fetch nothing is known"
            for one in ("first", "second"):
                self.flow.schedule(one, executor="oban")
            assert await self.take(1) == 1
            assert self.node.may_have_jobs("assets")
            assert await self.take(1) == 1
            assert self.node.may_have_jobs("assets")

        asyncio.run(scene())

    def test_what_was_taken_runs_before_its_producer_knows_it(self) -> None:
        """On shutdown the node waits for it itself, as long as Oban does not."""

        async def scene() -> None:
            self.flow.schedule("first", executor="oban")
            self.use_loop()
            [job] = await self.node.take_jobs("assets", 1, "uuid")
            await asyncio.wait_for(job.over, 30)
            assert self.node._unknown_to_oban == {job.over}
            assert self.node.known(job) is job.over
            assert not self.node._unknown_to_oban

        asyncio.run(scene())

    def test_what_it_releases_may_begin_here_before_its_producer_knows_it(self) -> None:
        """The first step of a queue may be over before Oban hears that it was taken."""
        producer: Any = SimpleNamespace(notify=lambda: None, _paused=False)

        async def scene() -> None:
            self.flow.schedule("first", executor="oban")
            self.use_loop()
            assert self.node._room() is None
            [job] = await _Dispatcher(self.node).take_jobs(producer, "assets", 1, "uuid")
            await asyncio.wait_for(job.over, 30)
            room = self.node._room()
            assert room is not None
            assert "assets" in room.queues

        asyncio.run(scene())

    def test_an_empty_queue_is_fetched_when_there_is_news(self) -> None:
        async def scene() -> None:
            self.flow.schedule("first", executor="oban")
            assert await self.take(2) == 1
            assert not self.node.may_have_jobs("assets")
            self.node._signals(None).announced("assets")
            assert self.node.may_have_jobs("assets")

        asyncio.run(scene())

    def test_news_that_were_lost_are_found_by_the_stager(self) -> None:
        async def scene() -> None:
            assert await self.take(1) == 0
            assert not self.node.may_have_jobs("assets")
            self.flow.schedule("third", executor="oban")
            assert await self.node._stage(["assets"]) == ["assets"]
            assert self.node.may_have_jobs("assets")
            assert await self.take(2) == 1

        asyncio.run(scene())

    def test_a_database_that_is_away_is_noticed_by_a_fetch(self) -> None:
        """Whether jobs can be taken is what `/ready` answers."""

        async def scene() -> None:
            assert await self.take(1) == 0
            self.flow.parts.store.close()
            with pytest.raises(Exception, match="closed"):
                await self.node._stage(["assets"])
            assert self.node.may_have_jobs("assets")
            assert await self.take(1) == 0
            assert self.node.is_cut_off
            assert self.node.may_have_jobs("assets")

        asyncio.run(scene())
