"""What a step read and returned goes when the step is over, without the help of the cyclic collector."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from flowstone import CheckResult, FlowStone, RetryPolicy, asset, check
from flowstone.core.output import OutputAddress, StoredOutput

_alive: weakref.WeakSet[Big] = weakref.WeakSet()


class Big:
    """A value whose life is watched."""

    def __init__(self) -> None:
        _alive.add(self)

    def __len__(self) -> int:
        return 1


class Fresh:
    """An IO manager that makes a new object at each load, as one that reads files does."""

    name, shared = "fresh", False

    def store(self, value: object, address: OutputAddress) -> StoredOutput:
        return StoredOutput(self.name, address.version, value_type="Big")

    def load(self, stored: StoredOutput) -> object:
        return Big()

    def discard(self, stored: StoredOutput) -> None:
        pass


class Broken(Fresh):
    name = "broken"

    def store(self, value: object, address: OutputAddress) -> StoredOutput:
        raise RuntimeError("no place for it")


@pytest.fixture(autouse=True)
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    _alive.clear()
    try:
        yield
    finally:
        gc.enable()


def _left() -> int:
    """Return how many are alive, after giving threads that just ended their step a moment."""
    deadline = time.monotonic() + 2
    while _alive and time.monotonic() < deadline:
        time.sleep(0.01)
    return len(_alive)


@asset(io="fresh")
def big() -> Big:
    return Big()


@asset
def reads(big: Big) -> int:
    return len(big)


@asset
async def awaits(big: Big) -> int:
    await asyncio.sleep(0)
    return len(big)


@asset(io="fresh")
def passes_on(big: Big) -> Big:
    return big


@asset
def reported(context: Any, big: Big) -> int:
    context.metadata["rows"] = len(big)
    return len(context.inputs)


@asset
def fails(big: Big) -> int:
    held = big
    raise ValueError(f"no {len(held)}")


@asset
async def fails_awaiting(big: Big) -> int:
    held = big
    await asyncio.sleep(0)
    raise ValueError(f"no {len(held)}")


@asset
def not_stored(big: Big) -> object:
    return (n for n in [big])


@asset(io="broken")
def not_kept(big: Big) -> object:
    return big


@asset
def exits(big: Big) -> int:
    raise SystemExit(3)


@asset
def chained(big: Big) -> int:
    try:
        raise KeyError("first")
    except KeyError as error:
        raise ValueError("second") from error


@asset(io="fresh")
def checked(big: Big) -> Big:
    return big


@check(checked)
def is_never_right(checked: Big) -> bool:
    raise ValueError("cannot look")


@asset(io="fresh")
def observed(big: Big) -> Big:
    return big


@check(observed, blocking=False)
def is_right(observed: Big) -> CheckResult:
    return CheckResult(passed=False, description="not today")


ASSETS = [
    big,
    reads,
    awaits,
    passes_on,
    reported,
    fails,
    fails_awaiting,
    not_stored,
    not_kept,
    exits,
    chained,
    checked,
    observed,
]


def _flow(extra: Any = ()) -> FlowStone:
    return FlowStone.for_testing(
        [*ASSETS, *extra], checks=[is_never_right, is_right], io={"fresh": Fresh(), "broken": Broken()}
    )


@pytest.mark.parametrize("executor", ["sync", "serial", "async"])
@pytest.mark.parametrize("name", [one.name for one in ASSETS[1:]])
def test_nothing_is_left_of_a_step(executor: str, name: str) -> None:
    flow = _flow()
    flow.materialize("big", executor=executor)
    _left()
    with suppress(Exception, SystemExit):
        flow.materialize(name, executor=executor)
    assert _left() == 0
    flow.materialize_all([name], executor=executor, force=True)
    assert _left() == 0


@pytest.mark.parametrize("executor", ["sync", "async"])
def test_the_first_attempt_is_let_go_before_the_second(executor: str) -> None:
    seen = []

    @asset(retry=RetryPolicy(max_attempts=3, backoff_seconds=0))
    def stubborn(big: Big) -> int:
        seen.append(len(_alive))
        raise ValueError("again")

    flow = _flow([stubborn])
    flow.materialize("big")
    flow.materialize_all(["stubborn"], executor=executor)
    assert set(seen) == {1}
    assert _left() == 0


def test_a_function_out_of_time_lets_go_when_it_ends() -> None:
    @asset(timeout=0.05)
    def slow(big: Big) -> int:
        time.sleep(0.2)
        return 1

    @asset(timeout=0.05)
    async def sleeps(big: Big) -> int:
        await asyncio.sleep(5)
        return 1

    flow = _flow([slow, sleeps])
    flow.materialize("big")
    result = flow.materialize_all(["slow", "sleeps"], executor="async")
    assert result.failed == 2
    assert _left() == 0


def test_the_caller_keeps_what_it_holds_and_no_more() -> None:
    flow = _flow()
    flow.materialize("big")
    _left()
    done = flow.materialize("passes_on")
    assert len(_alive) == 1  # the value that the caller holds
    del done
    assert _left() == 0
    run = flow.materialize_all(["reads", "passes_on"], force=True)
    assert _left() == 0
    assert run.ok
