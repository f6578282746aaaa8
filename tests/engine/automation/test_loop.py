from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from tests.waiting import eventually

from flowstone.core.automation.record import (
    AutomationId,
    AutomationKind,
    Conclusion,
    NewTick,
    TakenAutomation,
    TickState,
)
from flowstone.engine.automation.loop import AutomationLoop
from flowstone.stores.memory import MemoryStore

_TIMEOUT_SECONDS = 60.0


@dataclass
class Answering:
    """Evaluates by calling a function."""

    name: str
    answer: Callable[[TakenAutomation], Iterator[Conclusion]]
    timeout_seconds: float = 30.0
    starts_paused: bool = False
    seen: list[TakenAutomation] = field(default_factory=list)

    @property
    def id(self) -> AutomationId:
        return AutomationId(AutomationKind.SENSOR, self.name)

    def evaluate(self, taken: TakenAutomation) -> Iterator[Conclusion]:
        self.seen.append(taken)
        yield from self.answer(taken)


def done(taken: TakenAutomation, *, again_in: float | None = None, cursor: str = "done") -> Conclusion:
    due = None if again_in is None else taken.now + timedelta(seconds=again_in)
    return Conclusion(ticks=[NewTick(at=taken.now, state=TickState.SKIPPED)], cursor=cursor, due_at=due)


def once(taken: TakenAutomation) -> Iterator[Conclusion]:
    yield done(taken)


@contextmanager
def running(loop: AutomationLoop) -> Iterator[AutomationLoop]:
    loop.start()
    try:
        yield loop
    finally:
        loop.stop()


def test_what_is_due_is_evaluated_once() -> None:
    store, one, two = MemoryStore(), Answering("one", once), Answering("two", once)
    with running(AutomationLoop([one, two], store.automations)):
        eventually(lambda: len(store.automations.ticks()) == 2)
    assert len(one.seen) == len(two.seen) == 1


def test_an_app_without_automations_asks_nothing() -> None:
    before = threading.active_count()
    loop = AutomationLoop([], MemoryStore().automations)
    loop.start()
    assert threading.active_count() == before
    assert loop.stop()


def test_one_that_begins_paused_waits_for_a_person() -> None:
    store, one = MemoryStore(), Answering("one", once, starts_paused=True)
    with running(AutomationLoop([one], store.automations, poll_seconds=0.01)):
        eventually(lambda: store.automations.record(one.id) is not None)
        store.automations.request(one.id)
        eventually(lambda: len(store.automations.ticks()) == 1)
    assert [taken.by_hand for taken in one.seen] == [True]


def test_the_next_instant_is_met_and_not_polled_for() -> None:
    def often(taken: TakenAutomation) -> Iterator[Conclusion]:
        yield done(taken, again_in=0.02)

    store, one = MemoryStore(), Answering("one", often)
    began = time.monotonic()
    with running(AutomationLoop([one], store.automations, poll_seconds=600.0)):
        eventually(lambda: len(one.seen) >= 5)
    assert time.monotonic() - began < 600


def test_no_more_than_the_width_at_once() -> None:
    hold, at_once = threading.Semaphore(0), threading.Semaphore(0)

    def waits(taken: TakenAutomation) -> Iterator[Conclusion]:
        at_once.release()
        hold.acquire()
        yield done(taken)

    store = MemoryStore()
    several = [Answering(f"a{index}", waits) for index in range(5)]
    with running(AutomationLoop(several, store.automations, width=2, poll_seconds=0.01)):
        assert at_once.acquire(timeout=_TIMEOUT_SECONDS)
        assert at_once.acquire(timeout=_TIMEOUT_SECONDS)
        assert not at_once.acquire(timeout=0.1)
        hold.release(5)
        eventually(lambda: len(store.automations.ticks()) == 5)


def test_what_raises_is_recorded_and_tried_again_later() -> None:
    def raises(taken: TakenAutomation) -> Iterator[Conclusion]:
        yield Conclusion(cursor="half", due_at=taken.now, goes_on=True)
        raise ValueError("no \x00 file; password=hunter2")

    store, one = MemoryStore(), Answering("one", raises)
    with running(AutomationLoop([one], store.automations)):
        eventually(lambda: len(store.automations.ticks()) == 1)
    (tick,) = store.automations.ticks()
    assert tick.state is TickState.FAILED
    assert tick.error is not None
    assert "raise ValueError" in tick.error
    assert "\x00" not in tick.error
    assert "hunter2" not in tick.error
    record = store.automations.record(one.id)
    assert record is not None
    assert (record.cursor, record.failures) == ("half", 1)
    assert record.due_at is not None
    assert timedelta(seconds=3) < record.due_at - one.seen[0].now < timedelta(seconds=60)


def test_the_pause_after_failures_grows_to_ten_minutes() -> None:
    def exits(taken: TakenAutomation) -> Iterator[Conclusion]:
        raise SystemExit(3)
        yield

    store, one = MemoryStore(), Answering("one", exits)
    store.automations.declare([one.id])
    (taken,) = store.automations.take([one.id], lease_seconds=9)
    store.automations.conclude(taken, Conclusion(cursor="c", due_at=taken.now, failures=30))
    with running(AutomationLoop([one], store.automations)):
        eventually(lambda: len(store.automations.ticks()) == 1)
    record = store.automations.record(one.id)
    assert record is not None
    assert record.due_at is not None
    assert (record.cursor, record.failures) == ("c", 31)
    assert timedelta(minutes=7) < record.due_at - taken.now < timedelta(minutes=15)


