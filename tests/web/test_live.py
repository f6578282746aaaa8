"""The stream of changes: one question for all who watch, none while nobody does, nothing missed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from functools import wraps
from typing import Any, cast

import pytest
from tests.web.conftest import first_message

from flowstone import FlowStone
from flowstone.errors import DatabaseUnavailableError
from flowstone.web import live
from flowstone.web.application import Dashboard
from flowstone.web.live import Live
from flowstone.web.problems import Problem

EVERY = 0.01


def awaited[**P](test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test in a loop of its own."""

    @wraps(test)
    def run(*args: P.args, **named: P.kwargs) -> None:
        asyncio.run(test(*args, **named))

    return run


@pytest.fixture
def source() -> Source:
    return Source()


class Source:
    """Stands for the store: counts how often it is pulses."""

    def __init__(self) -> None:
        self.pulses = 0
        self.runs = "a"
        self.error: Exception | None = None

    async def pulse(self) -> Mapping[str, str]:
        self.pulses += 1
        if self.error is not None:
            raise self.error
        return {"runs": self.runs, "queues": "q"}


async def yes() -> bool:
    return True


def messages(stream: Live, still: Any = yes) -> AsyncIterator[str]:
    """The messages of a new watcher, without the line that says when to come again."""
    body = cast("AsyncIterator[str]", stream.stream(still).body_iterator)  # type: ignore[attr-defined]

    async def named() -> AsyncIterator[str]:
        async for one in body:
            if one.startswith("event:"):
                yield one

    return named()


def topics(message: str) -> dict[str, str]:
    return dict(json.loads(message.partition("data: ")[2])["topics"])


async def until(happened: Any) -> None:
    async with asyncio.timeout(5):
        while not happened():
            await asyncio.sleep(EVERY)


@awaited
async def test_one_question_for_ten_who_watch(source: Source) -> None:
    stream = Live(source.pulse, every_seconds=EVERY)
    watching = [messages(stream) for _ in range(10)]
    first = await asyncio.gather(*(anext(one) for one in watching))
    assert len({json.dumps(topics(one)) for one in first}) == 1
    assert source.pulses <= 2
    source.runs = "b"
    second = await asyncio.gather(*(anext(one) for one in watching))
    assert {topics(one)["runs"] for one in second} != {topics(first[0])["runs"]}
    assert {topics(one)["queues"] for one in second} == {topics(first[0])["queues"]}
    await leave(watching)


async def leave(watching: list[AsyncIterator[str]]) -> None:
    for one in watching:
        await one.aclose()  # type: ignore[attr-defined]


@awaited
async def test_nothing_is_asked_once_nobody_watches(source: Source) -> None:
    stream = Live(source.pulse, every_seconds=EVERY)
    assert not stream.running
    watching = messages(stream)
    await anext(watching)
    assert stream.running
    await leave([watching])
    stream._watchers.clear()
    await until(lambda: not stream.running)
    pulses = source.pulses
    await asyncio.sleep(5 * EVERY)
    assert source.pulses == pulses


@awaited
async def test_who_comes_again_sees_what_it_missed(source: Source) -> None:
    stream = Live(source.pulse, every_seconds=EVERY)
    watching = messages(stream)
    before = topics(await anext(watching))
    await leave([watching])
    stream._watchers.clear()
    source.runs = "changed meanwhile"
    again = messages(stream)
    found = [topics(await anext(again))]
    if found[0] == before:  # the newest that was known, and then what came since
        found.append(topics(await anext(again)))
    assert found[-1] != before
    await leave([again])


@awaited
async def test_a_failure_is_said_and_then_over(source: Source) -> None:
    stream = Live(source.pulse, every_seconds=EVERY)
    source.error = DatabaseUnavailableError("postgresql://db/x", "gone")
    watching = messages(stream)
    failed = await anext(watching)
    assert failed.startswith("event: failed")
    assert "gone" in failed
    source.error = None
    assert (await anext(watching)).startswith("event: pulse")
    source.error = RuntimeError("a bug with secrets")
    assert "secrets" not in await anext(watching)
    await leave([watching])


@awaited
async def test_who_may_read_no_more_is_sent_away(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_CHECK_SECONDS", 0.0)
    monkeypatch.setattr(live, "_BEAT_SECONDS", 0.0)
    may = [True]

    async def still() -> bool:
        return may[0]

    stream = Live(source.pulse, every_seconds=EVERY)
    watching = messages(stream, still)
    assert (await anext(watching)).startswith("event: pulse")
    may[0] = False
    assert [one async for one in watching][-1].startswith("event: gone")
    assert stream.watchers == 0


@awaited
async def test_who_does_not_read_costs_nothing(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_BEAT_SECONDS", 0.0)
    stream = Live(source.pulse, every_seconds=0.0)
    watching = messages(stream)
    await anext(watching)
    pulses = source.pulses
    await until(lambda: source.pulses > pulses + 5)
    assert all(queue.qsize() <= 8 for queue in stream._watchers)
    await leave([watching])


@awaited
async def test_the_number_of_streams_is_bounded(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_MAX_STREAMS", 1)
    stream = Live(source.pulse, every_seconds=EVERY)
    watching = messages(stream)
    await anext(watching)
    with pytest.raises(Problem) as refused:
        stream.stream(yes)
    assert refused.value.status == 503
    await leave([watching])


@awaited
async def test_closing_the_app_ends_the_streams(dashboard: Dashboard, flow: FlowStone) -> None:
    async def still() -> bool:
        return True

    watching = messages(dashboard.live, still)
    await anext(watching)
    flow.close()
    assert [one async for one in watching] == []


@awaited
async def test_the_stream_of_a_dashboard(dashboard: Dashboard) -> None:
    headers = {"host": "localhost", "x-role": "viewer"}
    status, body = await first_message(dashboard, "/live", headers)
    assert status == 200
    assert set(topics(body.decode())) >= {"runs", "queues", "approvals"}
    assert (await first_message(dashboard, "/live", {"host": "localhost"}))[0] == 401
    forged = {**headers, "host": "evil.test"}
    assert (await first_message(dashboard, "/live", forged))[0] == 421
    foreign = {**headers, "sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"}
    assert (await first_message(dashboard, "/live", foreign))[0] == 403
