"""The threads of a queue: never more than the limit, never fewer than there is work for."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime

import pytest

from flowstone.core.context import CancellationToken
from flowstone.core.step import Attempt
from flowstone.executors.oban import threads as module
from flowstone.executors.oban.threads import Attempts, Finished, Running, StepThreads
from flowstone.testing.marks import wait_until


def running(number: int) -> Running:
    claim = Attempt(number, "run", "a", "", 1, 1, number, datetime.now(UTC))
    return Running(claim, CancellationToken(), None)


def test_all_places_are_used_and_no_more() -> None:
    async def main() -> tuple[int, int]:
        lock = threading.Lock()
        at_once = maximum = 0
        full = threading.Barrier(4, timeout=30)  # four must be there together, again and again

        def perform(_: Running) -> None:
            nonlocal at_once, maximum
            with lock:
                at_once += 1
                maximum = max(maximum, at_once)
            full.wait()
            with lock:
                at_once -= 1

        loop = asyncio.get_running_loop()
        pool = StepThreads("q", 4, attempts=Attempts(), finished=Finished(loop), perform=perform)
        futures = [loop.create_future() for _ in range(400)]
        for number, future in enumerate(futures, 1):
            pool.submit([running(number)], future)
        await asyncio.wait_for(asyncio.gather(*futures), 60)
        return maximum, len(futures)

    assert asyncio.run(main()) == (4, 400)


def test_what_waits_too_long_is_released_and_never_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_WAIT_SECONDS", 0.0)
    ran: list[int] = []
    gate, begun = threading.Event(), threading.Event()

    def perform(one: Running) -> None:
        ran.append(one.attempt.step_id)
        begun.set()
        gate.wait(30)

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        pool = StepThreads("q", 1, attempts=Attempts(), finished=Finished(loop), perform=perform)
        futures = [loop.create_future() for _ in range(3)]
        pool.submit([running(1)], futures[0])
        await loop.run_in_executor(None, begun.wait, 30)
        pool.submit([running(2)], futures[1])
        pool.submit([running(3)], futures[2])
        returned = [one.attempt.step_id for one in pool.overdue()]
        gate.set()
        await asyncio.wait_for(asyncio.gather(*futures), 30)
        return returned

    assert asyncio.run(main()) == [2, 3]
    assert ran == [1]


def test_short_steps_are_taken_ahead_and_a_resize_holds() -> None:
    async def main() -> tuple[int, int, int]:
        loop = asyncio.get_running_loop()
        pool = StepThreads("q", 2, attempts=Attempts(), finished=Finished(loop), perform=lambda _: None)
        before = pool.capacity()
        futures = [loop.create_future() for _ in range(300)]
        for number, future in enumerate(futures, 1):
            pool.submit([running(number)], future)
        await asyncio.wait_for(asyncio.gather(*futures), 30)
        assert pool.capacity() > 2, "steps were seen to be short"
        pool._typical_seconds = 0.0001
        after = pool.capacity()
        pool.resize(5)
        return before, after, pool.capacity()

    assert asyncio.run(main()) == (2, 18, 45)


def test_room_for_what_a_commit_releases() -> None:
    """Of long steps as many as there are places, beside nothing else; of short ones more than are taken ahead."""

    async def main() -> list[tuple[int, bool]]:
        gate = threading.Event()
        loop = asyncio.get_running_loop()
        pool = StepThreads(
            "q", 2, attempts=Attempts(), finished=Finished(loop), perform=lambda _: gate.wait(30) and None
        )
        found = [pool.room_at_commit()]
        future = loop.create_future()
        pool.submit([running(1)], future)
        found.append(pool.room_at_commit())
        pool._typical_seconds = 0.0001
        found.append(pool.room_at_commit())
        pool.close()
        found.append(pool.room_at_commit())
        gate.set()
        await asyncio.wait_for(future, 30)
        return found

    assert asyncio.run(main()) == [(2, True), (1, True), (35, False), (0, True)]


def test_a_step_that_blocks_after_many_short_ones_holds_nobody_up() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        together = threading.Barrier(3, timeout=30)  # three at once, though one thread was enough before

        def perform(one: Running) -> None:
            if one.attempt.step_id > 500:
                together.wait()

        pool = StepThreads("q", 3, attempts=Attempts(), finished=Finished(loop), perform=perform)
        for numbers in (range(1, 501), range(501, 504)):
            futures = [loop.create_future() for _ in numbers]
            for number, future in zip(numbers, futures, strict=True):
                pool.submit([running(number)], future)
            await asyncio.wait_for(asyncio.gather(*futures), 60)

    asyncio.run(main())


def test_a_smaller_limit_holds_once_running_steps_are_over() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        lock = threading.Lock()
        at_once = maximum = 0
        gates = [threading.Barrier(4, timeout=30), None]

        def perform(_: Running) -> None:
            nonlocal at_once, maximum
            gate = gates[0]
            if gate is not None:
                gate.wait()
                return
            with lock:
                at_once += 1
                maximum = max(maximum, at_once)
            time.sleep(0.002)
            with lock:
                at_once -= 1

        pool = StepThreads("q", 4, attempts=Attempts(), finished=Finished(loop), perform=perform)
        for round_of in range(2):
            futures = [loop.create_future() for _ in range(40)]
            for number, future in enumerate(futures, 1 + 40 * round_of):
                pool.submit([running(number)], future)
            await asyncio.wait_for(asyncio.gather(*futures), 60)
            gates[0] = None
            pool.resize(2)
        return maximum

    assert asyncio.run(main()) == 2


def test_the_future_of_a_share_waits_for_all_of_it() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        gate, reached = threading.Event(), threading.Event()

        def perform(one: Running) -> None:
            if one.attempt.step_id == 3:
                reached.set()
                gate.wait(30)

        pool = StepThreads("q", 2, attempts=Attempts(), finished=Finished(loop), perform=perform)
        future = loop.create_future()
        pool.submit([running(number) for number in range(1, 6)], future)
        await loop.run_in_executor(None, reached.wait, 30)
        assert not future.done()
        gate.set()
        await asyncio.wait_for(future, 30)

    asyncio.run(main())


def test_steps_that_were_taken_ahead_share_places_and_leave_room_for_no_more_than_fits() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        gate = threading.Event()
        requested: list[int] = []

        def perform(one: Running) -> None:
            if one.attempt.step_id > 1000:
                gate.wait(30)

        pool = StepThreads("q", 4, attempts=Attempts(), finished=Finished(loop), perform=perform)
        pool.on_room = lambda: requested.append(1)
        assert [len(share) for share in pool.shares(range(3), 4)] == [1, 1, 1]  # steps may be long
        futures = [loop.create_future() for _ in range(300)]
        for number, future in enumerate(futures, 1):
            pool.submit([running(number)], future)
        await asyncio.wait_for(asyncio.gather(*futures), 30)
        pool._typical_seconds = 0.0001
        await loop.run_in_executor(None, lambda: wait_until(lambda: pool.room(4) == 36))
        assert (pool.capacity(), pool.room(4), pool.room(1)) == (36, 36, 9)
        assert pool.shares([], 4) == []
        assert [len(share) for share in pool.shares(range(20), 4)] == [7, 7, 6]
        future = loop.create_future()
        pool.submit([running(number) for number in (1001, 1002, *range(1, 11))], future)
        assert 36 - 12 <= pool.room(4) <= 36 - 2  # two block, the others may have ended
        gate.set()
        await asyncio.wait_for(future, 30)

    asyncio.run(main())


def test_there_is_room_for_another_step_when_the_producer_learns_of_an_end() -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        taken: list[int] = []

        class Watching(Finished):
            def add(self, future: asyncio.Future[None]) -> None:
                taken.append(pool.capacity() - pool.room(1000))
                super().add(future)

        pool = StepThreads("q", 1, attempts=Attempts(), finished=Watching(loop), perform=lambda _: None)
        for number in range(1, 20):
            future = loop.create_future()
            pool.submit([running(number)], future)
            await asyncio.wait_for(future, 30)
        return taken

    assert asyncio.run(main()) == [0] * 19