def test_a_failure_by_hand_changes_nothing_about_the_regular_evaluations() -> None:
    def raises(taken: TakenAutomation) -> Iterator[Conclusion]:
        raise ValueError("no")
        yield

    store, one = MemoryStore(), Answering("one", raises, starts_paused=True)
    store.automations.declare([one.id], paused=[one.id])
    before = store.automations.record(one.id)
    store.automations.request(one.id)
    with running(AutomationLoop([one], store.automations)):
        eventually(lambda: len(store.automations.ticks()) == 1)
    assert store.automations.record(one.id) == before
    assert store.automations.ticks()[0].by_hand


def test_an_evaluation_without_a_last_conclusion_is_a_failure() -> None:
    def ends(taken: TakenAutomation) -> Iterator[Conclusion]:
        yield Conclusion(cursor="half", due_at=None, goes_on=True)

    store, one = MemoryStore(), Answering("one", ends)
    with running(AutomationLoop([one], store.automations)):
        eventually(lambda: len(store.automations.ticks()) == 1)
    assert "goes_on=False" in (store.automations.ticks()[0].error or "")


def test_what_hangs_is_given_up_and_its_late_conclusion_refused() -> None:
    let_go, left = threading.Event(), threading.Event()

    def hangs(taken: TakenAutomation) -> Iterator[Conclusion]:
        let_go.wait()
        yield done(taken, cursor="too late")
        left.set()

    store, one, other = MemoryStore(), Answering("one", hangs, timeout_seconds=0.05), Answering("other", once)
    loop = AutomationLoop([one, other], store.automations, width=1, poll_seconds=0.01)
    with running(loop):
        eventually(lambda: len(store.automations.ticks(one.id)) == 1)
        eventually(lambda: len(other.seen) == 1)  # its place is free again
        (tick,) = store.automations.ticks(one.id)
        assert tick.state is TickState.FAILED
        assert "took longer than 0.05 s" in (tick.error or "")
        assert "let_go.wait()" in (tick.error or "")  # it says where
        store.automations.request(one.id)
        assert not loop.stop()  # its thread is left behind
        assert len(one.seen) == 1  # and nothing was begun over it
        let_go.set()
    eventually(lambda: not any(thread.name == "flowstone-one" for thread in threading.enumerate()))
    record = store.automations.record(one.id)
    assert record is not None
    assert record.cursor is None
    assert not left.is_set()


def test_a_long_evaluation_keeps_its_lease() -> None:
    begun, let_go = threading.Event(), threading.Event()

    def waits(taken: TakenAutomation) -> Iterator[Conclusion]:
        begun.set()
        let_go.wait()
        yield done(taken)

    store, one = MemoryStore(), Answering("one", waits)
    with running(AutomationLoop([one], store.automations, lease_seconds=0.5)):
        assert begun.wait(_TIMEOUT_SECONDS)
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            assert store.automations.take([one.id], lease_seconds=9) == []
        let_go.set()
        eventually(lambda: len(store.automations.ticks()) == 1)


def test_stopping_lets_a_short_evaluation_conclude() -> None:
    begun, hold = threading.Event(), threading.Event()

    def waits(taken: TakenAutomation) -> Iterator[Conclusion]:
        begun.set()
        hold.wait(0.1)
        yield done(taken)

    store, one = MemoryStore(), Answering("one", waits)
    loop = AutomationLoop([one], store.automations)
    loop.start()
    assert begun.wait(_TIMEOUT_SECONDS)
    assert loop.stop()
    assert len(store.automations.ticks()) == 1


def test_stopping_release_what_does_not_conclude() -> None:
    begun, let_go = threading.Event(), threading.Event()

    def hangs(taken: TakenAutomation) -> Iterator[Conclusion]:
        begun.set()
        let_go.wait()
        yield done(taken)

    store, one = MemoryStore(), Answering("one", hangs)
    loop = AutomationLoop([one], store.automations, grace_seconds=0.05)
    loop.start()
    assert begun.wait(_TIMEOUT_SECONDS)
    assert not loop.stop()
    assert len(store.automations.take([one.id], lease_seconds=9)) == 1  # another node may at once
    let_go.set()


def test_stopping_between_two_parts_gives_the_rest_back() -> None:
    begun, hold = threading.Event(), threading.Event()

    def parts(taken: TakenAutomation) -> Iterator[Conclusion]:
        begun.set()
        hold.wait(0.2)
        yield Conclusion(cursor="first", due_at=taken.now, goes_on=True)
        yield Conclusion(cursor="second", due_at=taken.now)

    store, one = MemoryStore(), Answering("one", parts)
    loop = AutomationLoop([one], store.automations)
    loop.start()
    assert begun.wait(_TIMEOUT_SECONDS)
    assert loop.stop()
    (taken,) = store.automations.take([one.id], lease_seconds=9)
    assert taken.record.cursor == "first"


def test_many_loops_evaluate_everything_once() -> None:
    store = MemoryStore()
    each = [[Answering(f"a{index}", once) for index in range(20)] for _ in range(3)]
    loops = [AutomationLoop(evaluators, store.automations, poll_seconds=0.01) for evaluators in each]
    for loop in loops:
        loop.start()
    eventually(lambda: len(store.automations.ticks()) == 20)
    for loop in loops:
        loop.stop()
    assert sum(len(one.seen) for evaluators in each for one in evaluators) == 20
