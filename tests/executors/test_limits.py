"""Executors that hold back: rates and circuit breakers."""

from __future__ import annotations

import threading
import time

import pytest

from flowstone import Breaker, CircuitBreaker, FlowStone, Rate, RateLimited, StaticPartitions, asset
from flowstone.errors import CapabilityError, DefinitionError, OptionsError
from flowstone.executors.inline import SyncExecutor
from flowstone.executors.limits import LocalLimits

PARTS = StaticPartitions([f"p{number}" for number in range(30)])


def test_a_rate_holds_in_every_window_and_nothing_fails() -> None:
    starts: list[float] = []

    @asset(partitions=PARTS)
    def counted() -> None:
        starts.append(time.monotonic())

    flow = FlowStone.for_testing([counted])
    result = flow.backfill("counted", executor=RateLimited(SyncExecutor(), "20/second"))
    assert (result.ok, result.succeeded) == (True, 30)
    # the gate notes the start just before the function does, so a window measured there is a little narrower
    window = 0.95
    assert max(sum(start <= other < start + window for other in starts) for start in starts) <= 20


def test_named_limits_of_assets_hold_within_the_process() -> None:
    at_once: list[int] = []
    running = 0
    lock = threading.Lock()
    both = threading.Barrier(2, timeout=20)

    @asset(partitions=PARTS, concurrency={"warehouse": 2})
    def limited(context: object) -> None:
        nonlocal running
        with lock:
            running += 1
            at_once.append(running)
        both.wait()  # two at once there must be, or this breaks
        with lock:
            running -= 1

    flow = FlowStone.for_testing([limited])
    result = flow.backfill("limited", max_concurrency=8)
    assert result.ok, result.errors
    assert max(at_once) <= 2


def test_a_slot_is_free_again_after_a_failure() -> None:
    limits = LocalLimits()
    for _ in range(3):
        with pytest.raises(KeyError), limits.hold({"one": 1}):
            raise KeyError("inside")


def test_rates_that_cannot_be_read_are_refused() -> None:
    with pytest.raises(DefinitionError, match="10/fortnight"):
        RateLimited(SyncExecutor(), "10/fortnight")


def test_the_circuit_opens_waits_and_closes() -> None:
    broken = True
    calls: list[float] = []

    @asset(partitions=PARTS)
    def fragile() -> None:
        calls.append(time.monotonic())
        if broken:
            raise ConnectionError("down")

    breaker = CircuitBreaker(SyncExecutor(), Breaker(failures=3, seconds=0.3))
    flow = FlowStone.for_testing([fragile])
    for number in range(3):
        with pytest.raises(ConnectionError):
            flow.materialize("fragile", partition=f"p{number}", executor=breaker)
    assert breaker.is_open
    broken = False
    assert flow.materialize("fragile", partition="p3", executor=breaker).value is None
    assert calls[3] - calls[2] >= 0.3
    assert not breaker.is_open


class Durable(SyncExecutor):
    capabilities = frozenset({"durable"})  # type: ignore[assignment]


def test_over_a_durable_executor_a_breaker_is_placed_with_the_steps() -> None:
    rated = RateLimited(Durable(), "10/minute", name="calls")
    careful = CircuitBreaker(rated, failures=2, reset_seconds=1.5, name="service")
    assert careful.limits == {"calls": Rate(10, "minute"), "service": Breaker(2, 1.5)}
    assert RateLimited(careful, "5/s", name="others").limits.keys() == {"calls", "service", "others"}
    assert CircuitBreaker(Durable()).limits == {"breaker of sync": Breaker(failures=5, seconds=60)}


def test_whether_a_breaker_of_the_fleet_is_open_is_not_known_here() -> None:
    with pytest.raises(CapabilityError, match="in this process"):
        _ = CircuitBreaker(Durable()).is_open


@pytest.mark.parametrize("wrong", [{"failures": 0}, {"reset_seconds": 0.0}, {"reset_seconds": -1.0}])
def test_breakers_that_never_open_or_never_wait_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        CircuitBreaker(SyncExecutor(), **wrong)  # type: ignore[arg-type]


def test_a_breaker_and_a_rate_are_not_mistaken_for_each_other() -> None:
    with pytest.raises(OptionsError, match=r"that is a breaker; give it to CircuitBreaker"):
        RateLimited(SyncExecutor(), Breaker())  # type: ignore[arg-type]
    with pytest.raises(OptionsError, match=r"give Breaker\(failures=5, seconds=60\)"):
        CircuitBreaker(SyncExecutor(), "10/minute")
    with pytest.raises(OptionsError, match="not both"):
        CircuitBreaker(SyncExecutor(), Breaker(), failures=3)


def test_while_one_step_is_tried_the_others_wait() -> None:
    broken, calls = True, []
    first = threading.Event()

    @asset(partitions=PARTS)
    def fragile() -> None:
        calls.append(threading.current_thread())
        if broken:
            raise ConnectionError("down")
        if len(calls) == 2:
            assert not first.wait(0.2)  # nobody else comes in meanwhile
        else:
            first.set()

    breaker = CircuitBreaker(SyncExecutor(), Breaker(failures=1, seconds=0.05))
    flow = FlowStone.for_testing([fragile])
    with pytest.raises(ConnectionError):
        flow.materialize("fragile", partition="p0", executor=breaker)
    broken = False
    result = flow.backfill("fragile", partitions=["p1", "p2", "p3"], executor=breaker, max_concurrency=3)
    assert result.ok, result.errors
    assert first.is_set()
    assert not breaker.is_open


def test_a_breaker_of_an_asset_holds_nothing_up_in_this_process() -> None:
    @asset(partitions=PARTS, concurrency={"service": "breaker 1 failure/hour"})
    def fragile() -> None:
        raise ConnectionError("down")

    flow = FlowStone.for_testing([fragile])
    assert len(flow.backfill("fragile").errors) == 30
