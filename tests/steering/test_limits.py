"""Limits over two workers: never exceeded, and freed with the worker that held them."""

from __future__ import annotations

from collections import Counter

import pytest
from tests.faults.fault_app import ITEMS
from tests.steering.crew import Crew, max_at_once

from flowstone.core.state import State


def test_a_limit_holds_over_two_workers(whole: Crew) -> None:
    whole.start(2, queues={"backfill": 4})
    run = whole.place_many("lifted", 10)
    whole.wait_event("start", "lifted", count=2)
    whole.keep_out([run])
    assert len(whole.events("start", "lifted")) == 2
    whole.open_gate(*ITEMS[:10])
    whole.wait_over([run])
    assert max_at_once(whole.events(asset="lifted")) == 2
    assert len(whole.events("start", "lifted")) == 10
    assert whole.rows("SELECT count(*) FROM flowstone.slots") == [(0,)]


def test_several_limits_on_one_step(whole: Crew) -> None:
    whole.start(2, queues={"backfill": 4})
    runs = [whole.place_many("unloaded", 4), whole.place_many("lifted", 4)]
    whole.wait(lambda: len(whole.events("start")) == 2, "two starts")
    whole.keep_out(runs)
    whole.open_gate(*ITEMS[:4])
    whole.wait_over(runs)
    assert max_at_once(whole.events(asset="unloaded")) == 1
    both = [*whole.events(asset="unloaded"), *whole.events(asset="lifted")]
    assert max_at_once(both) == 2
    assert len(both) == 16


def test_slots_of_a_killed_worker_are_freed(whole: Crew) -> None:
    (victim,) = whole.start(queues={"backfill": 4})
    run = whole.place_many("lifted", 4)
    whole.wait_event("start", "lifted", count=2)
    whole.start(queues={"backfill": 4})
    whole.keep_out([run])
    victim.kill()
    # two of the four have the slots now: those that were lost, or those that waited
    whole.wait_event("start", "lifted", count=4)
    assert whole.rows("SELECT count(*) FROM flowstone.slots") == [(2,)]
    whole.open_gate(*ITEMS[:4])
    whole.wait_over([run])
    survived = [one for one in whole.events(asset="lifted") if one.pid != victim.pid]
    assert max_at_once(survived) == 2
    assert whole.flow.runs.get(run).counts == {State.COMPLETED: 4}


@pytest.mark.slow
def test_a_rate_holds_in_every_window(whole: Crew) -> None:
    whole.execute("CREATE TABLE noted (starts double precision[])")
    whole.execute(
        """CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO noted VALUES (NEW.starts); RETURN NEW; END $$"""
    )
    whole.execute("CREATE TRIGGER note BEFORE UPDATE ON flowstone.limits FOR EACH ROW EXECUTE FUNCTION note()")
    whole.start(2, queues={"backfill": 4})
    run = whole.place_many("requested", 8)
    whole.wait_over([run])
    noted: Counter[float] = Counter()
    for (starts,) in whole.rows("SELECT starts FROM noted"):
        noted |= Counter(starts)  # those of one group have the same time
    admitted = sorted(noted.elements())
    assert len(admitted) == 8
    assert all(later - 1.0 >= earlier for earlier, later in zip(admitted, admitted[3:], strict=False))
    assert whole.flow.runs.get(run).counts == {State.COMPLETED: 8}


def test_what_was_woken_but_cannot_start_gives_way(crew: Crew) -> None:
    """A paused queue must not hold a slot that steps of other queues wait for."""
    crew.lease()
    crew.place_many("lifted", 2)
    held = crew.take()
    crew.place_step("lifted", ITEMS[2], priority=0)
    crew.place_many("lifted", 4)
    assert crew.take("assets") == crew.take() == []
    crew.flow.queues.pause("assets")
    crew.store.ledger.release([held[0]], reason="for others")
    crew.flow.cancel_job(str(held[0].step_id))
    assert crew.take("assets") == crew.take() == []
    assert crew.store.queue.sweep() == 1
    assert [job.partition_key for job in crew.take()] == ["s:i0003"]
    assert crew.rows("SELECT count(*) FROM flowstone.slots") == [(2,)]
