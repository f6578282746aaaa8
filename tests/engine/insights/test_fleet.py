from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from flowstone import Breaker, DailyPartitions, FlowStone, Rate, asset
from flowstone.core.insights.fleet import LimitRecord, QueueFlow, QueueRecord
from flowstone.core.limits import Limit
from flowstone.engine.insights.fleet import MINUTES, _limit, _queue
from flowstone.errors import OptionsError
from flowstone.stores.postgres.database import Database


def queue(**fields: object):
    return _queue(QueueRecord("gpu", **fields), None, None, ())  # type: ignore[arg-type]


def test_a_queue_that_nobody_serves_is_an_alarm() -> None:
    """Work that waits for a worker that does not exist is an alarm, not only a number."""
    assert queue(available=1).state == "unserved"
    assert queue(available=1).alarm == "no worker serves the queue 'gpu': start `flowstone worker --queue gpu`"
    assert queue(unstarted=1).state == "unserved"
    assert queue(later=1).alarm
    assert (queue().state, queue().alarm) == ("idle", "")
    assert (queue(available=1, workers=1, capacity=1).state, queue(workers=1).alarm) == ("moving", "")
    assert queue(running=2, workers=1, capacity=2).state == "full"
    paused = queue(paused=True, available=3, workers=1)
    assert (paused.state, paused.alarm) == ("paused", "the queue 'gpu' is paused: `flowstone resume --queue gpu`")
    assert "2 of 3 workers" in queue(workers=3, paused_workers=2).alarm
    assert "another application" in queue(workers=1, foreign=7).alarm


def test_ages_and_times_left_are_never_negative() -> None:
    flow = QueueFlow("gpu", 60.0, 30, 1, 30)
    moving = _queue(QueueRecord("gpu", workers=1, available=15, oldest_seconds=-0.5), flow, None, ())
    assert (moving.oldest_seconds, moving.seconds_left, moving.failed_per_minute) == (0.0, 30.0, 1.0)
    assert _queue(QueueRecord("gpu", oldest_seconds=7.0), flow, None, ()).oldest_seconds is None
    counted = _queue(QueueRecord("gpu", available=10_001), flow, None, ())
    assert (counted.available, counted.waiting_is_at_least) == (10_000, True)


@pytest.mark.parametrize(
    ("limit", "record", "expected"),
    [
        (4, {"taken": 4}, ("slots", "4", 4, 4, True)),
        (4, {"taken": 3}, ("slots", "4", 3, 4, False)),
        (Rate(2, 10), {"starts": (89.0, 95.0, 99.0)}, ("rate", "2/10 seconds", 2, 2, True)),
        (Breaker(3, 60), {"failures": 2}, ("breaker", "breaker 3 failures/60 s", 2, 3, False)),
        (
            Breaker(3, 60),
            {"failures": 3, "open_until": datetime(2024, 1, 1, tzinfo=UTC)},
            ("breaker", "breaker 3 failures/60 s", 3, 3, True),
        ),
        (None, {"taken": 1}, ("unknown", "", 1, None, False)),
    ],
    ids=repr,
)
def test_limits_say_how_full_they_are(
    limit: Limit | None, record: dict[str, object], expected: tuple[object, ...]
) -> None:
    plain = LimitRecord("one", 0, (), 0, None, None, 100.0)._replace(**record)
    found = _limit("one", None if limit is None else (limit, ["a"]), plain)
    assert (found.kind, found.declared, found.taken, found.maximum, found.is_full) == expected


def test_every_minute_of_the_last_hour_is_there() -> None:
    @asset
    def one() -> int:
        return 1

    @asset
    def broken() -> None:
        raise ValueError

    with FlowStone.for_testing([one, broken]) as flow:
        flow.materialize("one")
        with pytest.raises(ValueError):
            flow.materialize("broken")
        minutes = flow.insights.throughput()
        assert len(minutes) == MINUTES
        assert all(b.at - a.at == timedelta(minutes=1) for a, b in pairwise(minutes))
        flow.materialize("one", force=True)
        assert sum(minute.ended for minute in flow.insights.throughput()) == 3
        assert sum(minute.failed for minute in flow.insights.throughput()) == 1
        assert {one.state for one in flow.insights.queues().items} == {"idle"}
        assert flow.insights.workers().items == ()
        with pytest.raises(OptionsError, match="no queue 'nothing'"):
            flow.insights.queue("nothing")


@asset(queue="gpu", concurrency={"cards": 1})
def trained() -> int:
    return 1


@asset(partitions=DailyPartitions("2020-01-01"), queue="days")
def daily(context: object) -> int:
    return 1


def test_queues_say_what_waits_on_a_database(database_url: str) -> None:
    """Partitions of a large backfill have no job, and were not counted."""
    with FlowStone([trained, daily], database_url=database_url) as flow, flow.reading() as reading:
        flow.schedule("trained")
        flow.schedule("trained", force=True, scheduled_at=datetime.now(UTC) + timedelta(hours=1), run_id="later")
        with Database(database_url) as database, database.connection() as connection:
            connection.execute(
                "INSERT INTO flowstone.workers (id, kind, host, pid, lease_seconds, queues, beat_at, version) "
                "VALUES "
                "('one', 'node', 'h', 1, 60, '{\"days\": 10, \"other\": 3}', now() + interval '5 s', '9.9'), "
                "('two', 'node', 'h', 2, 60, '{\"days\": 20}', now(), '9.9'), "
                "('gone', 'node', 'h', 3, 60, '{\"gpu\": 20}', now() - interval '1 hour', NULL)"
            )
            connection.execute(
                "INSERT INTO flowstone.ranges (run_id, asset, partitions, total, begun, queue, priority, "
                "max_attempts, forced) SELECT id, 'daily', "
                "ARRAY['d:2020-01-01', 'd:2020-01-02', 'd:2020-01-03'], 3, "
                "1, 'days', 4, 1, false FROM flowstone.runs LIMIT 1"
            )
            with reading.snapshot() as insights:
                queues = {one.name: one for one in insights.queues().items}
                workers = insights.workers()
            assert {"gpu", "days", "other", "assets"} <= set(queues)
            gpu, days = queues["gpu"], queues["days"]
            assert (gpu.available + gpu.later, gpu.waiting, gpu.workers, gpu.state) == (
                1,
                gpu.available,
                0,
                "unserved",
            )
            assert (days.unstarted, days.waiting, days.workers, days.capacity) == (2, 2, 2, 30)
            assert days.declared_limits == (10, 20)
            assert days.oldest_seconds is not None
            assert days.oldest_seconds >= 0
            assert (workers.alive, workers.lost, workers.versions) == (2, 0, ("9.9",))
            assert [one.state for one in workers.items if one.id == "gone"] == ["late"]
            assert all(one.beat_age_seconds >= 0 for one in workers.items)
            assert insights.partitions("daily").states.counts["unstarted"] == 2
            flow.queues.scale("days", 7)
            flow.queues.pause("days")
            changed = insights.queue("days")
            assert (changed.queue.capacity, changed.queue.node_limit, changed.queue.state) == (14, 7, "paused")
            assert (len(changed.workers), changed.assets) == (2, ("daily",))
            assert [one.name for one in insights.limits()] == ["cards"]
